//! A proxy, running: started, asked for a sign of life, ended.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::args::Options;
use crate::cases::Case;
use crate::configs;
use crate::error::{Context, Error, Result};
use crate::guard;
use crate::load::MESSAGE;

const START_LIMIT: Duration = Duration::from_secs(20);

/// Which proxy, and told what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// With the defaults.
    Sheave,
    SheaveHedged,
    /// With what the others are given, too: short times, probes, ejection, slow start.
    SheaveTuned,
    Haproxy,
    Envoy,
    /// Sheave with this `loadBalancer.type`.
    Balancer(&'static str),
}

impl Kind {
    pub(super) const ALL: [Self; 10] = [
        Self::Sheave,
        Self::SheaveHedged,
        Self::SheaveTuned,
        Self::Haproxy,
        Self::Envoy,
        Self::Balancer("RoundRobin"),
        Self::Balancer("LeastConnections"),
        Self::Balancer("Random"),
        Self::Balancer("PeakEWMA"),
        Self::Balancer("ConsistentHash"),
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Sheave => "sheave",
            Self::SheaveHedged => "sheave-hedged",
            Self::SheaveTuned => "sheave-tuned",
            Self::Haproxy => "haproxy",
            Self::Envoy => "envoy",
            Self::Balancer(name) => name,
        }
    }

    pub(super) fn is_of(self, case: Case) -> bool {
        matches!(self, Self::Balancer(_)) == matches!(case, Case::SlowAnswer | Case::LostSyns)
    }

    fn binary(self, options: &Options) -> Result<PathBuf> {
        let name = match self {
            Self::Haproxy => "haproxy",
            Self::Envoy => "envoy",
            _ if options.sheave.is_file() => return Ok(options.sheave.clone()),
            _ => return Err(Error::new(format!("there is no sheave at {}", options.sheave.display()))),
        };
        let path = std::env::var_os("PATH").unwrap_or_default();
        // Debian keeps servers where only root's PATH leads.
        let system = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
        let mut places = std::env::split_paths(&path).chain(system).map(|place| place.join(name));
        places.find(|file| file.is_file()).ok_or_else(|| {
            Error::new(format!(
                "{name} is not on PATH: `make bench-faults` installs it, or choose others with --peers"
            ))
        })
    }

    /// What the program calls itself.
    pub(super) fn version(self, options: &Options) -> Result<String> {
        let flag = if self == Self::Haproxy { "-v" } else { "--version" };
        let output = Command::new(self.binary(options)?).arg(flag).output().context("ask for the version")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or("unknown").trim();
        // Envoy names its path first.
        Ok(line.rsplit_once("version: ").map_or(line, |(_, version)| version).to_owned())
    }
}

/// Killed with its value.
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    child: Child,
}

impl Peer {
    /// On the first CPU. Returns once messages have gone through it and back.
    pub(super) fn start(kind: Kind, options: &Options) -> Result<Self> {
        let listen = SocketAddr::from(([127, 0, 0, 1], 6000));
        let stem = guard::directory()?.join(kind.name());
        let (text, extension) = configs::of(kind, listen);
        let (file, log) = (stem.with_extension(extension), stem.with_extension("log"));
        fs::write(&file, text).context(file.display())?;
        let output = File::create(&log).context(log.display())?;
        let mut command = Command::new("setpriv");
        // It becomes the program under the same pid: should this process be killed, the proxy goes too.
        command.args(["--pdeathsig", "KILL", "--"]).arg(kind.binary(options)?);
        match kind {
            Kind::Haproxy => command.args(["-db", "-f"]).arg(&file),
            Kind::Envoy => command
                .args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning", "-c"])
                .arg(&file),
            _ => command.args(["run", "--config"]).arg(&file),
        };
        command.env_clear().stdin(Stdio::null()).stderr(output.try_clone().context("log")?).stdout(output);
        let child = on_cpu(0, || command.spawn())?.context(format_args!("start {}", kind.name()))?;
        guard::add_child(child.id());
        let mut peer = Self { address: listen, child };
        peer.await_answers().map_err(|error| {
            let said = fs::read_to_string(&log).unwrap_or_default();
            Error::new(format!("{}: {error}; it printed\n{said}", kind.name()))
        })?;
        Ok(peer)
    }

    /// So many in a row that every endpoint, and every check of one, has had its turn.
    fn await_answers(&mut self) -> Result<()> {
        const IN_A_ROW: usize = 20;
        let deadline = Instant::now() + START_LIMIT;
        let mut answers = 0;
        while answers < IN_A_ROW {
            if let Some(status) = self.child.try_wait().context("wait")? {
                return Err(Error::new(format!("ended before it accepted a connection ({status})")));
            }
            match ping(self.address) {
                Ok(()) => answers += 1,
                Err(error) if Instant::now() > deadline => return Err(error).context("no answer"),
                Err(_) => {
                    answers = 0;
                    thread::sleep(Duration::from_millis(50));
                }
            }
        }
        Ok(())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Ended already, or ended now; either way it is reaped.
        self.child.kill().ok();
        self.child.wait().ok();
        guard::remove_child(self.child.id());
    }
}

fn ping(address: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect(address).context("connect")?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).context("ping")?;
    stream.write_all(&[7; MESSAGE]).context("ping")?;
    stream.read_exact(&mut [0; MESSAGE]).context("ping")
}

/// Runs `action` on `cpu`, where what it starts stays.
fn on_cpu<T>(cpu: usize, action: impl FnOnce() -> T) -> Result<T> {
    let before = sched_getaffinity(None).context("read this thread's affinity")?;
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).context(format_args!("pin a thread to CPU {cpu}"))?;
    let value = action();
    sched_setaffinity(None, &before).context("restore this thread's affinity")?;
    Ok(value)
}

//! The proxies under comparison: how each is configured, started and stopped.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::args::Options;
use crate::error::{Context, Error, Result};
use crate::process::{CpuClock, on_cpu};
use crate::wire::{self, MESSAGE};
use crate::{guard, machine};

const START_LIMIT: Duration = Duration::from_secs(10);
const STOP_LIMIT: Duration = Duration::from_secs(3);

/// A way to run a proxy.
#[derive(Clone)]
pub(super) struct Recipe {
    pub(super) name: String,
    program: Program,
}

#[derive(Clone)]
enum Program {
    Haproxy { splice: bool },
    Sheave { binary: PathBuf, driver: &'static str, policies: Policies },
}

/// What of Sheave is turned on besides carrying connections.
#[derive(Clone, Copy)]
enum Policies {
    None,
    Default,
    All,
}

/// A running proxy.
pub(super) struct Peer {
    pub(super) name: String,
    pub(super) address: SocketAddr,
    pub(super) pid: u32,
    pub(super) clock: CpuClock,
    child: Child,
    log: PathBuf,
}

/// What a configuration is made from.
struct Site<'a> {
    listen: SocketAddr,
    admin: SocketAddr,
    endpoints: &'a [SocketAddr],
    max_connections: u64,
}

/// The peers asked for, in the order asked for.
pub(super) fn recipes(options: &Options) -> Result<Vec<Recipe>> {
    let recipe = |name: &str, program| Recipe { name: name.to_owned(), program };
    let with = |driver, policies| Program::Sheave { binary: options.sheave.clone(), driver, policies };
    let sheave = |driver| with(driver, Policies::Default);
    let mut known = vec![
        recipe("haproxy", Program::Haproxy { splice: false }),
        recipe("haproxy-splice", Program::Haproxy { splice: true }),
        recipe("sheave", sheave("auto")),
        recipe("sheave-epoll", sheave("epoll")),
        recipe("sheave-bare", with("auto", Policies::None)),
        recipe("sheave-all", with("auto", Policies::All)),
    ];
    for (name, path) in &options.others {
        let program = Program::Sheave { binary: path.clone(), driver: "auto", policies: Policies::Default };
        known.push(recipe(name, program));
    }
    let Some(wanted) = &options.peers else {
        // What the policies cost is a question of its own.
        known.retain(|recipe| {
            !matches!(recipe.program, Program::Sheave { policies: Policies::None | Policies::All, .. })
        });
        return Ok(known);
    };
    let find = |name: &String| {
        let found = known.iter().find(|recipe| recipe.name == *name).cloned();
        found.ok_or_else(|| {
            let names: Vec<&str> = known.iter().map(|recipe| recipe.name.as_str()).collect();
            Error::new(format!("no peer {name:?}; there are {}", names.join(", ")))
        })
    };
    wanted.iter().map(find).collect()
}

impl Recipe {
    /// Where the program is, or what to do about it.
    fn binary(&self) -> Result<PathBuf> {
        match &self.program {
            Program::Haproxy { .. } => find_program("haproxy").ok_or_else(|| {
                Error::new(format!(
                    "{} needs haproxy, which is not installed: run scripts/install-bench-peers \
                     (apt-get install haproxy), or choose others with --peers",
                    self.name
                ))
            }),
            Program::Sheave { binary, .. } if binary.is_file() => {
                fs::canonicalize(binary).context(binary.display())
            }
            Program::Sheave { binary, .. } => Err(Error::new(format!(
                "{} has no binary at {}: build it with `cargo build --release`, or choose others with --peers",
                self.name,
                binary.display()
            ))),
        }
    }

    /// What the program calls itself.
    pub(super) fn version(&self) -> Result<String> {
        let flag = match self.program {
            Program::Haproxy { .. } => "-v",
            Program::Sheave { .. } => "--version",
        };
        let output = Command::new(self.binary()?).arg(flag).stdin(Stdio::null()).output();
        let output = output.context(format_args!("ask {} for its version", self.name))?;
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(text.lines().next().unwrap_or("unknown").trim().to_owned())
    }

    /// Starts the proxy on `cpu` and returns once a message has gone through it and back.
    pub(super) fn start(&self, cpu: usize, endpoints: &[SocketAddr]) -> Result<Peer> {
        let binary = self.binary()?;
        let site = Site {
            listen: machine::free_address()?,
            admin: machine::free_address()?,
            endpoints,
            max_connections: machine::max_connections(),
        };
        let stem = guard::directory()?.join(format!("{}-{}", self.name, site.listen.port()));
        let (text, extension) = match &self.program {
            Program::Haproxy { splice } => (haproxy_config(&site, *splice), "cfg"),
            Program::Sheave { driver, policies, .. } => (sheave_config(&site, driver, *policies), "yaml"),
        };
        let file = stem.with_extension(extension);
        fs::write(&file, text).context(file.display())?;
        let log = stem.with_extension("log");
        let mut command = self.command(&binary, &file);
        let output = File::create(&log).context(log.display())?;
        command.stdin(Stdio::null()).stderr(output.try_clone().context("log")?).stdout(output);
        let child = on_cpu(cpu, || command.spawn())?.context(format_args!("start {}", self.name))?;
        let pid = child.id();
        guard::add_child(pid);
        let name = self.name.clone();
        let mut peer = Peer { name, address: site.listen, pid, clock: CpuClock::new(pid, cpu), child, log };
        match peer.await_answer() {
            Ok(()) => Ok(peer),
            Err(error) => Err(peer.blame(error)),
        }
    }

    fn command(&self, binary: &Path, config: &Path) -> Command {
        // setpriv becomes the program under the same pid: should this process be killed, the proxy goes too.
        let mut command = match find_program("setpriv") {
            Some(setpriv) => {
                let mut command = Command::new(setpriv);
                command.args(["--pdeathsig", "KILL", "--"]).arg(binary);
                command
            }
            None => Command::new(binary),
        };
        // Settings of the person's shell must not reach one peer and not the other.
        command.env_clear();
        match self.program {
            Program::Haproxy { .. } => command.args(["-db", "-f"]).arg(config),
            Program::Sheave { .. } => command.args(["run", "--config"]).arg(config),
        };
        command
    }
}

fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Debian keeps servers where only root's PATH leads.
    let system = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    let mut places = std::env::split_paths(&path).chain(system);
    places.find_map(|place| Some(place.join(name)).filter(|file| file.is_file()))
}

/// As a careful administrator would: one thread, no log, room for every connection.
fn haproxy_config(site: &Site<'_>, splice: bool) -> String {
    let max = site.max_connections;
    // Unset, haproxy would reserve a pipe for every fourth connection and exceed the limit of open files.
    // splice-auto decides only when the whole stream is processed again, which a plain relay never needs:
    // haproxy 2.6 made not one splice call with it. These two do make it splice.
    let (pipes, option) = if splice {
        ("    maxpipes 256\n", "    option splice-request\n    option splice-response\n")
    } else {
        ("", "")
    };
    let mut text = format!(
        "global\n    nbthread 1\n    maxconn {max}\n{pipes}\
         defaults\n    mode tcp\n{option}    timeout connect 5s\n    timeout client 1h\n    timeout server 1h\n\
         listen bench\n    bind {}\n    balance roundrobin\n    maxconn {max}\n",
        site.listen
    );
    for (index, endpoint) in site.endpoints.iter().enumerate() {
        text.push_str(&format!("    server s{index} {endpoint}\n"));
    }
    text
}

fn sheave_config(site: &Site<'_>, driver: &str, policies: Policies) -> String {
    let (of_listener, of_upstream) = match policies {
        Policies::None => (
            "",
            "    retry: {numRetries: 0}\n\
             \u{20}   circuitBreaker: {perEndpoint: {consecutiveFailures: 0}}\n",
        ),
        Policies::Default => ("", ""),
        Policies::All => (
            ", connection: {limit: 100000, limitPerSource: 100000, ratePerSource: 1000000}",
            "    retry: {hedgeAfter: 1s}\n\
             \u{20}   circuitBreaker: {maxConnections: 100000, maxPendingConnections: 1000, maxParallelRetries: 100, \
             perEndpoint: {maxConnections: 100000}}\n\
             \u{20}   healthCheck: {passive: {resetWithin: 1s}}\n",
        ),
    };
    let mut text = format!(
        "workers: {{count: 1, pin: false, driver: {driver}}}\n\
         admin: {{address: \"{}\"}}\n\
         drain: {{delay: 0s, timeout: 1s}}\n\
         accessLog: {{enabled: false}}\n\
         listeners:\n  - {{name: bench, address: \"{}\", protocol: TCP{of_listener}}}\n\
         routes:\n  - {{name: bench, listener: bench, backendRefs: [{{upstream: bench, weight: 1}}]}}\n\
         upstreams:\n  - name: bench\n    loadBalancer: {{type: RoundRobin}}\n{of_upstream}    endpoints:\n",
        site.admin, site.listen
    );
    for endpoint in site.endpoints {
        text.push_str(&format!("      - {{address: \"{endpoint}\"}}\n"));
    }
    text
}

impl Peer {
    /// Adds what the proxy itself said to an error of its client.
    pub(super) fn blame(&self, error: Error) -> Error {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(10)..].join("\n  ");
        let said =
            if tail.is_empty() { "it printed nothing".to_owned() } else { format!("it printed\n  {tail}") };
        Error::new(format!("{}: {error}; {said}", self.name))
    }

    fn await_answer(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            if let Some(status) = self.child.try_wait().context("wait")? {
                guard::remove_child(self.pid);
                return Err(Error::new(format!("ended before it accepted a connection ({status})")));
            }
            match ping(self.address) {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() > deadline => {
                    return Err(error).context(format_args!("no answer {START_LIMIT:?} after the start"));
                }
                Err(_) => thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    pub(super) fn stop(mut self) -> Result<()> {
        self.end().context(format_args!("stop {}", self.name))
    }

    fn end(&mut self) -> Result<()> {
        if self.child.try_wait().context("wait")?.is_none() {
            let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
            let pid = pid.ok_or_else(|| Error::new("impossible pid"))?;
            kill_process(pid, Signal::TERM).context("terminate")?;
            let deadline = Instant::now() + STOP_LIMIT;
            while self.child.try_wait().context("wait")?.is_none() {
                if Instant::now() > deadline {
                    self.child.kill().context("kill")?;
                    self.child.wait().context("wait")?;
                    break;
                }
                thread::sleep(Duration::from_millis(5));
            }
        }
        guard::remove_child(self.pid);
        Ok(())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            // The guard kills it at the end.
            eprintln!("compare: stop {}: {error}", self.name);
        }
    }
}

fn ping(address: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect(address).context("connect")?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).context("ping")?;
    let request = wire::request(0, 0);
    stream.write_all(&request).context("ping")?;
    let mut answer = [0; MESSAGE];
    stream.read_exact(&mut answer).context("ping")?;
    if answer == request { Ok(()) } else { Err(Error::new("the answer to a ping is not what was sent")) }
}

//! A proxy under comparison, running: started, asked for a sign of life, stopped.

mod config;
mod recipe;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::cases::Layer;
use crate::error::{Context, Error, Result};
use crate::process::{CpuClock, on_cpu};
use crate::wire::{self, MESSAGE};
use crate::{guard, machine};

pub(super) use recipe::{Recipe, Wants, recipes};

const START_LIMIT: Duration = Duration::from_secs(10);
const STOP_LIMIT: Duration = Duration::from_secs(3);

/// Where a proxy listens.
#[derive(Clone, Copy)]
pub(super) struct Addresses {
    pub(super) plain: SocketAddr,
    /// TLS ends here.
    pub(super) tls: SocketAddr,
    /// The ClientHello says where to.
    pub(super) sni: SocketAddr,
    /// Through a large table.
    pub(super) many: SocketAddr,
}

impl Addresses {
    fn free() -> Result<Self> {
        let free = machine::free_address;
        Ok(Self { plain: free()?, tls: free()?, sni: free()?, many: free()? })
    }

    pub(super) fn of(&self, layer: Layer) -> SocketAddr {
        match layer {
            Layer::Plain => self.plain,
            Layer::Tls | Layer::TlsResumed => self.tls,
            Layer::Sni => self.sni,
            Layer::Many => self.many,
        }
    }
}

/// A running proxy.
pub(super) struct Peer {
    pub(super) name: String,
    pub(super) addresses: Addresses,
    /// Where Sheave answers questions about itself.
    pub(super) admin: SocketAddr,
    pub(super) config: PathBuf,
    pub(super) pid: u32,
    pub(super) clock: CpuClock,
    child: Child,
    log: PathBuf,
}

impl Peer {
    /// Starts `command` on `cpu` and returns once a message has gone through it and back.
    /// `output`: where it writes what is no complaint; `None`: beside those.
    fn spawn(
        name: &str,
        mut command: Command,
        site: &config::Site<'_>,
        config: &Path,
        cpu: usize,
        output: Option<Stdio>,
    ) -> Result<Self> {
        let log = site.stem.with_extension("log");
        let complaints = File::create(&log).context(log.display())?;
        let output = match output {
            Some(output) => output,
            None => complaints.try_clone().context("log")?.into(),
        };
        command.stdin(Stdio::null()).stderr(complaints).stdout(output);
        let child = on_cpu(cpu, || command.spawn())?.context(format_args!("start {name}"))?;
        let pid = child.id();
        guard::add_child(pid);
        let clock = CpuClock::new(pid, cpu);
        let (name, admin, config) = (name.to_owned(), site.admin, config.to_owned());
        let mut peer = Self { name, addresses: site.listen, admin, config, pid, clock, child, log };
        match peer.await_answer() {
            Ok(()) => Ok(peer),
            Err(error) => Err(peer.blame(error)),
        }
    }

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
            match ping(self.addresses.plain) {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() > deadline => {
                    return Err(error).context(format_args!("no answer {START_LIMIT:?} after the start"));
                }
                Err(_) => thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// Keeps it from running, until it is told to go on.
    pub(super) fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    pub(super) fn go_on(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| Error::new("impossible pid"))?;
        kill_process(pid, signal).context(format_args!("signal {}", self.name))
    }

    pub(super) fn stop(mut self) -> Result<()> {
        self.end().context(format_args!("stop {}", self.name))
    }

    fn end(&mut self) -> Result<()> {
        if self.child.try_wait().context("wait")?.is_none() {
            self.signal(Signal::TERM)?;
            self.go_on()?;
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

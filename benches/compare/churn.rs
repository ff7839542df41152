//! A table that is republished all the time, as by the rollouts of a large cluster, while something is measured.
//!
//! The configuration is rewritten, and SIGHUP says so: the watch of the file waits a tenth of a second before it looks, so
//! that it alone would publish ten times a second at most. It stays on, as a reload would not turn it off.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::error::{Context, Error, Result};
use crate::peer::Peer;

const INTERVAL: Duration = Duration::from_millis(20);
/// Until the last table is published and every worker has it.
const PATIENCE: Duration = Duration::from_secs(5);

/// Republishes the table of one Sheave.
pub(super) struct Publisher {
    pid: Pid,
    admin: SocketAddr,
    file: PathBuf,
    /// With all endpoints, and without the last.
    texts: [String; 2],
}

impl Publisher {
    pub(super) fn of(peer: &Peer) -> Result<Self> {
        let file = peer.config.clone();
        let whole = fs::read_to_string(&file).context(file.display())?;
        let is_endpoint = |line: &&str| line.trim_start().starts_with("- {address:");
        let last = whole.lines().rfind(is_endpoint).ok_or_else(|| Error::new("no endpoint to take away"))?;
        let without = whole.replace(&format!("{last}\n"), "");
        let pid = i32::try_from(peer.pid).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| Error::new("impossible pid"))?;
        Ok(Self { pid, admin: peer.admin, file, texts: [whole, without] })
    }

    /// Republishes while `work` goes on. How many tables were published, by Sheave's own count.
    pub(super) fn during<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<(T, u64)> {
        let before = self.generations()?.0;
        let is_over = AtomicBool::new(false);
        let (done, rewritten) = thread::scope(|scope| {
            let publishing = scope.spawn(|| self.publish(&is_over));
            let done = work();
            is_over.store(true, Ordering::Relaxed);
            let rewritten = publishing.join().map_err(|_| Error::new("who republishes panicked"))?;
            Ok::<_, Error>((done?, rewritten?))
        })?;
        let published = self.settled()? - before;
        // The watch of the file may add some. Signals that come while the control thread waits for its core are one: how many
        // were published is told, and with a half of them it is no longer the case that was asked for.
        if published < rewritten / 2 {
            return Err(Error::new(format!("{published} tables were published for {rewritten} changes")));
        }
        Ok((done, published))
    }

    fn publish(&self, is_over: &AtomicBool) -> Result<u64> {
        let next = self.file.with_extension("next");
        let (mut rewritten, mut due) = (0, Instant::now());
        while !is_over.load(Ordering::Relaxed) {
            rewritten += 1;
            fs::write(&next, &self.texts[rewritten as usize % 2]).context(next.display())?;
            fs::rename(&next, &self.file).context(self.file.display())?;
            kill_process(self.pid, Signal::HUP).context("SIGHUP")?;
            due += INTERVAL;
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        // As it was, for whoever comes after.
        fs::write(&next, &self.texts[0]).context(next.display())?;
        fs::rename(&next, &self.file).context(self.file.display())?;
        kill_process(self.pid, Signal::HUP).context("SIGHUP")?;
        Ok(rewritten)
    }

    /// The generation when no more are published and the worker has the last.
    fn settled(&self) -> Result<u64> {
        let deadline = Instant::now() + PATIENCE;
        let mut last = self.generations()?;
        loop {
            // Longer than the watch of the file waits.
            thread::sleep(INTERVAL * 10);
            let now = self.generations()?;
            if now == last && now.0 == now.1 {
                return Ok(now.0);
            }
            if Instant::now() > deadline {
                let (published, taken) = now;
                return Err(Error::new(format!(
                    "table {published} is published, and the worker has {taken}"
                )));
            }
            last = now;
        }
    }

    /// Of the table that is published, and of the one that the worker routes by.
    fn generations(&self) -> Result<(u64, u64)> {
        let mut stream = TcpStream::connect(self.admin).context("admin port")?;
        stream.set_read_timeout(Some(PATIENCE)).context("admin port")?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").context("admin port")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).context("admin port")?;
        let value = |name: &str| {
            let line = answer.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|line| line.rsplit(' ').next()?.parse().ok());
            number.ok_or_else(|| Error::new(format!("/metrics has no {name}")))
        };
        Ok((value("sheave_table_generation ")?, value("sheave_table_acknowledged_generation{")?))
    }
}

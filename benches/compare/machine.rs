//! The machine: what the benchmark needs of it, and how it is described beside the numbers.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::sched_getaffinity;

use crate::args::Options;
use crate::cases::Work;
use crate::error::{Context, Error, Result};

/// Files that this process and each proxy need beside two per connection.
const SPARE_FILES: u64 = 2000;

pub(super) fn check(options: &Options) -> Result<()> {
    let allowed = sched_getaffinity(None).context("read this process's affinity")?;
    for cpu in [options.proxy_cpu, options.load_cpu] {
        if !allowed.is_set(cpu) {
            return Err(Error::new(format!(
                "CPU {cpu} is not one this process may use: choose others with --proxy-cpu and --load-cpu"
            )));
        }
    }
    if options.proxy_cpu == options.load_cpu {
        return Err(Error::new("the proxies and the load need a CPU each"));
    }
    if options.cases.iter().any(|case| matches!(case.work, Work::Conn | Work::Churn)) {
        check_port_reuse()?;
    }
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).context("raise the limit of open files")
}

/// Closed connections hold their port for a minute unless the kernel lends it again.
fn check_port_reuse() -> Result<()> {
    let path = "/proc/sys/net/ipv4/tcp_tw_reuse";
    let value = fs::read_to_string(path).context(path)?;
    if value.trim() == "0" {
        return Err(Error::new(format!(
            "{path} is 0: the case conn would run out of ports. The kernel's default is 2; \
             leave the case out with --cases, or allow reuse"
        )));
    }
    Ok(())
}

/// Connections that this process (client and backend) and each proxy can hold open.
pub(super) fn max_connections() -> u64 {
    let Rlimit { current, .. } = getrlimit(Resource::Nofile);
    current.unwrap_or(1 << 20).saturating_sub(SPARE_FILES) / 2
}

/// A loopback address nobody listens on, below the ports that outgoing connections take.
pub(super) fn free_address() -> Result<SocketAddr> {
    for _ in 0..100 {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, fastrand::u16(10_000..30_000)));
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    Err(Error::new("no free port between 10000 and 30000"))
}

/// Whether this kernel keeps network processing in interrupts out of a task's CPU time.
pub(super) fn separates_interrupt_time() -> bool {
    let Ok(release) = fs::read_to_string("/proc/sys/kernel/osrelease") else {
        return false;
    };
    let config = fs::read_to_string(format!("/boot/config-{}", release.trim())).unwrap_or_default();
    config.lines().any(|line| line == "CONFIG_IRQ_TIME_ACCOUNTING=y")
}

/// TIME_WAIT sockets the kernel threw away early because there were too many.
pub(super) fn time_wait_overflows() -> u64 {
    let text = fs::read_to_string("/proc/net/netstat").unwrap_or_default();
    let mut rows = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (Some(names), Some(values)) = (rows.next(), rows.next()) else {
        return 0;
    };
    let pair = names.split(' ').zip(values.split(' ')).find(|(name, _)| *name == "TCPTimeWaitOverflow");
    pair.and_then(|(_, value)| value.parse().ok()).unwrap_or(0)
}

/// Processor, kernel and load, in one line.
pub(super) fn describe() -> String {
    let first = |path: &str, prefix: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(prefix));
        line.unwrap_or("?").trim_matches([' ', '\t', ':']).to_owned()
    };
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    format!(
        "{}, {cpus} CPUs, {} of memory, Linux {}, load {} at the start",
        first("/proc/cpuinfo", "model name"),
        first("/proc/meminfo", "MemTotal:"),
        first("/proc/sys/kernel/osrelease", ""),
        first("/proc/loadavg", "").split(' ').next().unwrap_or("?"),
    )
}

//! The process as a whole: what it is, what it uses, how full it is, how far its end has come.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::process::Resource;
use rustix::time::ClockId;

use crate::telemetry::WorkerCounters;

use super::{Family, Kind, Unit};

const PHASES: [&str; 3] = ["serving", "leaving", "draining"];

pub(super) static FAMILIES: &[Family] = &[
    Family {
        name: "build",
        kind: Kind::Info,
        unit: None,
        labels: &["version"],
        help: "The version that runs.",
        samples: |_, samples| samples.info(&[env!("CARGO_PKG_VERSION")]),
    },
    Family {
        name: "process_start_time",
        kind: Kind::Gauge,
        unit: Some(Unit::Seconds),
        labels: &[],
        help: "When the process started, since the Unix epoch.",
        samples: |scrape, samples| samples.put(&[], scrape.shared.started_at),
    },
    Family {
        name: "process_uptime",
        kind: Kind::Gauge,
        unit: Some(Unit::Seconds),
        labels: &[],
        help: "How long ago that was.",
        samples: |scrape, samples| samples.put(&[], scrape.shared.started.elapsed()),
    },
    Family {
        name: "process_cpu",
        kind: Kind::Counter,
        unit: Some(Unit::Seconds),
        labels: &[],
        help: "Processor time of all threads, in user space and in the kernel.",
        samples: |_, samples| samples.put(&[], cpu_time(ClockId::ProcessCPUTime)),
    },
    Family {
        name: "control_cpu",
        kind: Kind::Counter,
        unit: Some(Unit::Seconds),
        labels: &[],
        help: "Of that, the control thread's: following the cluster, reloads, probes. A scrape is encoded elsewhere.",
        samples: |scrape, samples| samples.put(&[], scrape.control_cpu),
    },
    Family {
        name: "process_resident_memory",
        kind: Kind::Gauge,
        unit: Some(Unit::Bytes),
        labels: &[],
        help: "Memory of the process that is in RAM.",
        samples: |_, samples| resident_memory().map_or(Ok(()), |size| samples.put(&[], size)),
    },
    Family {
        name: "process_open_fds",
        kind: Kind::Gauge,
        unit: None,
        labels: &[],
        help: "Open file descriptors; a connection needs two.",
        samples: |_, samples| open_fds().map_or(Ok(()), |count| samples.put(&[], count)),
    },
    Family {
        name: "process_max_fds",
        kind: Kind::Gauge,
        unit: None,
        labels: &[],
        help: "How many file descriptors the process may open (RLIMIT_NOFILE).",
        samples: |_, samples| {
            let limit = rustix::process::getrlimit(Resource::Nofile).current;
            limit.map_or(Ok(()), |limit| samples.put(&[], limit))
        },
    },
    Family {
        name: "connection_places_taken",
        kind: Kind::Gauge,
        unit: None,
        labels: &[],
        help: "Connections that hold one of the process's places.",
        samples: |scrape, samples| samples.put(&[], scrape.shared.limits.places.taken()),
    },
    Family {
        name: "connection_places_max",
        kind: Kind::Gauge,
        unit: None,
        labels: &[],
        help: "How many places there are (`limits.maxConnections`); beyond them connections wait in the backlog.",
        samples: |scrape, samples| samples.put(&[], scrape.shared.limits.max),
    },
    Family {
        name: "overload",
        kind: Kind::Gauge,
        unit: None,
        labels: &["reason"],
        help: "1 while new connections are refused for `limits.overload`: for want of `memory`, or because at least one \
               worker's loop runs late (`loop_lag`), which then refuses its own.",
        samples: |scrape, samples| {
            let runs_late = |counters: &Arc<WorkerCounters>| counters.shown.runs_late.load(Ordering::Relaxed);
            samples.put(&["memory"], scrape.shared.limits.memory.is_short())?;
            samples.put(&["loop_lag"], scrape.shared.counters.iter().any(runs_late))
        },
    },
    Family {
        name: "cgroup_memory_used",
        kind: Kind::Gauge,
        unit: Some(Unit::Bytes),
        labels: &[],
        help: "Memory of the cgroup, pages of files at rest not counted; only with a limit and `limits.overload.memoryPercent`.",
        samples: |scrape, samples| {
            scrape.shared.limits.memory.last().map_or(Ok(()), |memory| samples.put(&[], memory.used))
        },
    },
    Family {
        name: "cgroup_memory_limit",
        kind: Kind::Gauge,
        unit: Some(Unit::Bytes),
        labels: &[],
        help: "The limit that it is held against (`memory.max`).",
        samples: |scrape, samples| {
            scrape.shared.limits.memory.last().map_or(Ok(()), |memory| samples.put(&[], memory.limit))
        },
    },
    Family {
        name: "access_log_lost_lines",
        kind: Kind::Counter,
        unit: None,
        labels: &[],
        help: "Access log lines lost because standard output could not be written.",
        samples: |_, samples| samples.put(&[], crate::telemetry::access_log::lines_lost()),
    },
    Family {
        name: "access_log_sample",
        kind: Kind::Gauge,
        unit: None,
        labels: &[],
        help: "Share of ordinary connections that get a line of the access log; 0 while it is off, for all.",
        samples: |scrape, samples| {
            let log = &scrape.shared.telemetry.sampling.log;
            samples.put(&[], if log.is_on() { log.get() } else { 0.0 })
        },
    },
    Family {
        name: "drain_phase",
        kind: Kind::Gauge,
        unit: None,
        labels: &["phase"],
        help: "1 for the phase that the process is in: `serving`, `leaving` (still accepting) or `draining`.",
        samples: |scrape, samples| {
            let now = scrape.shared.drain.phase().label();
            PHASES.iter().try_for_each(|phase| samples.put(&[phase], *phase == now))
        },
    },
];

/// Of the calling thread.
pub(in crate::control) fn thread_cpu() -> Duration {
    cpu_time(ClockId::ThreadCPUTime)
}

fn cpu_time(clock: ClockId) -> Duration {
    let time = rustix::time::clock_gettime(clock);
    Duration::new(time.tv_sec.try_into().unwrap_or_default(), time.tv_nsec.try_into().unwrap_or_default())
}

fn resident_memory() -> Option<u64> {
    let pages = fs::read_to_string("/proc/self/statm").ok()?;
    let resident: u64 = pages.split_whitespace().nth(1)?.parse().ok()?;
    Some(resident * rustix::param::page_size() as u64)
}

/// Linux 6.2 and later say it in the directory's size; before that somebody has to count.
fn open_fds() -> Option<u64> {
    const DIRECTORY: &str = "/proc/self/fd";
    let size = fs::metadata(DIRECTORY).ok()?.len();
    if size > 0 {
        return Some(size);
    }
    Some(fs::read_dir(DIRECTORY).ok()?.count() as u64)
}

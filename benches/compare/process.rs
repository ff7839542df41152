//! What the kernel says about a process: CPU time, resident memory, affinity.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::error::{Context, Error, Result};

pub(super) fn pin_this_thread(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).context(format_args!("pin a thread to CPU {cpu}"))
}

/// Runs `action` on `cpu`: a child spawned there inherits the affinity.
pub(super) fn on_cpu<T>(cpu: usize, action: impl FnOnce() -> T) -> Result<T> {
    let before = sched_getaffinity(None).context("read this thread's affinity")?;
    pin_this_thread(cpu)?;
    let value = action();
    sched_setaffinity(None, &before).context("restore this thread's affinity")?;
    Ok(value)
}

/// CPU time of a process and its descendants, kernel workers of an io_uring included.
///
/// The scheduler's own sums per thread are exact to the nanosecond while a thread sleeps, which is when
/// they are read here. They vanish with the thread, so each reading also takes the process's cumulative
/// times: coarse, but they keep what exited threads used.
///
/// On loopback the sender's core does the receiver's processing, in the sender's time or, when there is
/// much of it, in the core's ksoftirqd. The proxy is the only sender on its core, so both are its own.
pub(super) struct CpuClock {
    root: u32,
    cpu: usize,
    ksoftirqd: Option<u32>,
    threads: HashMap<(u32, u32), Thread>,
    exited: Thread,
}

#[derive(Clone, Copy, Default)]
struct Thread {
    ran: u64,
    waited: u64,
}

#[derive(Clone, Copy)]
pub(super) struct CpuReading {
    at: Instant,
    /// Of the core, in ticks.
    idle: u64,
    ran: u64,
    waited: u64,
    ticks: u64,
    softirq: u64,
}

/// The CPU time between two readings.
pub(super) struct CpuTime {
    pub(super) ran: Duration,
    /// Share of the time in which the process was ready to run and something else had its core.
    pub(super) disturbed: f64,
    /// Threads ended in between, so `ran` is only as exact as the coarse clock.
    pub(super) coarse: bool,
}

impl CpuClock {
    /// For the process `root` on `cpu`.
    pub(super) fn new(root: u32, cpu: usize) -> Self {
        Self { root, cpu, ksoftirqd: find_ksoftirqd(cpu), threads: HashMap::new(), exited: Thread::default() }
    }

    /// Whether the core's ksoftirqd is visible; it is not from within a container.
    pub(super) fn sees_ksoftirqd(&self) -> bool {
        self.ksoftirqd.is_some()
    }

    pub(super) fn read(&mut self) -> Result<CpuReading> {
        let mut live = HashMap::new();
        let mut ticks = 0;
        for pid in family(self.root)? {
            ticks += process_ticks(pid)?;
            for tid in thread_ids(pid)? {
                if let Some(thread) = read_thread(pid, tid)? {
                    live.insert((pid, tid), thread);
                }
            }
        }
        for (id, last) in &self.threads {
            if !live.contains_key(id) {
                self.exited.ran += last.ran;
                self.exited.waited += last.waited;
            }
        }
        self.threads = live;
        let sum = |field: fn(&Thread) -> u64| self.threads.values().map(field).sum::<u64>();
        let softirq = match self.ksoftirqd {
            Some(pid) => read_thread(pid, pid)?.unwrap_or_default().ran,
            None => 0,
        };
        Ok(CpuReading {
            at: Instant::now(),
            idle: idle_ticks(self.cpu)?,
            ran: self.exited.ran + sum(|thread| thread.ran),
            waited: self.exited.waited + sum(|thread| thread.waited),
            ticks,
            softirq,
        })
    }
}

impl CpuReading {
    pub(super) fn until(self, later: Self) -> CpuTime {
        let tick = 1_000_000_000 / rustix::param::clock_ticks_per_second();
        let exact = later.ran.saturating_sub(self.ran);
        let coarse = later.ticks.saturating_sub(self.ticks) * tick;
        // User and system time are each cut to whole ticks, so up to two ticks of difference mean nothing.
        let lost = coarse > exact + 3 * tick;
        let softirq = later.softirq.saturating_sub(self.softirq);
        let ran = Duration::from_nanos(softirq + if lost { coarse } else { exact });
        // Waiting for one's own packets to be processed is no disturbance, and neither is one thread of the
        // proxy waiting for another: something else ran only for what is left of the core's time.
        let waited = later.waited.saturating_sub(self.waited).saturating_sub(softirq);
        let idle = Duration::from_nanos(later.idle.saturating_sub(self.idle) * tick);
        let elapsed = later.at - self.at;
        let others = elapsed.saturating_sub(ran + idle).min(Duration::from_nanos(waited));
        CpuTime { ran, disturbed: others.as_secs_f64() / elapsed.as_secs_f64(), coarse: lost }
    }
}

#[derive(Clone, Copy)]
pub(super) struct Memory {
    pub(super) resident: u64,
    pub(super) anonymous: u64,
}

pub(super) fn memory(pid: u32) -> Result<Memory> {
    let mut sum = Memory { resident: 0, anonymous: 0 };
    for pid in family(pid)? {
        let status = read(format!("/proc/{pid}/status"))?;
        sum.resident += kilobytes(&status, "VmRSS:")?;
        sum.anonymous += kilobytes(&status, "RssAnon:")?;
    }
    Ok(sum)
}

/// Bytes in the kernel's slabs, of the whole machine.
pub(super) fn kernel_slabs() -> Result<u64> {
    kilobytes(&read("/proc/meminfo".into())?, "Slab:")
}

/// Fails when a thread of the process may run elsewhere than on `cpu`.
pub(super) fn check_affinity(pid: u32, cpu: usize) -> Result<()> {
    for pid in family(pid)? {
        for tid in thread_ids(pid)? {
            let Ok(status) = fs::read_to_string(format!("/proc/{pid}/task/{tid}/status")) else {
                continue;
            };
            let allowed = field(&status, "Cpus_allowed_list:").unwrap_or("?");
            if allowed != cpu.to_string() {
                return Err(Error::new(format!(
                    "thread {tid} may run on CPUs {allowed}, not only on {cpu}: \
                     the proxy must keep the affinity it was started with"
                )));
            }
        }
    }
    Ok(())
}

fn read(path: String) -> Result<String> {
    fs::read_to_string(&path).context(path)
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

fn kilobytes(text: &str, name: &str) -> Result<u64> {
    let value = field(text, name).and_then(|value| value.strip_suffix(" kB"));
    let value = value.ok_or_else(|| Error::new(format!("the kernel does not tell {name}")))?;
    Ok(value.parse::<u64>().context(name)? * 1024)
}

fn thread_ids(pid: u32) -> Result<Vec<u32>> {
    let directory = format!("/proc/{pid}/task");
    let mut threads = Vec::new();
    for entry in fs::read_dir(&directory).context(&directory)? {
        let name = entry.context(&directory)?.file_name();
        threads.extend(name.to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    Ok(threads)
}

/// The process and its descendants.
fn family(root: u32) -> Result<Vec<u32>> {
    let mut family = vec![root];
    let mut next = 0;
    while let Some(&pid) = family.get(next) {
        next += 1;
        for tid in thread_ids(pid)? {
            // Absent when the thread has just ended, or on a kernel without CONFIG_PROC_CHILDREN.
            let path = format!("/proc/{pid}/task/{tid}/children");
            let children = fs::read_to_string(path).unwrap_or_default();
            family.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
    }
    Ok(family)
}

fn read_thread(pid: u32, tid: u32) -> Result<Option<Thread>> {
    let path = format!("/proc/{pid}/task/{tid}/schedstat");
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        // The thread ended since the directory was read; on any kernel without the file none has it.
        Err(error) if error.kind() == io::ErrorKind::NotFound && tid != pid => return Ok(None),
        Err(error) => return Err(error).context(path),
    };
    let mut fields = text.split_whitespace().map(str::parse::<u64>);
    match (fields.next(), fields.next()) {
        (Some(Ok(ran)), Some(Ok(waited))) => Ok(Some(Thread { ran, waited })),
        _ => Err(Error::new(format!("{path} is not what was expected: {text:?}"))),
    }
}

/// Time in which nothing ran on `cpu`, in clock ticks.
fn idle_ticks(cpu: usize) -> Result<u64> {
    let text = read("/proc/stat".into())?;
    let times = field(&text, &format!("cpu{cpu} ")).unwrap_or_default();
    // The fourth time is idle, the fifth idle with I/O under way.
    let times = times.split_whitespace().skip(3).take(2).map(str::parse::<u64>);
    times.sum::<std::result::Result<u64, _>>().context("/proc/stat")
}

/// The kernel's thread for network processing that does not fit into a core's interrupts.
fn find_ksoftirqd(cpu: usize) -> Option<u32> {
    let name = format!("ksoftirqd/{cpu}");
    let pids =
        fs::read_dir("/proc").ok()?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let named =
        |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name);
    pids.into_iter().find(named)
}

/// User and system time of the process so far, exited threads included, in clock ticks.
fn process_ticks(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/stat");
    let text = read(path.clone())?;
    // The name, in parentheses, may hold anything; user and system time are the 12th and 13th field after it.
    let fields = text.rsplit_once(')').map(|(_, rest)| rest.split_whitespace());
    let mut times = fields.into_iter().flatten().skip(11).map(str::parse::<u64>);
    match (times.next(), times.next()) {
        (Some(Ok(user)), Some(Ok(system))) => Ok(user + system),
        _ => Err(Error::new(format!("{path} is not what was expected: {text:?}"))),
    }
}

//! A worker that spins before it sleeps carries connections as any other, sleeps when there is nothing, and says how much of
//! its time was work.

use std::fs;
use std::time::{Duration, Instant};

use crate::support::{
    Driver, Endpoint, Process, Settings, connect, eventually, metric, on_both_drivers, round_trip,
};

on_both_drivers!(it_relays_and_sleeps_again);

/// Time that the worker's thread was on a core.
fn ran(process: &Process) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{}/task", process.id())).unwrap().flatten();
    let is_worker = |path: &std::path::PathBuf| {
        fs::read_to_string(path.join("comm")).is_ok_and(|name| name.trim() == "sheave-worker-0")
    };
    let task = tasks.map(|task| task.path()).find(is_worker).unwrap();
    let times = fs::read_to_string(task.join("schedstat")).unwrap();
    Duration::from_nanos(times.split(' ').next().unwrap().parse().unwrap())
}

fn it_relays_and_sleeps_again(driver: Driver) {
    const WINDOW: Duration = Duration::from_millis(500);
    let echo = Endpoint::echo();
    let settings = Settings { busy_poll: "5ms", workers: 1, ..Settings::new(driver, &[echo.address]) };
    let process = Process::start(&settings, |_| {});
    let (address, admin) = (process.listener("main"), process.admin());
    let mut streams: Vec<_> = (0..20).map(|_| connect(address)).collect();
    for _ in 0..50 {
        streams.iter_mut().for_each(round_trip);
    }
    let (mut since, mut before) = (Instant::now(), ran(&process));
    let mut look = || {
        let (took, now) = (since.elapsed(), ran(&process));
        if took < WINDOW {
            return None;
        }
        let share = (now - before).as_secs_f64() / took.as_secs_f64();
        (since, before) = (Instant::now(), now);
        Some(share)
    };
    let sleeps = |share: &Option<f64>| share.is_some_and(|share| share < 0.5);
    eventually("share of a core of a worker that has nothing to do", &mut look, sleeps);
    let busy = metric(admin, "sheave_worker_cpu_seconds_total", &[]);
    let spun = ran(&process).saturating_sub(Duration::from_secs_f64(busy));
    // It had five milliseconds of it at its start alone, if others did not have its core.
    assert!(busy > 0.0 && spun > Duration::from_millis(1), "{spun:?} beside {busy} s of work");
    streams.iter_mut().for_each(round_trip);
}

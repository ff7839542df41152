//! The clock of the workload: what day it is, waits, and steady beats.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::{Interval, MissedTickBehavior, interval};

/// Milliseconds since the Unix epoch.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, milliseconds_of)
}

pub(crate) fn milliseconds_of(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Pods behave in time, and clients open connections in time: the workload waits where a test must not.
pub(crate) async fn wait(duration: Duration) {
    tokio::time::sleep(duration).await;
}

/// `rate` beats a second; those that were missed are made up for, so that the load stays what was asked for.
pub(crate) fn beats(rate: f64) -> Interval {
    let mut interval = interval(Duration::from_secs_f64(1.0 / rate));
    interval.set_missed_tick_behavior(MissedTickBehavior::Burst);
    interval
}

/// Between half and one and a half of it.
pub(crate) fn about(duration: Duration) -> Duration {
    duration.mul_f64(0.5 + fastrand::f64())
}

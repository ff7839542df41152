//! How many connections this process may carry: what RLIMIT_NOFILE leaves after everything else.

use std::collections::HashSet;
use std::fs;
use std::num::NonZeroUsize;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::{Config, Name};

/// What the workers share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Capacity {
    /// Connections of all workers together.
    pub(super) places: usize,
    /// Pipes of each worker.
    pub(super) pipes: usize,
    /// Connections to the admin port.
    pub(super) admin_connections: usize,
}

/// A process with so few descriptors would look healthy and carry nothing.
#[derive(Debug, thiserror::Error)]
#[error(
    "RLIMIT_NOFILE is {limit}, and at least {needed} file descriptors are needed; raise it (ulimit -n, LimitNOFILE=)"
)]
pub struct TooFew {
    limit: usize,
    needed: usize,
}

/// A connection has two sockets.
const DESCRIPTORS_PER_CONNECTION: usize = 2;
/// A pipe has two ends.
const DESCRIPTORS_PER_PIPE: usize = 2;
/// A worker's ring or epoll, its wake-up and what a reload needs for a moment.
const DESCRIPTORS_PER_WORKER: usize = 6;
/// The control side: its runtime, signals, file watch, the log, an admin connection for which another makes room.
const DESCRIPTORS_ELSEWHERE: usize = 14;
/// Of these and of a connection, what there has to be for one client at a time.
const LEAST_ELSEWHERE: usize = 10;
const PIPES_MAX: usize = 64;
const ADMIN_CONNECTIONS_MAX: usize = 64;

/// Connections to the API server that following Services may take: without them endpoints would go stale just when all
/// other descriptors are taken.
pub(super) fn watches(config: &Config) -> usize {
    let followed = config.upstreams.iter().filter_map(|upstream| upstream.members.followed());
    let namespaces: HashSet<&Name> = followed.clone().map(|service| &service.namespace).collect();
    // One for its Services, one for slices, and more for slices of many.
    namespaces.len() * 2 + followed.count() / 16
}

/// Raises the soft limit to the hard one, and divides it up. `wanted` of the configuration may only lower it.
pub(super) fn plan(wanted: Option<NonZeroUsize>, workers: usize, watches: usize) -> Result<Capacity, TooFew> {
    let (limit, open) = (raise_limit(), open_descriptors());
    let needed = open + LEAST_ELSEWHERE + workers * DESCRIPTORS_PER_WORKER;
    if limit < needed {
        return Err(TooFew { limit, needed });
    }
    let capacity = divide(limit, open, workers, watches);
    let Some(wanted) = wanted else { return Ok(capacity) };
    if wanted.get() > capacity.places {
        tracing::warn!(
            wanted,
            possible = capacity.places,
            limit,
            "limits.maxConnections is more than RLIMIT_NOFILE allows; raise it (ulimit -n, LimitNOFILE=)"
        );
    }
    Ok(Capacity { places: wanted.get().min(capacity.places), ..capacity })
}

fn divide(limit: usize, open: usize, workers: usize, watches: usize) -> Capacity {
    let pipes = (limit / (32 * workers.max(1))).min(PIPES_MAX);
    let admin_connections = (limit / 16).clamp(2, ADMIN_CONNECTIONS_MAX);
    let kept = open
        + DESCRIPTORS_ELSEWHERE
        + watches
        + admin_connections
        + workers * (DESCRIPTORS_PER_WORKER + pipes * DESCRIPTORS_PER_PIPE);
    let places = limit.saturating_sub(kept) / DESCRIPTORS_PER_CONNECTION;
    // At least one: a process that carries nothing at all would look healthy.
    Capacity { places: places.max(1), pipes, admin_connections }
}

fn raise_limit() -> usize {
    let before = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: before.maximum, maximum: before.maximum };
    let _kept_as_it_was = setrlimit(Resource::Nofile, raised);
    let current = getrlimit(Resource::Nofile).current;
    current.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(1 << 20)
}

fn open_descriptors() -> usize {
    fs::read_dir("/proc/self/fd").map_or(32, |descriptors| descriptors.count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_limit_still_carries_connections() {
        let capacity = divide(96, 10, 2, 0);
        assert!((10..=25).contains(&capacity.places), "{capacity:?}");
        assert_eq!(divide(16, 10, 2, 0).places, 1);
    }

    #[test]
    fn a_large_limit_goes_to_connections() {
        let capacity = divide(20_000, 20, 2, 10);
        assert!(capacity.places > 9_700 && capacity.pipes == PIPES_MAX, "{capacity:?}");
        assert_eq!(capacity.admin_connections, ADMIN_CONNECTIONS_MAX);
    }
}

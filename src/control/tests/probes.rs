//! What becomes of verdicts when tables follow each other so fast that some are never looked at.

use futures_util::stream::FuturesUnordered;

use super::*;
use crate::control::probes::Prober;
use crate::routing::RouteTable;

fn plain() -> Config {
    config(&["127.0.0.1:1", "127.0.0.1:2"])
}

/// Who is not used before its first success.
fn awaited() -> Config {
    let mut config = plain();
    config.upstreams[0].health.active = Some(config::ActiveCheck {
        kind: config::ProbeKind::Tcp,
        interval: Duration::from_secs(3_600),
        jitter: Duration::ZERO,
        timeout: Duration::from_secs(1),
        unhealthy_threshold: 3,
        healthy_threshold: 2,
        starts_healthy: false,
        port: None,
    });
    config
}

fn next(config: &Config, before: &RouteTable) -> RouteTable {
    crate::routing::compile(config, &Default::default(), before, Instant::now())
}

fn health(table: &RouteTable) -> Vec<bool> {
    let endpoints = &table.upstreams["pg"].endpoints;
    endpoints
        .iter()
        .map(|endpoint| endpoint.state.is_healthy() && !endpoint.state.health.is_awaited())
        .collect()
}

#[test]
fn a_check_that_was_never_seen_keeps_nobody_unhealthy() {
    let control = builder().start();
    let (mut prober, watches) = (Prober::new(Arc::clone(&control.handle.shared)), FuturesUnordered::new());
    for is_known_before in [false, true] {
        let first = next(&plain(), &RouteTable::empty());
        if is_known_before {
            prober.look(&first, &watches);
        }
        let unseen = next(&awaited(), &RouteTable::empty());
        assert_eq!(health(&unseen), [false, false], "they wait for their first success");
        let last = next(&plain(), &unseen);
        prober.look(&last, &watches);
        assert_eq!(health(&last), [true, true]);
    }
    assert!(watches.is_empty(), "nobody was to be probed");
}

#[test]
fn a_check_that_is_looked_at_later_begins_as_it_says() {
    let control = builder().start();
    let (mut prober, watches) = (Prober::new(Arc::clone(&control.handle.shared)), FuturesUnordered::new());
    let first = next(&awaited(), &RouteTable::empty());
    prober.look(&first, &watches);
    assert_eq!((health(&first), watches.len()), (vec![false, false], 2));
    // The table without the check is never looked at: the one after it has the same check, and the same verdicts.
    first.upstreams["pg"].endpoints[0].state.health.set(true);
    let last = next(&awaited(), &next(&plain(), &first));
    prober.look(&last, &watches);
    assert_eq!((health(&last), watches.len()), (vec![true, false], 2));
    // With it being looked at, all is void, and the check begins anew.
    let between = next(&plain(), &last);
    prober.look(&between, &watches);
    assert_eq!(health(&between), [true, true]);
    prober.look(&next(&awaited(), &between), &watches);
    assert!(health(&between).iter().all(|is_well| !is_well));
}

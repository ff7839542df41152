//! Following the cluster: whether it is in step, and how long changes take to reach every worker.

use super::{Family, Kind, Unit};

pub(super) static FAMILIES: &[Family] = &[
    // Not `namespace`: that is where the pod runs, as whoever scrapes it says.
    Family {
        name: "kubernetes_synced",
        kind: Kind::Gauge,
        unit: None,
        labels: &["resource", "watched_namespace"],
        help: "1 while all that is followed of this namespace has been listed and its changes arrive; at 0 what was \
               known before keeps serving.",
        samples: |scrape, samples| {
            let watches = scrape.shared.watches.watches();
            watches
                .iter()
                .try_for_each(|watch| samples.put(&[watch.resource, &watch.namespace], watch.synced))
        },
    },
    Family {
        name: "kubernetes_last_event_age",
        kind: Kind::Gauge,
        unit: Some(Unit::Seconds),
        labels: &["resource", "watched_namespace"],
        help: "Since the API server's last sign of life; it gives one about every minute even if nothing changes.",
        samples: |scrape, samples| {
            scrape.shared.watches.watches().iter().try_for_each(|watch| {
                let Some(last) = watch.last_event else { return Ok(()) };
                samples.put(&[watch.resource, &watch.namespace], last.elapsed())
            })
        },
    },
    Family {
        name: "kubernetes_watch_errors",
        kind: Kind::Counter,
        unit: None,
        labels: &["resource", "watched_namespace", "reason"],
        help: "Lists and watches that failed; docs/kubernetes.md says what each reason means.",
        samples: |scrape, samples| {
            scrape.shared.watches.errors().iter().try_for_each(|((resource, namespace, reason), count)| {
                samples.put(&[resource, namespace, reason], *count)
            })
        },
    },
    Family {
        name: "propagation",
        kind: Kind::Histogram,
        unit: Some(Unit::Seconds),
        labels: &["from"],
        help: "Until all workers had the table with a change of the cluster: from the `change` itself, as the slice \
               dates it, and from the `receipt` of its event.",
        samples: |scrape, samples| {
            let measured = scrape.shared.propagation.measured();
            samples.histogram(&["change"], &measured.since_change)?;
            samples.histogram(&["receipt"], &measured.since_receipt)
        },
    },
    Family {
        name: "propagation_undated",
        kind: Kind::Counter,
        unit: None,
        labels: &["reason"],
        help: "Changes that are measured from their receipt only: `absent`, nothing says when they happened; `skewed`, \
               they happened later than they arrived, so the clocks of the nodes differ.",
        samples: |scrape, samples| {
            let measured = scrape.shared.propagation.measured();
            samples.put(&["absent"], measured.undated)?;
            samples.put(&["skewed"], measured.skewed)
        },
    },
    Family {
        name: "upstream_compilations",
        kind: Kind::Counter,
        unit: None,
        labels: &[],
        help: "Upstreams compiled: all of them by a reload, one by a change of its Service.",
        samples: |scrape, samples| samples.put(&[], scrape.shared.compilations.get()),
    },
];

//! Certificates, authorities and lists of revoked certificates: until when they are good, and what is wrong with new ones.

use super::{Family, Kind, Unit};

/// `certificate` says where it comes from: `Secret edge/example-com`, `file /certs/tls.crt`.
const LABELS: &[&str] = &["certificate", "kind"];

pub(super) static FAMILIES: &[Family] = &[
    Family {
        name: "certificate_expiry_timestamp",
        kind: Kind::Gauge,
        unit: Some(Unit::Seconds),
        labels: LABELS,
        help: "Until when what is in use is valid, since the Unix epoch; of several authorities or lists the first to end. \
               `kind` is `certificate`, `authorities` or `revocations`.",
        samples: |scrape, samples| {
            scrape.shared.certificates.reports().iter().try_for_each(|report| {
                let Some(end) = report.not_after else { return Ok(()) };
                samples.put(&[&report.source.to_string(), report.source.kind()], end)
            })
        },
    },
    Family {
        name: "certificate_load_errors",
        kind: Kind::Counter,
        unit: None,
        labels: LABELS,
        help: "New versions that could not be used; the one before stays in use.",
        samples: |scrape, samples| {
            scrape.shared.certificates.reports().iter().try_for_each(|report| {
                samples.put(&[&report.source.to_string(), report.source.kind()], report.errors)
            })
        },
    },
    Family {
        name: "certificate_problem",
        kind: Kind::Gauge,
        unit: None,
        labels: &["certificate", "kind", "reason"],
        help: "1 while something is wrong: `missing`, `unreadable`, `invalid`, `mismatched` (the key belongs to another \
               certificate), `expired`, `not_yet_valid`; `/readyz?verbose` says it in words.",
        samples: |scrape, samples| {
            scrape.shared.certificates.reports().iter().try_for_each(|report| {
                let Some(problem) = &report.problem else { return Ok(()) };
                let source = report.source.to_string();
                samples.put(&[&source, report.source.kind(), problem.reason], true)
            })
        },
    },
];

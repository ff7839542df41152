//! Connections by listener, route, upstream and endpoint.

mod endpoints;
mod listeners;
mod upstreams;

use std::fmt;

use crate::telemetry::Tally;

use super::Samples;

pub(super) use endpoints::{ENDPOINTS, EndpointRow};
pub(super) use listeners::LISTENERS;
pub(super) use upstreams::UPSTREAMS;

/// By outcome and side, after the name of whose they are.
fn outcomes(samples: &mut Samples<'_>, name: &str, tally: &Tally) -> fmt::Result {
    tally.outcomes.iter().try_for_each(|(outcome, count)| {
        samples.put(&[name, outcome.label(), outcome.side().label()], *count)
    })
}

/// In both directions.
fn bytes(samples: &mut Samples<'_>, name: &str, tally: &Tally) -> fmt::Result {
    samples.put(&[name, "received"], tally.bytes_received)?;
    samples.put(&[name, "sent"], tally.bytes_sent)
}

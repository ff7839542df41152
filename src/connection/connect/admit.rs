//! A place among the connections of an upstream, and an endpoint that has one, too: at once, or in turn.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Instant;

use crate::balance::Tried;
use crate::routing::{Rejection, Ticket, Upstream, UpstreamPlace};
use crate::telemetry::Outcome;
use crate::worker::runtime;

use super::dial::{LOOK_INTERVAL, look_after};
use super::{Chosen, Context, Live, Unchosen, choose};

/// What a connection begins with. `None`: no endpoint may be tried, for another reason than that it is full.
type Admission<'a> = (UpstreamPlace, Option<Chosen<'a>>);

/// Admits a connection to its upstream, when it is its turn.
pub(super) async fn admit<'a>(
    context: &Context,
    live: &Live,
    upstream: &'a Arc<Upstream>,
    tried: &mut Tried,
) -> Result<Admission<'a>, Outcome> {
    // Nobody overtakes those who wait.
    if upstream.state.queued() == 0
        && let Some(admission) = try_admit(context, upstream, tried)
    {
        return Ok(admission);
    }
    let limit = upstream.limits.max_pending;
    let Some(ticket) = upstream.state.queue(limit) else {
        return Err(reject(upstream, if limit == 0 { Rejection::Full } else { Rejection::QueueFull }));
    };
    let until = Instant::now() + upstream.limits.pending_timeout;
    loop {
        if !called(live, &ticket, until).await? {
            return Err(reject(upstream, Rejection::QueueTimeout));
        }
        if let Some(admission) = try_admit(context, upstream, tried) {
            return Ok(admission);
        }
    }
}

/// `None`: it is full.
fn try_admit<'a>(context: &Context, upstream: &'a Arc<Upstream>, tried: &mut Tried) -> Option<Admission<'a>> {
    let limit = upstream.limits.max_connections.map(NonZeroUsize::get);
    if !upstream.state.has_place(limit) {
        return None;
    }
    // The place comes last: one that was taken and given back would call the first in line, which this may be.
    let chosen = match choose(context, upstream, tried) {
        Ok(chosen) => Some(chosen),
        Err(Unchosen::NoneLeft) => None,
        Err(Unchosen::Full) => return None,
    };
    Some((upstream.state.take_place(limit)?, chosen))
}

/// Waits to be called, without losing sight of the client and of verdicts from outside. Whether it was, in time.
async fn called(live: &Live, ticket: &Ticket, until: Instant) -> Result<bool, Outcome> {
    loop {
        let now = Instant::now();
        if runtime::timeout_at(until.min(now + LOOK_INTERVAL), ticket.called()).await.is_some() {
            return Ok(true);
        }
        look_after(live)?;
        if Instant::now() >= until {
            return Ok(false);
        }
    }
}

fn reject(upstream: &Upstream, rejection: Rejection) -> Outcome {
    upstream.state.reject(rejection);
    Outcome::UpstreamLimit
}

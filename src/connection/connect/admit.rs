//! A place among the connections of an upstream, and an endpoint that has one, too: at once, or in turn.

use std::sync::Arc;
use std::time::Instant;

use crate::balance::Tried;
use crate::routing::{Rejection, RouteTable, Ticket, Upstream, UpstreamPlace};
use crate::telemetry::Outcome;
use crate::worker::runtime;

use super::dial::{LOOK_INTERVAL, look_after};
use super::{Chosen, Context, Live, Newer, Unchosen, choose};

/// What a connection begins with. `None`: no endpoint may be tried, for another reason than that it is full.
type Admission<'a> = (UpstreamPlace, Option<Chosen<'a>>);

/// A connection's turn among those that wait, which it keeps from one table to the next.
#[derive(Default)]
pub(super) struct Wait {
    /// And until when it may wait. `None`: it does not.
    ticket: Option<(Ticket, Instant)>,
    /// The restrictions in the table by which it was last permitted.
    looked_at: Option<u64>,
}

/// Admits a connection to its upstream, when it is its turn.
pub(super) async fn admit<'a>(
    context: &Context,
    live: &Live,
    upstream: &'a Arc<Upstream>,
    tried: &mut Tried,
    wait: &mut Wait,
) -> Result<Result<Admission<'a>, Newer>, Outcome> {
    let limit = upstream.limits.max_pending;
    let waits = wait.ticket.take();
    // Nobody overtakes those who wait. (There may be some of a configuration that had a queue.)
    if (waits.is_some() || limit == 0 || upstream.state.queued() == 0)
        && let Some(admission) = try_admit(context, upstream, tried)
    {
        return Ok(Ok(admission));
    }
    let joins = || {
        let ticket = upstream.state.queue(limit)?;
        Some((ticket, Instant::now() + upstream.limits.pending_timeout))
    };
    let Some((ticket, until)) = waits.or_else(joins) else {
        return Err(reject(upstream, if limit == 0 { Rejection::Full } else { Rejection::QueueFull }));
    };
    loop {
        if !has_turn(live, &ticket, until).await? {
            return Err(reject(upstream, Rejection::QueueTimeout));
        }
        let newest = context.tables.newest();
        if !wait.still_permits(live, &newest) {
            return Err(Outcome::Policy);
        }
        // Who was being probed when it last looked may be well by now.
        tried.clear();
        if let Some(newer) = newer(&newest, upstream) {
            wait.ticket = Some((ticket, until));
            return Ok(Err(newer));
        }
        if let Some(admission) = try_admit(context, upstream, tried) {
            return Ok(Ok(admission));
        }
    }
}

/// The same upstream in the newest table, if it has changed: there may be endpoints with room by now, or some that are to get
/// no more connections.
fn newer(table: &RouteTable, upstream: &Arc<Upstream>) -> Option<Newer> {
    let newest = table.upstreams.get(&upstream.name)?;
    let is_newer = !Arc::ptr_eq(newest, upstream) && Arc::ptr_eq(&newest.state, &upstream.state);
    is_newer.then(|| Newer(Arc::clone(newest)))
}

impl Wait {
    /// Whether the newest table still permits the connection. What has become free may be the place of another that a worker closed
    /// by a table that this one is yet to follow: without a look, who is not permitted either would take it, and be cut off as if served.
    fn still_permits(&mut self, live: &Live, newest: &RouteTable) -> bool {
        self.looked_at.replace(newest.restrictions) == Some(newest.restrictions) || live.would_stay(newest)
    }
}

/// `None`: it is full.
fn try_admit<'a>(context: &Context, upstream: &'a Arc<Upstream>, tried: &mut Tried) -> Option<Admission<'a>> {
    if !upstream.state.has_place() {
        return None;
    }
    // The place comes last: one that was taken and given back would call the first in line, which this may be.
    let chosen = match choose(context, upstream, tried) {
        Ok(chosen) => Some(chosen),
        Err(Unchosen::NoneLeft) => None,
        Err(Unchosen::Full) => return None,
    };
    let Some(place) = upstream.state.take_place() else {
        // Another was faster. Who came first in line meanwhile may have found this endpoint full.
        upstream.state.give_back(chosen);
        return None;
    };
    Some((place, chosen))
}

/// Waits until it is worth a look, without losing sight of the client and of verdicts from outside. `false`: the time is over.
///
/// The first in line is called when something becomes free; it looks now and then besides, because a breaker lets somebody
/// through when its time is over, and calls nobody.
async fn has_turn(live: &Live, ticket: &Ticket, until: Instant) -> Result<bool, Outcome> {
    loop {
        let look = until.min(Instant::now() + LOOK_INTERVAL);
        let is_called = runtime::timeout_at(look, ticket.called()).await.is_some();
        look_after(live)?;
        if is_called {
            return Ok(true);
        }
        if Instant::now() >= until {
            return Ok(false);
        }
        if ticket.is_first() {
            return Ok(true);
        }
    }
}

fn reject(upstream: &Upstream, rejection: Rejection) -> Outcome {
    upstream.state.reject(rejection);
    Outcome::UpstreamLimit
}

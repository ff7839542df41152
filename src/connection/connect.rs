//! From an upstream to a connected endpoint: a place, a pick, a dial, and on failure another endpoint.
//!
//! Only connecting is ever tried again: no byte has been read from the client yet. Endpoints that were not tried come first;
//! once all were, the next round waits (exponential backoff with full jitter). `connectTimeout` bounds all of it,
//! and a client that leaves ends it.

mod admit;
mod breaker;
mod cut_short;
mod dial;
mod hedge;
mod latency;

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::balance::{self, Pick, Tried};
use crate::config::RetryTriggers;
use crate::resilience::{Backoff, Permit};
use crate::routing::{Endpoint, Reservation, Upstream, UpstreamPlace};
use crate::telemetry::{Outcome, Side};
use crate::worker::runtime::Stream;

use super::record::Recorder;
use super::relay::End;
use super::secure::Secure;
use super::{Context, Live, handshake, passive, postgres};

use admit::Wait;
pub(super) use dial::{Failed, LOOK_INTERVAL, look_after};
use dial::{dial, pause};

/// A connection to an endpoint, counted on it and on its upstream as long as this lives.
pub(super) struct Connected {
    pub(super) link: Link,
    // In this order: who is called because the place is free must find the endpoint's free too.
    _reservation: Reservation,
    _place: UpstreamPlace,
}

impl Connected {
    /// The endpoint's end of a relay.
    pub(super) fn end(&self) -> End<'_> {
        End { stream: &self.link.stream, secure: self.link.secure.as_deref() }
    }
}

/// What leads to an endpoint.
pub(super) struct Link {
    pub(super) stream: Stream,
    /// `None`: plain TCP.
    pub(super) secure: Option<Rc<Secure>>,
}

/// Connects to an endpoint of `upstream`.
pub(super) async fn connect(
    context: &Context,
    live: &Live,
    upstream: &Arc<Upstream>,
    recorder: &mut Recorder,
) -> Result<Connected, Outcome> {
    upstream.state.begin(Instant::now());
    let mut wait = Wait::default();
    let mut newest = None;
    loop {
        let upstream = newest.as_ref().unwrap_or(upstream);
        match connect_by(context, live, upstream, recorder, &mut wait).await? {
            Ok(connected) => return Ok(connected),
            Err(Newer(upstream)) => newest = Some(upstream),
        }
    }
}

/// While the connection waited for its turn a newer table came: this is its upstream there.
struct Newer(Arc<Upstream>);

/// Connects to an endpoint of `upstream` as this table has it.
async fn connect_by(
    context: &Context,
    live: &Live,
    upstream: &Arc<Upstream>,
    recorder: &mut Recorder,
    wait: &mut Wait,
) -> Result<Result<Connected, Newer>, Outcome> {
    let mut tried = Tried::none(live.client().ip());
    let (place, first) = match admit::admit(context, live, upstream, &mut tried, wait).await? {
        Ok(admission) => admission,
        Err(newer) => return Ok(Err(newer)),
    };
    let deadline = Instant::now() + upstream.timeouts.connect;
    let mut attempts = Attempts { context, live, upstream, recorder, tried, deadline };
    let (link, reservation) = attempts.make(first).await?;
    Ok(Ok(Connected { link, _reservation: reservation, _place: place }))
}

/// The attempts of one connection.
struct Attempts<'a> {
    context: &'a Context,
    live: &'a Live,
    upstream: &'a Arc<Upstream>,
    recorder: &'a mut Recorder,
    tried: Tried,
    deadline: Instant,
}

/// The endpoint of an attempt, and the leave to make it.
struct Chosen<'a> {
    index: usize,
    endpoint: &'a Endpoint,
    reservation: Reservation,
    /// `None`: there is no breaker to ask.
    permit: Option<Permit<'a>>,
}

/// Why none was chosen.
enum Unchosen {
    /// No endpoint is left to try.
    NoneLeft,
    /// Those that are left hold as many connections as they may.
    Full,
}

/// Without it, a back-off of no time would never let go of the worker.
const LEAST_WAIT: Duration = Duration::from_millis(1);

type Won = (Link, Reservation);

impl<'a> Attempts<'a> {
    /// One attempt after the other, the first at `first` if that is chosen already.
    async fn make(&mut self, mut first: Option<Chosen<'a>>) -> Result<Won, Outcome> {
        let Upstream { retry, state, limits, .. } = &**self.upstream;
        let mut backoff = Backoff::new(retry.base_interval, retry.max_interval);
        // What it comes to if no attempt can be made.
        let mut failure =
            if self.upstream.selection.is_empty() { Outcome::NoEndpoint } else { Outcome::BreakerOpen };
        for number in 0..=retry.num_retries {
            let _in_parallel = match number {
                0 => None,
                _ => Some(state.begin_retry(retry, limits, Instant::now()).ok_or(failure)?),
            };
            let chosen = match first.take() {
                Some(chosen) => chosen,
                None => self.next(&mut backoff, failure).await?,
            };
            if Instant::now() >= self.deadline {
                break;
            }
            let result = match retry.hedge_after {
                None => self.attempt(chosen).await,
                // In a box: it is large, and most connections that could be hedged never are.
                Some(after) => Box::pin(self.race(chosen, after)).await,
            };
            match result {
                Ok(won) => return Ok(won),
                Err(Failed::Attempt(outcome)) if !may_follow(retry.triggers, outcome) => return Err(outcome),
                Err(Failed::Attempt(outcome)) => failure = outcome,
                Err(Failed::Choice(outcome) | Failed::Connection(outcome)) => return Err(outcome),
            }
        }
        Err(failure)
    }

    /// The endpoint of the next attempt; `failure` if there is none to wait for.
    async fn next(&mut self, backoff: &mut Backoff, failure: Outcome) -> Result<Chosen<'a>, Outcome> {
        let mut next_round = None;
        loop {
            // Who is full, may be tried again, or before the time is over, is worth a wait; else the client learns it at once.
            let nobody_to_wait_for = match choose(self.context, self.upstream, &mut self.tried) {
                Ok(chosen) => return Ok(chosen),
                Err(Unchosen::Full) => false,
                Err(Unchosen::NoneLeft) => {
                    self.tried.is_empty() && !breaker::may_permit_by(self.upstream, self.deadline)
                }
            };
            let now = Instant::now();
            if nobody_to_wait_for || now >= self.deadline {
                return Err(failure);
            }
            let new_round = || now + backoff.next_wait(&mut self.context.random.borrow_mut()).max(LEAST_WAIT);
            let round = *next_round.get_or_insert_with(new_round);
            pause(self.live, breaker::next_look(self.upstream, round, now).min(self.deadline)).await?;
            let now = Instant::now();
            if now >= round {
                self.tried.clear();
                next_round = None;
            } else {
                self.tried.forget(|index| breaker::awaits_probe(self.upstream, index, now));
            }
        }
    }

    async fn attempt(&mut self, chosen: Chosen<'a>) -> Result<Won, Failed> {
        let started = Instant::now();
        let result = self.dial(&chosen, started).await;
        self.settle(chosen, started, result)
    }

    /// The attempt itself. It borrows nothing of this, so that two can be under way.
    fn dial(
        &self,
        chosen: &Chosen<'a>,
        started: Instant,
    ) -> impl Future<Output = Result<Link, Failed>> + use<'a> {
        let timeout = self.upstream.retry.per_retry_timeout;
        let until = timeout.map_or(self.deadline, |timeout| self.deadline.min(started + timeout));
        let (context, live, upstream, endpoint) = (self.context, self.live, self.upstream, chosen.endpoint);
        async move {
            let stream = dial(context, live, endpoint.address, upstream, until).await?;
            if live.asks.get().now(upstream.tls.is_some()) {
                Box::pin(postgres::ask(live, &stream, until)).await?;
            }
            let secure = match &upstream.tls {
                None => None,
                // In a box, as most upstreams speak none.
                Some(tls) => {
                    live.begin_handshake(endpoint.address);
                    let shaking = handshake::shake_hands_with_endpoint(context, live, &stream, tls, until);
                    Some(Box::pin(shaking).await?)
                }
            };
            Ok(Link { stream, secure })
        }
    }

    /// An attempt has ended: tells whom it concerns.
    fn settle(
        &mut self,
        chosen: Chosen<'a>,
        started: Instant,
        result: Result<Link, Failed>,
    ) -> Result<Won, Failed> {
        let Chosen { index, endpoint, reservation, mut permit } = chosen;
        match result {
            Ok(link) => {
                if let Some(secure) = &link.secure {
                    self.live.note_tls(|tls| tls.upstream = secure.negotiated());
                    self.live.secure(Side::Upstream, secure);
                }
                let socket = link.stream.handle();
                self.recorder.attempted(endpoint, started, Ok(&socket));
                latency::succeeded(endpoint, started);
                if breaker::succeeded(permit, self.upstream, endpoint) {
                    self.upstream.state.freed();
                }
                passive::connected(self.upstream, endpoint);
                self.live.attach_upstream(endpoint, socket);
                self.context.registry.schedule(self.live);
                if endpoint.state.has_left() {
                    self.context.departures.tell();
                }
                Ok((link, reservation))
            }
            Err(failed) => {
                // Who has waited for which endpoint, and left, is worth knowing too.
                let (Failed::Attempt(outcome) | Failed::Choice(outcome) | Failed::Connection(outcome)) =
                    failed;
                self.recorder.attempted(endpoint, started, Err(outcome));
                if let Failed::Attempt(outcome) = failed {
                    self.tried.insert(index);
                    // A probe that had too little time leaves its breaker to the next.
                    if !cut_short::was(outcome, started, Instant::now(), self.deadline, self.upstream) {
                        latency::failed(endpoint, started, outcome);
                        breaker::failed(permit.take(), self.upstream, endpoint, outcome);
                        passive::failed(self.context, self.upstream, &endpoint.state, outcome);
                    }
                }
                self.upstream.state.give_back((permit, reservation));
                Err(failed)
            }
        }
    }
}

/// Whether another attempt may follow one that failed so.
fn may_follow(triggers: RetryTriggers, failure: Outcome) -> bool {
    match failure {
        Outcome::TlsUpstreamFailed | Outcome::TlsUpstreamTimeout => triggers.tls_failure,
        // No endpoint would do better.
        Outcome::TlsUnavailable => false,
        _ => triggers.connect_failure,
    }
}

/// An endpoint that was not tried yet, has a place and is let be tried by its breaker.
fn choose<'a>(context: &Context, upstream: &'a Upstream, tried: &mut Tried) -> Result<Chosen<'a>, Unchosen> {
    loop {
        let now = Instant::now();
        let Some(Pick { index, reservation }) =
            balance::pick(upstream, tried, &mut context.random.borrow_mut(), now)
        else {
            let is_full = balance::is_full(upstream, tried, now);
            return Err(if is_full { Unchosen::Full } else { Unchosen::NoneLeft });
        };
        let Some(endpoint) = upstream.endpoints.get(index) else { return Err(Unchosen::NoneLeft) };
        match endpoint.breaker.as_ref().map(|breaker| breaker.permit()) {
            None => return Ok(Chosen { index, endpoint, reservation, permit: None }),
            Some(Some(permit)) => return Ok(Chosen { index, endpoint, reservation, permit: Some(permit) }),
            // Another attempt became the probe between the choice and the question.
            Some(None) => {
                tried.insert(index);
                upstream.state.give_back(reservation);
            }
        }
    }
}

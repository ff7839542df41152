//! A second attempt beside one that is slow to connect: the first that connects wins.

use std::pin::pin;
use std::time::{Duration, Instant};

use futures_util::future::{Either, select};

use crate::telemetry::Outcome;
use crate::worker::runtime;

use super::dial::Failed;
use super::{Attempts, Chosen, Won, choose, latency};

impl<'a> Attempts<'a> {
    /// Dials the endpoint, and another beside it if this takes longer than `after`.
    pub(super) async fn race(&mut self, first: Chosen<'a>, after: Duration) -> Result<Won, Failed> {
        let started = Instant::now();
        let mut dialing = pin!(self.dial(&first, started));
        if let Some(result) = runtime::timeout_at(started + after, dialing.as_mut()).await {
            return self.settle(first, started, result);
        }
        let Some((second, _in_parallel)) = self.hedge(&first) else {
            let result = dialing.await;
            return self.settle(first, started, result);
        };
        let second_started = Instant::now();
        let second_dialing = pin!(self.dial(&second, second_started));
        let (first, second) = ((first, started), (second, second_started));
        let (result, ended, (other, other_started), rest, is_overtaken) =
            match select(dialing, second_dialing).await {
                Either::Left((result, rest)) => (result, first, second, rest, false),
                Either::Right((result, rest)) => (result, second, first, rest, true),
            };
        match self.settle(ended.0, ended.1, result) {
            Err(Failed::Attempt(_) | Failed::Choice(_)) => {
                let result = rest.await;
                self.settle(other, other_started, result)
            }
            Ok(won) => {
                if is_overtaken {
                    self.upstream.state.refund_retry();
                }
                latency::outpaced(other.endpoint, other_started);
                self.abandon(other, other_started, Outcome::Outpaced);
                Ok(won)
            }
            Err(Failed::Connection(outcome)) => {
                self.abandon(other, other_started, outcome);
                Err(Failed::Connection(outcome))
            }
        }
    }

    /// Another endpoint for a second attempt. It adds to what the upstream has to bear, so it is a retry to the
    /// budget and to the limit of parallel ones. If it overtakes the first, the budget gets it back: the upstream can bear it, and one
    /// silent endpoint must not use up what hedges, and retries, of all others need. In an outage none overtakes.
    fn hedge(&mut self, first: &Chosen<'a>) -> Option<(Chosen<'a>, impl Sized + use<>)> {
        self.tried.insert(first.index);
        let second = choose(self.context, self.upstream, &mut self.tried).ok()?;
        let state = &self.upstream.state;
        let Some(retry) = state.begin_retry(&self.upstream.retry, &self.upstream.limits, Instant::now())
        else {
            state.give_back(second);
            return None;
        };
        Some((second, retry))
    }

    /// An attempt that does not matter any more, and did not fail. Only to a breaker that is on probation it did: a probe that
    /// another attempt outpaced has not shown that the endpoint is back.
    fn abandon(&mut self, mut chosen: Chosen<'a>, started: Instant, outcome: Outcome) {
        if outcome == Outcome::Outpaced
            && let Some(probe) = chosen.permit.take_if(|permit| permit.is_probe())
        {
            probe.failed(Instant::now());
        }
        self.recorder.attempted(chosen.endpoint, started, Err(outcome));
        self.upstream.state.give_back(chosen);
    }
}

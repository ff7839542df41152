//! One downstream connection, from accept until both sides are closed: the straight path.
//!
//! admit -> route -> connect -> relay -> outcome -> one record. Each stage is a module below. No read is raced against
//! anything while its connection lives on: whoever wants to end a connection shuts its sockets down and lets the
//! reads return (`tests/integration/cancel_safety.rs` shows why).

mod connect;
mod context;
mod live;
mod passive;
mod peek;
mod pipes;
mod proxy;
mod record;
mod registry;
mod relay;

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;

use crate::resilience::SourceRefusal;
use crate::routing::{Listener, Place};
use crate::telemetry::Outcome;
use crate::worker::runtime::Stream;

pub(crate) use context::{Context, Outside};
pub(crate) use live::{CoarseTime, Live};
pub(crate) use registry::Registry;
pub(crate) use relay::watch;

use record::Recorder;

/// A connection as the accept loop hands it over.
pub(crate) struct Accepted {
    pub(crate) socket: OwnedFd,
    pub(crate) client: SocketAddr,
    pub(crate) listener: Arc<Listener>,
    /// Its place among the connections of the process.
    pub(crate) place: Place,
    /// Its place among those of the listener; `None`: the listener is full.
    pub(crate) listener_place: Option<Place>,
}

/// Serves the connection to its end and records how it ended. Everything that must not be forgotten is made before the
/// task first runs: it may never come to that.
pub(crate) fn serve(context: Rc<Context>, accepted: Accepted) -> impl Future<Output = ()> {
    let Accepted { socket, client, listener, place, listener_place } = accepted;
    let live = context.registry.open(client, listener);
    // From here on exactly one record is written, also if this task is dropped or panics.
    let mut recorder = Recorder::new(Rc::clone(&context), Rc::clone(&live));
    async move {
        let outcome = match Stream::new(socket) {
            Ok(downstream) => {
                live.attach_downstream(downstream.handle());
                context.registry.schedule(&live);
                forward(&context, &live, &downstream, listener_place.is_some(), &mut recorder).await
            }
            Err(error) => {
                tracing::error!(%error, "an accepted socket cannot be used");
                Outcome::Internal
            }
        };
        recorder.finish(outcome);
        drop((listener_place, place));
    }
}

/// The straight path. An ending before the relay is one the client must not mistake for an answer: RST, not FIN.
async fn forward(
    context: &Context,
    live: &Live,
    downstream: &Stream,
    has_place: bool,
    recorder: &mut Recorder,
) -> Outcome {
    match reach_upstream(context, live, downstream, has_place, recorder).await {
        Ok(connected) => {
            let outcome = relay::run(context, live, downstream, &connected.stream).await;
            passive::ended(context, live, recorder.connected_at(), outcome);
            outcome
        }
        Err(outcome) => {
            downstream.abort();
            outcome
        }
    }
}

async fn reach_upstream(
    context: &Context,
    live: &Live,
    downstream: &Stream,
    has_place: bool,
    recorder: &mut Recorder,
) -> Result<connect::Connected, Outcome> {
    if context.is_overloaded() {
        return Err(Outcome::Overload);
    }
    let restrictions = context.restrictions.times();
    let listener = &live.listener;
    if !has_place {
        return Err(Outcome::Limit);
    }
    if let Some(proxy) = &listener.proxy {
        // In a box: most connections have no header to wait for.
        Box::pin(proxy::receive(context, live, downstream, proxy)).await?;
    }
    let client = live.client().ip();
    if !listener.admits(client) {
        return Err(Outcome::Denied);
    }
    live.enter_source().map_err(|refusal| match refusal {
        SourceRefusal::Limit => Outcome::SourceLimit,
        SourceRefusal::Rate => Outcome::SourceRate,
    })?;
    let route = listener.route_for(live.server_name(), client).ok_or(Outcome::NoRoute)?;
    let upstream = route.upstream().ok_or(Outcome::NoRoute)?;
    recorder.routed(route, upstream);
    if context.restrictions.times() != restrictions {
        // While it was not yet known where to, nobody could tell whether the new table permits it.
        context.restrictions.tell();
    }
    #[cfg(feature = "faults")]
    crate::faults::panic_in_connection(client);
    connect::connect(context, live, upstream, recorder).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::routing::{Findings, Places, RouteTable, compile};
    use crate::telemetry::WorkerCounters;
    use std::time::Instant;

    /// What an idle connection keeps in this process, beside what the allocator and the runtime add.
    #[test]
    fn a_connection_costs_little_memory() {
        let text = "listeners: [{name: a, address: \"127.0.0.1:1\"}]\n\
                    routes: [{name: a, listener: a, backendRefs: [{upstream: a}]}]\n\
                    upstreams: [{name: a, endpoints: [{address: \"127.0.0.1:2\"}]}]\n";
        let table = compile(
            &Config::parse(text, "test").unwrap(),
            &Findings::default(),
            &RouteTable::empty(),
            Instant::now(),
        );
        let accepted = Accepted {
            socket: std::fs::File::open("/dev/null").unwrap().into(),
            client: "127.0.0.1:3".parse().unwrap(),
            listener: Arc::clone(&table.listeners[0]),
            place: Arc::new(Places::default()).try_take(1).unwrap(),
            listener_place: None,
        };
        let counters = Arc::new(WorkerCounters::default());
        let outside =
            Outside { records: None, log_sample: 1.0, verdicts: Arc::default(), memory: Arc::default() };
        let context = Context::new(0, true, 0, counters, outside);
        let task = size_of_val(&serve(Rc::new(context), accepted));
        assert!(task <= 2304, "the task of a connection takes {task} bytes");
        // With the counts of its owners it fits into 320 bytes, which is what allocators give for more than 256.
        assert!(size_of::<Live>() <= 304, "its live entry takes {} bytes", size_of::<Live>());
    }
}

//! One downstream connection, from accept until both sides are closed: the straight path.
//!
//! admit -> route -> connect -> relay -> outcome -> one record. Each stage is a module below. No read is raced against
//! anything while its connection lives on: whoever wants to end a connection shuts its sockets down and lets the
//! reads return (`tests/integration/cancel_safety.rs` shows why).

mod connect;
mod context;
mod handshake;
mod live;
mod long_lived;
mod passive;
mod peek;
mod pipes;
mod postgres;
mod proxy;
mod record;
mod registry;
mod relay;
mod secure;
mod secured;

use std::cell::Cell;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;

use crate::config::Protocol;
use crate::resilience::SourceRefusal;
use crate::routing::{Listener, Place, Upstream};
use crate::telemetry::Outcome;
use crate::worker::runtime::Stream;

pub(crate) use context::{Context, Outside};
pub(crate) use live::{CoarseTime, Live};
pub(crate) use long_lived::tell as tell_of_long_lived;
pub(crate) use registry::Registry;
pub(crate) use relay::watch;

use live::Flag;
use record::Recorder;
use relay::End;

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
    // What comes later may forbid it.
    let restrictions = context.restrictions.times();
    let live = context.registry.open(client, listener);
    // From here on exactly one record is written, also if this task is dropped or panics.
    let mut recorder = Recorder::new(Rc::clone(&context), Rc::clone(&live));
    let (has_place, listener_place) = (listener_place.is_some(), Cell::new(listener_place));
    async move {
        let downstream = Stream::new(socket);
        live.attach_downstream(downstream.handle());
        if context.sampling.trace.is_on() {
            live.look_at_local();
        }
        context.registry.schedule(&live);
        let entry = Entry { has_place, restrictions };
        let outcome = forward(&context, &live, &downstream, entry, &listener_place, &mut recorder).await;
        recorder.finish(outcome);
        drop((listener_place, place));
    }
}

/// How things were when a connection was accepted.
#[derive(Clone, Copy)]
struct Entry {
    /// Whether its listener had a place for it.
    has_place: bool,
    /// How many restrictions there had been.
    restrictions: u32,
}

/// The straight path. An ending before the relay is one the client must not mistake for an answer: RST, not FIN.
#[expect(clippy::manual_async_fn, reason = "of an async fn every connection would hold the arguments twice")]
fn forward<'a>(
    context: &'a Context,
    live: &'a Live,
    downstream: &'a Stream,
    entry: Entry,
    place: &'a Cell<Option<Place>>,
    recorder: &'a mut Recorder,
) -> impl Future<Output = Outcome> + use<'a> {
    async move {
        let admitted = admit(context, live, downstream, entry).await;
        if live.accepted_by.proxy.is_some() {
            recorder.introduced();
        }
        if let Err(outcome) = admitted {
            downstream.abort();
            return outcome;
        }
        if live.accepted_by.protocol == Protocol::Tls {
            // In a box, as it is large, and a plain connection has no use for it.
            return Box::pin(secured::forward(context, live, downstream, place, entry, recorder)).await;
        }
        let connected = match choose_upstream(context, live, entry, recorder) {
            // In a box: it takes more than all that follows, and is over soon.
            Ok(upstream) => Box::pin(connect::connect(context, live, upstream, recorder)).await,
            Err(outcome) => Err(outcome),
        };
        // Borrowed, as what is moved takes its room twice.
        let connected = match &connected {
            Ok(connected) => connected,
            Err(outcome) => {
                downstream.abort();
                return *outcome;
            }
        };
        let outcome = if connected.link.secure.is_none() {
            relay::run(context, live, downstream, &connected.link.stream).await
        } else {
            let downstream = End { stream: downstream, secure: None };
            Box::pin(relay::run_secure(context, live, downstream, connected.end(), Vec::new())).await
        };
        passive::ended(context, live, recorder.connected_at(), outcome);
        outcome
    }
}

/// Whether the connection may go on, as far as its client's address tells.
async fn admit(context: &Context, live: &Live, downstream: &Stream, entry: Entry) -> Result<(), Outcome> {
    if context.is_overloaded() {
        return Err(Outcome::Overload);
    }
    if !entry.has_place {
        return Err(Outcome::Limit);
    }
    let Some(proxy) = &live.accepted_by.proxy else { return judge(live) };
    let may_be_another = proxy::may_speak_for_others(proxy, live)?;
    if !may_be_another {
        // Before it has said a word: nothing that it says makes it another.
        judge(live)?;
    }
    // In a box: most connections have no header to wait for.
    Box::pin(proxy::receive(context, live, downstream, proxy)).await?;
    if may_be_another {
        judge(live)?;
    }
    look_again(context, live, entry)
}

/// Whether this client may have a connection, and counts it if so.
fn judge(live: &Live) -> Result<(), Outcome> {
    if !live.accepted_by.admits(live.client().ip()) {
        return Err(Outcome::Denied);
    }
    live.enter_source().map_err(|refusal| match refusal {
        SourceRefusal::Limit => Outcome::SourceLimit,
        SourceRefusal::Rate => Outcome::SourceRate,
    })?;
    live.set(Flag::IsAdmitted, true);
    Ok(())
}

/// Whether the newest table still permits who was let in by an earlier one.
fn look_again(context: &Context, live: &Live, entry: Entry) -> Result<(), Outcome> {
    if context.restrictions.times() == entry.restrictions {
        return Ok(());
    }
    if live.would_stay(&context.tables.newest()) { Ok(()) } else { Err(Outcome::Policy) }
}

/// Where it goes.
fn choose_upstream<'a>(
    context: &Context,
    live: &'a Live,
    entry: Entry,
    recorder: &mut Recorder,
) -> Result<&'a Arc<Upstream>, Outcome> {
    let route = live.listener().route_for(live.asked()).ok_or(Outcome::NoRoute)?;
    let upstream = route.upstream().ok_or(Outcome::NoRoute)?;
    recorder.routed(route, upstream);
    // While it was not yet known where to, nobody could tell whether a newer table permits it.
    look_again(context, live, entry)?;
    #[cfg(feature = "faults")]
    crate::faults::panic_in_connection(live.client().ip());
    Ok(upstream)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{AccessLog, Config, LogFormat};
    use crate::routing::{Findings, Places, RouteTable, compile};
    use crate::telemetry::{Sampling, WorkerCounters};
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
        let outside = Outside {
            records: flume::bounded(1).0,
            sampling: Arc::new(Sampling::new(
                &AccessLog { enabled: true, sample: 1.0, format: LogFormat::Json },
                None,
            )),
            verdicts: Arc::default(),
            memory: Arc::default(),
            tables: Default::default(),
        };
        let context = Context::new(0, true, 0, counters, outside);
        let task = size_of_val(&serve(Rc::new(context), accepted));
        // With what the executor keeps of it, it fits into 768 bytes; the next size that allocators give is 896.
        assert!(task <= 712, "the task of a connection takes {task} bytes");
        let attempt = size_of::<crate::telemetry::Attempt>();
        assert!(attempt <= 128, "an attempt takes {attempt} bytes; the next size is 160");
        // With the counts of its owners it fits into 320 bytes, which is what allocators give for more than 256.
        assert!(size_of::<Live>() <= 296, "its live entry takes {} bytes", size_of::<Live>());
    }
}

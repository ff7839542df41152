//! One attempt at one endpoint: its socket, the wait for it, and what its failure is called.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};
use std::{io, pin::pin};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::RecvFlags;
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

use crate::config::Keepalive;
use crate::routing::Upstream;
use crate::telemetry::{Outcome, Side};
use crate::tls::{ALERT_RECORD_MAX, is_alert};
use crate::worker::runtime::{self, SocketHandle, Stream};

use super::super::live::Flag;
use super::super::{Context, Live, proxy};

/// How often a connection that waits for an endpoint looks after its client and its own end.
pub(in crate::connection) const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// How long after accept a client that sent FIN and nothing else still counts as one that only listens
/// (`nc host port </dev/null`): connecting normally takes less.
const SILENT_CLIENT_GRACE: Duration = Duration::from_millis(100);

/// Why there is no connection to this endpoint.
pub(in crate::connection) enum Failed {
    /// The endpoint's doing: another may do.
    Attempt(Outcome),
    /// The endpoint does not speak what the client chose to: nobody's failure but the client's, who could choose so again and
    /// again. The others are no different.
    Choice(Outcome),
    /// No endpoint would do any more: the client left, or the connection was ended from outside.
    Connection(Outcome),
}

/// One attempt at one endpoint.
pub(super) async fn dial(
    context: &Context,
    live: &Live,
    address: SocketAddr,
    upstream: &Upstream,
    deadline: Instant,
) -> Result<Stream, Failed> {
    let socket = loop {
        match open_socket(address, &upstream.keepalive) {
            Ok(socket) => break socket,
            // Out of descriptors or memory for a moment: no endpoint's fault, so none is given up for it.
            Err(error) if is_exhaustion(&error) && Instant::now() < deadline => {
                pause(live, Instant::now() + LOOK_INTERVAL).await.map_err(Failed::Connection)?;
            }
            Err(error) => {
                tracing::warn!(%address, %error, "no socket for a connection to an endpoint");
                return Err(Failed::Attempt(Outcome::Internal));
            }
        }
    };
    let stream = Stream::new(socket);
    let connected = connected(live, &stream, address, deadline).await?;
    let introduced = connected.and_then(|()| match &upstream.proxy {
        Some(proxy) => proxy::introduce(context, live, &stream, proxy),
        None => Ok(()),
    });
    introduced.map_err(|error| Failed::Attempt(classify(&error)))?;
    Ok(stream)
}

/// Waits for the connection attempt itself.
async fn connected(
    live: &Live,
    stream: &Stream,
    address: SocketAddr,
    deadline: Instant,
) -> Result<io::Result<()>, Failed> {
    let mut connecting = pin!(stream.connect(address));
    loop {
        let look = deadline.min(Instant::now() + LOOK_INTERVAL);
        if let Some(result) = runtime::timeout_at(look, connecting.as_mut()).await {
            return Ok(result);
        }
        look_after(live).map_err(Failed::Connection)?;
        if Instant::now() >= deadline {
            return Err(Failed::Attempt(Outcome::ConnectTimeout));
        }
    }
}

/// Waits without losing sight of the client and of verdicts from outside.
pub(super) async fn pause(live: &Live, until: Instant) -> Result<(), Outcome> {
    loop {
        look_after(live)?;
        let now = Instant::now();
        if now >= until {
            return Ok(());
        }
        runtime::sleep((until - now).min(LOOK_INTERVAL)).await;
    }
}

/// Whether it still makes sense to go on connecting.
pub(in crate::connection) fn look_after(live: &Live) -> Result<(), Outcome> {
    if let Some(outcome) = live.verdict() {
        return Err(outcome);
    }
    let gone = live.with_downstream(|downstream| has_left(live, downstream)).flatten();
    match gone {
        // The FIN of a client that only listens is no reason to go, unless it has waited for nothing long enough.
        Some(Outcome::DownstreamClosed) if live.accepted.elapsed() < SILENT_CLIENT_GRACE => Ok(()),
        Some(outcome) => Err(outcome),
        None => Ok(()),
    }
}

/// Looks, without reading, whether the client reset the connection, or closed it without having sent a byte.
/// A client that sent something and then FIN has only half-closed: it still wants its answer. That it sends no more, as TLS
/// says it, is nothing in this sense.
fn has_left(live: &Live, downstream: &SocketHandle) -> Option<Outcome> {
    let mut polled = [PollFd::new(downstream, PollFlags::RDHUP)];
    let _nothing_happened = poll(&mut polled, Some(&Timespec::default()));
    let events = polled[0].revents();
    if events.intersects(PollFlags::ERR | PollFlags::HUP) {
        return Some(Outcome::DownstreamReset);
    }
    if !events.contains(PollFlags::RDHUP) {
        return None;
    }
    if live.is(Flag::HoldsBytes) {
        return None;
    }
    let sent_something = rustix::io::ioctl_fionread(downstream).is_ok_and(|bytes| bytes > 0);
    (!sent_something || live.is_secure(Side::Downstream) && says_only_goodbye(downstream))
        .then_some(Outcome::DownstreamClosed)
}

/// Whether what there is to be read, from a client whose TLS ends here, can be no more than an alert.
fn says_only_goodbye(downstream: &SocketHandle) -> bool {
    let mut bytes = [0; ALERT_RECORD_MAX + 1];
    let seen = rustix::net::recv(downstream, &mut bytes, RecvFlags::DONTWAIT | RecvFlags::PEEK);
    seen.is_ok_and(|(length, _)| is_alert(bytes.get(..length).unwrap_or_default()))
}

fn open_socket(address: SocketAddr, keepalive: &Keepalive) -> io::Result<OwnedFd> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&TcpKeepalive::from(keepalive))?;
    Ok(socket.into())
}

impl From<&Keepalive> for TcpKeepalive {
    fn from(keepalive: &Keepalive) -> Self {
        Self::new()
            .with_time(keepalive.idle_time)
            .with_interval(keepalive.interval)
            .with_retries(keepalive.probes)
    }
}

fn is_exhaustion(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let exhausted = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    exhausted.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

fn classify(error: &io::Error) -> Outcome {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Outcome::ConnectRefused,
        io::ErrorKind::TimedOut => Outcome::ConnectTimeout,
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkDown => {
            Outcome::ConnectUnreachable
        }
        // No local port is left for this endpoint (or no local address of its family): not the endpoint's doing.
        io::ErrorKind::AddrNotAvailable => Outcome::Internal,
        _ => Outcome::ConnectFailed,
    }
}

//! The endpoint's side: answers each line with the pod's name and the line, and leaves as a well-behaved pod does.
//!
//! On SIGTERM it goes on accepting for `--grace`, then stops listening, lets its connections go on for `--linger`, and
//! ends those that are left by itself: it says bye, and sends FIN.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::{Args, ValueEnum};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::conversation::{BYE, Conversation};
use crate::{http, pace};

/// How long the other side has for its FIN.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Args, Clone)]
pub(crate) struct Serve {
    #[arg(long, value_enum, default_value = "echo")]
    mode: Mode,
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// Where GET /status and POST /abort are answered; 0: nowhere
    #[arg(long, default_value_t = 8081)]
    control: u16,
    /// Listen only after this long
    #[arg(long, default_value = "0s", value_parser = humantime::parse_duration)]
    delay: Duration,
    /// Go on accepting for so long after SIGTERM
    #[arg(long, default_value = "3s", value_parser = humantime::parse_duration)]
    grace: Duration,
    /// Then leave connections so much time to end
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    linger: Duration,
    #[arg(long, env = "POD_NAME", default_value = "nameless")]
    pod: String,
}

#[derive(Clone, Copy, Eq, PartialEq, ValueEnum)]
enum Mode {
    /// Wait for lines
    Echo,
    /// Say the pod's name first
    Greet,
    /// Reset each connection as soon as it is accepted
    Reset,
    /// As echo, and deaf to SIGTERM
    Stubborn,
}

/// What connections know of the process.
struct Shared {
    mode: Mode,
    pod: String,
    accepted: AtomicU64,
    live: watch::Sender<usize>,
    /// Turns true when connections have to end.
    over: watch::Sender<bool>,
}

/// Until `terminated`, and what a pod still has to do then.
pub(crate) async fn serve(serve: Serve, terminated: impl Future<Output = ()>) -> io::Result<()> {
    let mut terminated = pin!(terminated);
    let shared = Arc::new(Shared {
        mode: serve.mode,
        pod: serve.pod.clone(),
        accepted: AtomicU64::new(0),
        live: watch::Sender::new(0),
        over: watch::Sender::new(false),
    });
    if serve.control != 0 {
        let status = Arc::clone(&shared);
        tokio::spawn(http::control(listen(serve.control).await?, move || status.text()));
    }
    if !serve.delay.is_zero() {
        tokio::select! {
            () = pace::wait(serve.delay) => {}
            () = &mut terminated => return Ok(()),
        }
    }
    let listener = listen(serve.port).await?;
    let left = async {
        terminated.await;
        if serve.mode == Mode::Stubborn {
            std::future::pending::<()>().await;
        }
        pace::wait(serve.grace).await;
    };
    tokio::select! {
        result = accept(&listener, &shared) => result?,
        () = left => {}
    }
    accept_rest(listener, &shared)?;
    leave(&shared, serve.linger).await;
    Ok(())
}

async fn accept(listener: &TcpListener, shared: &Arc<Shared>) -> io::Result<()> {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => start(stream, shared),
            // A client that is gone already, or no descriptor for it now: neither ends an endpoint.
            Err(_) => pace::wait(Duration::from_millis(10)).await,
        }
    }
}

/// Whoever was in the queue when the time was up is served: closing it now would reset them.
fn accept_rest(listener: TcpListener, shared: &Arc<Shared>) -> io::Result<()> {
    let listener = listener.into_std()?;
    while let Ok((stream, _)) = listener.accept() {
        stream.set_nonblocking(true)?;
        start(TcpStream::from_std(stream)?, shared);
    }
    Ok(())
}

fn start(stream: TcpStream, shared: &Arc<Shared>) {
    shared.accepted.fetch_add(1, Ordering::Relaxed);
    shared.live.send_modify(|live| *live += 1);
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        // How a client leaves is the client's report.
        converse(Conversation::new(stream), &shared).await.ok();
        shared.live.send_modify(|live| *live -= 1);
    });
}

async fn converse(mut client: Conversation, shared: &Shared) -> io::Result<()> {
    if shared.mode == Mode::Reset {
        return client.reset();
    }
    if shared.mode == Mode::Greet {
        client.say(&shared.pod).await?;
    }
    let mut over = shared.over.subscribe();
    loop {
        let line = tokio::select! {
            line = client.line() => line?,
            () = is_over(&mut over) => {
                client.say(&format!("{} {BYE}", shared.pod)).await?;
                return client.end(PATIENCE).await;
            }
        };
        let Some(line) = line else {
            return client.end(PATIENCE).await;
        };
        client.say(&format!("{} {line}", shared.pod)).await?;
    }
}

async fn is_over(over: &mut watch::Receiver<bool>) {
    // The sender lives as long as the process.
    over.wait_for(|over| *over).await.ok();
}

/// Until all connections have ended, one way or the other.
async fn leave(shared: &Shared, linger: Duration) {
    let mut live = shared.live.subscribe();
    let left_by = Instant::now() + linger;
    if timeout_at(left_by, live.wait_for(|live| *live == 0)).await.is_ok() {
        return;
    }
    shared.over.send_replace(true);
    // Each has its own patience; this is only so that the process ends whatever happens.
    timeout_at(left_by + 2 * PATIENCE, live.wait_for(|live| *live == 0)).await.ok();
}

/// On both families where there are both.
pub(crate) async fn listen(port: u16) -> io::Result<TcpListener> {
    match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
        Ok(listener) => Ok(listener),
        Err(_) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await,
    }
}

impl Shared {
    fn text(&self) -> String {
        let live = *self.live.borrow();
        format!(
            "{{\"pod\":{:?},\"accepted\":{},\"live\":{live}}}",
            self.pod,
            self.accepted.load(Ordering::Relaxed)
        )
    }
}

#[cfg(test)]
impl Serve {
    pub(crate) fn new(port: u16, pod: &str, mode: &str) -> Self {
        let mode = Mode::from_str(mode, true).unwrap();
        let moment = Duration::from_millis(300);
        Self {
            mode,
            port,
            control: 0,
            delay: Duration::ZERO,
            grace: moment,
            linger: moment,
            pod: pod.to_owned(),
        }
    }
}

//! The clients' side: new connections on a schedule that does not wait for answers, each with one request.

use std::io;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use crate::conversation::{BYE, Conversation, kind};
use crate::report::Sample;
use crate::tally::Tally;
use crate::{endpoint, held, http, pace, secure};

/// Connections under way for each target; more than that is a failure of what is loaded, or of this machine.
const UNDER_WAY_MAX: usize = 2000;

#[derive(Args)]
pub(crate) struct Load {
    /// NAME=ADDRESS[,rate=N][,held=N][,greet][,tls=HOSTNAME]: N new connections a second, N held ones, whether a greeting comes first, by TLS
    #[arg(long = "target", value_name = "TARGET")]
    pub(crate) targets: Vec<Aim>,
    /// Stop, and exit, after so long
    #[arg(long, default_value_t = 600)]
    pub(crate) seconds: u64,
    /// What a connection may take from connect to answer
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    pub(crate) patience: Duration,
    /// Where GET /report, POST /reset and GET /try are answered
    #[arg(long, default_value_t = 8081)]
    pub(crate) report: u16,
}

/// What to open connections to.
#[derive(Clone, Debug)]
pub(crate) struct Aim {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    pub(crate) rate: f64,
    pub(crate) held: u64,
    pub(crate) greet: bool,
    /// The name to ask for by TLS.
    pub(crate) tls: Option<String>,
}

/// A connection that was answered rightly.
pub(crate) struct Served {
    pub(crate) at: u64,
    /// Milliseconds.
    pub(crate) after: u64,
    pub(crate) took: Duration,
    pub(crate) pod: String,
    pub(crate) is_untidy: bool,
}

pub(crate) struct Failure {
    pub(crate) kind: &'static str,
    pub(crate) sample: Sample,
}

pub(crate) async fn run(load: Load, terminated: impl Future<Output = ()>) -> io::Result<()> {
    let tally = Arc::new(Tally::new(&load.targets));
    let listener = endpoint::listen(load.report).await?;
    tokio::spawn(http::report(listener, Arc::clone(&tally)));
    for aim in &load.targets {
        if aim.rate > 0.0 {
            tokio::spawn(open(aim.clone(), load.patience, Arc::clone(&tally)));
        }
        for _ in 0..aim.held {
            tokio::spawn(held::hold(aim.clone(), load.patience, Arc::clone(&tally)));
        }
    }
    tokio::select! {
        () = pace::wait(Duration::from_secs(load.seconds)) => {}
        () = terminated => {}
    }
    println!("{}", serde_json::to_string(&tally.report())?);
    Ok(())
}

pub(crate) async fn open(aim: Aim, patience: Duration, tally: Arc<Tally>) {
    let places = Arc::new(Semaphore::new(UNDER_WAY_MAX));
    let mut beats = pace::beats(aim.rate);
    for number in 0.. {
        beats.tick().await;
        tally.attempted(&aim.name);
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            tally.failed(
                &aim.name,
                Failure { kind: "overrun", sample: Sample { at: pace::now(), ..Sample::default() } },
            );
            continue;
        };
        let (aim, tally) = (aim.clone(), Arc::clone(&tally));
        tokio::spawn(async move {
            match exchange(&aim, number, patience).await {
                Ok(served) => tally.succeeded(&aim.name, &served),
                Err(failure) => tally.failed(&aim.name, failure),
            }
            drop(place);
        });
    }
}

/// Connects, sends a request, checks the answer and closes.
pub(crate) async fn exchange(aim: &Aim, number: u64, patience: Duration) -> Result<Served, Failure> {
    let mut attempt = Attempt::new();
    let outcome = timeout(patience, attempt.run(aim, &format!("new {number}"))).await;
    let outcome = outcome.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let took = attempt.started.elapsed();
    let conversation = match outcome {
        Ok(conversation) => conversation,
        Err(error) => return Err(attempt.failure(&error)),
    };
    let is_untidy = conversation.end(patience).await.is_err();
    let after = pace::milliseconds_of(took);
    Ok(Served { at: pace::now(), after, took, pod: attempt.pod, is_untidy })
}

pub(crate) enum Answer {
    Right,
    /// The endpoint ends the connection now.
    Bye,
}

/// How far a connection has come: what is known of it when it fails.
pub(crate) struct Attempt {
    pub(crate) started: Instant,
    pub(crate) stage: &'static str,
    pub(crate) local: String,
    pub(crate) pod: String,
}

impl Attempt {
    pub(crate) fn new() -> Self {
        Self { started: Instant::now(), stage: "connect", local: String::new(), pod: String::new() }
    }

    /// Until the answer to `request` was right.
    pub(crate) async fn run(&mut self, aim: &Aim, request: &str) -> io::Result<Conversation> {
        let stream = TcpStream::connect(aim.address).await?;
        let mut conversation = match &aim.tls {
            None => Conversation::new(stream),
            Some(name) => {
                self.stage = "handshake";
                Conversation::secure(secure::shake_hands(stream, name).await?)
            }
        };
        self.local = conversation.local().map(|local| local.to_string()).unwrap_or_default();
        if aim.greet {
            self.stage = "greeting";
            self.pod = conversation.line().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        }
        match self.ask(&mut conversation, request).await? {
            Answer::Right => Ok(conversation),
            Answer::Bye => Err(io::Error::new(io::ErrorKind::InvalidData, "answered bye")),
        }
    }

    pub(crate) async fn ask(&mut self, conversation: &mut Conversation, request: &str) -> io::Result<Answer> {
        self.stage = "request";
        conversation.say(request).await?;
        self.stage = "answer";
        let answer = conversation.line().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let Some((pod, echo)) = answer.split_once(' ') else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("answered {answer:?}")));
        };
        let is_same = self.pod.is_empty() || self.pod == pod;
        pod.clone_into(&mut self.pod);
        match echo {
            BYE => Ok(Answer::Bye),
            _ if echo == request && is_same => Ok(Answer::Right),
            _ => {
                let text = format!("answered {answer:?} to {request:?}");
                Err(io::Error::new(io::ErrorKind::InvalidData, text))
            }
        }
    }

    pub(crate) fn failure(&self, error: &io::Error) -> Failure {
        let sample = Sample {
            at: pace::now(),
            after: pace::milliseconds_of(self.started.elapsed()),
            stage: self.stage.to_owned(),
            error: error.to_string(),
            local: self.local.clone(),
            pod: self.pod.clone(),
        };
        Failure { kind: kind(error), sample }
    }
}

impl FromStr for Aim {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, rest) = text.split_once('=').ok_or("NAME=ADDRESS is needed")?;
        let mut parts = rest.split(',');
        let address = parts.next().unwrap_or_default();
        let address = address.parse().map_err(|_| format!("{address:?} is no IP address with a port"))?;
        let mut aim = Self { name: name.to_owned(), address, rate: 0.0, held: 0, greet: false, tls: None };
        for part in parts {
            match part.split_once('=').unwrap_or((part, "")) {
                ("rate", rate) => aim.rate = rate.parse().map_err(|_| format!("no rate: {rate:?}"))?,
                ("held", held) => aim.held = held.parse().map_err(|_| format!("no number: {held:?}"))?,
                ("greet", "") => aim.greet = true,
                ("tls", name) => aim.tls = Some(name.to_owned()),
                _ => return Err(format!("{part:?} is none of rate=N, held=N, greet and tls=HOSTNAME")),
            }
        }
        Ok(aim)
    }
}

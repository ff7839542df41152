//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use crate::cases::{Case, Layer, Work};
use crate::error::{Context, Error, Result};

pub(super) const HELP: &str = "\
Compares TCP proxies: the CPU time, latency and memory each needs for the same work on one core.

Usage: cargo bench --bench compare -- [options]

  --cases LIST       idle, rr64, rr1, conn, bulk1, bulk16 (bulk: both), mixed, churn, many (plain: all
                     of these, many apart),
                     tls-idle, tls-rr64, tls-conn, tls-resumed, tls-bulk1, tls-storm (tls: these),
                     sni-rr64, sni-conn (sni: both)                         [default: all]
  --peers LIST       haproxy, haproxy-splice, nginx, envoy, traefik, sheave, sheave-epoll
                     and every NAME of --other                              [default: all]
                     also sheave-bare (no retries, no breakers) and sheave-all (limits, hedging,
                     breakers, ejection, queue): what the policies cost; and sheave-observed (access log,
                     metrics, and traces of 10 %), sheave-traced (of 100 %): what being observed costs; with
                     --other also NAME-observed and NAME-traced; haproxy-busy (busy-polling) and sheave-busy
                     (busyPoll: 1ms): what spinning brings, for rr1; haproxy-logged, nginx-logged,
                     envoy-logged and sheave-logged: with a line for each connection, to /dev/null
  --baseline NAME    the peer that ratios refer to                          [default: the first]
  --sheave PATH      the sheave binary     [default: the one cargo built for this benchmark]
  --other NAME=PATH  another sheave binary, such as an older one; may be repeated
  --rounds N         rounds per case; each measures every peer once         [default: 12]
  --seconds S        length of one measurement                              [default: 1]
  --quick            3 rounds of 0.3 s and few idle connections: does it work, not how fast
  --profile FOLDER   record each measurement with perf, as flame graphs FOLDER/CASE-PEER.svg; perf costs
                     time of its own, so these are no figures (`make profile CASE=rr64`)
  --json FILE        write every measurement there too
  --proxy-cpu N      the CPU of the proxies                                 [default: 0]
  --load-cpu N       the CPU of clients and backend                         [default: 1]
  --help             this text

idle    memory per idle connection, and CPU time while nothing happens
rr64    64-byte round trips over 32 connections
rr1     64-byte round trips over one connection
conn    connect, one 64-byte round trip, close; 16 at a time
bulk1   64 MiB to the backend, then 64 MiB back, over one connection
bulk16  the same 64 MiB spread over 16 connections
mixed   64-byte round trips on 50 of 1 000 connections beside one bulk stream: their latency
churn   conn while the table is republished 50 times a second; of Sheave only
many    conn through a table of 10 000 endpoints and 5 000 routes; of Sheave only
tls-    the same through TLS 1.3 that the proxy ends; tls-resumed is conn with resumed sessions
tls-storm  rr64 without and with 5 000 handshakes a second beside it that are never ended
sni-    the same after a ClientHello that the proxy routes by and passes on
";

pub(super) struct Options {
    pub(super) cases: Vec<Case>,
    pub(super) peers: Option<Vec<String>>,
    pub(super) baseline: Option<String>,
    pub(super) sheave: PathBuf,
    pub(super) others: Vec<(String, PathBuf)>,
    pub(super) rounds: usize,
    pub(super) time: Duration,
    pub(super) quick: bool,
    pub(super) json: Option<PathBuf>,
    pub(super) profile: Option<PathBuf>,
    pub(super) proxy_cpu: usize,
    pub(super) load_cpu: usize,
}

pub(super) enum Command {
    Run(Box<Options>),
    Help,
    Nothing,
}

pub(super) fn parse(arguments: impl Iterator<Item = String>) -> Result<Command> {
    let mut arguments = arguments.peekable();
    // `cargo test --all-targets` runs benchmarks too, without the `--bench` that `cargo bench` adds.
    if arguments.peek().is_none() {
        return Ok(Command::Nothing);
    }
    let mut options = Options {
        cases: Case::ALL.to_vec(),
        peers: None,
        baseline: None,
        sheave: PathBuf::from(env!("CARGO_BIN_EXE_sheave")),
        others: Vec::new(),
        rounds: 0,
        time: Duration::ZERO,
        quick: false,
        json: None,
        profile: None,
        proxy_cpu: 0,
        load_cpu: 1,
    };
    while let Some(flag) = arguments.next() {
        let (flag, given) = match flag.split_once('=') {
            Some((flag, value)) => (flag.to_owned(), Some(value.to_owned())),
            None => (flag, None),
        };
        let mut value = || given.clone().or_else(|| arguments.next());
        match flag.as_str() {
            "--bench" => {}
            "--help" | "-h" => return Ok(Command::Help),
            // Test runners ask every test binary for its tests; there are none.
            "--list" => return Ok(Command::Nothing),
            "--quick" => options.quick = true,
            _ => {
                let missing = || Error::new(format!("{flag} needs a value, or is unknown: --help"));
                set(&mut options, &flag, &value().ok_or_else(missing)?)?;
            }
        }
    }
    finish(options)
}

fn set(options: &mut Options, flag: &str, value: &str) -> Result<()> {
    match flag {
        "--cases" => options.cases = cases(value)?,
        "--peers" => options.peers = Some(value.split(',').map(str::to_owned).collect()),
        "--baseline" => options.baseline = Some(value.to_owned()),
        "--sheave" => options.sheave = value.into(),
        "--profile" => options.profile = Some(value.into()),
        "--json" => options.json = Some(value.into()),
        "--rounds" => options.rounds = value.parse().context(flag)?,
        "--proxy-cpu" => options.proxy_cpu = value.parse().context(flag)?,
        "--load-cpu" => options.load_cpu = value.parse().context(flag)?,
        "--seconds" => {
            let seconds = value.parse().context(flag)?;
            options.time = Duration::try_from_secs_f64(seconds).context(flag)?;
        }
        "--other" => {
            let named = value.split_once('=').filter(|(name, path)| !name.is_empty() && !path.is_empty());
            let (name, path) = named.ok_or_else(|| Error::new("--other takes NAME=PATH"))?;
            options.others.push((name.to_owned(), path.into()));
        }
        _ => {
            return Err(Error::new(format!("{flag} is unknown: --help lists the options")));
        }
    }
    Ok(())
}

fn cases(list: &str) -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for name in list.split(',') {
        let chosen: Vec<Case> = Case::ALL.into_iter().filter(|case| is_meant(*case, name)).collect();
        if chosen.is_empty() {
            let known: Vec<&str> = Case::ALL.iter().map(|case| case.name()).collect();
            return Err(Error::new(format!("no case {name:?}; there are {}", known.join(", "))));
        }
        cases.extend(chosen);
    }
    Ok(cases)
}

fn is_meant(case: Case, name: &str) -> bool {
    let is_bulk = matches!(case.work, Work::Bulk1 | Work::Bulk16);
    match name {
        "bulk" => is_bulk && case.layer == Layer::Plain,
        "plain" => case.layer == Layer::Plain,
        "tls" => matches!(case.layer, Layer::Tls | Layer::TlsResumed),
        "sni" => case.layer == Layer::Sni,
        name => case.name() == name,
    }
}

fn finish(mut options: Options) -> Result<Command> {
    let (rounds, seconds) = if options.quick { (3, 0.3) } else { (12, 1.0) };
    if options.rounds == 0 {
        options.rounds = rounds;
    }
    if options.time.is_zero() {
        options.time = Duration::from_secs_f64(seconds);
    }
    if options.rounds > 1000 || options.time > Duration::from_secs(60) {
        return Err(Error::new("at most 1000 rounds of 60 seconds"));
    }
    Ok(Command::Run(Box::new(options)))
}

impl Options {
    /// Whether any case needs more of a proxy than plain TCP.
    pub(super) fn needs_tls(&self) -> bool {
        self.cases.iter().any(|case| matches!(case.layer, Layer::Tls | Layer::TlsResumed | Layer::Sni))
    }

    /// Far more than a run should take: beyond it something hangs.
    pub(super) fn time_limit(&self) -> Duration {
        let peers = self.peers.as_ref().map_or(7 + self.others.len(), Vec::len) as u32;
        let measurement = self.time * 8 + Duration::from_secs(5);
        let rounds = measurement * self.rounds as u32 * peers * self.cases.len() as u32;
        rounds + Duration::from_secs(300)
    }
}

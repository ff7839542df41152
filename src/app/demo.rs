//! `sheave demo`: three echo endpoints and Sheave in front of them, in one process, to watch.
//!
//! What it sends, stops and starts is all on 127.0.0.1, and little.

mod echo;

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::config::{Config, Log, LogFormat, LogLevel};
use crate::telemetry::logging;

use super::{Instance, Options};
use echo::Echo;

const CONFIG: &str = include_str!("../../config/local.yaml");
/// One connection of the demo's own traffic in this time.
const TRAFFIC_INTERVAL: Duration = Duration::from_millis(50);
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// The second endpoint is stopped in this second of each round, and started again in that one.
const STOP_AT: u64 = 4;
const START_AT: u64 = 9;
const ROUND: u64 = 14;
const TIMEOUT: Duration = Duration::from_secs(5);

/// Runs the demo for `seconds`; 0: until Ctrl-C.
pub fn demo(seconds: u64) -> Result<(), String> {
    let mut config = Config::parse(CONFIG, "config/local.yaml").map_err(|errors| errors.to_string())?;
    config.access_log.enabled = false;
    config.log = Log { level: LogLevel::Warn, format: LogFormat::Text };
    let guard = logging::start(&config.log);
    let mut echoes = Vec::new();
    for endpoint in config.upstreams.iter().flat_map(|upstream| upstream.members.listed()) {
        let echo = Echo::start(endpoint.address).map_err(|error| {
            format!("cannot listen on {}: {error}; stop what uses that port", endpoint.address)
        })?;
        echoes.push(echo);
    }
    let again = config.clone();
    let options = Options {
        config,
        load: Box::new(move || Ok(again.clone())),
        config_file: None,
        handle_signals: true,
        access_log: Box::new(io::sink()),
        log: guard.level(),
    };
    let instance = Instance::start(options).map_err(|error| error.to_string())?;
    let listener = instance.listener_address("echo").ok_or("config/local.yaml has no listener echo")?;
    say(&introduction(listener, instance.admin_address()));
    let show = Show {
        listener,
        echoes,
        traffic: Arc::new(Traffic::new(instance.is_serving())),
        terminate: Box::new(instance.terminator()),
    };
    let ended = Arc::new(AtomicBool::new(false));
    let stage = thread::Builder::new().name("demo".into());
    let ended_too = Arc::clone(&ended);
    let show = stage.spawn(move || show.run(seconds, &ended_too)).map_err(|error| error.to_string())?;
    let result = instance.run().map_err(|error| error.to_string());
    ended.store(true, Ordering::Relaxed);
    let _its_panic_was_printed = show.join();
    result
}

fn introduction(listener: SocketAddr, admin: SocketAddr) -> String {
    format!(
        "Sheave listens on {listener} and spreads connections over three echo endpoints.\n\
         \n\
         Try it:        nc {} {}        (what you type comes back)\n\
         Look inside:   http://{admin}/ in a browser\n\
         \x20              curl http://{admin}/table\n\
         \x20              curl http://{admin}/connections\n\
         \x20              sheave top --admin {admin}\n\
         \x20              curl http://{admin}/metrics\n\
         End it:        Ctrl-C\n\
         \n\
         The demo opens some 20 connections a second itself. Every {ROUND} seconds it stops the second endpoint\n\
         and starts it again: watch its connections move to the others, and none fail.\n",
        listener.ip(),
        listener.port(),
    )
}

struct Show {
    listener: SocketAddr,
    echoes: Vec<Echo>,
    traffic: Arc<Traffic>,
    terminate: Box<dyn Fn() + Send>,
}

struct Traffic {
    carried: AtomicU64,
    failed: AtomicU64,
    ended: AtomicBool,
    /// `false` once Sheave takes no new connections: then failing is no failure.
    is_serving: Box<dyn Fn() -> bool + Send + Sync>,
    /// Held by an exchange, so that none is cut when an endpoint stops.
    exchanging: Mutex<()>,
}

impl Show {
    fn run(mut self, seconds: u64, ended: &AtomicBool) {
        let (traffic, listener) = (Arc::clone(&self.traffic), self.listener);
        let sender = thread::spawn(move || traffic.run(listener));
        let mut before: Vec<u64> = self.echoes.iter().map(Echo::connections).collect();
        let started = Instant::now();
        let mut second = 0;
        while !ended.load(Ordering::Relaxed) {
            if started.elapsed() < REPORT_INTERVAL * u32::try_from(second).unwrap_or(u32::MAX) {
                wait(Duration::from_millis(20));
                continue;
            }
            self.act(second % ROUND);
            before = self.report(second, &before);
            if seconds > 0 && second >= seconds {
                (self.terminate)();
                break;
            }
            second += 1;
        }
        self.traffic.ended.store(true, Ordering::Relaxed);
        let _its_panic_was_printed = sender.join();
        let (carried, failed) = self.traffic.totals();
        say(&format!("\n{carried} connections carried, {failed} failed.\n"));
    }

    fn act(&mut self, second: u64) {
        let Some(echo) = self.echoes.get_mut(1) else { return };
        let news = match second {
            STOP_AT => {
                let _between_exchanges =
                    self.traffic.exchanging.lock().unwrap_or_else(PoisonError::into_inner);
                echo.stop();
                "is stopped".to_owned()
            }
            START_AT => match echo.restart() {
                Ok(()) => "is started again".to_owned(),
                Err(error) => format!("cannot be started again: {error}"),
            },
            _ => return,
        };
        say(&format!("      --- endpoint {} {news} ---\n", echo.address()));
    }

    fn report(&self, second: u64, before: &[u64]) -> Vec<u64> {
        let now: Vec<u64> = self.echoes.iter().map(Echo::connections).collect();
        let mut line = format!("{second:>4} s ");
        for ((echo, now), before) in self.echoes.iter().zip(&now).zip(before) {
            let state = if echo.is_running() { format!("+{}", now - before) } else { "down".to_owned() };
            line.push_str(&format!("  {} {now:>5} {state:<5}", echo.address()));
        }
        let (carried, failed) = self.traffic.totals();
        say(&format!("{line}  carried {carried}, failed {failed}\n"));
        now
    }
}

impl Traffic {
    fn new(is_serving: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self {
            carried: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            is_serving: Box::new(is_serving),
            exchanging: Mutex::default(),
        }
    }

    fn run(&self, listener: SocketAddr) {
        let mut number = 0_u64;
        while !self.ended.load(Ordering::Relaxed) && (self.is_serving)() {
            number += 1;
            let exchanging = self.exchanging.lock().unwrap_or_else(PoisonError::into_inner);
            let result = exchange(listener, number);
            drop(exchanging);
            if result.is_ok() {
                self.carried.fetch_add(1, Ordering::Relaxed);
            } else if (self.is_serving)() {
                self.failed.fetch_add(1, Ordering::Relaxed);
            }
            wait(TRAFFIC_INTERVAL);
        }
    }

    fn totals(&self) -> (u64, u64) {
        (self.carried.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed))
    }
}

/// One connection: a line out, the same line back.
fn exchange(listener: SocketAddr, number: u64) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&listener, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let line = format!("hello {number}\n");
    stream.write_all(line.as_bytes())?;
    let mut answer = vec![0; line.len()];
    stream.read_exact(&mut answer)?;
    if answer == line.as_bytes() { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}

#[expect(clippy::disallowed_methods, reason = "the demo's own threads carry nothing but the demo")]
fn wait(duration: Duration) {
    thread::sleep(duration);
}

fn say(text: &str) {
    let _nobody_reads_on = io::stdout().write_all(text.as_bytes());
}

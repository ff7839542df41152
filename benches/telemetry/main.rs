//! What records of connections cost on the telemetry thread and on the one that sends traces, and whether memory stays flat.
//!
//! `cargo bench --bench telemetry`. Records of 20 000 connections a second are made up and handed over as workers do; the access
//! log goes to /dev/null, traces by OTLP over HTTP to a receiver in this process that throws them away. CPU time of each thread.

use std::error::Error;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use sheave::config::{AccessLog, LogFormat, MetricsOtlp, OtlpProtocol, Tracing};
use sheave::telemetry::otlp::Settings;
use sheave::telemetry::{Attempt, ConnectionRecord, Outcome, Report, Sinks, Timeline, Wants, trace_id};

const PER_SECOND: u64 = 20_000;
const SECONDS: u64 = 10;
/// Records are handed over this often, as many as are due.
const TICK: Duration = Duration::from_millis(1);
const THREADS: [&str; 2] = ["sheave-telemetr", "sheave-otlp"];

fn main() -> Result<(), Box<dyn Error>> {
    let receiver = receive()?;
    println!(
        "{:<22} {:>12} {:>12} {:>10} {:>10} {:>12} {:>12}",
        "records of 20 000/s", "telemetry", "sending", "lost", "spans", "spans lost", "RSS MiB"
    );
    for (name, log, share) in [
        ("nothing", false, None),
        ("log", true, None),
        ("log, traces 10 %", true, Some(0.1)),
        ("log, traces all", true, Some(1.0)),
    ] {
        println!("{name:<22} {}", measure(log, share, receiver)?);
    }
    Ok(())
}

/// A row: share of a core of either thread, losses, and resident memory after a third and at the end.
fn measure(log: bool, share: Option<f64>, receiver: SocketAddr) -> Result<String, Box<dyn Error>> {
    let log = AccessLog { enabled: log, sample: 1.0, format: LogFormat::Json };
    let tracing = Tracing {
        enabled: share.is_some(),
        endpoint: format!("http://{receiver}"),
        protocol: OtlpProtocol::HttpProtobuf,
        sample: share.unwrap_or_default(),
        slower_than: None,
    };
    let metrics = MetricsOtlp {
        enabled: false,
        endpoint: String::new(),
        protocol: OtlpProtocol::Grpc,
        interval: Duration::from_secs(60),
    };
    let sinks = Sinks::start(&log, Settings::new(&tracing, &metrics, []).traces, File::create("/dev/null")?)?;
    let (records, sampling) = (sinks.sender(), &sinks.views().sampling);
    let (started, before) = (Instant::now(), THREADS.map(cpu));
    let (mut made, mut lost, mut early) = (0, 0, 0.0);
    while made < PER_SECOND * SECONDS {
        let due = u64::try_from(started.elapsed().as_micros())? * PER_SECOND / 1_000_000;
        for id in made..due {
            let mut record = record(id);
            record.wants = sampling.wants(&record);
            lost += u64::from(record.wants.any() && records.try_send(Report::Ended(record)).is_err());
        }
        made = due.max(made);
        if early == 0.0 && made > PER_SECOND * SECONDS / 3 {
            early = resident()?;
        }
        thread::park_timeout(TICK);
    }
    let (took, after) = (started.elapsed(), THREADS.map(cpu));
    let late = resident()?;
    let share_of = |index: usize| {
        let used = after[index].unwrap_or_default().saturating_sub(before[index].unwrap_or_default());
        used.as_secs_f64() / took.as_secs_f64()
    };
    let spans = std::sync::Arc::clone(&sinks.views().spans);
    drop(records);
    sinks.finish();
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(std::sync::atomic::Ordering::Relaxed);
    Ok(format!(
        "{:>12.3} {:>12.3} {lost:>10} {:>10} {:>12} {early:>5.1} {late:>6.1}",
        share_of(0),
        share_of(1),
        count(&spans.exported),
        count(&spans.dropped_by_queue) + count(&spans.dropped_by_export),
    ))
}

/// One in a hundred was retried, one in two hundred failed.
fn record(id: u64) -> ConnectionRecord {
    let endpoint = SocketAddr::from(([10, 0, 0, 7], 5432));
    let at = |milliseconds| Some(Duration::from_millis(milliseconds));
    let attempt = |failure| Attempt {
        endpoint,
        started: Duration::from_micros(120),
        pod: None,
        local: None,
        handshake_started: None,
        ended: Duration::from_micros(450),
        failure,
        reason: None,
    };
    let refused = id.is_multiple_of(100).then(|| attempt(Some(Outcome::ConnectRefused)));
    ConnectionRecord {
        id,
        trace: trace_id(id),
        parent: None,
        wants: Wants::default(),
        worker: 0,
        client: ([192, 0, 2, 7], 40_000).into(),
        via: None,
        local: Some(([10, 0, 0, 1], 5432).into()),
        listener: "postgres".into(),
        route: Some("postgres".into()),
        upstream: Some("postgres".into()),
        service: None,
        endpoint: Some(endpoint),
        attempts: refused.into_iter().chain([attempt(None)]).collect(),
        bytes_received: 517,
        bytes_sent: 16_384,
        tls: None,
        timeline: Timeline {
            accepted: SystemTime::now(),
            proxy_ended: None,
            routed: at(0),
            connect_started: at(0),
            connect_ended: at(1),
            first_byte_downstream: at(1),
            first_byte_upstream: at(2),
            half_close_downstream: None,
            half_close_upstream: None,
            drain_started: None,
            ended: Duration::from_millis(3),
        },
        outcome: if id.is_multiple_of(200) { Outcome::UpstreamReset } else { Outcome::DownstreamClosed },
    }
}

/// Of all threads of this name (its first 15 letters).
fn cpu(name: &str) -> Option<Duration> {
    let tasks = fs::read_dir("/proc/self/task").ok()?.flatten();
    let ours = tasks.filter(|task| read(&task.path(), "comm").trim() == name);
    // The first number is the time on a core, in nanoseconds.
    let times =
        ours.filter_map(|task| read(&task.path(), "schedstat").split(' ').next()?.parse::<u64>().ok());
    Some(Duration::from_nanos(times.sum()))
}

fn read(task: &Path, file: &str) -> String {
    fs::read_to_string(task.join(file)).unwrap_or_default()
}

/// In MiB.
fn resident() -> Result<f64, Box<dyn Error>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).ok_or("no RssAnon")?;
    let kibibytes: u32 = line.split_whitespace().next().ok_or("no number")?.parse()?;
    Ok(f64::from(kibibytes) / 1024.0)
}

/// Takes requests and throws them away.
fn receive() -> Result<SocketAddr, Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || take_all(stream));
        }
    });
    Ok(address)
}

fn take_all(stream: TcpStream) -> Option<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
            if line == "\r\n" {
                break;
            }
        }
        std::io::copy(&mut reader.by_ref().take(length), &mut std::io::sink()).ok()?;
        reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").ok()?;
    }
}

//! Who takes the traces of an observed Sheave: OTLP over HTTP on the load's core, counted and thrown away.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Context, Error, Result};
use crate::process;

/// Longer than Sheave lets spans wait, so that after such a silence none is on its way.
const SILENCE: Duration = Duration::from_millis(1_100);
/// A queue that is full is sent in far less.
const PATIENCE: Duration = Duration::from_secs(20);
/// With fewer expected traces it is chance how many a sample keeps.
const ENOUGH: f64 = 100.0;
/// Spans that the connection itself has, by their kind.
const SERVER: u64 = 2;

pub(super) struct Receiver {
    pub(super) address: SocketAddr,
    pub(super) arrived: Arc<Arrived>,
}

/// What came.
#[derive(Default)]
pub(super) struct Arrived {
    requests: AtomicU64,
    /// Each trace has one root.
    roots: AtomicU64,
    last: Mutex<Option<Instant>>,
}

impl Receiver {
    /// It ends with the process.
    pub(super) fn start(cpu: usize) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("receiver of traces")?;
        let address = listener.local_addr().context("receiver of traces")?;
        let arrived = Arc::<Arrived>::default();
        let counting = Arc::clone(&arrived);
        let run = move || {
            if let Err(error) = process::pin_this_thread(cpu) {
                eprintln!("compare: receiver of traces: {error}");
                return;
            }
            for stream in listener.incoming().flatten() {
                let counting = Arc::clone(&counting);
                thread::spawn(move || {
                    if let Err(error) = serve(stream, &counting) {
                        eprintln!("compare: receiver of traces: {error}");
                    }
                });
            }
        };
        thread::Builder::new().name("receiver".into()).spawn(run).context("receiver of traces")?;
        Ok(Self { address, arrived })
    }
}

impl Arrived {
    /// Waits until nothing more is on its way: it belongs to what was measured, and to nothing after it.
    pub(super) fn settle(&self) -> Result<()> {
        let started = Instant::now();
        loop {
            let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).unwrap_or(started);
            let silence = last.max(started).elapsed();
            if silence >= SILENCE {
                return Ok(());
            }
            if started.elapsed() > PATIENCE {
                return Err(Error::new(format!("traces still come {PATIENCE:?} after the last connection")));
            }
            thread::sleep(SILENCE - silence);
        }
    }

    /// Compares with what a share of so many connections would be. What is to be noted beside the figures.
    pub(super) fn check(&self, connections: u64, share: f64) -> Result<Option<String>> {
        let (requests, roots) = (self.requests.load(Ordering::Acquire), self.roots.load(Ordering::Acquire));
        let expected = connections as f64 * share;
        let part = roots as f64 / expected;
        if expected >= ENOUGH && part < 0.5 {
            return Err(Error::new(format!(
                "only {roots} traces arrived, in {requests} requests, where {expected:.0} of {connections} connections \
                 were expected: what observing costs was not measured"
            )));
        }
        let is_short = expected >= ENOUGH && share >= 1.0 && part < 0.99;
        let lost = (1.0 - part) * 100.0;
        Ok(is_short
            .then(|| format!("{lost:.0} % of its traces were dropped: it costs more than is told here")))
    }

    fn count(&self, roots: u64) {
        self.requests.fetch_add(1, Ordering::Release);
        self.roots.fetch_add(roots, Ordering::Release);
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }
}

/// One request after the other, until the sender closes.
fn serve(stream: TcpStream, arrived: &Arrived) -> io::Result<()> {
    let mut reader = BufReader::with_capacity(1 << 16, stream);
    let (mut line, mut body) = (String::new(), Vec::new());
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let is_meant = line.starts_with("POST /v1/traces ");
        let mut length = 0;
        while line.trim_end() != "" {
            line.clear();
            reader.read_line(&mut line)?;
            if let Some(("content-length", value)) = line.to_ascii_lowercase().trim_end().split_once(": ") {
                length = value.parse().map_err(io::Error::other)?;
            }
        }
        body.resize(length, 0);
        reader.read_exact(&mut body)?;
        let roots = if is_meant { roots(&body) } else { None };
        let status = if roots.is_some() { "200 OK" } else { "400 Bad Request" };
        arrived.count(roots.unwrap_or_default());
        let head =
            format!("HTTP/1.1 {status}\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n");
        reader.get_mut().write_all(head.as_bytes())?;
    }
}

/// How many traces begin in an `ExportTraceServiceRequest`. Only read as far as that takes: the core is the load's.
fn roots(request: &[u8]) -> Option<u64> {
    let mut roots = 0;
    each(request, |field| match field {
        (1, Value::Bytes(of_resource)) => each(of_resource, |field| match field {
            (2, Value::Bytes(of_scope)) => each(of_scope, |field| match field {
                (2, Value::Bytes(span)) => each(span, |field| {
                    roots += u64::from(matches!(field, (6, Value::Number(SERVER))));
                    Some(())
                }),
                _ => Some(()),
            }),
            _ => Some(()),
        }),
        _ => Some(()),
    })?;
    Some(roots)
}

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Other,
}

/// `take` of every field of a protobuf message, by its number; `None`: it is none.
fn each<'a>(mut message: &'a [u8], mut take: impl FnMut((u64, Value<'a>)) -> Option<()>) -> Option<()> {
    while !message.is_empty() {
        let key = number(&mut message)?;
        let value = match key & 7 {
            0 => Value::Number(number(&mut message)?),
            1 => message.split_off(..8).map(|_| Value::Other)?,
            2 => {
                let length = usize::try_from(number(&mut message)?).ok()?;
                Value::Bytes(message.split_off(..length)?)
            }
            5 => message.split_off(..4).map(|_| Value::Other)?,
            _ => return None,
        };
        take((key >> 3, value))?;
    }
    Some(())
}

fn number(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *message.split_off_first()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

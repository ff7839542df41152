//! The connections of the API server, each on a thread of its own.

use std::io::{self, BufReader, Write};
use std::net::{Shutdown, TcpStream};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::{RecvFlags, recv};
use serde_json::{Value, json};

use super::{Event, Gone, Reply, Request, Shared, State, Verb};

/// How often who waits looks whether the client has left.
const LOOK: Duration = Duration::from_millis(20);

/// Serves one connection in the background.
pub(super) fn serve(shared: &Arc<Shared>, stream: TcpStream) {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let id = NEXT.fetch_add(1, Ordering::Relaxed);
    stream.set_nodelay(true).unwrap();
    shared.lock().connections.insert(id, stream.try_clone().unwrap());
    let connection = Connection { id, stream, shared: Arc::clone(shared) };
    thread::spawn(move || {
        // It ends with an error when the client leaves or the test breaks it.
        connection.run().ok();
    });
}

struct Connection {
    id: u64,
    stream: TcpStream,
    shared: Arc<Shared>,
}

impl Connection {
    fn run(&self) -> io::Result<()> {
        let mut reader = BufReader::new(self.stream.try_clone()?);
        while let Some(request) = Request::read(&mut reader) {
            let script = {
                let mut state = self.shared.lock();
                state.requests.push(request.clone());
                Arc::clone(&state.script)
            };
            match script(&request) {
                Reply::Served => self.answer(&request)?,
                Reply::Status(code) => self.send(code, &status(code))?,
                Reply::Hang => return self.wait(|_| ControlFlow::<()>::Continue(())),
                Reply::Break => return Ok(()),
            }
        }
        Ok(())
    }

    fn answer(&self, request: &Request) -> io::Result<()> {
        match request.verb {
            Verb::List => {
                let page = page(&self.shared.lock(), request);
                match page {
                    Ok(page) => self.send(200, &page),
                    Err(code) => self.send(code, &status(code)),
                }
            }
            Verb::Watch => self.watch(request),
            Verb::Other => self.send(404, &status(404)),
        }
    }

    fn watch(&self, request: &Request) -> io::Result<()> {
        let from = request.number("resourceVersion").unwrap_or_default();
        let (is_gone, gone) = {
            let state = self.shared.lock();
            (from < state.oldest, state.gone)
        };
        if is_gone && gone == Gone::AsStatus {
            return self.send(410, &status(410));
        }
        (&self.stream).write_all(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
        )?;
        if is_gone {
            self.chunk(&format!("{}\n", json!({"type": "ERROR", "object": status(410)})))?;
        } else {
            self.shared.lock().watches.insert(self.id, request.clone());
            let ended = self.follow(request, from);
            self.shared.lock().watches.remove(&self.id);
            ended?;
        }
        (&self.stream).write_all(b"0\r\n\r\n")
    }

    /// Tells what happens, until the watch is to end.
    fn follow(&self, request: &Request, from: u64) -> io::Result<()> {
        let seconds = request.number("timeoutSeconds").unwrap_or(3600);
        let until = Instant::now() + Duration::from_secs(seconds);
        let (mut told, ended) = {
            let state = self.shared.lock();
            (state.events.partition_point(|event| event.version <= from), state.ended)
        };
        loop {
            let mut lines = String::new();
            self.wait(|state| {
                let is_over = state.ended > ended || Instant::now() >= until;
                let news = &state.events[told..];
                lines = news.iter().filter_map(|event| event.line(request)).collect();
                told += news.len();
                if is_over || !lines.is_empty() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })?;
            if lines.is_empty() {
                return Ok(());
            }
            self.chunk(&lines)?;
        }
    }

    /// Looks at each change until there is no need to any more; the error is that the client has left.
    fn wait<T>(&self, mut look: impl FnMut(&State) -> ControlFlow<T>) -> io::Result<()> {
        let mut state = self.shared.lock();
        while look(&state).is_continue() {
            state = self.shared.changed.wait_timeout(state, LOOK).unwrap().0;
            match recv(&self.stream, &mut [0_u8], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(error) if error != rustix::io::Errno::AGAIN => return Err(error.into()),
                _ => {}
            }
        }
        Ok(())
    }

    fn send(&self, code: u16, body: &Value) -> io::Result<()> {
        let body = body.to_string();
        let length = body.len();
        let head = "Content-Type: application/json\r\nContent-Length";
        (&self.stream).write_all(format!("HTTP/1.1 {code} .\r\n{head}: {length}\r\n\r\n{body}").as_bytes())
    }

    fn chunk(&self, text: &str) -> io::Result<()> {
        (&self.stream).write_all(format!("{:x}\r\n{text}\r\n", text.len()).as_bytes())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // The copy of it that the state has must not hold it open.
        self.stream.shutdown(Shutdown::Both).ok();
        if let Ok(mut state) = self.shared.state.lock() {
            state.connections.remove(&self.id);
        }
    }
}

impl Event {
    /// What it means to this watch; nothing, if it is about other objects.
    fn line(&self, request: &Request) -> Option<String> {
        let selected = |object: &Option<Value>| object.clone().filter(|object| request.selects(object));
        let version = self.version.to_string();
        let (kind, object) = match (selected(&self.before), selected(&self.after)) {
            (None, Some(after)) => ("ADDED", after),
            (Some(_), Some(after)) => ("MODIFIED", after),
            (Some(mut before), None) => {
                before["metadata"]["resourceVersion"] = version.into();
                ("DELETED", before)
            }
            (None, None) if self.before.is_none() && self.after.is_none() => {
                let object =
                    json!({"kind": "Any", "apiVersion": "v1", "metadata": {"resourceVersion": version}});
                ("BOOKMARK", object)
            }
            (None, None) => return None,
        };
        Some(format!("{}\n", json!({"type": kind, "object": object})))
    }
}

/// A page of a list. Its token is the version of the first page and the last object that was listed; objects are
/// as they are now, and what has changed meanwhile comes again when the version is watched.
fn page(state: &State, request: &Request) -> Result<Value, u16> {
    let token = request.parameter("continue").and_then(|token| token.split_once(' '));
    let version = token.map_or(state.version, |(version, _)| version.parse().unwrap());
    if version < state.oldest {
        return Err(410);
    }
    let after = token.map_or("", |(_, name)| name);
    let size = state.page.min(request.number("limit").map_or(usize::MAX, |limit| limit.try_into().unwrap()));
    let objects = state.objects.iter();
    let mut rest = objects
        .filter(|((_, _, name), object)| name.as_str() > after && request.selects(object))
        .map(|((_, _, name), object)| (name, object))
        .peekable();
    let (mut items, mut last) = (Vec::new(), None);
    while let Some((name, object)) = rest.next_if(|_| items.len() < size) {
        items.push(object);
        last = Some(name);
    }
    let next = last.filter(|_| rest.peek().is_some()).map(|last| format!("{version} {last}"));
    let kind = if request.resource == "services" { "ServiceList" } else { "EndpointSliceList" };
    Ok(json!({
        "kind": kind,
        "apiVersion": "v1",
        "metadata": {"resourceVersion": version.to_string(), "continue": next.unwrap_or_default()},
        "items": items,
    }))
}

fn status(code: u16) -> Value {
    json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": format!("the test wants a {code}"),
        "reason": "Scripted",
        "code": code,
    })
}

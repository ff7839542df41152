//! A Kubernetes API server that a test owns: list and watch of Services, EndpointSlices, Secrets and ConfigMaps over plain HTTP, which does
//! on demand what a real one does on its worst days.
//!
//! It has no validation and no permissions of its own, and it forgets nothing unless told to.

mod http;
mod request;

use std::collections::{BTreeMap, HashMap};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;

use serde_json::Value;
use socket2::{Domain, Socket, Type};

pub(crate) use request::{Request, Verb};

/// Ends with its value, and so do all its connections.
pub(crate) struct ApiServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    listener: Mutex<Option<Arc<Socket>>>,
    /// Bound and never listening, so that the port stays ours while nobody listens.
    _port: Socket,
    directory: tempfile::TempDir,
}

/// What a request gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// What it asks for.
    Served,
    /// An error of this code.
    Status(u16),
    /// Nothing, with the connection open.
    Hang,
    /// The end of the connection.
    Break,
}

/// How a watch learns that the version that it starts from is forgotten; servers do either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gone {
    AsStatus,
    AsEvent,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    version: u64,
    /// By resource, namespace and name.
    objects: BTreeMap<(String, String, String), Value>,
    events: Vec<Event>,
    /// What was before is forgotten.
    oldest: u64,
    gone: Gone,
    /// Objects in a page of a list, if fewer than the client would take.
    page: usize,
    script: Script,
    requests: Vec<Request>,
    connections: HashMap<u64, TcpStream>,
    watches: HashMap<u64, Request>,
    /// Watches of before have ended when this has grown.
    ended: u64,
}

type Script = Arc<dyn Fn(&Request) -> Reply + Send + Sync>;

/// Something that happened to an object, or `None` to both: a bookmark for everybody.
struct Event {
    version: u64,
    before: Option<Value>,
    after: Option<Value>,
}

impl ApiServer {
    pub(crate) fn start() -> Self {
        let port = reusable_socket("127.0.0.1:0".parse().unwrap());
        let address = port.local_addr().unwrap().as_socket().unwrap();
        let state = State {
            version: 1,
            objects: BTreeMap::new(),
            events: Vec::new(),
            oldest: 0,
            gone: Gone::AsStatus,
            page: usize::MAX,
            script: Arc::new(|_| Reply::Served),
            requests: Vec::new(),
            connections: HashMap::new(),
            watches: HashMap::new(),
            ended: 0,
        };
        let server = Self {
            address,
            shared: Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() }),
            listener: Mutex::new(None),
            _port: port,
            directory: tempfile::tempdir().unwrap(),
        };
        std::fs::write(server.directory.path().join("kubeconfig"), server.kubeconfig()).unwrap();
        server.resume();
        server
    }

    /// The line of a configuration file that leads here.
    pub(crate) fn top(&self) -> String {
        format!("kubernetes: {{kubeconfig: {:?}}}", self.directory.path().join("kubeconfig"))
    }

    /// A kubeconfig file that leads here.
    pub(crate) fn kubeconfig(&self) -> String {
        let server = format!("http://{}", self.address);
        let config = serde_json::json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "scripted", "cluster": {"server": server}}],
            "users": [{"name": "anyone", "user": {}}],
            "contexts": [{"name": "scripted", "context": {"cluster": "scripted", "user": "anyone"}}],
            "current-context": "scripted",
        });
        config.to_string()
    }

    pub(crate) fn put(&self, object: Value) {
        self.put_all([object]);
    }

    /// Creates or replaces them, in this order and at one blow.
    pub(crate) fn put_all(&self, objects: impl IntoIterator<Item = Value>) {
        self.change(|state| {
            for mut object in objects {
                state.version += 1;
                object["metadata"]["resourceVersion"] = state.version.to_string().into();
                let before = state.objects.insert(key(&object), object.clone());
                state.events.push(Event { version: state.version, before, after: Some(object) });
            }
        });
    }

    /// Deletes this object, by its kind, namespace and name.
    pub(crate) fn delete(&self, object: &Value) {
        self.change(|state| {
            let mut before = state.objects.remove(&key(object)).expect("what is deleted has been put");
            state.version += 1;
            before["metadata"]["resourceVersion"] = state.version.to_string().into();
            state.events.push(Event { version: state.version, before: Some(before), after: None });
        });
    }

    /// Tells all watches how far they have come.
    pub(crate) fn bookmark(&self) {
        self.change(|state| {
            state.version += 1;
            state.events.push(Event { version: state.version, before: None, after: None });
        });
    }

    /// Answers requests that come from now on in this way.
    pub(crate) fn reply(&self, script: impl Fn(&Request) -> Reply + Send + Sync + 'static) {
        self.change(|state| state.script = Arc::new(script));
    }

    /// Lists no more than this many objects in a page.
    pub(crate) fn page(&self, objects: usize) {
        self.change(|state| state.page = objects);
    }

    /// Forgets what happened so far; who wants to go on from there learns it in this way.
    pub(crate) fn compact(&self, gone: Gone) {
        self.change(|state| {
            state.version += 1;
            (state.oldest, state.gone) = (state.version, gone);
        });
    }

    /// Ends all watches in good order, as a server does after a while.
    pub(crate) fn end_watches(&self) {
        self.change(|state| state.ended += 1);
    }

    pub(crate) fn break_connections(&self) {
        self.change(|state| {
            for connection in state.connections.values() {
                // Some have ended by themselves.
                connection.shutdown(Shutdown::Both).ok();
            }
        });
    }

    /// Refuses connections, and ends those there are.
    pub(crate) fn stop(&self) {
        if let Some(listener) = self.listener.lock().unwrap().take() {
            // Wakes the accept, after which the thread drops the socket.
            listener.shutdown(Shutdown::Both).unwrap();
        }
        self.break_connections();
    }

    /// Accepts connections again, where it did before.
    pub(crate) fn resume(&self) {
        let listener = Arc::new(reusable_socket(self.address));
        listener.listen(64).unwrap();
        *self.listener.lock().unwrap() = Some(Arc::clone(&listener));
        let shared = Arc::clone(&self.shared);
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                http::serve(&shared, stream.into());
            }
        });
    }

    /// All requests so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.shared.lock().requests.clone()
    }

    /// How many requests of this kind there were.
    pub(crate) fn count(&self, verb: Verb, resource: &str) -> usize {
        let is_one = |request: &&Request| request.verb == verb && request.resource == resource;
        self.shared.lock().requests.iter().filter(is_one).count()
    }

    /// The watches that are open.
    pub(crate) fn watches(&self) -> Vec<Request> {
        self.shared.lock().watches.values().cloned().collect()
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.shared.lock());
        self.shared.changed.notify_all();
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.reply(|_| Reply::Break);
        self.stop();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

/// Several of them can be bound to one address.
fn reusable_socket(address: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM.cloexec(), None).unwrap();
    socket.set_reuse_port(true).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&address.into()).unwrap();
    socket
}

fn key(object: &Value) -> (String, String, String) {
    let text =
        |value: &Value| value.as_str().expect("an object has a kind, a namespace and a name").to_owned();
    let metadata = &object["metadata"];
    let resource = format!("{}s", text(&object["kind"]).to_ascii_lowercase());
    (resource, text(&metadata["namespace"]), text(&metadata["name"]))
}

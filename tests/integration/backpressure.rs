//! A reader that stops reading throttles the writer, at a bounded cost of memory.

mod splicing;

use std::fs;
use std::io::{ErrorKind, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use socket2::{Domain, Socket, Type};

use crate::support::{
    DEADLINE, Driver, Endpoint, Pattern, Process, Proxy, Settings, connect, on_both_drivers, until_still,
    write_until_stuck,
};

on_both_drivers!(
    a_client_is_throttled,
    a_server_is_throttled,
    stuck_connections_cost_little_memory,
    all_read_buffers_may_be_stuck,
);

/// Of the test's own sockets; the kernel doubles it.
const BUFFER: usize = 32 * 1024;
/// As on a real network, not the 64 KiB of loopback.
const SEGMENT: u32 = 1400;
const MORE: usize = 8 * 1024 * 1024;

fn a_client_is_throttled(driver: Driver) {
    let (go, may_go) = flume::bounded::<()>(0);
    let (report, read) = flume::bounded(1);
    let slow = narrow_endpoint(move |stream| {
        wait_for(&may_go);
        report.send(Pattern::new(1).read_to_end(&stream)).unwrap();
    });
    let echo = Endpoint::echo();
    let proxy = Proxy::start(&settings(driver, &slow, &echo));
    let client = narrow_client(proxy.address);
    let sent = write_until_stuck(&Pattern::new(1), 0, &client);
    assert_bounded(sent);
    assert_echoes(proxy.listener("echo"));
    drop(go);
    Pattern::new(1).write(sent..sent + MORE, &client);
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read.recv_timeout(DEADLINE), Ok(sent + MORE));
}

fn a_server_is_throttled(driver: Driver) {
    let (report, written) = flume::bounded(1);
    let fast = narrow_endpoint(move |stream| {
        let sent = write_until_stuck(&Pattern::new(1), 0, &stream);
        report.send(sent).unwrap();
        Pattern::new(1).write(sent..sent + MORE, &stream);
    });
    let echo = Endpoint::echo();
    let proxy = Proxy::start(&settings(driver, &fast, &echo));
    let client = narrow_client(proxy.address);
    let sent = written.recv_timeout(DEADLINE).unwrap();
    assert_bounded(sent);
    assert_echoes(proxy.listener("echo"));
    assert_eq!(Pattern::new(1).read_to_end(&client), sent + MORE);
}

/// Both directions of each are stuck, far more than there are pipes and read buffers.
fn stuck_connections_cost_little_memory(driver: Driver) {
    const MOST: usize = 256 * 1024;
    let written = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&written);
    let endpoint = narrow_endpoint(move |mut stream| {
        while let Ok(length) = stream.write(&[0; 16 * 1024]) {
            count.fetch_add(length, Ordering::Relaxed);
        }
    });
    let echo = Endpoint::echo();
    let process = Process::start(&settings(driver, &endpoint, &echo), |_| {});
    let address = process.listener("main");
    let stuck = |count: usize| {
        let clients: Vec<TcpStream> = (0..count).map(|_| narrow_client(address)).collect();
        write_all_until_stuck(&clients);
        until_still("the servers' bytes", || written.load(Ordering::Relaxed));
        (clients, anonymous_memory(process.id()))
    };
    let (_warm_up, before) = stuck(50);
    let (clients, after) = stuck(200);
    assert_echoes(process.listener("echo"));
    let each = after.saturating_sub(before) / clients.len();
    assert!(each < MOST, "{each} bytes for each stuck connection: {before} before, {after} after");
}

/// Reads that find no buffer of the worker free take memory of their own; everybody goes on.
fn all_read_buffers_may_be_stuck(driver: Driver) {
    const CLIENTS: usize = 400;
    let (go, may_go) = flume::bounded::<()>(0);
    let (report, read) = flume::bounded(CLIENTS);
    let slow = narrow_endpoint(move |stream| {
        wait_for(&may_go);
        report.send(Pattern::new(1).read_to_end(&stream)).unwrap();
    });
    let echo = Endpoint::echo();
    let proxy = Proxy::start(&settings(driver, &slow, &echo));
    let clients: Vec<TcpStream> = (0..CLIENTS).map(|_| narrow_client(proxy.address)).collect();
    let sent = write_all_until_stuck(&clients);
    assert_echoes(proxy.listener("echo"));
    let fallbacks = proxy.metric("sheave_worker_buffer_fallbacks_total", &[]);
    assert_eq!(fallbacks > 0.0, driver == Driver::IoUring, "{fallbacks} fallbacks");
    drop(go);
    for client in &clients {
        client.shutdown(Shutdown::Write).unwrap();
    }
    let total: usize = (0..CLIENTS).map(|_| read.recv_timeout(DEADLINE).unwrap()).sum();
    assert_eq!(total, sent);
    assert_echoes(proxy.listener("echo"));
}

/// One worker, with a second listener in front of `echo`.
fn settings(driver: Driver, main: &Endpoint, echo: &Endpoint) -> Settings {
    let mut settings = Settings::new(driver, &[main.address]);
    settings.workers = 1;
    settings.more_listeners.push("{name: echo, address: \"127.0.0.2:0\"}".to_owned());
    settings.more_routes.push("{name: echo, listener: echo, backendRefs: [{upstream: echo}]}".to_owned());
    settings.more_upstreams.push(format!("{{name: echo, endpoints: [{{address: \"{}\"}}]}}", echo.address));
    settings
}

/// A client with small buffers. The small segments keep the kernel from giving Sheave's own sockets much memory either.
fn narrow_client(address: SocketAddr) -> TcpStream {
    let socket = narrow_socket();
    socket.connect_timeout(&address.into(), DEADLINE).unwrap();
    let client = TcpStream::from(socket);
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    client.set_write_timeout(Some(DEADLINE)).unwrap();
    client
}

/// An endpoint whose connections are as those of such a client.
fn narrow_endpoint(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Endpoint {
    let socket = narrow_socket();
    socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    socket.listen(1024).unwrap();
    Endpoint::start_with(socket.into(), serve)
}

fn narrow_socket() -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM.cloexec(), None).unwrap();
    socket.set_send_buffer_size(BUFFER).unwrap();
    socket.set_recv_buffer_size(BUFFER).unwrap();
    socket.set_tcp_mss(SEGMENT).unwrap();
    socket
}

/// Until the other end of the channel is dropped.
fn wait_for(may_go: &flume::Receiver<()>) {
    assert_eq!(may_go.recv_timeout(DEADLINE), Err(flume::RecvTimeoutError::Disconnected));
}

/// Writes the first pattern to each until none takes any more; how many bytes all of them took.
fn write_all_until_stuck(streams: &[TcpStream]) -> usize {
    let pattern = Pattern::new(1);
    let mut offsets = vec![0; streams.len()];
    for stream in streams {
        stream.set_nonblocking(true).unwrap();
    }
    let total = until_still("bytes taken from all writers", || {
        for (mut stream, offset) in streams.iter().zip(&mut offsets) {
            match stream.write(pattern.at(*offset)) {
                Ok(length) => *offset += length,
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
        }
        offsets.iter().sum()
    });
    for stream in streams {
        stream.set_nonblocking(false).unwrap();
    }
    total
}

/// What a stuck writer got rid of is no more than what the buffers on the way may hold: two sockets of Sheave's as large
/// as the kernel lets them grow, two small ones of the test's, and what Sheave itself holds.
fn assert_bounded(bytes: usize) {
    let own = 4 * BUFFER + 256 * 1024;
    let most = largest_buffer("tcp_rmem") + largest_buffer("tcp_wmem") + own;
    assert!(bytes < most, "{bytes} bytes taken, {most} fit on the way");
}

fn largest_buffer(setting: &str) -> usize {
    let sizes = fs::read_to_string(format!("/proc/sys/net/ipv4/{setting}")).unwrap();
    sizes.split_whitespace().last().unwrap().parse().unwrap()
}

/// Another connection of the same worker is served meanwhile, bulk too.
fn assert_echoes(address: SocketAddr) {
    let client = connect(address);
    let echoed = thread::scope(|scope| {
        scope.spawn(|| {
            Pattern::new(3).write(0..MORE, &client);
            client.shutdown(Shutdown::Write).unwrap();
        });
        Pattern::new(3).read_to_end(&client)
    });
    assert_eq!(echoed, MORE);
}

/// Memory that is the process's own, in RAM; bytes.
fn anonymous_memory(process: u32) -> usize {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

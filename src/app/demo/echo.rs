//! An endpoint for the demo: sends back what it gets, a thread per connection.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

pub(super) struct Echo {
    address: SocketAddr,
    running: Arc<Running>,
    listening: Option<JoinHandle<()>>,
    connections: Arc<AtomicU64>,
}

#[derive(Default)]
struct Running {
    stopped: AtomicBool,
    live: Mutex<Vec<TcpStream>>,
}

impl Echo {
    pub(super) fn start(address: SocketAddr) -> io::Result<Self> {
        let connections = Arc::default();
        let (running, listening) = serve(address, &connections)?;
        Ok(Self { address, running, listening: Some(listening), connections })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections so far.
    pub(super) fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    pub(super) fn is_running(&self) -> bool {
        !self.running.stopped.load(Ordering::Relaxed)
    }

    /// Closes its connections, and has stopped listening when this returns.
    pub(super) fn stop(&mut self) {
        self.running.stopped.store(true, Ordering::Relaxed);
        // Wakes the accept, which then sees that it is over.
        let _refused_is_stopped_too = TcpStream::connect(self.address);
        if let Some(listening) = self.listening.take() {
            let _its_panic_was_printed = listening.join();
        }
        for stream in self.running.live.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _gone_already = stream.shutdown(Shutdown::Both);
        }
    }

    pub(super) fn restart(&mut self) -> io::Result<()> {
        let (running, listening) = serve(self.address, &self.connections)?;
        (self.running, self.listening) = (running, Some(listening));
        Ok(())
    }
}

fn serve(address: SocketAddr, connections: &Arc<AtomicU64>) -> io::Result<(Arc<Running>, JoinHandle<()>)> {
    let listener = TcpListener::bind(address)?;
    let running = Arc::new(Running::default());
    let (accepting, connections) = (Arc::clone(&running), Arc::clone(connections));
    let listening = thread::Builder::new().name("demo-echo".into()).spawn(move || {
        for stream in listener.incoming().flatten() {
            if accepting.stopped.load(Ordering::Relaxed) {
                return;
            }
            connections.fetch_add(1, Ordering::Relaxed);
            let mut live = accepting.live.lock().unwrap_or_else(PoisonError::into_inner);
            live.retain(|stream| stream.peer_addr().is_ok());
            live.extend(stream.try_clone());
            drop(live);
            let _no_thread_no_echo = thread::Builder::new().spawn(move || echo(stream));
        }
    })?;
    Ok((running, listening))
}

fn echo(mut stream: TcpStream) {
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
    let _gone_already = stream.shutdown(Shutdown::Both);
}

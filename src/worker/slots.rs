//! The listening sockets of one worker, reconciled with each new table.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::TcpKeepalive;

use crate::routing::publish::BoundListener;
use crate::routing::{Listener, RouteTable};
use crate::shutdown::Phase;

use super::runtime::ListenSocket;
use super::{Worker, accept};

/// One listening socket, and the listener that it serves at the moment.
pub(super) struct Slot {
    pub(super) socket: ListenSocket,
    pub(super) listener: RefCell<Arc<Listener>>,
    /// No new connections; what waits in its queue is still served.
    pub(super) closing: Cell<bool>,
}

/// By the address in the configuration: a listener that only changes its policies keeps its socket.
#[derive(Default)]
pub(super) struct Slots {
    open: RefCell<HashMap<SocketAddr, Rc<Slot>>>,
    /// Sockets that still accept, those that are closing included.
    pub(super) accepting: Cell<usize>,
}

impl Slots {
    /// Takes over new sockets, gives each socket its listener of `table`, and closes those that lost theirs.
    pub(super) fn apply(&self, worker: &Rc<Worker>, table: &RouteTable, sockets: Vec<BoundListener>) {
        for BoundListener { address, socket } in sockets {
            let Some(listener) = table.listener_at(address) else { continue };
            match ListenSocket::new(socket) {
                Ok(socket) => self.open(worker, address, socket, listener),
                Err(error) => {
                    tracing::error!(listener = %listener.name, %error, "a listening socket is unusable")
                }
            }
        }
        let open: Vec<(SocketAddr, Rc<Slot>)> =
            self.open.borrow().iter().map(|(address, slot)| (*address, Rc::clone(slot))).collect();
        for (address, slot) in open {
            match table.listener_at(address) {
                Some(listener) => slot.serve(worker, listener),
                None => self.close(worker, address, table.drain_timeout),
            }
        }
        // This table was on its way when the drain began.
        if let Phase::Draining { since, until } = worker.drain.phase() {
            self.close_all(worker, until - since);
        }
    }

    /// Closes all of them, for the end of the process.
    pub(super) fn close_all(&self, worker: &Rc<Worker>, within: Duration) {
        let addresses: Vec<SocketAddr> = self.open.borrow().keys().copied().collect();
        for address in addresses {
            self.close(worker, address, within);
        }
    }

    fn open(&self, worker: &Rc<Worker>, address: SocketAddr, socket: ListenSocket, listener: &Arc<Listener>) {
        let slot =
            Rc::new(Slot { socket, listener: RefCell::new(Arc::clone(listener)), closing: Cell::new(false) });
        slot.keep_alive(listener);
        worker.context.registry.count_sources(listener);
        // Its address left and came back with tables that this worker has skipped.
        self.close(worker, address, accept::QUIET);
        self.accepting.set(self.accepting.get() + 1);
        self.open.borrow_mut().insert(address, Rc::clone(&slot));
        worker.spawn_vital(|worker| async move {
            accept::run(&worker, &slot).await;
            worker.slots.accepting.set(worker.slots.accepting.get() - 1);
        });
    }

    fn close(&self, worker: &Rc<Worker>, address: SocketAddr, within: Duration) {
        let Some(slot) = self.open.borrow_mut().remove(&address) else { return };
        slot.closing.set(true);
        let refused = slot.socket.refuse_new();
        worker.spawn_vital(|_| async move {
            match refused {
                Ok(()) => accept::close_when_quiet(&slot, Instant::now() + within.max(accept::QUIET)).await,
                // Some kernels let only privileged processes filter: then a handshake that is under way at the
                // moment of closing is reset, and new clients may come until that moment.
                Err(error) => {
                    tracing::debug!(%address, %error, "new connections cannot be held off while this listener closes");
                    accept::close_when_empty(&slot, Instant::now() + accept::QUIET).await;
                }
            }
        });
    }
}

impl Slot {
    fn serve(&self, worker: &Worker, listener: &Arc<Listener>) {
        if self.listener.borrow().sources.is_none() {
            worker.context.registry.count_sources(listener);
        }
        let changes = self.listener.borrow().keepalive != listener.keepalive;
        if changes {
            self.keep_alive(listener);
        }
        *self.listener.borrow_mut() = Arc::clone(listener);
    }

    fn keep_alive(&self, listener: &Listener) {
        if let Err(error) = self.socket.set_keepalive(&TcpKeepalive::from(&listener.keepalive)) {
            tracing::warn!(listener = %listener.name, %error, "TCP keepalive cannot be set");
        }
    }
}

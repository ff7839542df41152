//! Hands a new table to every worker, and hears from each that it has it.
//!
//! The newest table wins: a worker that was busy skips the ones between. Sockets ride along, because a
//! listener is bound before its table is published (a port in use must leave the old table standing) and
//! each worker needs its own. This module binds nothing: it only carries.

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use super::{RouteTable, Verdicts};

/// A bound, listening socket for one worker.
#[derive(Debug)]
pub struct BoundListener {
    /// The address in the configuration; the socket's own differs when that names port 0.
    pub address: SocketAddr,
    pub socket: TcpListener,
}

/// The table that is published.
#[derive(Debug, Clone)]
pub struct Published(Arc<ArcSwap<RouteTable>>);

/// The publishing end.
#[derive(Debug)]
pub struct Publisher {
    current: Published,
    seats: Vec<Arc<Seat>>,
    acknowledgements: flume::Receiver<()>,
    verdicts: Arc<Verdicts>,
}

/// One worker's end.
#[derive(Debug)]
pub struct Subscriber {
    current: Published,
    seat: Arc<Seat>,
    woken: flume::Receiver<()>,
    acknowledge: flume::Sender<()>,
    verdicts: Arc<Verdicts>,
}

#[derive(Debug)]
struct Seat {
    wake: flume::Sender<()>,
    acknowledged: AtomicU64,
    sockets: Mutex<Vec<BoundListener>>,
}

impl Default for Published {
    fn default() -> Self {
        Self(Arc::new(ArcSwap::from_pointee(RouteTable::empty())))
    }
}

impl Published {
    /// Whoever hears of something that another worker did by a table finds that one here, or one that came after it.
    pub fn newest(&self) -> Arc<RouteTable> {
        self.0.load_full()
    }
}

impl Publisher {
    /// A publisher of nothing yet, and one subscriber for each of `workers`.
    pub fn new(workers: usize) -> (Self, Vec<Subscriber>) {
        let current = Published::default();
        let (acknowledge, acknowledgements) = flume::bounded(1);
        let verdicts = Arc::new(Verdicts::default());
        let subscribers: Vec<Subscriber> = (0..workers)
            .map(|_| {
                let (wake, woken) = flume::bounded(1);
                let seat = Seat { wake, acknowledged: AtomicU64::new(0), sockets: Mutex::default() };
                Subscriber {
                    current: current.clone(),
                    seat: Arc::new(seat),
                    woken,
                    acknowledge: acknowledge.clone(),
                    verdicts: Arc::clone(&verdicts),
                }
            })
            .collect();
        let seats = subscribers.iter().map(|subscriber| Arc::clone(&subscriber.seat)).collect();
        (Self { current, seats, acknowledgements, verdicts }, subscribers)
    }

    /// The table that new connections use, or will in a moment.
    pub fn current(&self) -> Arc<RouteTable> {
        self.current.newest()
    }

    /// What workers and probes tell of endpoints.
    pub fn verdicts(&self) -> &Arc<Verdicts> {
        &self.verdicts
    }

    /// Replaces the table. `sockets` has the new listeners' sockets, one list for each worker.
    pub fn publish(&self, table: Arc<RouteTable>, sockets: Vec<Vec<BoundListener>>) {
        // In this order: a worker that takes sockets finds their table, and not the one before, in which they are
        // no listener's.
        self.current.0.store(table);
        for (seat, sockets) in self.seats.iter().zip(sockets) {
            seat.sockets.lock().unwrap_or_else(PoisonError::into_inner).extend(sockets);
        }
        for seat in &self.seats {
            // Full means a wake is already under way, and that one will find this table.
            let _already_woken = seat.wake.try_send(());
        }
    }

    /// How many workers there are to publish to.
    pub fn workers(&self) -> usize {
        self.seats.len()
    }

    /// The generation that every worker has reached.
    pub fn acknowledged(&self) -> u64 {
        self.seats.iter().map(|seat| seat.acknowledged.load(Ordering::Acquire)).min().unwrap_or(0)
    }

    /// The generation that each worker has reached, in the workers' order.
    pub fn acknowledged_by_worker(&self) -> Vec<u64> {
        self.seats.iter().map(|seat| seat.acknowledged.load(Ordering::Acquire)).collect()
    }

    /// Waits for some worker to acknowledge. For one listener only. `false`: all workers are gone.
    pub async fn acknowledgement(&self) -> bool {
        self.acknowledgements.recv_async().await.is_ok()
    }
}

impl Subscriber {
    /// Waits for a table to be published. `false`: the publisher is gone.
    pub async fn published(&self) -> bool {
        self.woken.recv_async().await.is_ok()
    }

    /// Where to tell that an endpoint is not what it was.
    pub fn verdicts(&self) -> &Arc<Verdicts> {
        &self.verdicts
    }

    /// Where the newest table is.
    pub fn tables(&self) -> &Published {
        &self.current
    }

    /// The newest table.
    pub fn current(&self) -> Arc<RouteTable> {
        self.current.newest()
    }

    /// The sockets that came with the tables since the last call.
    pub fn take_sockets(&self) -> Vec<BoundListener> {
        std::mem::take(&mut *self.seat.sockets.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Says that this worker serves by `generation` from now on.
    pub fn acknowledge(&self, generation: u64) {
        self.seat.acknowledged.store(generation, Ordering::Release);
        // Full means the publisher has an acknowledgement to look at already, and it reads all of them.
        let _already_told = self.acknowledge.try_send(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    fn table(generation: u64) -> Arc<RouteTable> {
        Arc::new(RouteTable::new(generation, Vec::new(), Default::default(), std::time::Duration::ZERO))
    }

    #[test]
    fn the_newest_table_wins_and_all_must_acknowledge_it() {
        let (publisher, subscribers) = Publisher::new(2);
        publisher.publish(table(1), Vec::new());
        publisher.publish(table(2), Vec::new());
        for subscriber in &subscribers {
            assert_eq!(subscriber.published().now_or_never(), Some(true));
            assert_eq!(subscriber.published().now_or_never(), None, "two tables, one wake");
            assert_eq!(subscriber.current().generation, 2);
        }
        assert_eq!(publisher.acknowledgement().now_or_never(), None);
        for (subscriber, reached) in subscribers.iter().zip([0, 2]) {
            subscriber.acknowledge(2);
            assert_eq!(publisher.acknowledgement().now_or_never(), Some(true));
            assert_eq!(publisher.acknowledged(), reached, "the slowest counts");
        }
    }

    #[test]
    fn sockets_of_a_skipped_table_are_not_lost() {
        let (publisher, subscribers) = Publisher::new(1);
        let bound = || {
            let socket = TcpListener::bind("127.0.0.1:0").unwrap();
            BoundListener { address: socket.local_addr().unwrap(), socket }
        };
        publisher.publish(table(1), vec![vec![bound()]]);
        publisher.publish(table(2), vec![vec![bound()]]);
        assert_eq!(subscribers[0].take_sockets().len(), 2);
        assert!(subscribers[0].take_sockets().is_empty());
    }
}

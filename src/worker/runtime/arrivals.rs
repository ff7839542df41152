//! Waiting until more arrives at a socket that can be read already, because what is there is to stay for now.

use std::io;

use super::Stream;
use super::reactor::Registration;

pub(crate) struct Arrivals<'a> {
    stream: &'a Stream,
    /// Where the stream has none of its own.
    beside: Option<Registration>,
}

impl<'a> Arrivals<'a> {
    pub(super) fn new(stream: &'a Stream) -> io::Result<Self> {
        let has_own = stream.registration()?.is_some();
        let beside = if has_own { None } else { Some(Registration::for_a_while(stream)?) };
        Ok(Self { stream, beside })
    }

    /// Waits until more has arrived than whoever calls has seen, or the end. The first time it may come back at once. Safe to
    /// drop.
    pub(crate) async fn next(&self) {
        if let Some(registration) = self.registration() {
            registration.arrival().await;
        }
    }

    fn registration(&self) -> Option<&Registration> {
        self.beside.as_ref().or_else(|| self.stream.registration().ok().flatten())
    }
}

impl Drop for Arrivals<'_> {
    fn drop(&mut self) {
        match &self.beside {
            Some(beside) => beside.leave(self.stream),
            // What was looked at is still there for whoever reads next.
            None => self.registration().into_iter().for_each(Registration::is_not_empty),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::time::{Duration, Instant};

    use super::*;
    use crate::config::Driver;
    use crate::worker::runtime::{Runtime, timeout_at};

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (other, _) = listener.accept().unwrap();
        other.set_nonblocking(true).unwrap();
        (one, other)
    }

    /// Whether more comes within `time`.
    async fn comes(arrivals: &Arrivals<'_>, time: Duration) -> bool {
        timeout_at(Instant::now() + time, arrivals.next()).await.is_some()
    }

    #[test]
    fn only_what_is_new_is_told_and_what_was_there_stays() {
        const SOON: Duration = Duration::from_secs(30);
        const WHILE: Duration = Duration::from_millis(50);
        for driver in [Driver::Auto, Driver::Epoll] {
            let (runtime, _) = Runtime::build(driver, None).unwrap();
            runtime.block_on(async {
                let (mut client, socket) = pair();
                let stream = Stream::new(socket.into());
                let mut bytes = [0; 8];
                for round in 0..2 {
                    client.write_all(b"a").unwrap();
                    stream.read_ready().await.unwrap();
                    let arrivals = stream.arrivals().unwrap();
                    while stream.try_peek(&mut bytes).unwrap() < 1 || comes(&arrivals, WHILE).await {}
                    client.write_all(b"b").unwrap();
                    assert!(comes(&arrivals, SOON).await, "{driver:?}, round {round}");
                    assert!(!comes(&arrivals, WHILE).await, "{driver:?}, round {round}");
                    drop(arrivals);
                    stream.read_ready().await.unwrap();
                    assert_eq!(stream.try_read(&mut bytes).unwrap(), 2, "{driver:?}, round {round}");
                }
                let arrivals = stream.arrivals().unwrap();
                drop(client);
                assert!(comes(&arrivals, SOON).await, "{driver:?}: the end");
            });
        }
    }
}

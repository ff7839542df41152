//! Both sides of a connection: lines, the end, and the words for what went wrong.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// What an endpoint says before it ends a connection of its own accord.
pub(crate) const BYE: &str = "bye";
const LINE_MAX: usize = 4096;

/// A connection that is read and written by lines. A read that is dropped loses nothing.
pub(crate) struct Conversation {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Conversation {
    pub(crate) fn new(stream: TcpStream) -> Self {
        // Without it lines are sent later on some kernels, which would only show in the latency.
        stream.set_nodelay(true).ok();
        Self { stream, received: Vec::new() }
    }

    pub(crate) fn local(&self) -> Option<SocketAddr> {
        self.stream.local_addr().ok()
    }

    /// The next line without its end; none after FIN.
    pub(crate) async fn line(&mut self) -> io::Result<Option<String>> {
        loop {
            if let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
                let line = self.received.drain(..=end).collect::<Vec<_>>();
                return Ok(Some(String::from_utf8_lossy(&line[..end]).into_owned()));
            }
            if self.received.len() > LINE_MAX {
                return Err(io::ErrorKind::InvalidData.into());
            }
            self.stream.readable().await?;
            let mut bytes = [0; 1024];
            match self.stream.try_read(&mut bytes) {
                Ok(0) => return Ok(None),
                Ok(read) => self.received.extend_from_slice(&bytes[..read]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    pub(crate) async fn say(&self, line: &str) -> io::Result<()> {
        let text = format!("{line}\n");
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            self.stream.writable().await?;
            match self.stream.try_write(rest) {
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Sends FIN, then reads until the other side's, so that nothing under way turns the end into a reset.
    pub(crate) async fn end(mut self, patience: Duration) -> io::Result<()> {
        SockRef::from(&self.stream).shutdown(Shutdown::Write)?;
        let rest = async {
            while self.line().await?.is_some() {}
            Ok(())
        };
        timeout(patience, rest).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Ends it with RST.
    pub(crate) fn reset(self) -> io::Result<()> {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO))
    }
}

/// Why a connection failed, in the words of the report.
pub(crate) fn kind(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "refused",
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::NotConnected => "reset",
        io::ErrorKind::TimedOut => "timeout",
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => "unreachable",
        io::ErrorKind::UnexpectedEof => "closed",
        io::ErrorKind::InvalidData => "wrong",
        _ => "other",
    }
}

//! Both sides of a connection: lines, the end, and the words for what went wrong.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

/// What an endpoint says before it ends a connection of its own accord.
pub(crate) const BYE: &str = "bye";
const LINE_MAX: usize = 4096;

/// A connection that is read and written by lines. A read that is dropped loses nothing.
pub(crate) struct Conversation {
    stream: Stream,
    received: Vec<u8>,
}

enum Stream {
    Plain(TcpStream),
    Secure(Box<TlsStream<TcpStream>>),
}

impl Conversation {
    pub(crate) fn new(stream: TcpStream) -> Self {
        // Without it lines are sent later on some kernels, which would only show in the latency.
        stream.set_nodelay(true).ok();
        Self { stream: Stream::Plain(stream), received: Vec::new() }
    }

    pub(crate) fn secure(stream: TlsStream<TcpStream>) -> Self {
        stream.get_ref().0.set_nodelay(true).ok();
        Self { stream: Stream::Secure(Box::new(stream)), received: Vec::new() }
    }

    pub(crate) fn local(&self) -> Option<SocketAddr> {
        self.stream.socket().local_addr().ok()
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
            let mut bytes = [0; 1024];
            let read = match &mut self.stream {
                Stream::Plain(stream) => stream.read(&mut bytes).await?,
                Stream::Secure(stream) => stream.read(&mut bytes).await?,
            };
            if read == 0 {
                return Ok(None);
            }
            self.received.extend_from_slice(&bytes[..read]);
        }
    }

    pub(crate) async fn say(&mut self, line: &str) -> io::Result<()> {
        let text = format!("{line}\n");
        match &mut self.stream {
            Stream::Plain(stream) => stream.write_all(text.as_bytes()).await,
            Stream::Secure(stream) => {
                stream.write_all(text.as_bytes()).await?;
                stream.flush().await
            }
        }
    }

    /// Sends FIN, then reads until the other side's, so that nothing under way turns the end into a reset.
    pub(crate) async fn end(mut self, patience: Duration) -> io::Result<()> {
        match &mut self.stream {
            Stream::Plain(stream) => SockRef::from(&*stream).shutdown(Shutdown::Write)?,
            Stream::Secure(stream) => stream.shutdown().await?,
        }
        let rest = async {
            while self.line().await?.is_some() {}
            Ok(())
        };
        timeout(patience, rest).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Ends it with RST.
    pub(crate) fn reset(self) -> io::Result<()> {
        SockRef::from(self.stream.socket()).set_linger(Some(Duration::ZERO))
    }
}

impl Stream {
    fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Secure(stream) => stream.get_ref().0,
        }
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

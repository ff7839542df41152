//! A client's connection to a proxy, in whatever it speaks.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};

use rustls::{ClientConnection, StreamOwned};

use crate::cases::Target;
use crate::error::{Context, Result};
use crate::secure::{self, Speech};

pub(super) enum Link {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Link {
    /// Connects, and says the first words: a handshake, or a ClientHello to route by.
    pub(super) fn open(target: &Target<'_>) -> Result<Self> {
        let stream = TcpStream::connect(target.address).context("connect")?;
        stream.set_nodelay(true).context("client")?;
        let mut link = Self::over(stream, target.speech)?;
        match (&mut link, target.speech) {
            (Self::Plain(stream), Speech::Hello(hello)) => stream.write_all(hello).context("ClientHello")?,
            (Self::Tls(tls), _) => {
                while tls.conn.is_handshaking() {
                    tls.conn.complete_io(&mut tls.sock).context("handshake")?;
                }
            }
            (Self::Plain(_), _) => {}
        }
        Ok(link)
    }

    /// For a connection that may still be connecting; its first write shakes hands.
    pub(super) fn over(stream: TcpStream, speech: &Speech) -> Result<Self> {
        Ok(match speech {
            Speech::Plain | Speech::Hello(_) => Self::Plain(stream),
            Speech::Tls(config) => Self::Tls(Box::new(StreamOwned::new(secure::connection(config)?, stream))),
        })
    }

    pub(super) fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(tls) => &tls.sock,
        }
    }

    /// Says goodbye where that is due. The socket is closed when this is dropped.
    pub(super) fn close(&mut self) {
        if let Self::Tls(tls) = self {
            tls.conn.send_close_notify();
            // A proxy that is gone already needs none.
            let _gone_already = tls.conn.write_tls(&mut tls.sock);
        }
    }

    /// Whether more can be read without the socket becoming ready again.
    pub(super) fn keeps_some(&self) -> bool {
        matches!(self, Self::Tls(_))
    }
}

impl Read for Link {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Tls(tls) => tls.read(buffer),
        }
    }
}

impl Write for Link {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(tls) => tls.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(tls) => tls.flush(),
        }
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket().as_fd()
    }
}

//! One side's TLS: what came from the wire in, plaintext out; plaintext in, what goes to the wire out.
//!
//! Over rustls' unbuffered connections, which leave all memory to their caller. Between two calls an engine holds the
//! beginning of a record that is not whole yet, and nothing else: an idle connection owns no buffer.
//!
//! Whatever comes out has to go out in the order in which it came: keys change in between.

#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus};
use rustls::{
    AlertDescription, ClientConfig, CommonState, Error, HandshakeKind, InvalidMessage, ServerConfig,
};

/// A side's TLS, from its first byte on.
pub(crate) struct Engine {
    kind: Kind,
    /// From the wire, and not understood yet.
    incoming: Vec<u8>,
    is_established: bool,
    has_ended: bool,
    says_no_more: bool,
    /// There is nothing more to be had of it, and it must not be asked.
    has_failed: bool,
}

enum Kind {
    /// Towards a client.
    Accepting(UnbufferedServerConnection),
    /// Towards an endpoint.
    Connecting(UnbufferedClientConnection),
}

/// The most plaintext that [`Engine::send`] takes at once.
pub(crate) const PLAINTEXT_MAX: usize = 128 * 1024;
/// A buffer of this length takes it, encrypted, and what may wait to go before it.
pub(crate) const CIPHERTEXT_MAX: usize = PLAINTEXT_MAX + 8 * 1024;

/// What is held of bytes that are not understood yet, once the handshake is over: a record, of the longest that TLS 1.2 has. What
/// comes after a handshake is all shorter, and whoever begins a longer message could leave it at that.
const HELD_MAX: usize = 5 + (1 << 14) + 2_048;
const TOO_LONG: Error = Error::InvalidMessage(InvalidMessage::HandshakePayloadTooLarge);

impl Engine {
    /// # Errors
    /// The configuration cannot be used.
    pub(crate) fn accept(config: Arc<ServerConfig>) -> Result<Self, Error> {
        Ok(Self::new(Kind::Accepting(UnbufferedServerConnection::new(config)?)))
    }

    /// `alpn`: the protocols to offer, the best one first.
    ///
    /// # Errors
    /// The configuration cannot be used.
    pub(crate) fn connect(
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        alpn: Vec<Vec<u8>>,
    ) -> Result<Self, Error> {
        let connection = UnbufferedClientConnection::new_with_alpn(config, name, alpn)?;
        Ok(Self::new(Kind::Connecting(connection)))
    }

    fn new(kind: Kind) -> Self {
        Self {
            kind,
            incoming: Vec::new(),
            is_established: false,
            has_ended: false,
            says_no_more: false,
            has_failed: false,
        }
    }

    /// Takes what came from the wire, and may change it. Appends the plaintext that was in it to `plaintext`, and what has to be
    /// said because of it to `output`. With no bytes it says what it has to say of its own: how a connection begins.
    ///
    /// # Errors
    /// What went wrong. `output` then ends with the alert that says so, and there is nothing more to be had.
    pub(crate) fn receive(
        &mut self,
        bytes: &mut [u8],
        plaintext: &mut Vec<u8>,
        output: &mut Vec<u8>,
    ) -> Result<(), Error> {
        self.check()?;
        if self.incoming.is_empty() {
            return self.process(bytes, plaintext, output);
        }
        let mut incoming = std::mem::take(&mut self.incoming);
        incoming.extend_from_slice(bytes);
        self.process(&mut incoming, plaintext, output)
    }

    /// As [`Self::receive`], of what `read` puts into `memory`, up to `length` bytes. How many they were, and how that went.
    ///
    /// Under bulk traffic nearly every read ends within a record. Read behind its beginning, the rest need not be put together
    /// with it.
    ///
    /// # Errors
    /// What `read` says.
    pub(crate) fn receive_from(
        &mut self,
        read: impl FnOnce(&mut [u8]) -> io::Result<usize>,
        length: usize,
        memory: &mut Vec<u8>,
        plaintext: &mut Vec<u8>,
        output: &mut Vec<u8>,
    ) -> io::Result<(usize, Result<(), Error>)> {
        let held = self.incoming.len();
        if memory.len() < held + length {
            memory.resize(held + length, 0);
        }
        let (begin, room) = memory.split_at_mut(held);
        let length = read(room.get_mut(..length).unwrap_or_default())?;
        if length == 0 {
            return Ok((0, Ok(())));
        }
        begin.copy_from_slice(&self.incoming);
        let bytes = memory.get_mut(..held + length).unwrap_or_default();
        let result = self.check().and_then(|()| self.process(bytes, plaintext, output));
        Ok((length, result))
    }

    /// Understands what it can of all that has come, and holds the rest.
    fn process(
        &mut self,
        bytes: &mut [u8],
        plaintext: &mut Vec<u8>,
        output: &mut Vec<u8>,
    ) -> Result<(), Error> {
        if self.has_ended {
            self.incoming = Vec::new();
            // "Any data received after a closure alert has been received MUST be ignored" (RFC 8446 6.1).
            return Ok(());
        }
        let (used, result) = match &mut self.kind {
            Kind::Accepting(connection) => run(connection, bytes, plaintext, output),
            Kind::Connecting(connection) => run(connection, bytes, plaintext, output),
        };
        self.is_established = !self.common().is_handshaking();
        let result = result.and_then(|has_ended| match bytes.len() - used {
            held if self.is_established && held > HELD_MAX => Err(TOO_LONG),
            _ => Ok(has_ended),
        });
        self.has_failed = result.is_err();
        self.hold(bytes.get(used..).unwrap_or_default());
        self.has_ended |= result?;
        Ok(())
    }

    /// Keeps the beginning of a record. What a longer one has needed is not kept for it.
    fn hold(&mut self, rest: &[u8]) {
        if rest.is_empty() || self.incoming.capacity() > 4 * rest.len() {
            self.incoming = rest.to_vec();
        } else {
            self.incoming.clear();
            self.incoming.extend_from_slice(rest);
        }
    }

    fn check(&self) -> Result<(), Error> {
        if self.has_failed { Err(Error::General("it has failed before".to_owned())) } else { Ok(()) }
    }

    /// Encrypts up to [`PLAINTEXT_MAX`] bytes into `output`, of which [`CIPHERTEXT_MAX`] are enough; how many it took.
    ///
    /// # Errors
    /// `EncryptError`: the keys are worn out (TLS 1.2 with AES-GCM, after 2^24 records however short), and [`Self::finish`] is
    /// all that goes yet. Or nothing may be sent any more.
    pub(crate) fn send(&mut self, plaintext: &[u8], output: &mut [u8]) -> Result<usize, Error> {
        self.write(Write::Data(plaintext), output)
    }

    /// Says that nothing more will be sent. Once is enough, and more often is as good.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub(crate) fn finish(&mut self, output: &mut [u8]) -> Result<usize, Error> {
        if std::mem::replace(&mut self.says_no_more, true) {
            return Ok(0);
        }
        self.write(Write::End, output)
    }

    fn write(&mut self, what: Write<'_>, output: &mut [u8]) -> Result<usize, Error> {
        self.check()?;
        let incoming = &mut self.incoming;
        match &mut self.kind {
            Kind::Accepting(connection) => write(connection, incoming, what, output),
            Kind::Connecting(connection) => write(connection, incoming, what, output),
        }
    }

    /// The memory that it takes, in bytes, for what came from the wire and is not understood yet.
    pub(crate) fn held(&self) -> usize {
        self.incoming.capacity()
    }

    /// Whether the handshake is done.
    pub(crate) fn is_established(&self) -> bool {
        self.is_established
    }

    /// Whether the other has said that it will send no more.
    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Whether what came from the wire could not be understood.
    pub(crate) fn has_failed(&self) -> bool {
        self.has_failed
    }

    fn common(&self) -> &CommonState {
        match &self.kind {
            Kind::Accepting(connection) => connection,
            Kind::Connecting(connection) => connection,
        }
    }

    /// Such as `TLSv1.3`.
    pub(crate) fn version(&self) -> Option<&'static str> {
        match self.common().protocol_version()? {
            rustls::ProtocolVersion::TLSv1_2 => Some("TLSv1.2"),
            rustls::ProtocolVersion::TLSv1_3 => Some("TLSv1.3"),
            _ => None,
        }
    }

    /// As the IANA calls it, such as `TLS_AES_128_GCM_SHA256`.
    pub(crate) fn cipher(&self) -> Option<&'static str> {
        // rustls has one name for those of TLS 1.3 that is not the IANA's.
        let name = self.common().negotiated_cipher_suite()?.suite().as_str()?;
        Some(match name {
            "TLS13_AES_128_GCM_SHA256" => "TLS_AES_128_GCM_SHA256",
            "TLS13_AES_256_GCM_SHA384" => "TLS_AES_256_GCM_SHA384",
            "TLS13_CHACHA20_POLY1305_SHA256" => "TLS_CHACHA20_POLY1305_SHA256",
            name => name,
        })
    }

    /// The protocol that both agreed on.
    pub(crate) fn alpn(&self) -> Option<&[u8]> {
        self.common().alpn_protocol()
    }

    /// Whether both remembered an earlier connection.
    pub(crate) fn is_resumed(&self) -> bool {
        self.common().handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// The other's certificate and those that vouch for it, in this order; none: it did not show one.
    pub(crate) fn certificates(&self) -> &[CertificateDer<'static>] {
        self.common().peer_certificates().unwrap_or_default()
    }
}

/// What is written.
#[derive(Clone, Copy)]
enum Write<'a> {
    Data(&'a [u8]),
    End,
}

/// What both kinds of connection have in common.
trait Unbuffered {
    type Side;
    fn has_to_say(&self) -> bool;
    fn process<'c, 'i>(&'c mut self, bytes: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Side>;
}

impl Unbuffered for UnbufferedServerConnection {
    type Side = rustls::server::ServerConnectionData;
    fn has_to_say(&self) -> bool {
        self.wants_write()
    }
    fn process<'c, 'i>(&'c mut self, bytes: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Side> {
        self.process_tls_records(bytes)
    }
}

impl Unbuffered for UnbufferedClientConnection {
    type Side = rustls::client::ClientConnectionData;
    fn has_to_say(&self) -> bool {
        self.wants_write()
    }
    fn process<'c, 'i>(&'c mut self, bytes: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Side> {
        self.process_tls_records(bytes)
    }
}

/// Runs the connection until it needs more bytes; how many of these it is done with, and whether the other has ended.
fn run<C: Unbuffered>(
    connection: &mut C,
    bytes: &mut [u8],
    plaintext: &mut Vec<u8>,
    output: &mut Vec<u8>,
) -> (usize, Result<bool, Error>) {
    let mut used = 0;
    let mut has_ended = false;
    loop {
        let rest = bytes.get_mut(used..).unwrap_or_default();
        let UnbufferedStatus { mut discard, state } = connection.process(rest);
        let mut goes_on = true;
        match state {
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                while let Some(record) = traffic.next_record() {
                    match record {
                        Ok(record) => {
                            discard += record.discard;
                            plaintext.extend_from_slice(record.payload);
                        }
                        Err(error) => return (used + discard, Err(error)),
                    }
                }
            }
            Ok(ConnectionState::EncodeTlsData(data)) => encode(data, output),
            // It is in `output`, and what comes later is behind it.
            Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
            Ok(ConnectionState::PeerClosed) => has_ended = true,
            Ok(ConnectionState::Closed) => (has_ended, goes_on) = (true, false),
            Ok(ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_)) => goes_on = false,
            // Early data is never offered. What else there may be, of a version of rustls to come, is a defect here.
            Ok(_) => return (used + discard, Err(Error::General("an unknown state".to_owned()))),
            Err(error) => {
                used += discard;
                take_alert(connection, bytes.get_mut(used..).unwrap_or_default(), plaintext, output);
                mend_alert(&error, output);
                return (used, Err(error));
            }
        }
        used += discard;
        if !goes_on {
            return (used, Ok(has_ended));
        }
    }
}

fn encode<Side>(mut data: EncodeTlsData<'_, Side>, output: &mut Vec<u8>) {
    let begin = output.len();
    if let Err(EncodeError::InsufficientSize(size)) = data.encode(&mut []) {
        output.resize(begin + size.required_size, 0);
        let room = output.get_mut(begin..).unwrap_or_default();
        let _fits = data.encode(room);
    }
}

/// What a connection that failed has still to say. It is asked nothing else any more.
fn take_alert<C: Unbuffered>(
    connection: &mut C,
    bytes: &mut [u8],
    plaintext: &mut Vec<u8>,
    output: &mut Vec<u8>,
) {
    while connection.has_to_say() {
        match connection.process(bytes).state {
            Ok(ConnectionState::EncodeTlsData(data)) => encode(data, output),
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                while let Some(Ok(record)) = traffic.next_record() {
                    plaintext.extend_from_slice(record.payload);
                }
            }
            _ => return,
        }
    }
}

/// Two alerts that the library sends before there are keys are not those of the RFCs: nothing was denied where no certificate suits
/// the client (RFC 8446, 4.2.3), and TLS 1.2 has no alert of its own for a client that shows none (RFC 5246, 7.4.6). What TLS 1.3 says there
/// is right, and encrypted.
fn mend_alert(error: &Error, output: &mut [u8]) {
    let wrong = match error {
        Error::General(_) => AlertDescription::AccessDenied,
        Error::NoCertificatesPresented => AlertDescription::CertificateRequired,
        _ => return,
    };
    if let Some(alert) = output.last_chunk_mut()
        && *alert == plain_alert(wrong)
    {
        *alert = plain_alert(AlertDescription::HandshakeFailure);
    }
}

fn write<C: Unbuffered>(
    connection: &mut C,
    incoming: &mut Vec<u8>,
    what: Write<'_>,
    output: &mut [u8],
) -> Result<usize, Error> {
    let mut length = 0;
    let mut first = Vec::new();
    loop {
        let UnbufferedStatus { discard, state } = connection.process(incoming);
        match state? {
            ConnectionState::WriteTraffic(mut traffic) => {
                let room = output.get_mut(length..).unwrap_or_default();
                let written = match what {
                    Write::Data(data) => traffic.encrypt(data, room),
                    Write::End => traffic.queue_close_notify(room),
                };
                return written.map(|written| length + written).map_err(|error| match error {
                    EncryptError::EncryptExhausted => Error::EncryptError,
                    EncryptError::InsufficientSize(size) => {
                        Error::General(format!("{} bytes are no room for {size:?}", output.len()))
                    }
                });
            }
            ConnectionState::EncodeTlsData(data) => {
                first.clear();
                encode(data, &mut first);
                let room = output.get_mut(length..length + first.len());
                let too_much = || Error::General(format!("there is no room for {} bytes", first.len()));
                room.ok_or_else(too_much)?.copy_from_slice(&first);
                length += first.len();
            }
            ConnectionState::TransmitTlsData(data) => data.done(),
            // Ended by both: there is nothing that could be said.
            ConnectionState::Closed => return Ok(length),
            ConnectionState::PeerClosed => {}
            _ => return Err(Error::HandshakeNotComplete),
        }
        incoming.drain(..discard);
    }
}

/// An alert record before any key is known, with level fatal.
pub(crate) fn plain_alert(alert: AlertDescription) -> [u8; 7] {
    [21, 3, 3, 0, 2, 2, u8::from(alert)]
}

/// The longest record of an alert, in bytes: with what AES-GCM adds to it in TLS 1.2.
pub(crate) const ALERT_RECORD_MAX: usize = 5 + 8 + 2 + 16;

/// Whether these bytes of an established connection are one record, and no longer than an alert. In TLS 1.3 it is only known by its
/// length; what else were as long, two bytes, says no more.
pub(crate) fn is_alert(bytes: &[u8]) -> bool {
    const ALERT: u8 = 21;
    const APPLICATION_DATA: u8 = 23;
    const TLS13_ALERT: usize = 2 + 1 + 16;
    let [kind, 3, _, high, low, payload @ ..] = bytes else { return false };
    let is_one = usize::from(u16::from_be_bytes([*high, *low])) == payload.len();
    is_one && (*kind == ALERT || *kind == APPLICATION_DATA && payload.len() == TLS13_ALERT)
}

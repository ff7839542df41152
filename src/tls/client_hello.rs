//! What a TLS client says first, read without answering it: whom it asks for, and what it speaks.
//!
//! Pure: bytes in, and either a ClientHello, or that more are needed, or why they are none. It takes nothing from the bytes,
//! so that they can be handed on as they came. It never judges what only the one who answers can (versions, ciphers, keys).
//!
//! RFC 8446 4.1.2 and 5.1 (and RFC 5246, which looks the same from here), RFC 6066 3, RFC 7301 3.1, RFC 9849.

mod fields;

#[cfg(test)]
mod tests;

use fields::Fields;

/// The longest ClientHello that is read, in bytes: what OpenSSL and rustls take is no longer either.
pub const HELLO_MAX: usize = 0xffff;
/// The most bytes on the wire that may carry one: many records make it longer, and each is to carry something.
pub const WIRE_MAX: usize = HELLO_MAX + HELLO_MAX / 16;

/// Of a record: its type, its version and its length (RFC 8446 5.1).
const RECORD_HEADER: usize = 5;
const RECORD_MAX: usize = 1 << 14;
/// Of a name in the DNS.
const NAME_MAX: usize = 255;
const HANDSHAKE: u8 = 22;
/// Of a handshake message: its type and its length.
const MESSAGE_HEADER: usize = 4;
const CLIENT_HELLO: u8 = 1;

const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;
const SUPPORTED_VERSIONS: u16 = 43;
const ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;

/// What a client says that decides where it goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// Whom it asks for (SNI), in lower case. `None`: nobody, or an address, which is no name.
    pub server_name: Option<Box<str>>,
    /// The protocols it offers, the one it likes best first.
    pub alpn: Vec<Box<[u8]>>,
    /// The name is that of whoever can decrypt the true one.
    pub is_ech_outer: bool,
    /// Whether it speaks TLS 1.2 or 1.3; no other version is to be spoken any more (RFC 8996).
    pub speaks_tls12_or_later: bool,
}

/// Why bytes are no ClientHello that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoHello {
    #[error("the client does not speak TLS; it has to, on a listener with protocol TLS")]
    NotTls,
    #[error("the client began with SSL 2, which nobody may speak any more (RFC 6176)")]
    Ssl2,
    #[error("the ClientHello is longer than 64 KiB")]
    TooLarge,
    #[error("the ClientHello cannot be read: {0}")]
    Malformed(&'static str),
}

/// Reads a ClientHello whose bytes come in any pieces. Each byte is looked at once until it is whole.
#[derive(Debug, Default)]
pub struct Reader {
    /// Where the first record begins that is not known to be whole.
    at: usize,
    /// How much of the message is in the records before that.
    carried: usize,
}

impl Reader {
    /// `bytes` are all that came so far; they begin with what they began with the last time. `None`: more are needed.
    ///
    /// # Errors
    /// Why no more bytes would make it one.
    pub fn read(&mut self, bytes: &[u8]) -> Result<Option<ClientHello>, NoHello> {
        while let Some((payload, is_whole)) = self.record(bytes)? {
            self.check_message(bytes, payload)?;
            if !is_whole {
                return Ok(None);
            }
            self.at += RECORD_HEADER + payload.len();
            self.carried += payload.len();
            let message = Message::begin(bytes);
            if let Some(length) = message.length()
                && self.carried >= MESSAGE_HEADER + length
            {
                return message.whole(MESSAGE_HEADER + length).map(Some);
            }
        }
        Ok(None)
    }

    /// What there is of the payload of the next record, and whether that is all of it.
    fn record<'a>(&self, bytes: &'a [u8]) -> Result<Option<(&'a [u8], bool)>, NoHello> {
        let rest = bytes.get(self.at..).unwrap_or_default();
        check_record_begin(rest, self.at == 0)?;
        if self.at + rest.len().min(RECORD_HEADER) > WIRE_MAX {
            return Err(NoHello::TooLarge);
        }
        let Some(length) = record_length(rest) else { return Ok(None) };
        if length == 0 {
            return Err(NoHello::Malformed("a record is empty"));
        }
        if length > RECORD_MAX {
            return Err(NoHello::Malformed("a record is longer than 16 KiB"));
        }
        if self.at + RECORD_HEADER + length > WIRE_MAX {
            return Err(NoHello::TooLarge);
        }
        let there = rest.get(RECORD_HEADER..).unwrap_or_default();
        Ok(Some((there.get(..length).unwrap_or(there), there.len() >= length)))
    }

    /// Tells early what will never be a ClientHello, and what will be too long for one.
    fn check_message(&self, bytes: &[u8], payload: &[u8]) -> Result<(), NoHello> {
        if self.carried == 0 && payload.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
            return Err(NoHello::Malformed("the first message is another one"));
        }
        let is_too_long = |length| length > HELLO_MAX;
        // Its length is in the first records, nearly always in the first one. What follows this one may be none.
        let records = bytes.get(..self.at + RECORD_HEADER + payload.len()).unwrap_or_default();
        if self.carried < MESSAGE_HEADER && Message::begin(records).length().is_some_and(is_too_long) {
            return Err(NoHello::TooLarge);
        }
        Ok(())
    }
}

/// Checks the bytes of a record's header that are there.
fn check_record_begin(rest: &[u8], is_first: bool) -> Result<(), NoHello> {
    let Some(kind) = rest.first() else { return Ok(()) };
    // SSL 2: a length of two bytes with the top bit set, then a ClientHello of that version.
    if is_first && kind & 0x80 != 0 {
        return match rest.get(2) {
            Some(&CLIENT_HELLO) => Err(NoHello::Ssl2),
            Some(_) => Err(NoHello::NotTls),
            None => Ok(()),
        };
    }
    let is_tls = *kind == HANDSHAKE && rest.get(1).is_none_or(|major| *major == 3);
    match (is_tls, is_first) {
        (true, _) => Ok(()),
        (false, true) => Err(NoHello::NotTls),
        (false, false) => Err(NoHello::Malformed("it is interrupted by something else")),
    }
}

fn record_length(record: &[u8]) -> Option<usize> {
    let length = record.get(3..RECORD_HEADER)?;
    Some(length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)))
}

/// A handshake message in the records that carry it.
struct Message<'a> {
    wire: &'a [u8],
}

impl<'a> Message<'a> {
    fn begin(wire: &'a [u8]) -> Self {
        Self { wire }
    }

    /// What the records carry, piece by piece.
    fn pieces(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut rest = self.wire;
        std::iter::from_fn(move || {
            let length = record_length(rest)?;
            let there = rest.get(RECORD_HEADER..)?;
            let piece = there.get(..length).unwrap_or(there);
            rest = there.get(piece.len()..).unwrap_or_default();
            Some(piece)
        })
    }

    /// How long its body is, as it says.
    fn length(&self) -> Option<usize> {
        let mut head = self.pieces().flatten().skip(1).take(MESSAGE_HEADER - 1);
        let mut next = || head.next().map(|byte| usize::from(*byte));
        Some(next()? << 16 | next()? << 8 | next()?)
    }

    /// Its first `length` bytes are there: reads them.
    fn whole(&self, length: usize) -> Result<ClientHello, NoHello> {
        let first = self.pieces().next().unwrap_or_default();
        if let Some(message) = first.get(..length) {
            return parse(message);
        }
        let mut message = Vec::with_capacity(length);
        for piece in self.pieces() {
            message.extend_from_slice(piece);
        }
        message.truncate(length);
        parse(&message)
    }
}

fn parse(message: &[u8]) -> Result<ClientHello, NoHello> {
    let mut fields = Fields::new(message);
    let mut hello = ClientHello::default();
    fields.skip(MESSAGE_HEADER)?;
    // Where the versions are not listed, this is the latest.
    hello.speaks_tls12_or_later = fields.number()? >= 0x0303;
    // Its random bytes.
    fields.skip(32)?;
    let _session_id = fields.short()?;
    if fields.long()?.is_empty() {
        return Err(NoHello::Malformed("it offers no cipher"));
    }
    let _compressions = fields.short()?;
    // Before TLS 1.2 there may be none at all.
    let mut extensions = Fields::new(if fields.is_empty() { &[] } else { fields.long()? });
    if !fields.is_empty() {
        return Err(NoHello::Malformed("something follows its extensions"));
    }
    let mut has = [false; 2];
    while !extensions.is_empty() {
        let kind = extensions.number()?;
        let mut extension = Fields::new(extensions.long()?);
        match kind {
            SERVER_NAME => {
                once(&mut has[0])?;
                hello.server_name = server_name(&mut extension)?;
            }
            ALPN => {
                once(&mut has[1])?;
                let mut protocols = Fields::new(extension.long()?);
                while !protocols.is_empty() {
                    hello.alpn.push(protocols.short()?.into());
                }
            }
            SUPPORTED_VERSIONS => {
                let mut versions = extension.short()?.chunks(2);
                hello.speaks_tls12_or_later = versions.any(|version| version == [3, 3] || version == [3, 4]);
            }
            ENCRYPTED_CLIENT_HELLO => hello.is_ech_outer = true,
            _ => {}
        }
    }
    Ok(hello)
}

/// Whoever said the same thing twice might be understood differently by who reads it next.
fn once(has: &mut bool) -> Result<(), NoHello> {
    if std::mem::replace(has, true) {
        return Err(NoHello::Malformed("it has an extension twice"));
    }
    Ok(())
}

fn server_name(extension: &mut Fields<'_>) -> Result<Option<Box<str>>, NoHello> {
    const HOST_NAME: u8 = 0;
    let mut names = Fields::new(extension.long()?);
    // Of any other type not even the length is known, and none was ever defined.
    if names.byte()? != HOST_NAME {
        return Ok(None);
    }
    let name = names.long()?;
    if names.byte() == Ok(HOST_NAME) {
        return Err(NoHello::Malformed("it asks for two names"));
    }
    let is_of_names = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    let text = std::str::from_utf8(name).unwrap_or_default();
    // A name "without a trailing dot" (RFC 6066, 3), which clients send that take it out of an address as it was typed.
    let text = text.strip_suffix('.').unwrap_or(text);
    if text.parse::<std::net::IpAddr>().is_ok() {
        return Ok(None);
    }
    if text.is_empty() || name.len() > NAME_MAX || !name.iter().all(is_of_names) {
        return Err(NoHello::Malformed("the server name is none"));
    }
    Ok(Some(text.to_ascii_lowercase().into()))
}

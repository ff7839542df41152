//! Reading: whether a connection begins with a header, how long that is, and what it says.
//!
//! A header is taken whole or not at all: the bytes so far are looked at again when there are more.

use proxy_header::{ParseConfig, Protocol, ProxyHeader};

use super::{
    Addresses, HEADER_MAX, PREFIX_V2, SIGNATURE_V1, SIGNATURE_V2, TLV_CRC32C, TLV_TRACEPARENT, TraceParent,
    crc32c,
};

/// A line of version 1 is at most this long, its end included.
const LINE_MAX: usize = 107;

/// What a connection begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    Header(Header),
    /// A header, of which bytes are missing.
    Part,
    /// Too few bytes to tell.
    Unclear,
    /// Something else.
    Nothing,
}

/// A whole header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// In bytes: what follows is the client's.
    pub length: usize,
    /// `None`: the connection is the sender's own (LOCAL, such as a health check), or the client has no TCP addresses
    /// (UNKNOWN, UNIX sockets).
    pub addresses: Option<Addresses>,
    /// The trace that it belongs to, if the header says.
    pub parent: Option<TraceParent>,
}

/// Why something that begins as a header is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("a header of version 1 has no end of line within {LINE_MAX} bytes")]
    LineTooLong,
    #[error("a header of version 2 says it has {0} bytes; at most {HEADER_MAX} are read")]
    TooLong(usize),
    #[error("neither version 2 of the protocol nor a command of it: {0:#04x}")]
    Version(u8),
    #[error("the addresses of the header cannot be read")]
    Addresses,
    #[error("an extension (TLV) of the header is longer than the header")]
    Extension,
    #[error("the connection ends within the header")]
    CutShort,
    #[error("the connection begins with something else")]
    Absent,
    #[error("the checksum of the header is wrong: it was changed on its way")]
    Checksum,
}

/// Looks at the first bytes of a connection. Once there is a header or nothing, more bytes do not change that.
///
/// # Errors
/// Something begins as a header, and is none.
pub fn read(bytes: &[u8]) -> Result<Found, Malformed> {
    if let Some(begun) = begins(bytes, SIGNATURE_V2) {
        return if begun { read_v2(bytes) } else { Ok(Found::Unclear) };
    }
    match begins(bytes, SIGNATURE_V1) {
        Some(true) => read_v1(bytes),
        Some(false) => Ok(Found::Unclear),
        None => Ok(Found::Nothing),
    }
}

/// Whether these bytes begin so: all of it, a part of it, or (`None`) otherwise.
fn begins(bytes: &[u8], signature: &[u8]) -> Option<bool> {
    let common = bytes.len().min(signature.len());
    (bytes.get(..common) == signature.get(..common)).then_some(common == signature.len())
}

fn read_v1(bytes: &[u8]) -> Result<Found, Malformed> {
    let line = bytes.get(..LINE_MAX).unwrap_or(bytes);
    let Some(end) = line.iter().position(|byte| *byte == b'\r').map(|end| end + 2) else {
        return if line.len() < LINE_MAX { Ok(Found::Part) } else { Err(Malformed::LineTooLong) };
    };
    if end > LINE_MAX {
        return Err(Malformed::LineTooLong);
    }
    let Some(line) = bytes.get(..end) else { return Ok(Found::Part) };
    // Behind UNKNOWN anything may stand, but a space comes first; elsewhere there is no sign, as ports have none.
    let is_fit = match line.strip_prefix(b"PROXY UNKNOWN") {
        Some(rest) => matches!(rest, [b' ' | b'\r', ..]),
        None => !line.contains(&b'+'),
    };
    if !is_fit {
        return Err(Malformed::Addresses);
    }
    Ok(Found::Header(Header { length: end, addresses: addresses(line)?, parent: None }))
}

fn read_v2(bytes: &[u8]) -> Result<Found, Malformed> {
    let Some(prefix) = bytes.first_chunk::<PREFIX_V2>() else { return Ok(Found::Part) };
    let [.., command, family, high, low] = *prefix;
    let length = PREFIX_V2 + usize::from(u16::from_be_bytes([high, low]));
    if length > HEADER_MAX {
        return Err(Malformed::TooLong(length));
    }
    let is_local = match command {
        0x20 => true,
        0x21 => false,
        other => return Err(Malformed::Version(other)),
    };
    let Some(header) = bytes.get(..length) else { return Ok(Found::Part) };
    // What else a header of the sender's own says is to be ignored.
    if is_local {
        return Ok(Found::Header(Header { length, addresses: None, parent: None }));
    }
    let addresses = addresses(header)?;
    let parent = extensions(header, family)?;
    Ok(Found::Header(Header { length, addresses, parent }))
}

/// What a whole header says; other protocols than TCP say nothing here.
fn addresses(header: &[u8]) -> Result<Option<Addresses>, Malformed> {
    let config = ParseConfig { include_tlvs: false, ..ParseConfig::default() };
    let (parsed, length) = ProxyHeader::parse(header, config).map_err(|_| Malformed::Addresses)?;
    if length != header.len() {
        return Err(Malformed::Addresses);
    }
    let proxied = parsed.proxied_address().filter(|proxied| proxied.protocol == Protocol::Stream);
    Ok(proxied.map(|proxied| Addresses { source: proxied.source, destination: proxied.destination }))
}

/// Looks through the extensions, at the checksum if it is one of them, and for a trace.
fn extensions(header: &[u8], family: u8) -> Result<Option<TraceParent>, Malformed> {
    let mut parent = None;
    let mut at = PREFIX_V2
        + match family >> 4 {
            1 => 12,
            2 => 36,
            3 => 216,
            _ => 0,
        };
    while at < header.len() {
        let rest = header.get(at..).unwrap_or_default();
        let [kind, high, low, value @ ..] = rest else { return Err(Malformed::Extension) };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let value = value.get(..length).ok_or(Malformed::Extension)?;
        at += 3;
        if *kind == TLV_TRACEPARENT {
            parent = parent.or_else(|| TraceParent::parse(value));
        }
        if *kind == TLV_CRC32C {
            let said = value.try_into().map(u32::from_be_bytes).map_err(|_| Malformed::Checksum)?;
            let place = at..at + length;
            let zeroed =
                header.iter().enumerate().map(|(at, byte)| if place.contains(&at) { 0 } else { *byte });
            if crc32c(zeroed) != said {
                return Err(Malformed::Checksum);
            }
        }
        at += length;
    }
    Ok(parent)
}

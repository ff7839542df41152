//! PROXY protocol headers as bytes, versions 1 and 2: what a proxy in front says of the client, and what is said of it to
//! endpoints.
//!
//! Pure: nothing here reads a socket, and nothing decides whom to believe.
//! Specification: <https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>.

mod read;
mod traceparent;
mod write;

pub use read::{Found, Header, Malformed, read};
pub use traceparent::TraceParent;
pub use write::{ClientFacts, Facts, TlsFacts, local, write};

use std::net::SocketAddr;

/// The longest header that is read, in bytes. The addresses and the TLVs that are in use take a few hundred.
pub const HEADER_MAX: usize = 4096;

/// Between whom the connection is that a header speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// The client's.
    pub source: SocketAddr,
    /// Where the client connected to.
    pub destination: SocketAddr,
}

/// What version 2 begins with: no other protocol does.
const SIGNATURE_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const SIGNATURE_V1: &[u8] = b"PROXY ";
/// Signature, version and command, family and transport, length.
const PREFIX_V2: usize = 16;
const TLV_CRC32C: u8 = 0x03;
/// The W3C `traceparent` of the connection (<https://www.w3.org/TR/trace-context/>), as text; the first of the types that the
/// specification leaves to applications.
const TLV_TRACEPARENT: u8 = 0xE0;

/// CRC-32C (Castagnoli), bit by bit: a header is short.
fn crc32c(bytes: impl Iterator<Item = u8>) -> u32 {
    const POLYNOMIAL: u32 = 0x82F6_3B78;
    let step = |crc: u32| if crc & 1 == 1 { (crc >> 1) ^ POLYNOMIAL } else { crc >> 1 };
    !bytes.fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(byte), |crc, _| step(crc)))
}

#[cfg(test)]
mod tests;

//! How PostgreSQL clients come to TLS: they ask for it in plain text first, or begin with it.
//!
//! Pure: bytes are arguments. <https://www.postgresql.org/docs/current/protocol-message-formats.html>

use crate::config::POSTGRES_ALPN;

/// Asks whether TLS is spoken: 8 bytes, its own length and a number that is no version of the protocol.
pub const SSL_REQUEST: [u8; REQUEST_LEN] = request(80_877_103);
/// The answers to it.
pub const YES: u8 = b'S';
pub const NO: u8 = b'N';
/// What clients have to offer that begin with TLS.
pub const ALPN: &[u8] = POSTGRES_ALPN.as_bytes();

/// How long it is.
pub const REQUEST_LEN: usize = 8;
const GSS_REQUEST: [u8; REQUEST_LEN] = request(80_877_104);
const CANCEL_REQUEST: u32 = 80_877_102;
/// The first byte of a TLS record with a handshake message.
const HANDSHAKE: u8 = 22;
/// PostgreSQL's own bound (`MAX_STARTUP_PACKET_LENGTH`).
const STARTUP_MAX: u32 = 10_000;

/// What a connection begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First {
    /// Too few bytes to tell.
    Unclear,
    /// A request for TLS, [`SSL_REQUEST`].
    SslRequest,
    /// A request of the same length for encryption by GSSAPI. After a no, the client asks for TLS or goes on without.
    GssRequest,
    /// TLS itself (`sslnegotiation=direct`).
    Tls,
    /// A start-up message: this client would go on without TLS.
    Startup,
    /// A request to cancel a query. Clients before version 17 of libpq send it without TLS, always.
    Cancel,
    /// Not PostgreSQL.
    Other,
}

/// Looks at the first bytes of a connection, or at those that follow a refused request. Once it is clear, more bytes do
/// not change it.
pub fn read(bytes: &[u8]) -> First {
    if bytes.first() == Some(&HANDSHAKE) {
        return First::Tls;
    }
    let known = bytes.get(..REQUEST_LEN).unwrap_or(bytes);
    // Lengths have two zero bytes, so that other protocols are told apart early.
    if known.iter().take(2).any(|byte| *byte != 0) {
        return First::Other;
    }
    let Some([a, b, c, d, e, f, g, h]) = known.first_chunk() else { return First::Unclear };
    let (length, code) = (u32::from_be_bytes([*a, *b, *c, *d]), u32::from_be_bytes([*e, *f, *g, *h]));
    match (length, code) {
        _ if known == SSL_REQUEST => First::SslRequest,
        _ if known == GSS_REQUEST => First::GssRequest,
        (16..=STARTUP_MAX, CANCEL_REQUEST) => First::Cancel,
        // Version 3 of the protocol, which is the only one since PostgreSQL 14.
        (8..=STARTUP_MAX, _) if code >> 16 == 3 => First::Startup,
        _ => First::Other,
    }
}

/// What tells a client that it has to come with TLS, before its connection is closed: an ErrorResponse.
pub fn refusal() -> Vec<u8> {
    // 08P01 would blame the client's software; this is what a server says whose pg_hba.conf has no line without SSL.
    let fields =
        b"SFATAL\0VFATAL\0C28000\0MTLS is required here: connect with sslmode=require or stronger\0\0";
    let length = u32::try_from(fields.len() + 4).unwrap_or_default().to_be_bytes();
    [b"E", &length[..], fields].concat()
}

const fn request(code: u32) -> [u8; REQUEST_LEN] {
    let [a, b, c, d] = code.to_be_bytes();
    [0, 0, 0, 8, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// As psql 15 sends it.
    const STARTUP: &[u8] =
        b"\0\0\0\x3e\0\x03\0\0user\0me\0database\0db\0application_name\0psql\0client_encoding\0UTF8\0\0";
    const CANCEL: &[u8] = b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x01\0\0\0\x02";

    #[test]
    fn what_clients_begin_with() {
        for (bytes, expected) in [
            (&b"\0\0\0\x08\x04\xd2\x16\x2f"[..], First::SslRequest),
            (b"\0\0\0\x08\x04\xd2\x16\x30", First::GssRequest),
            (b"\0\0\0\x08\x04\xd2\x16\x2f\x16\x03\x01", First::SslRequest),
            (b"\x16\x03\x01\x02\0", First::Tls),
            (STARTUP, First::Startup),
            // 3.2, as libpq 18 asks for.
            (b"\0\0\0\x09\0\x03\0\x02\0", First::Startup),
            (CANCEL, First::Cancel),
            (b"GET / HTTP/1.1\r\n", First::Other),
            (b"\0\x01", First::Other),
            (b"\0\0\0\x09\x04\xd2\x16\x2f\0", First::Other),
            (b"\0\0\0\x07\0\x03\0\0", First::Other),
            (b"\0\0\xff\xff\0\x03\0\0", First::Other),
            (b"\0\0\0\x08\0\x02\0\0", First::Other),
            (b"", First::Unclear),
            (b"\0\0\0\x08\x04\xd2\x16", First::Unclear),
        ] {
            assert_eq!(read(bytes), expected, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn a_refusal_is_a_whole_message() {
        let refusal = refusal();
        let length = u32::from_be_bytes([refusal[1], refusal[2], refusal[3], refusal[4]]);
        assert_eq!((refusal[0], length as usize), (b'E', refusal.len() - 1));
        assert!(refusal.ends_with(b"\0\0"));
    }

    proptest! {
        #[test]
        fn every_split_comes_to_the_same(bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..20),
            prop::collection::vec(any::<u8>(), 0..20).prop_map(|rest| [&[0, 0], &rest[..]].concat()),
            (0..12_000_u32, any::<u32>()).prop_map(|(length, code)| [length.to_be_bytes(), code.to_be_bytes()].concat()),
        ]) {
            let whole = read(&bytes);
            for end in 0..bytes.len() {
                let part = read(&bytes[..end]);
                prop_assert!(part == First::Unclear || part == whole, "{part:?} after {end} bytes");
            }
        }
    }
}

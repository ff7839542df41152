//! What goes over the wire: both ends know every byte in advance, so each one can be checked.

use std::sync::LazyLock;

/// Request and response of the small-message cases.
pub(super) const MESSAGE: usize = 64;
/// A bulk command: its opcode, then the number of bytes that follow or are wanted.
pub(super) const HEADER: usize = 16;

/// The first byte of a connection to the backend says what it is for.
pub(super) const ECHO: u8 = b'E';
/// The client sends the given number of bytes; the backend answers with the same header.
pub(super) const UPLOAD: u8 = b'U';
/// The backend sends the given number of bytes.
pub(super) const DOWNLOAD: u8 = b'D';

/// Bytes read or written by one system call of a bulk transfer.
pub(super) const CHUNK: usize = 256 * 1024;

// Not a multiple of any likely buffer size: a lost, doubled or reordered buffer cannot go unnoticed.
const PERIOD: usize = 1024 * 1024 - 3;

static PATTERN: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut rng = fastrand::Rng::with_seed(7);
    let mut bytes = vec![0; PERIOD];
    rng.fill(&mut bytes);
    bytes
});

/// A request that no other request of the run equals.
pub(super) fn request(connection: usize, sequence: u64) -> [u8; MESSAGE] {
    let mut message = [ECHO; MESSAGE];
    message[8..16].copy_from_slice(&(connection as u64).to_le_bytes());
    message[16..24].copy_from_slice(&sequence.to_le_bytes());
    message
}

pub(super) fn header(opcode: u8, length: u64) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[0] = opcode;
    header[8..].copy_from_slice(&length.to_le_bytes());
    header
}

pub(super) fn length_of(header: &[u8; HEADER]) -> u64 {
    let mut length = [0; 8];
    length.copy_from_slice(&header[8..]);
    u64::from_le_bytes(length)
}

/// The bytes of a bulk stream from `position` on: at least one, at most `CHUNK` and `limit`.
pub(super) fn bulk_from(position: u64, limit: u64) -> &'static [u8] {
    let start = (position % PERIOD as u64) as usize;
    let length = (PERIOD - start).min(CHUNK).min(limit as usize);
    &PATTERN[start..start + length]
}

/// Whether `data` is what a bulk stream has at `position`.
pub(super) fn is_bulk_at(mut position: u64, mut data: &[u8]) -> bool {
    while !data.is_empty() {
        let expected = bulk_from(position, data.len() as u64);
        if data[..expected.len()] != *expected {
            return false;
        }
        position += expected.len() as u64;
        data = &data[expected.len()..];
    }
    true
}

//! Bytes that tell where they belong: a stream whose bytes are lost, doubled or swapped does not match.

use std::io::{Read, Write};

/// An endless stream of bytes, from its seed.
#[derive(Clone)]
pub(crate) struct Pattern(std::sync::Arc<[u8]>);

/// A prime, so that no buffer's length is in step with it.
const PERIOD: usize = 65_521;
const CHUNK: usize = 128 * 1024;

impl Pattern {
    pub(crate) fn new(seed: u64) -> Self {
        let mut bytes = vec![0; PERIOD + CHUNK];
        fastrand::Rng::with_seed(seed).fill(&mut bytes[..PERIOD]);
        for index in PERIOD..bytes.len() {
            bytes[index] = bytes[index - PERIOD];
        }
        Self(bytes.into())
    }

    /// Some bytes from this place in the stream on.
    pub(crate) fn at(&self, offset: usize) -> &[u8] {
        &self.0[offset % PERIOD..][..CHUNK]
    }

    /// Writes the bytes of `range`.
    pub(crate) fn write(&self, range: std::ops::Range<usize>, mut to: impl Write) {
        let mut offset = range.start;
        while offset < range.end {
            let length = CHUNK.min(range.end - offset);
            if let Err(error) = to.write_all(&self.at(offset)[..length]) {
                panic!("cannot write the bytes from {offset} of {range:?}: {error}");
            }
            offset += length;
        }
    }

    /// Reads until the end of the stream; how many bytes came, all of them right.
    pub(crate) fn read_to_end(&self, from: impl Read) -> usize {
        let (length, end) = self.read_until_it_ends(from);
        assert!(end.is_ok(), "after {length} bytes: {end:?}");
        length
    }

    /// Reads until the stream ends in whatever way; how many bytes came, all of them right, and how it ended.
    pub(crate) fn read_until_it_ends(&self, mut from: impl Read) -> (usize, std::io::Result<()>) {
        let mut buffer = vec![0; CHUNK];
        let mut offset = 0;
        loop {
            match from.read(&mut buffer) {
                Ok(0) => return (offset, Ok(())),
                Ok(length) => {
                    assert!(buffer[..length] == self.at(offset)[..length], "differs after byte {offset}");
                    offset += length;
                }
                Err(error) => return (offset, Err(error)),
            }
        }
    }
}

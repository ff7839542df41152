//! The fields of a message, one after the other: numbers, and runs of bytes with their length in front.

use super::NoHello;

const SHORT: NoHello = NoHello::Malformed("it ends within a field");

pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn skip(&mut self, length: usize) -> Result<(), NoHello> {
        self.take(length).map(|_| ())
    }

    pub(super) fn byte(&mut self) -> Result<u8, NoHello> {
        let (byte, rest) = self.0.split_first().ok_or(SHORT)?;
        self.0 = rest;
        Ok(*byte)
    }

    /// A number of two bytes.
    pub(super) fn number(&mut self) -> Result<u16, NoHello> {
        Ok(u16::from_be_bytes([self.byte()?, self.byte()?]))
    }

    /// Bytes after a length of one.
    pub(super) fn short(&mut self) -> Result<&'a [u8], NoHello> {
        let length = self.byte()?;
        self.take(usize::from(length))
    }

    /// Bytes after a length of two.
    pub(super) fn long(&mut self) -> Result<&'a [u8], NoHello> {
        let length = self.number()?;
        self.take(usize::from(length))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], NoHello> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(SHORT)?;
        self.0 = rest;
        Ok(taken)
    }
}

//! TLS handshakes: with the client before it gets an endpoint, and with an endpoint as a part of the attempt.
//!
//! What a client says first is read without answering it. One deadline holds for that and for the handshake, and no byte
//! puts it off. The computing is done here, on the worker: in turns, so that those who are connected come first.

mod downstream;
mod places;
mod turns;
mod upstream;

use std::io;

use crate::worker::runtime::Stream;

use super::Context;
use super::relay::would_block;

pub(super) use downstream::{Ended, greet, shake_hands, tell};
pub(super) use places::{Handshakes, Room};
pub(super) use upstream::shake_hands as shake_hands_with_endpoint;

/// Reads what there is, and waits for it: how many bytes; 0 at the end. Whoever shuts the socket down ends the wait.
async fn read_some(context: &Context, stream: &Stream, into: &mut Vec<u8>) -> io::Result<usize> {
    if context.completes_reads {
        match stream.read_managed().await {
            Ok(buffer) => {
                let bytes = buffer.as_deref().unwrap_or_default();
                into.extend_from_slice(bytes);
                return Ok(bytes.len());
            }
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {}
            Err(error) => return Err(error),
        }
    }
    loop {
        stream.read_ready().await?;
        match read_now(context, stream, into) {
            Err(error) if would_block(&error) => {}
            result => return result,
        }
    }
}

/// Reads what there is, if there is anything.
fn read_now(context: &Context, stream: &Stream, into: &mut Vec<u8>) -> io::Result<usize> {
    let mut scratch = context.scratch.borrow_mut();
    let length = stream.try_read(&mut scratch)?;
    into.extend_from_slice(scratch.get(..length).unwrap_or_default());
    Ok(length)
}

/// What went wrong in a handshake, for people.
fn explain(error: &rustls::Error) -> Box<str> {
    crate::tls::reason(error).into()
}

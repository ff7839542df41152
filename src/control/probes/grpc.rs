//! A probe that asks grpc.health.v1.Health/Check, over HTTP/2.
//!
//! The two messages have one field each, so they are read and written here (<https://protobuf.dev/programming-guides/encoding>,
//! <https://github.com/grpc/grpc/blob/master/doc/health-checking.md>).

use std::net::SocketAddr;

use futures_util::future::{Either, select};
use h2::client::{Builder, SendRequest};
use h2::{Reason, RecvStream};
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderMap, TE, USER_AGENT};
use hyper::{Request, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::polite::Polite;
use super::probe::{AGENT, HEAD_MAX, say_goodbye};

/// Of an answer's message; the right one has two bytes.
const MESSAGE_MAX: usize = 1024;
/// Before a message: whether it is compressed, and its length.
const PREFIX: usize = 5;
const SERVING: u64 = 1;

/// Asks over `stream` whether `service` serves; the empty one is the process as a whole.
pub(super) async fn ask(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    scheme: &str,
    address: SocketAddr,
    service: &str,
    by: Instant,
) -> Result<(), String> {
    let mut builder = Builder::new();
    builder.enable_push(false).max_header_list_size(HEAD_MAX);
    let (client, connection) =
        builder.handshake(Polite::new(stream)).await.map_err(|error| describe(&error))?;
    let answer = Box::pin(exchange(client, scheme, address, service));
    match select(answer, connection).await {
        Either::Left((answer, connection)) => {
            // Nobody has a stream any more, so the connection says goodbye and ends.
            say_goodbye(by, connection).await;
            answer
        }
        // The answer may have come with the end.
        Either::Right((_ended, answer)) => answer.await,
    }
}

async fn exchange(
    client: SendRequest<Bytes>,
    scheme: &str,
    address: SocketAddr,
    service: &str,
) -> Result<(), String> {
    let request = Request::post(format!("{scheme}://{address}/grpc.health.v1.Health/Check"))
        .header(CONTENT_TYPE, "application/grpc")
        .header(TE, "trailers")
        .header(USER_AGENT, AGENT)
        .body(())
        .map_err(|error| error.to_string())?;
    let mut client = client.ready().await.map_err(|error| describe(&error))?;
    let (answer, mut sending) = client.send_request(request, false).map_err(|error| describe(&error))?;
    sending.send_data(framed(service), true).map_err(|error| describe(&error))?;
    let answer = answer.await.map_err(|error| describe(&error))?;
    if answer.status() != StatusCode::OK {
        return Err(format!("HTTP status {}, expected 200", answer.status().as_u16()));
    }
    let (head, mut body) = answer.into_parts();
    // An answer without a message has its status in the head.
    succeeded(&head.headers, false)?;
    let message = read(&mut body).await?;
    let trailers = body.trailers().await.map_err(|error| describe(&error))?;
    succeeded(&trailers.unwrap_or_default(), true)?;
    match serving_status(&message) {
        Some(SERVING) => Ok(()),
        Some(status) => Err(format!("status {}, expected SERVING", name(status))),
        None => Err("the answer is no HealthCheckResponse".to_owned()),
    }
}

async fn read(body: &mut RecvStream) -> Result<Vec<u8>, String> {
    let mut message = Vec::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk.map_err(|error| describe(&error))?;
        if message.len() + chunk.len() > MESSAGE_MAX {
            return Err(format!("the answer is longer than {MESSAGE_MAX} bytes"));
        }
        message.extend_from_slice(&chunk);
        body.flow_control().release_capacity(chunk.len()).map_err(|error| describe(&error))?;
    }
    Ok(message)
}

/// Looks at `grpc-status`, which has to be there in the end.
fn succeeded(headers: &HeaderMap, is_end: bool) -> Result<(), String> {
    let text = |name: &str| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
    match text("grpc-status").as_deref() {
        Some("0") => Ok(()),
        Some(status) => {
            let message = text("grpc-message").map_or_else(String::new, |message| format!(": {message}"));
            Err(format!("grpc-status {status}{message}"))
        }
        None if is_end => Err("the answer has no grpc-status".to_owned()),
        None => Ok(()),
    }
}

fn describe(error: &h2::Error) -> String {
    match error.reason() {
        Some(Reason::HTTP_1_1_REQUIRED) => "it speaks HTTP/1.1 only".to_owned(),
        _ => format!("asking: {error}"),
    }
}

/// A HealthCheckRequest: field 1 is the service.
fn framed(service: &str) -> Bytes {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(1 << 3 | 2);
        write_number(&mut message, service.len() as u64);
        message.extend_from_slice(service.as_bytes());
    }
    let mut frame = vec![0];
    frame.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    frame.extend_from_slice(&message);
    frame.into()
}

/// Field 1 of a HealthCheckResponse, a number; absent it is 0. `None`: this is no such message.
fn serving_status(frame: &[u8]) -> Option<u64> {
    let (prefix, mut message) = frame.split_at_checked(PREFIX)?;
    let length = u32::from_be_bytes(prefix.get(1..)?.try_into().ok()?);
    if prefix.first() != Some(&0) || usize::try_from(length).ok()? != message.len() {
        return None;
    }
    let mut status = 0;
    while !message.is_empty() {
        let key = read_number(&mut message)?;
        match (key >> 3, key & 7) {
            (1, 0) => status = read_number(&mut message)?,
            (_, 0) => _ = read_number(&mut message)?,
            (_, 1) => message = message.get(8..)?,
            (_, 2) => {
                let length = read_number(&mut message)?;
                message = message.get(usize::try_from(length).ok()?..)?;
            }
            (_, 5) => message = message.get(4..)?,
            _ => return None,
        }
    }
    Some(status)
}

/// A number of variable length: 7 bits to a byte, the lowest first.
fn read_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn write_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        let [lowest, ..] = number.to_le_bytes();
        bytes.push(lowest | 0x80);
        number >>= 7;
    }
    let [last, ..] = number.to_le_bytes();
    bytes.push(last);
}

fn name(status: u64) -> String {
    let names = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];
    let name = usize::try_from(status).ok().and_then(|status| names.get(status));
    name.map_or_else(|| status.to_string(), |name| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn messages_are_those_of_protobuf() {
        assert_eq!(&framed("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&framed("pg")[..], b"\0\0\0\0\x04\x0a\x02pg");
        assert_eq!(serving_status(&[0, 0, 0, 0, 2, 0x08, 1]), Some(SERVING));
        assert_eq!(serving_status(&[0, 0, 0, 0, 0]), Some(0));
        let with_others = [0, 0, 0, 0, 9, 0x12, 2, b'a', b'b', 0x08, 2, 0x18, 0x80, 1];
        assert_eq!(serving_status(&with_others), Some(2));
        for wrong in
            [&[][..], &[0, 0, 0, 0, 1], &[1, 0, 0, 0, 2, 8, 1], &[0, 0, 0, 0, 1, 8], &[0, 0, 0, 0, 1, 3]]
        {
            assert_eq!(serving_status(wrong), None, "{wrong:?}");
        }
        assert_eq!([1, 2, 9].map(name), ["SERVING", "NOT_SERVING", "9"]);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(number: u64) {
            let mut bytes = Vec::new();
            write_number(&mut bytes, number);
            let mut rest = &bytes[..];
            prop_assert_eq!(read_number(&mut rest), Some(number));
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn any_answer_is_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let mut frame = vec![0, 0, 0, 0, u8::try_from(bytes.len()).unwrap()];
            frame.extend(bytes);
            let _any = serving_status(&frame);
        }
    }
}

//! The compact form of a line: fields that awk can split, in an order that never changes (docs/access-log.md).
//!
//! No value has a space, a control character or a separator in it, whatever clients and endpoints say: such bytes are
//! spelled out. So a line is one line, and can be read back.

use std::fmt::Display;
use std::io::{self, Write};
use std::time::Duration;

use crate::telemetry::logging::rfc3339;
use crate::telemetry::record::Attempt;
use crate::telemetry::{ConnectionRecord, Negotiated, Outcome, TlsRecord};

/// What does not apply.
const NONE: &[u8] = b"-";

pub(super) fn write_line(record: &ConnectionRecord, output: &mut Vec<u8>) -> io::Result<()> {
    let timeline = &record.timeline;
    write!(output, "{} ", rfc3339(timeline.accepted))?;
    field(output, Some(&record.listener))?;
    write!(output, "{} ", record.client)?;
    field(output, record.upstream.as_deref())?;
    shown(output, record.endpoint)?;
    write!(output, "{} {} ", record.outcome.label(), record.outcome.side().label())?;
    let connected = timeline.connect_ended;
    let connect = connected.zip(timeline.connect_started).map(|(end, start)| end.saturating_sub(start));
    let first_byte = timeline.first_byte_upstream.zip(connected).map(|(byte, end)| byte.saturating_sub(end));
    for (at, time) in [timeline.routed, connect, first_byte, Some(timeline.ended)].into_iter().enumerate() {
        output.extend_from_slice(if at == 0 { b"" } else { b"/" });
        match time {
            Some(time) => milliseconds(output, time)?,
            None => output.extend_from_slice(b"-1"),
        }
    }
    write!(output, " {} {} ", record.bytes_received, record.bytes_sent)?;
    attempts(output, &record.attempts)?;
    field(output, record.route.as_deref())?;
    write!(output, "{} {} {} ", record.worker, record.id, record.trace)?;
    shown(output, record.via)?;
    details(output, record.tls.as_deref())?;
    output.push(b'\n');
    Ok(())
}

/// `10.0.0.1:5432@1.250+0.300=connect_refused,...`: where, when it began, how long it took, how it ended and what was said of it.
fn attempts(output: &mut Vec<u8>, attempts: &[Attempt]) -> io::Result<()> {
    for (at, attempt) in attempts.iter().enumerate() {
        output.extend_from_slice(if at == 0 { b"" } else { b"," });
        write!(output, "{}@", attempt.endpoint)?;
        milliseconds(output, attempt.started)?;
        output.push(b'+');
        milliseconds(output, attempt.ended.saturating_sub(attempt.started))?;
        write!(output, "={}", attempt.failure.map_or("connected", Outcome::label))?;
        if let Some(reason) = &attempt.reason {
            output.push(b'(');
            escaped(output, reason)?;
            output.push(b')');
        }
    }
    if attempts.is_empty() {
        output.extend_from_slice(NONE);
    }
    output.push(b' ');
    Ok(())
}

/// `key=value;...`: the last field, because what there is to tell differs.
fn details(output: &mut Vec<u8>, tls: Option<&TlsRecord>) -> io::Result<()> {
    let start = output.len();
    let mut detail = |key: &str, write: &dyn Fn(&mut Vec<u8>) -> io::Result<()>| {
        output.extend_from_slice(if output.len() == start { b"" } else { b";" });
        output.extend_from_slice(key.as_bytes());
        output.push(b'=');
        write(output)
    };
    let Some(tls) = tls else {
        output.extend_from_slice(NONE);
        return Ok(());
    };
    if let Some(name) = &tls.server_name {
        detail("server_name", &|output| escaped(output, name))?;
    }
    if let Some(time) = tls.handshake_ended {
        detail("handshake_ms", &|output| milliseconds(output, time))?;
    }
    for (key, side) in [("downstream", &tls.downstream), ("upstream", &tls.upstream)] {
        if let Some(side) = side {
            detail(key, &|output| negotiated(output, side))?;
        }
    }
    if let Some(client) = &tls.client {
        for name in &client.names {
            detail("client_name", &|output| escaped(output, &name.to_string()))?;
        }
        if let Some(name) = &client.common_name {
            detail("client_common_name", &|output| escaped(output, name))?;
        }
        let fingerprint = |output: &mut Vec<u8>| {
            client.fingerprint.iter().try_for_each(|byte| write!(output, "{byte:02x}"))
        };
        detail("client_fingerprint", &fingerprint)?;
    }
    if let Some(failure) = &tls.failure {
        detail("failure", &|output| escaped(output, failure))?;
    }
    if output.len() == start {
        output.extend_from_slice(NONE);
    }
    Ok(())
}

/// `TLSv1.3/TLS_AES_128_GCM_SHA256/full/h2`.
fn negotiated(output: &mut Vec<u8>, side: &Negotiated) -> io::Result<()> {
    let kind = if side.resumed { "resumed" } else { "full" };
    write!(output, "{}/{}/{kind}/", side.version, side.cipher)?;
    match &side.alpn {
        Some(alpn) => escaped(output, alpn),
        None => output.write_all(NONE),
    }
}

fn field(output: &mut Vec<u8>, value: Option<&str>) -> io::Result<()> {
    match value {
        Some(value) => escaped(output, value)?,
        None => output.extend_from_slice(NONE),
    }
    output.push(b' ');
    Ok(())
}

fn shown(output: &mut Vec<u8>, value: Option<impl Display>) -> io::Result<()> {
    match value {
        Some(value) => write!(output, "{value} "),
        None => output.write_all(b"- "),
    }
}

/// With microseconds, and no more.
fn milliseconds(output: &mut Vec<u8>, time: Duration) -> io::Result<()> {
    let microseconds = time.as_micros();
    write!(output, "{}.{:03}", microseconds / 1_000, microseconds % 1_000)
}

/// Bytes beyond printable ASCII and separators as `\xff`; nothing as `""`, and a lone `-`, which means none, as `\x2d`.
fn escaped(output: &mut Vec<u8>, value: &str) -> io::Result<()> {
    if value.is_empty() {
        output.extend_from_slice(b"\"\"");
    }
    for byte in value.bytes() {
        let separates = matches!(byte, b'\\' | b'"' | b',' | b';' | b'(' | b')');
        if byte.is_ascii_graphic() && !separates && value != "-" {
            output.push(byte);
        } else {
            write!(output, "\\x{byte:02x}")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;

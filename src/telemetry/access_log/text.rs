//! The compact form of a line: fields that awk can split, in an order that never changes (docs/access-log.md).
//!
//! No value has a space, a control character or a separator in it, whatever clients and endpoints say: such bytes are
//! spelled out. So a line is one line, and can be read back.

use std::fmt::Display;
use std::io::{self, Write};
use std::time::Duration;

use crate::telemetry::logging::rfc3339;
use crate::telemetry::record::Attempt;
use crate::telemetry::{ClientIdentity, ConnectionRecord, Negotiated, Outcome, TlsRecord};

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
    let connected = record.connected();
    let connect = connected.zip(timeline.connect_started).map(|(end, start)| end.saturating_sub(start));
    let first_byte = timeline.first_byte_upstream.zip(connected).map(|(byte, end)| byte.saturating_sub(end));
    let ends = [timeline.half_close_downstream, timeline.half_close_upstream];
    let timers = [timeline.routed, connect, first_byte, Some(timeline.ended)];
    for (at, time) in timers.into_iter().chain(ends).enumerate() {
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
    shown(output, record.via.as_deref().map(|via| via.proxy))?;
    details(output, record)?;
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
fn details(output: &mut Vec<u8>, record: &ConnectionRecord) -> io::Result<()> {
    let mut details = Details { start: output.len(), output };
    if let Some(pod) = record.pod() {
        details.add("pod", |output| escaped(output, pod))?;
    }
    if let Some(time) = record.timeline.drain_started {
        details.add("drain_start_ms", |output| milliseconds(output, time))?;
    }
    if let Some(tls) = record.tls.as_deref() {
        details.tls(tls)?;
    }
    if details.output.len() == details.start {
        details.output.extend_from_slice(NONE);
    }
    Ok(())
}

struct Details<'a> {
    output: &'a mut Vec<u8>,
    /// Where they begin.
    start: usize,
}

impl Details<'_> {
    fn add(&mut self, key: &str, write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> io::Result<()> {
        self.output.extend_from_slice(if self.output.len() == self.start { b"" } else { b";" });
        self.output.extend_from_slice(key.as_bytes());
        self.output.push(b'=');
        write(self.output)
    }

    fn tls(&mut self, tls: &TlsRecord) -> io::Result<()> {
        if let Some(name) = &tls.server_name {
            self.add("server_name", |output| escaped(output, name))?;
        }
        if let Some(time) = tls.handshake_ended {
            self.add("handshake_ms", |output| milliseconds(output, time))?;
        }
        for (key, side) in [("downstream", &tls.downstream), ("upstream", &tls.upstream)] {
            if let Some(side) = side {
                self.add(key, |output| negotiated(output, side))?;
            }
        }
        if let Some(client) = &tls.client {
            self.client(client)?;
        }
        if let Some(failure) = &tls.failure {
            self.add("failure", |output| escaped(output, failure))?;
        }
        Ok(())
    }

    fn client(&mut self, client: &ClientIdentity) -> io::Result<()> {
        for name in &client.names {
            self.add("client_name", |output| escaped(output, &name.to_string()))?;
        }
        if let Some(name) = &client.common_name {
            self.add("client_common_name", |output| escaped(output, name))?;
        }
        self.add("client_fingerprint", |output| {
            client.fingerprint.iter().try_for_each(|byte| write!(output, "{byte:02x}"))
        })
    }
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

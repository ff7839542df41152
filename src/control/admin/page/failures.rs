//! The connections that failed last: what each waited for, attempt by attempt.

use std::time::{Duration, SystemTime};

use maud::{Markup, html};

use crate::control::shared::Shared;
use crate::telemetry::logging::rfc3339;
use crate::telemetry::{Attempt, ConnectionRecord};

use super::charts::round;
use super::format;

/// The newest ones; all are in the access log.
const SHOWN: usize = 10;
/// Of one connection; the first ones.
const ATTEMPTS_SHOWN: usize = 6;

/// What a connection did for some of its time, or tried.
struct Phase<'a> {
    class: &'static str,
    name: String,
    from: Duration,
    until: Duration,
    note: &'a str,
}

pub(super) fn section(shared: &Shared) -> Markup {
    let failures = shared.telemetry.failures.newest();
    html! {
        section id="failures" aria-labelledby="failures-title" {
            h2 id="failures-title" { "Recent failures" }
            div class="card scroll" tabindex="0" role="group" aria-labelledby="failures-title" {
                table {
                    caption { "The connections that failed last, newest first, and where their time went" }
                    thead { tr {
                        th scope="col" { "Ended" }
                        th scope="col" { "Client" }
                        th scope="col" { "Way" }
                        th scope="col" { "Outcome" }
                        th scope="col" class="n" { "Took" }
                        th scope="col" { "Timeline" }
                    } }
                    tbody { @for record in failures.iter().take(SHOWN) { (row(record)) } }
                }
                @if failures.is_empty() { p class="nothing" { "none" } }
            }
        }
    }
}

fn row(record: &ConnectionRecord) -> Markup {
    let at = record.timeline.accepted + record.timeline.ended;
    let ago = SystemTime::now().duration_since(at).unwrap_or_default();
    let tls = record.tls.as_deref();
    let server_name = tls.and_then(|tls| tls.server_name.as_deref());
    html! {
        tr id={ "failure-" (record.id) } class="top-aligned" {
            td { time datetime=(rfc3339(at)) { (format::long(ago)) " ago" } }
            th scope="row" class="mono" { (record.client) " " span class="quiet" { "#" (record.id) } }
            td {
                (record.listener)
                @if let Some(upstream) = &record.upstream { " → " (upstream) }
                @if let Some(name) = server_name { " " span class="quiet mono name" { (name) } }
            }
            td {
                span class="pill bad" { (record.outcome.label()) }
                " " span class="quiet" { "by " (record.outcome.side().label()) }
                @if record.wants.trace { br; span class="quiet mono" { "trace " (record.trace) } }
                @if let Some(failure) = tls.and_then(|tls| tls.failure.as_deref()) { br; span class="quiet why" { (failure) } }
            }
            td class="n" { (format::short(record.timeline.ended.as_secs_f64())) }
            td class="timeline" { (timeline(record)) }
        }
    }
}

fn timeline(record: &ConnectionRecord) -> Markup {
    let phases = phases(record);
    let whole = record.timeline.ended.as_secs_f64().max(1e-9);
    let more = record.attempts.len().saturating_sub(ATTEMPTS_SHOWN);
    html! {
        svg class="phases" viewBox={ "0 0 200 " (phases.len() * 7) } preserveAspectRatio="none" aria-hidden="true"
            height=(phases.len() * 7) {
            @for (index, phase) in phases.iter().enumerate() {
                @let x = (phase.from.as_secs_f64() / whole * 200.0).min(198.0);
                @let width = phase.until.saturating_sub(phase.from).as_secs_f64() / whole * 200.0;
                rect class=(phase.class) x=(round(x)) y=(index * 7 + 1) width=(round(width.clamp(2.0, 200.0 - x))) height="5" rx="1" {}
            }
        }
        ul class="phases" {
            @for phase in &phases {
                li {
                    span class={ "mark " (phase.class) } aria-hidden="true" {}
                    (phase.name)
                    @if !phase.note.is_empty() { " " strong { (phase.note) } }
                    " " span class="quiet" {
                        (format::short(phase.until.saturating_sub(phase.from).as_secs_f64()))
                        @if !phase.from.is_zero() { " from " (format::short(phase.from.as_secs_f64())) }
                    }
                }
            }
            @if more > 0 { li class="quiet" { "and " (format::counted(more, "more attempt")) } }
        }
    }
}

fn phases(record: &ConnectionRecord) -> Vec<Phase<'_>> {
    let (timeline, mut phases) = (&record.timeline, Vec::new());
    let phase =
        |class, name: &str, from, until| Phase { class, name: name.to_owned(), from, until, note: "" };
    // What an ended step left out is until the end.
    let begun = timeline.connect_started.or(timeline.routed).unwrap_or(timeline.ended);
    if let Some(header) = timeline.proxy_ended {
        phases.push(phase("wait", "PROXY header", Duration::ZERO, header));
    }
    let since = timeline.proxy_ended.unwrap_or_default();
    let handshake = record.tls.as_deref().map(|tls| tls.handshake_ended.unwrap_or(begun));
    if let Some(handshake) = handshake {
        phases.push(phase("wait", "client’s TLS", since, handshake));
    }
    let since = handshake.unwrap_or(since);
    if begun.saturating_sub(since) >= Duration::from_micros(100) || (phases.is_empty() && begun > since) {
        let is_routed = timeline.connect_started.or(timeline.routed).is_some();
        // Who was told why waits for its client to have heard it.
        let name = if is_routed || handshake.is_none() { "until routed" } else { "until closed" };
        phases.push(phase("wait", name, since, begun));
    }
    phases.extend(record.attempts.iter().take(ATTEMPTS_SHOWN).map(Phase::of));
    if let (Some(connected), Some(_)) = (timeline.connect_ended, record.endpoint) {
        let first = timeline.first_byte_upstream.map(|at| at.max(connected));
        phases.push(phase("answer", "until the first byte", connected, first.unwrap_or(timeline.ended)));
        phases.extend(first.map(|first| phase("relay", "relayed", first, timeline.ended)));
    }
    phases
}

impl<'a> Phase<'a> {
    fn of(attempt: &'a Attempt) -> Self {
        let failure = attempt.failure.map_or("", |failure| failure.label());
        Self {
            class: if attempt.failure.is_some() { "failed" } else { "connected" },
            name: match attempt.failure {
                Some(_) => attempt.endpoint.to_string(),
                None => format!("{} connected", attempt.endpoint),
            },
            from: attempt.started,
            until: attempt.ended,
            note: attempt.reason.as_deref().unwrap_or(failure),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{Outcome, TlsRecord};

    #[test]
    fn phases_follow_each_other_and_each_attempt_has_its_own() {
        let milliseconds = Duration::from_millis;
        let mut record = ConnectionRecord::example();
        record.attempts.insert(
            0,
            Attempt {
                endpoint: ([127, 0, 0, 1], 9).into(),
                started: milliseconds(1),
                pod: None,
                local: None,
                handshake_started: None,
                ended: milliseconds(1),
                failure: Some(Outcome::ConnectRefused),
                reason: None,
            },
        );
        let names = |record: &ConnectionRecord| {
            phases(record)
                .into_iter()
                .map(|phase| format!("{} {}", phase.name, phase.note))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            names(&record),
            [
                "until routed ",
                "127.0.0.1:9 connect_refused",
                "127.0.0.1:2 connected ",
                "until the first byte ",
                "relayed ",
            ]
        );
        record.timeline.connect_started = None;
        record.timeline.routed = None;
        record.timeline.connect_ended = None;
        record.attempts.clear();
        record.tls = Some(Box::new(TlsRecord::default()));
        assert_eq!(names(&record), ["client’s TLS "], "it came no further");
        record.tls.as_mut().unwrap().handshake_ended = Some(milliseconds(1));
        assert_eq!(names(&record), ["client’s TLS ", "until closed "], "its name has no route");
        let page = timeline(&record).into_string();
        assert!(!page.contains("NaN"), "{page}");
    }
}

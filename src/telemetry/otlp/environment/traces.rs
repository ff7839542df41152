//! How traces are sent, and which.

use std::time::Duration;

use crate::config::Tracing;
use crate::telemetry::{Parents, TraceRules};

use super::{Environment, Receiver, TRACES, Written};

/// How traces are sent.
#[derive(Clone, Debug, PartialEq)]
pub struct TraceSettings {
    pub(in crate::telemetry::otlp) receiver: Receiver,
    /// What is kept.
    pub rules: TraceRules,
    pub batches: Batches,
    /// Of `OTEL_RESOURCE_ATTRIBUTES` and `OTEL_SERVICE_NAME`.
    pub(in crate::telemetry::otlp) resource: Vec<(String, String)>,
}

/// How spans are sent together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batches {
    /// Spans that may wait.
    pub queue_max: usize,
    /// Spans in one request, as far as traces are not torn.
    pub batch_max: usize,
    /// How long the first of a batch waits for others.
    pub delay: Duration,
    /// For a batch, with trying again.
    pub timeout: Duration,
}

impl Default for Batches {
    fn default() -> Self {
        Self {
            queue_max: 16_384,
            batch_max: 512,
            delay: Duration::from_secs(1),
            timeout: Duration::from_secs(30),
        }
    }
}

/// More spans than any batch or queue has use for.
const SPANS_MAX: u64 = 1 << 20;

impl TraceSettings {
    /// Where they go, for the log.
    pub fn receiver(&self) -> String {
        self.receiver.shown()
    }
}

impl Environment {
    /// `None`: no traces are sent.
    pub(super) fn traces(&mut self, file: &Tracing) -> Option<TraceSettings> {
        if !self.enables(TRACES, file.enabled, &[]) {
            return None;
        }
        let rules = self.rules(file)?;
        let batches = Batches::default();
        Some(TraceSettings {
            receiver: self.receiver(TRACES, Written { endpoint: &file.endpoint, protocol: file.protocol }),
            rules,
            batches: Batches {
                queue_max: self.spans("OTEL_BSP_MAX_QUEUE_SIZE", batches.queue_max),
                batch_max: self.spans("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", batches.batch_max),
                delay: self.milliseconds("OTEL_BSP_SCHEDULE_DELAY", batches.delay),
                timeout: self.milliseconds("OTEL_BSP_EXPORT_TIMEOUT", batches.timeout),
            },
            resource: self.resource(),
        })
    }

    /// `None`: no trace is kept at all.
    fn rules(&mut self, file: &Tracing) -> Option<TraceRules> {
        let share = match self.get("OTEL_TRACES_SAMPLER_ARG").map(str::parse::<f64>) {
            Some(Ok(share @ 0.0..=1.0)) if share.is_sign_positive() => share,
            None => 1.0,
            Some(_) => {
                self.complain("OTEL_TRACES_SAMPLER_ARG", "write a number from 0 (none) to 1 (all)");
                1.0
            }
        };
        let rules = |sample, parents| TraceRules { sample, slower_than: file.slower_than, parents };
        Some(match self.get("OTEL_TRACES_SAMPLER") {
            None => rules(file.sample, Parents::Kept),
            Some("always_on") => rules(1.0, Parents::Ignored),
            Some("always_off") => return None,
            Some("traceidratio") => rules(share, Parents::Ignored),
            Some("parentbased_always_on") => rules(1.0, Parents::Followed),
            Some("parentbased_always_off") => rules(0.0, Parents::Followed),
            Some("parentbased_traceidratio") => rules(share, Parents::Followed),
            Some(_) => {
                let instead = "write always_on, always_off, traceidratio, or one of them with parentbased_";
                self.complain("OTEL_TRACES_SAMPLER", instead);
                rules(file.sample, Parents::Kept)
            }
        })
    }

    fn spans(&mut self, name: &str, default: usize) -> usize {
        match self.get(name).map(str::parse::<u64>) {
            Some(Ok(spans)) if (1..=SPANS_MAX).contains(&spans) => usize::try_from(spans).unwrap_or(default),
            None => default,
            Some(_) => {
                self.complain(name, &format!("write a whole number from 1 to {SPANS_MAX}"));
                default
            }
        }
    }
}

//! How metrics are sent.

use std::time::Duration;

use crate::config::MetricsOtlp;

use super::{Environment, METRICS, Receiver, Written};

/// How metrics are sent.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricSettings {
    pub(in crate::telemetry::otlp) receiver: Receiver,
    /// From the beginning of one export to that of the next.
    pub interval: Duration,
    /// For all requests of an export.
    pub(in crate::telemetry::otlp) timeout: Duration,
    /// Of `OTEL_RESOURCE_ATTRIBUTES` and `OTEL_SERVICE_NAME`.
    pub(in crate::telemetry::otlp) resource: Vec<(String, String)>,
}

const EXPORT_TIMEOUT: Duration = Duration::from_secs(30);
/// Of the interval: making all of them costs something.
const INTERVAL_MIN_MS: u32 = 1_000;

impl MetricSettings {
    /// Where they go, for the log.
    pub fn receiver(&self) -> String {
        self.receiver.shown()
    }
}

impl Environment {
    /// `None`: no metrics are sent.
    pub(super) fn metrics(&mut self, file: &MetricsOtlp) -> Option<MetricSettings> {
        // Who scrapes finds them whatever is sent.
        if !self.enables(METRICS, file.enabled, &["prometheus"]) {
            return None;
        }
        self.only_accepts(
            "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE",
            "cumulative",
            "metrics are cumulative; the collector's processor cumulativetodelta makes deltas of them",
        );
        self.only_accepts(
            "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION",
            "explicit_bucket_histogram",
            "histograms have the buckets that they have on /metrics",
        );
        let written = Written { endpoint: &file.endpoint, protocol: file.protocol };
        Some(MetricSettings {
            receiver: self.receiver(METRICS, written),
            interval: self.interval(file.interval),
            timeout: self.milliseconds("OTEL_METRIC_EXPORT_TIMEOUT", EXPORT_TIMEOUT),
            resource: self.resource(),
        })
    }

    /// Complains of every other value.
    fn only_accepts(&mut self, name: &str, accepted: &str, instead: &str) {
        if self.get(name).is_some_and(|value| !value.eq_ignore_ascii_case(accepted)) {
            self.complain(name, instead);
        }
    }

    fn interval(&mut self, file: Duration) -> Duration {
        const INTERVAL: &str = "OTEL_METRIC_EXPORT_INTERVAL";
        match self.get(INTERVAL).map(str::parse::<u32>) {
            Some(Ok(milliseconds)) if milliseconds >= INTERVAL_MIN_MS => {
                Duration::from_millis(milliseconds.into())
            }
            None => file,
            Some(_) => {
                self.complain(INTERVAL, &format!("write milliseconds, {INTERVAL_MIN_MS} or more"));
                file
            }
        }
    }
}

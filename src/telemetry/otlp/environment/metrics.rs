//! How metrics are sent.

use std::time::Duration;

use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};

use crate::config::MetricsOtlp;

use super::{Environment, METRICS, Receiver, Signal, Written, pairs};

/// How metrics are sent.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricSettings {
    pub(in crate::telemetry::otlp) receiver: Receiver,
    /// From the beginning of one export to that of the next.
    pub interval: Duration,
    /// For all requests of an export.
    pub(in crate::telemetry::otlp) timeout: Duration,
    /// Their values are secret.
    pub(in crate::telemetry::otlp) headers: HeaderMap,
    pub(in crate::telemetry::otlp) is_compressed: bool,
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
            headers: self.headers(METRICS),
            is_compressed: self.is_compressed(METRICS),
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

    pub(super) fn headers(&mut self, signal: Signal) -> HeaderMap {
        let Some(name) = self.either(signal, "HEADERS") else { return HeaderMap::new() };
        let headers = self.get(&name).and_then(headers);
        headers.unwrap_or_else(|| {
            self.complain_in_secret(&name, "write key=value,key=value, percent-encoded");
            HeaderMap::new()
        })
    }

    pub(super) fn is_compressed(&mut self, signal: Signal) -> bool {
        let Some(name) = self.either(signal, "COMPRESSION") else { return false };
        match self.get(&name) {
            Some("gzip") => true,
            Some("none") => false,
            _ => {
                self.complain(&name, "write gzip or none");
                false
            }
        }
    }
}

/// `None`: something else than headers.
fn headers(text: &str) -> Option<HeaderMap> {
    let pairs = pairs(text)?.into_iter();
    let headers = pairs.map(|(name, value)| {
        let mut value = HeaderValue::try_from(value).ok()?;
        value.set_sensitive(true);
        Some((HeaderName::try_from(name).ok()?, value))
    });
    headers.collect()
}

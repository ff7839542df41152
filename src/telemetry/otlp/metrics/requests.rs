//! Requests of OTLP, filled series by series. None is larger than any receiver takes.

use std::collections::BTreeMap;
use std::time::SystemTime;

use opentelemetry_http::Bytes;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Exemplar, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint,
    ResourceMetrics, ScopeMetrics, Sum, Summary, SummaryDataPoint, exemplar, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;

use super::starts::Starts;
use crate::telemetry;
use crate::telemetry::otlp::{SCHEMA, nanoseconds};

/// A collector takes 4 MiB at once by gRPC; a quarter of that keeps little in memory as well.
const SIZE_MAX: usize = 1 << 20;
/// What a metric or a point costs beside itself, at most: tags and lengths around it.
const AROUND_METRIC: usize = 24;
const AROUND_POINT: usize = 6;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows.
    Counter,
    Gauge,
    Histogram,
    /// 1, with what there is to say in labels.
    Info,
    /// A sum and a count.
    Summary,
}

/// What the series of one metric have in common.
#[derive(Clone, Debug)]
pub struct Description {
    pub name: String,
    pub help: &'static str,
    /// As UCUM has it, such as `s` and `By`.
    pub unit: &'static str,
    pub kind: MetricKind,
    /// Their values go with them by position.
    pub labels: &'static [&'static str],
}

#[derive(Clone, Copy, Debug)]
pub enum MetricValue {
    Whole(u64),
    Real(f64),
}

/// An export that is made.
#[derive(Debug)]
pub struct Requests<'a> {
    resource: Resource,
    starts: &'a mut Starts,
    /// When all of it is read: nanoseconds since the epoch.
    now: u64,
    full: Vec<Bytes>,
    /// Of the request that is filled.
    metrics: Vec<Metric>,
    size: usize,
    size_max: usize,
    description: Option<Description>,
}

enum Point {
    Number(NumberDataPoint),
    Histogram(HistogramDataPoint),
    Summary(SummaryDataPoint),
}

impl<'a> Requests<'a> {
    pub(super) fn new(resource: &BTreeMap<String, String>, starts: &'a mut Starts) -> Self {
        let attributes = resource.iter().map(|(key, value)| attribute(key, value)).collect();
        let resource = Resource { attributes, ..Resource::default() };
        Self {
            resource,
            starts,
            now: nanoseconds(SystemTime::now()),
            full: Vec::new(),
            metrics: Vec::new(),
            size: 0,
            size_max: SIZE_MAX,
            description: None,
        }
    }

    /// What comes next is of this metric.
    pub fn begin(&mut self, description: Description) {
        self.description = Some(description);
    }

    pub fn number(&mut self, values: &[&str], value: MetricValue) {
        let Some(description) = &self.description else { return };
        let start = match description.kind {
            MetricKind::Counter => self.starts.of(&description.name, values, value.approximately()),
            // Numbers that do not add up have no start.
            MetricKind::Gauge | MetricKind::Histogram | MetricKind::Info | MetricKind::Summary => 0,
        };
        let value = match value {
            MetricValue::Whole(number) => {
                number_data_point::Value::AsInt(i64::try_from(number).unwrap_or(i64::MAX))
            }
            MetricValue::Real(number) => number_data_point::Value::AsDouble(number),
        };
        let point = Point::Number(NumberDataPoint {
            attributes: attributes(description, values),
            start_time_unix_nano: start,
            time_unix_nano: self.now,
            value: Some(value),
            ..NumberDataPoint::default()
        });
        self.put(point);
    }

    pub fn histogram(&mut self, values: &[&str], histogram: &telemetry::Histogram) {
        let Some(description) = &self.description else { return };
        let buckets = histogram.buckets();
        let exemplars = (0..buckets.len()).filter_map(|bucket| histogram.exemplar(bucket));
        let count = MetricValue::Whole(histogram.count()).approximately();
        let point = Point::Histogram(HistogramDataPoint {
            attributes: attributes(description, values),
            start_time_unix_nano: self.starts.of(&description.name, values, count),
            time_unix_nano: self.now,
            count: histogram.count(),
            sum: Some(histogram.sum()),
            bucket_counts: buckets.iter().map(|(_, count)| *count).collect(),
            explicit_bounds: buckets
                .iter()
                .map(|(bound, _)| *bound)
                .filter(|bound| bound.is_finite())
                .collect(),
            exemplars: exemplars.map(of_exemplar).collect(),
            ..HistogramDataPoint::default()
        });
        self.put(point);
    }

    pub fn summary(&mut self, values: &[&str], sum: f64, count: u64) {
        let Some(description) = &self.description else { return };
        let start = MetricValue::Whole(count).approximately();
        let point = Point::Summary(SummaryDataPoint {
            attributes: attributes(description, values),
            start_time_unix_nano: self.starts.of(&description.name, values, start),
            time_unix_nano: self.now,
            count,
            sum,
            ..SummaryDataPoint::default()
        });
        self.put(point);
    }

    /// All requests, each of them encoded.
    pub fn finish(mut self) -> Vec<Bytes> {
        self.close();
        self.starts.turn(self.now);
        self.full
    }

    fn put(&mut self, point: Point) {
        let size = point.size() + AROUND_POINT;
        if self.size + size > self.size_max {
            self.close();
        }
        let Some(description) = &self.description else { return };
        if self.metrics.last().is_none_or(|metric| metric.name != description.name) {
            let metric = description.metric();
            self.size += metric.encoded_len() + AROUND_METRIC;
            self.metrics.push(metric);
        }
        self.size += size;
        if let Some(data) = self.metrics.last_mut().and_then(|metric| metric.data.as_mut()) {
            point.join(data);
        }
    }

    /// Ends the request that is filled.
    fn close(&mut self) {
        self.size = 0;
        if self.metrics.is_empty() {
            return;
        }
        let scope = InstrumentationScope {
            name: "sheave".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..InstrumentationScope::default()
        };
        let metrics = std::mem::take(&mut self.metrics);
        let of_scope = ScopeMetrics { scope: Some(scope), metrics, schema_url: SCHEMA.to_owned() };
        let of_resource = ResourceMetrics {
            resource: Some(self.resource.clone()),
            scope_metrics: vec![of_scope],
            schema_url: SCHEMA.to_owned(),
        };
        let request = ExportMetricsServiceRequest { resource_metrics: vec![of_resource] };
        self.full.push(request.encode_to_vec().into());
    }
}

impl Description {
    /// Without points.
    fn metric(&self) -> Metric {
        let aggregation_temporality = AggregationTemporality::Cumulative.into();
        let sum = |is_monotonic| Sum { data_points: Vec::new(), aggregation_temporality, is_monotonic };
        let data = match self.kind {
            MetricKind::Counter => Data::Sum(sum(true)),
            // As the specification turns an info of OpenMetrics into OTLP.
            MetricKind::Info => Data::Sum(sum(false)),
            MetricKind::Gauge => Data::Gauge(Gauge::default()),
            MetricKind::Histogram => {
                Data::Histogram(Histogram { data_points: Vec::new(), aggregation_temporality })
            }
            MetricKind::Summary => Data::Summary(Summary::default()),
        };
        Metric {
            name: self.name.clone(),
            description: self.help.to_owned(),
            unit: self.unit.to_owned(),
            data: Some(data),
            ..Metric::default()
        }
    }
}

impl Point {
    fn size(&self) -> usize {
        match self {
            Self::Number(point) => point.encoded_len(),
            Self::Histogram(point) => point.encoded_len(),
            Self::Summary(point) => point.encoded_len(),
        }
    }

    /// Goes with those of its metric.
    fn join(self, data: &mut Data) {
        match (self, data) {
            (
                Self::Number(point),
                Data::Sum(Sum { data_points, .. }) | Data::Gauge(Gauge { data_points }),
            ) => {
                data_points.push(point);
            }
            (Self::Histogram(point), Data::Histogram(histogram)) => histogram.data_points.push(point),
            (Self::Summary(point), Data::Summary(summary)) => summary.data_points.push(point),
            // A family puts points of its kind, as its text has them.
            (Self::Number(_) | Self::Histogram(_) | Self::Summary(_), _) => {}
        }
    }
}

impl MetricValue {
    /// For comparing.
    fn approximately(self) -> f64 {
        match self {
            #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53, and monotonic beyond")]
            Self::Whole(number) => number as f64,
            Self::Real(number) => number,
        }
    }
}

fn of_exemplar(exemplar: &telemetry::Exemplar) -> Exemplar {
    Exemplar {
        time_unix_nano: nanoseconds(exemplar.at),
        trace_id: exemplar.trace.to_bytes().to_vec(),
        value: Some(exemplar::Value::AsDouble(exemplar.seconds)),
        ..Exemplar::default()
    }
}

fn attributes(description: &Description, values: &[&str]) -> Vec<KeyValue> {
    description.labels.iter().zip(values).map(|(label, value)| attribute(label, value)).collect()
}

fn attribute(key: &str, value: &str) -> KeyValue {
    let value = AnyValue { value: Some(Value::StringValue(value.to_owned())) };
    KeyValue { key: key.to_owned(), value: Some(value), ..KeyValue::default() }
}

#[cfg(test)]
mod tests;

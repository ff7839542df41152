//! Metrics that have come by OTLP, under the names that Prometheus gives them.

use std::collections::{BTreeMap, BTreeSet};

use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{HistogramDataPoint, Metric, NumberDataPoint};

use super::{hex, texts};

#[derive(Clone, Default)]
pub(crate) struct Metrics {
    /// Of the newest export, as lines of `/metrics` have them: `name{label="value"}`.
    pub(crate) samples: BTreeMap<String, f64>,
    /// The traces of its exemplars.
    pub(crate) traces: BTreeSet<String>,
    /// When it was.
    at: u64,
    /// How long each request was.
    pub(crate) requests: Vec<usize>,
}

impl Metrics {
    pub(super) fn take(&mut self, metric: &Metric) {
        const CUMULATIVE: i32 = 2;
        let name = &metric.name;
        match metric.data.as_ref().unwrap() {
            Data::Gauge(gauge) => self.numbers(name, &gauge.data_points),
            Data::Sum(sum) => {
                assert_eq!(sum.aggregation_temporality, CUMULATIVE);
                let total = if sum.is_monotonic { "_total" } else { "" };
                let is_dated = |point: &NumberDataPoint| point.start_time_unix_nano > 0;
                assert!(!sum.is_monotonic || sum.data_points.iter().all(is_dated), "{metric:?}");
                self.numbers(&format!("{name}{total}"), &sum.data_points);
            }
            Data::Histogram(histogram) => {
                assert_eq!(histogram.aggregation_temporality, CUMULATIVE);
                histogram.data_points.iter().for_each(|point| self.histogram(name, point));
            }
            Data::Summary(summary) => {
                for point in &summary.data_points {
                    self.of_time(point.time_unix_nano);
                    self.put(name, "_sum", &point.attributes, None, point.sum);
                    self.put(name, "_count", &point.attributes, None, point.count as f64);
                }
            }
            Data::ExponentialHistogram(_) => panic!("{metric:?}"),
        }
    }

    /// Nothing that has ended stays.
    fn of_time(&mut self, at: u64) {
        if at != self.at {
            self.at = at;
            self.samples.clear();
            self.traces.clear();
        }
    }

    fn numbers(&mut self, name: &str, points: &[NumberDataPoint]) {
        for point in points {
            self.of_time(point.time_unix_nano);
            let value = match point.value.unwrap() {
                Value::AsInt(number) => number as f64,
                Value::AsDouble(number) => number,
            };
            self.put(name, "", &point.attributes, None, value);
        }
    }

    fn histogram(&mut self, name: &str, point: &HistogramDataPoint) {
        self.of_time(point.time_unix_nano);
        let bounds = point.explicit_bounds.iter().map(|bound| format!("{bound:?}"));
        let mut up_to = 0;
        for (bound, count) in bounds.chain(["+Inf".to_owned()]).zip(&point.bucket_counts) {
            up_to += count;
            self.put(name, "_bucket", &point.attributes, Some(&bound), up_to as f64);
        }
        assert_eq!(up_to, point.count);
        self.put(name, "_sum", &point.attributes, None, point.sum.unwrap());
        self.put(name, "_count", &point.attributes, None, point.count as f64);
        self.traces.extend(point.exemplars.iter().map(|exemplar| hex(&exemplar.trace_id)));
    }

    fn put(&mut self, name: &str, suffix: &str, labels: &[KeyValue], bound: Option<&str>, value: f64) {
        let texts = texts(labels);
        let labels = labels.iter().map(|label| format!("{}=\"{}\"", label.key, texts[&label.key]));
        let labels: Vec<String> =
            bound.map(|bound| format!("le=\"{bound}\"")).into_iter().chain(labels).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        self.samples.insert(format!("{name}{suffix}{labels}"), value);
    }
}

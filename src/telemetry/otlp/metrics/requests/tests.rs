use super::*;
use crate::telemetry::{Traced, trace_id};
use std::time::{Duration, UNIX_EPOCH};

use proptest::prelude::*;

const START: u64 = 1_000;

fn starts() -> Starts {
    Starts::new(UNIX_EPOCH + Duration::from_nanos(START))
}

fn requests(starts: &mut Starts, size_max: usize) -> Requests<'_> {
    let resource = BTreeMap::from([("service.name".to_owned(), "edge".to_owned())]);
    Requests { size_max, ..Requests::new(&resource, starts) }
}

fn description(name: &str, kind: MetricKind) -> Description {
    Description { name: name.to_owned(), help: "How many.", unit: "s", kind, labels: &["a", "b"] }
}

/// The metrics of all requests, each of which says whose they are.
fn decoded(requests: &[Bytes]) -> Vec<Metric> {
    let metrics = requests.iter().flat_map(|request| {
        let mut request = ExportMetricsServiceRequest::decode(request.clone()).unwrap();
        let of_resource = request.resource_metrics.remove(0);
        assert_eq!(of_resource.resource.unwrap().attributes, [attribute("service.name", "edge")]);
        let [of_scope] = <[ScopeMetrics; 1]>::try_from(of_resource.scope_metrics).unwrap();
        assert_eq!(of_scope.scope.unwrap().name, "sheave");
        of_scope.metrics
    });
    metrics.collect()
}

fn only_one(fill: impl FnOnce(&mut Requests<'_>)) -> Metric {
    let mut starts = starts();
    let mut requests = requests(&mut starts, SIZE_MAX);
    fill(&mut requests);
    let metrics = decoded(&requests.finish());
    assert_eq!(metrics.len(), 1, "{metrics:#?}");
    metrics[0].clone()
}

#[test]
fn a_counter_is_a_sum_that_only_grows_from_its_start() {
    let metric = only_one(|requests| {
        requests.begin(description("things", MetricKind::Counter));
        requests.number(&["x", "y"], MetricValue::Whole(7));
        requests.number(&["x", "z"], MetricValue::Real(0.5));
    });
    assert_eq!((&*metric.name, &*metric.description, &*metric.unit), ("things", "How many.", "s"));
    let Some(Data::Sum(sum)) = metric.data else { panic!("{metric:?}") };
    assert!(sum.is_monotonic);
    assert_eq!(sum.aggregation_temporality(), AggregationTemporality::Cumulative);
    let [whole, real] = &sum.data_points[..] else { panic!("{sum:?}") };
    assert_eq!(whole.attributes, [attribute("a", "x"), attribute("b", "y")]);
    assert_eq!(whole.value, Some(number_data_point::Value::AsInt(7)));
    assert_eq!(real.value, Some(number_data_point::Value::AsDouble(0.5)));
    assert_eq!(whole.start_time_unix_nano, START);
    assert!(whole.time_unix_nano > START && whole.time_unix_nano == real.time_unix_nano);
}

#[test]
fn gauges_and_infos_do_not_add_up() {
    let fill = |kind| {
        move |requests: &mut Requests<'_>| {
            requests.begin(description("things", kind));
            requests.number(&["x", "y"], MetricValue::Whole(1));
        }
    };
    let Some(Data::Gauge(gauge)) = only_one(fill(MetricKind::Gauge)).data else { panic!("no gauge") };
    assert_eq!(gauge.data_points[0].start_time_unix_nano, 0);
    let Some(Data::Sum(info)) = only_one(fill(MetricKind::Info)).data else { panic!("no sum") };
    assert!(!info.is_monotonic);
    assert_eq!(info.data_points[0].value, Some(number_data_point::Value::AsInt(1)));
}

#[test]
fn a_histogram_has_its_buckets_one_by_one_and_names_connections() {
    let mut histogram = telemetry::Histogram::default();
    let at = UNIX_EPOCH + Duration::from_secs(3);
    histogram.observe_traced(Duration::from_millis(2), Some(Traced { trace: trace_id(7), at }));
    histogram.observe(Duration::from_millis(2));
    histogram.observe(Duration::from_secs(1_000_000));
    let metric = only_one(|requests| {
        requests.begin(description("wait", MetricKind::Histogram));
        requests.histogram(&["x", "y"], &histogram);
    });
    let Some(Data::Histogram(all)) = metric.data else { panic!("{metric:?}") };
    assert_eq!(all.aggregation_temporality(), AggregationTemporality::Cumulative);
    let point = &all.data_points[0];
    assert_eq!((point.count, point.sum, point.start_time_unix_nano), (3, Some(histogram.sum()), START));
    assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
    let bucket = point.explicit_bounds.iter().position(|bound| *bound == 0.002_5).unwrap();
    assert_eq!((point.bucket_counts[bucket], point.bucket_counts.last()), (2, Some(&1)));
    let exemplar = Exemplar {
        time_unix_nano: 3_000_000_000,
        trace_id: trace_id(7).to_bytes().to_vec(),
        value: Some(exemplar::Value::AsDouble(0.002)),
        ..Exemplar::default()
    };
    assert_eq!(point.exemplars, [exemplar]);
}

#[test]
fn a_summary_is_a_sum_and_a_count() {
    let metric = only_one(|requests| {
        requests.begin(description("wait", MetricKind::Summary));
        requests.summary(&["x", "y"], 1.5, 3);
    });
    let Some(Data::Summary(summary)) = metric.data else { panic!("{metric:?}") };
    let point = &summary.data_points[0];
    assert_eq!((point.count, point.sum, point.start_time_unix_nano), (3, 1.5, START));
    assert!(point.quantile_values.is_empty());
}

#[test]
fn a_metric_without_series_is_not_sent() {
    let mut starts = starts();
    let mut requests = requests(&mut starts, SIZE_MAX);
    requests.begin(description("none", MetricKind::Counter));
    assert!(requests.finish().is_empty());
}

proptest! {
    /// However many series there are and how long their labels: no request is too large, no point is lost, none comes twice, and
    /// all keep their order.
    #[test]
    fn what_is_too_large_for_one_request_is_in_several(
        metrics in proptest::collection::vec(proptest::collection::vec("[a-zé]{0,60}", 0..40), 0..8),
        size_max in 400_usize..4_000,
    ) {
        let mut starts = starts();
        let mut requests = requests(&mut starts, size_max);
        let mut put = Vec::new();
        for (number, labels) in (0..).zip(&metrics) {
            let name = format!("metric_{number}");
            requests.begin(description(&name, MetricKind::Counter));
            for (count, label) in (0..).zip(labels) {
                requests.number(&[label, "y"], MetricValue::Whole(count));
                put.push((name.clone(), label.clone(), i64::try_from(count).unwrap()));
            }
        }
        let requests = requests.finish();
        // Beside the metrics it says whose they are.
        prop_assert!(requests.iter().all(|request| request.len() <= size_max + 200), "{requests:?}");
        let mut found = Vec::new();
        for metric in decoded(&requests) {
            let Some(Data::Sum(sum)) = metric.data else { panic!("{metric:?}") };
            prop_assert!(!sum.data_points.is_empty());
            for point in sum.data_points {
                let Some(number_data_point::Value::AsInt(count)) = point.value else { panic!("{point:?}") };
                let Some(Value::StringValue(label)) = point.attributes[0].value.clone().unwrap().value else {
                    panic!("{point:?}")
                };
                found.push((metric.name.clone(), label, count));
            }
        }
        prop_assert_eq!(found, put);
    }
}

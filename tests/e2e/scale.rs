//! Many Services, few of them followed; how long a change takes to all workers, and what it costs.

use std::time::{Duration, Instant, SystemTime};

use futures_util::StreamExt;
use futures_util::stream;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::support::cluster::{Object, with_kind};
use crate::support::release::{of_service, straight};
use crate::support::slices::{bare_service_object, endpoint, slice_object};
use crate::support::{Metrics, Namespace, Release, Table, figures, is_full, names, say, within};

const IN_FLIGHT: usize = 16;
const CHURN_PER_SECOND: u64 = 10;
const CHANGED: &str = "endpoints.kubernetes.io/last-change-trigger-time";
/// A Service with many endpoints beside the many Services.
const WIDE: &str = "wide";
const WIDE_SLICES: usize = 10;
const LISTED: Duration = Duration::from_secs(60);

const RECEIPT_TO_WORKERS: f64 = 0.050;
const CHANGE_TO_WORKERS: f64 = 0.500;
const RESIDENT_MAX: f64 = 150.0 * 1024.0 * 1024.0;
const CONTROL_CORE_MAX: f64 = 0.05;

struct Size {
    services: usize,
    endpoints_each: usize,
    upstreams: usize,
    wide_slice: usize,
    churn: Duration,
}

fn size() -> Size {
    match is_full() {
        true => Size {
            services: 5000,
            endpoints_each: 20,
            upstreams: 500,
            wide_slice: 100,
            churn: Duration::from_secs(60),
        },
        false => Size {
            services: 200,
            endpoints_each: 20,
            upstreams: 50,
            wide_slice: 100,
            churn: Duration::from_secs(15),
        },
    }
}

#[test]
fn many_services_cost_little_and_changes_arrive_soon() {
    let size = size();
    let namespace = Namespace::create("scale");
    let (creating, ()) = within(|| create_all(&namespace, &size));
    say!("scale: {} Services in {creating:.1?}", size.services);

    let (ready, release) = within(|| Release::install(&namespace, config(&namespace, &size), json!({})));
    let wanted = size.upstreams * size.endpoints_each + WIDE_SLICES * size.wide_slice;
    let is_complete = |table: &Table| table.endpoint_count() == wanted;
    release.await_table(&format!("{wanted} endpoints in the table"), LISTED, is_complete);

    let many: Vec<Churned> = (0..size.upstreams).map(|number| Churned::narrow(number, &size)).collect();
    churn("scale", &namespace, &release, &many, &size);
    let wide: Vec<Churned> = (0..WIDE_SLICES).map(|number| Churned::wide(number, &size)).collect();
    churn("scale-wide", &namespace, &release, &wide, &size);

    let metrics = release.metrics();
    let resident = metrics.count(names::RESIDENT, &[]);
    figures!(
        "scale-size",
        services = size.services,
        endpoints = size.services * size.endpoints_each + WIDE_SLICES * size.wide_slice,
        upstreams = size.upstreams + 1,
        followed_endpoints = wanted,
        creating_seconds = creating.as_secs_f64(),
        ready_seconds = ready.as_secs_f64(),
        resident_mib = resident / 1024.0 / 1024.0,
    );
    assert!(resident > 0.0 && resident < RESIDENT_MAX, "resident memory: {resident} bytes");
}

fn create_all(namespace: &Namespace, size: &Size) {
    let numbers = 0..size.services;
    let names: Vec<String> = numbers.clone().map(service_name).chain([WIDE.to_owned()]).collect();
    create::<Service>(namespace, names.iter().map(|name| bare_service_object(name)));
    let narrow = numbers.map(|number| Churned::narrow(number, size));
    let wide = (0..WIDE_SLICES).map(|number| Churned::wide(number, size));
    create::<EndpointSlice>(namespace, narrow.chain(wide).map(|slice| slice.object(0)));
}

fn create<K: Object>(namespace: &Namespace, objects: impl Iterator<Item = Value>) {
    let cluster = namespace.cluster();
    let api: Api<K> = Api::namespaced(cluster.client(), &namespace.name);
    let params = PostParams::default();
    cluster.block_on(async {
        let creations = objects.map(|object| {
            let object: K = serde_json::from_value(with_kind::<K>(object)).unwrap();
            let (api, params) = (&api, &params);
            async move { api.create(params, &object).await.expect("the API server takes it") }
        });
        stream::iter(creations).buffer_unordered(IN_FLIGHT).for_each(|_| std::future::ready(())).await;
    });
}

fn service_name(number: usize) -> String {
    format!("service-{number}")
}

fn config(namespace: &Namespace, size: &Size) -> Value {
    let mut config = straight(WIDE, 8000, of_service(namespace, WIDE, "talk"));
    let upstreams = config["upstreams"].as_array_mut().unwrap();
    for number in 0..size.upstreams {
        let mut upstream = of_service(namespace, &service_name(number), "talk");
        upstream["name"] = service_name(number).into();
        upstreams.push(upstream);
    }
    let refs = upstreams.iter().map(|upstream| json!({"upstream": upstream["name"]})).collect::<Vec<_>>();
    config["routes"][0]["backendRefs"] = refs.into();
    config["metrics"] = json!({"perEndpoint": false});
    config
}

/// A slice that the test changes.
struct Churned {
    name: String,
    service: String,
    /// The first of its addresses, as a number.
    first: usize,
    endpoints: usize,
}

impl Churned {
    fn narrow(number: usize, size: &Size) -> Self {
        let first = number * (size.endpoints_each + 1);
        Self {
            name: format!("slice-{number}"),
            service: service_name(number),
            first,
            endpoints: size.endpoints_each,
        }
    }

    fn wide(number: usize, size: &Size) -> Self {
        let first = 0x20_0000 + number * (size.wide_slice + 1);
        Self { name: format!("wide-{number}"), service: WIDE.to_owned(), first, endpoints: size.wide_slice }
    }

    /// One endpoint of it is another one in odd rounds; the number of endpoints stays.
    fn object(&self, round: u64) -> Value {
        let shift = usize::from(round % 2 == 1);
        let numbers = self.first + shift..self.first + shift + self.endpoints;
        let endpoints: Vec<Value> = numbers.map(|number| endpoint(&address(number))).collect();
        let mut object = slice_object(&self.name, &self.service, 8080, &endpoints);
        let now = Timestamp::try_from(SystemTime::now()).unwrap();
        object["metadata"]["annotations"] = json!({CHANGED: now.to_string()});
        object
    }
}

/// From 10.200.0.0 on.
fn address(number: usize) -> String {
    std::net::Ipv4Addr::from_bits(0x0ac8_0000 + u32::try_from(number).unwrap()).to_string()
}

/// Changes slices at a steady pace, and compares what Sheave says before and after with what is promised.
fn churn(name: &str, namespace: &Namespace, release: &Release<'_>, slices: &[Churned], size: &Size) {
    let before = release.metrics();
    let begin = Instant::now();
    let churned = change_slices(namespace, slices, size.churn);
    let elapsed = begin.elapsed().as_secs_f64();
    let observed = |metrics: &Metrics| metrics.buckets(names::PROPAGATION, &[("from", "receipt")]).count();
    let changes = churned.len() as f64;
    let is_done = || (observed(&release.metrics()) - observed(&before) >= changes).then_some(());
    crate::support::eventually_some("the propagation of every change is measured", LISTED, is_done);
    let after = release.metrics();

    let quantile = |from: &str| {
        let labels = [("from", from)];
        let buckets =
            after.buckets(names::PROPAGATION, &labels).since(&before.buckets(names::PROPAGATION, &labels));
        (buckets.count(), buckets.quantile(0.5), buckets.quantile(0.99))
    };
    let ((count, receipt_p50, receipt_p99), (dated, change_p50, change_p99)) =
        (quantile("receipt"), quantile("change"));
    // What the API server itself needed, which no client of it can do anything about.
    let mut answers: Vec<Duration> = churned.iter().map(|(_, answer)| *answer).collect();
    answers.sort_unstable();
    let api_p99 = answers[answers.len() * 99 / 100].as_secs_f64();
    let cpu = (after.count(names::CONTROL_CPU, &[]) - before.count(names::CONTROL_CPU, &[])) / elapsed;
    let compiled = after.count(names::COMPILATIONS, &[]) - before.count(names::COMPILATIONS, &[]);
    figures!(
        name,
        changes = churned.len(),
        changes_per_second = churned.len() as f64 / elapsed,
        propagations = count,
        receipt_p50_ms = receipt_p50 * 1000.0,
        receipt_p99_ms = receipt_p99 * 1000.0,
        change_p50_ms = change_p50 * 1000.0,
        change_p99_ms = change_p99 * 1000.0,
        api_answer_p99_ms = api_p99 * 1000.0,
        control_core_percent = cpu * 100.0,
        upstreams_compiled = compiled,
    );
    assert!(receipt_p99 < RECEIPT_TO_WORKERS, "p99 from receipt to all workers is {receipt_p99} s");
    assert!(
        change_p99 < CHANGE_TO_WORKERS,
        "p99 from the change to all workers is {change_p99} s; the API server answered the change itself in {api_p99} s"
    );
    assert!(cpu > 0.0 && cpu < CONTROL_CORE_MAX, "the control thread took {cpu} of a core");
    assert_eq!((count, dated), (changes, changes), "every change is measured once, from its own date too");
    // Two changes of one Service may be compiled at once; an upstream more would be one that did not change.
    assert!(
        compiled > changes * 0.9 && compiled <= changes,
        "{changes} slices changed, and {compiled} upstreams were compiled"
    );
}

/// For each change the Service whose slice it was, and how long the API server took to answer.
fn change_slices(namespace: &Namespace, slices: &[Churned], length: Duration) -> Vec<(String, Duration)> {
    let cluster = namespace.cluster();
    let api: Api<EndpointSlice> = Api::namespaced(cluster.client(), &namespace.name);
    let changes = length.as_secs() * CHURN_PER_SECOND;
    cluster.block_on(async {
        let beats = tokio::time::interval(Duration::from_secs(1) / u32::try_from(CHURN_PER_SECOND).unwrap());
        let numbers = stream::unfold((beats, 0), |(mut beats, number)| async move {
            beats.tick().await;
            (number < changes).then_some((number, (beats, number + 1)))
        });
        let answers = numbers.map(|number| {
            let slice = &slices[usize::try_from(number).unwrap() % slices.len()];
            let round = 1 + number / slices.len() as u64;
            let (api, object) = (&api, with_kind::<EndpointSlice>(slice.object(round)));
            async move {
                let begin = Instant::now();
                let change = api.patch(&slice.name, &PatchParams::default(), &Patch::Merge(&object)).await;
                change.expect("the API server takes the change");
                (slice.service.clone(), begin.elapsed())
            }
        });
        answers.buffer_unordered(IN_FLIGHT).collect().await
    })
}

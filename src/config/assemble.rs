//! From the file's fields to the typed values that the program uses, with every default.
//!
//! Here is what needs more than one field to judge: what is missing, named twice, named nowhere, or
//! bound twice. A part that is wrong is left out and reported; the result counts only without reports.

mod balancer;
mod health;
mod listener;
mod loops;
mod names;
mod process;
mod proxy;
mod route;
mod shared;
mod tls;
mod upstream;

use std::time::Duration;

use ipnet::IpNet;

use super::errors::Report;
use super::raw::{self, Field, List};
use super::scalar::{GatewayDuration, Network};
use super::{Config, Keepalive, ParseOptions};
use names::Names;

/// Listeners and routes of one file together.
const MAX_LISTENERS_AND_ROUTES: usize = 10_000;
const MAX_UPSTREAMS: usize = 10_000;
/// Endpoints of all upstreams together.
const MAX_ENDPOINTS: usize = 100_000;
/// Networks in one list.
const MAX_NETWORKS: usize = 10_000;

pub(super) fn assemble(file: raw::File, report: &Report, options: &ParseOptions) -> Config {
    let cx = Context { report, options };
    sizes(&cx, &file);
    let workers = process::workers(&cx, file.workers.or_default());
    let admin = process::admin(file.admin.or_default());
    let drain = process::drain(&cx, file.drain.or_default());
    let limits = process::limits(&cx, file.limits.or_default());
    let log = process::log(file.log.or_default());
    let access_log = process::access_log(&cx, file.access_log.or_default());
    let metrics = process::metrics(&cx, file.metrics.or_default());
    let tracing = process::tracing(&cx, file.tracing.or_default());
    let (kubernetes, cluster) = process::kubernetes(file.kubernetes.or_default(), &options.location);

    let listener_names = Names::collect(&cx, "listeners", &file.listeners, |item| &item.name);
    Names::collect(&cx, "routes", &file.routes, |item| &item.name);
    let upstream_names = Names::collect(&cx, "upstreams", &file.upstreams, |item| &item.name);

    let listeners = listener::listeners(&cx, file.listeners, admin.address, &cluster);
    let routes_written = file.routes.get().map_or(0, Vec::len);
    let known = route::Known { listeners: &listener_names, upstreams: &upstream_names };
    let routes = route::routes(&cx, file.routes, &known, &listeners);
    let upstreams = upstream::upstreams(&cx, file.upstreams, &cluster);
    loops::refuse(&cx, &listeners, &routes, &upstreams);
    shared::agree(&cx, &listener_names, &listeners);
    if routes.len() == routes_written {
        tls::agree(&cx, &listener_names, &listeners, &routes, &upstreams);
    }
    Config {
        workers,
        admin,
        drain,
        limits,
        log,
        access_log,
        metrics,
        tracing,
        kubernetes,
        listeners,
        routes,
        upstreams,
    }
}

fn sizes(cx: &Context<'_>, file: &raw::File) {
    let listeners = file.listeners.get().map_or(0, Vec::len);
    let routes = file.routes.get().map_or(0, Vec::len);
    let upstreams = file.upstreams.get().map_or(0, Vec::len);
    if listeners + routes > MAX_LISTENERS_AND_ROUTES {
        cx.report.add(
            "listeners",
            format_args!(
                "{listeners} listeners and {routes} routes are too many; write at most {MAX_LISTENERS_AND_ROUTES} together"
            ),
        );
    }
    if upstreams > MAX_UPSTREAMS {
        cx.report.add(
            "upstreams",
            format_args!("{upstreams} upstreams are too many; write at most {MAX_UPSTREAMS}"),
        );
    }
    let items = file.upstreams.get().into_iter().flatten();
    let endpoints: usize = items.filter_map(|item| item.get()?.endpoints.get().map(Vec::len)).sum();
    if endpoints > MAX_ENDPOINTS {
        cx.report.add(
            "upstreams",
            format_args!("{endpoints} endpoints are too many; write at most {MAX_ENDPOINTS}"),
        );
    }
}

/// What every step needs.
struct Context<'a> {
    report: &'a Report,
    options: &'a ParseOptions,
}

impl Context<'_> {
    /// A field that has no default; `example` is what to write.
    fn required<T>(&self, field: Field<T>, path: &str, example: &str) -> Option<T> {
        if field.is_absent() {
            self.report.add(path, format_args!("missing; write {example}"));
        }
        field.value()
    }

    /// The items of a list that are right, with their paths.
    fn items<T>(&self, list: List<T>, path: &str) -> impl Iterator<Item = (String, T)> {
        let items = list.value().into_iter().flatten().enumerate();
        items.filter_map(move |(i, item)| Some((format!("{path}[{i}]"), item.value()?)))
    }

    fn networks(&self, list: List<Network>, path: &str) -> Vec<IpNet> {
        let length = list.get().map_or(0, Vec::len);
        if length > MAX_NETWORKS {
            self.report
                .add(path, format_args!("{length} networks are too many; write at most {MAX_NETWORKS}"));
        }
        self.items(list, path).map(|(_, net)| net.0).collect()
    }

    /// Whether there is something in the file at `path`, be it right or wrong, and be it more than an empty list.
    fn is_written(&self, path: &str) -> bool {
        self.report.root().find(path).is_some_and(|node| !node.is_empty_list())
    }

    /// A duration that has a bound.
    fn no_longer(&self, duration: Duration, path: &str, most: Duration) -> Duration {
        if duration <= most {
            return duration;
        }
        let (written, most) = (GatewayDuration(duration), GatewayDuration(most));
        self.report.add(path, format_args!("{written} is too long; write {most} or less"));
        most.0
    }

    fn keepalive(&self, raw: Field<raw::TcpKeepalive>, path: &str) -> Keepalive {
        let raw = raw.or_default();
        Keepalive {
            idle_time: self.kernel_seconds(raw.idle_time, 120, &format!("{path}.idleTime")),
            interval: self.kernel_seconds(raw.interval, 15, &format!("{path}.interval")),
            probes: raw.probes.number(4),
        }
    }

    /// The kernel counts keepalive in whole seconds, in 15 bits (tcp(7), TCP_KEEPIDLE).
    fn kernel_seconds(&self, field: Field<GatewayDuration>, default: u64, path: &str) -> Duration {
        let duration = seconds(field, default);
        let range = Duration::from_secs(1)..=Duration::from_secs(32_767);
        if !range.contains(&duration) || duration.subsec_nanos() != 0 {
            let written = GatewayDuration(duration);
            self.report.add(
                path,
                format_args!(
                    "{written} is not a time the kernel can keep; write whole seconds, from 1s to 32767s"
                ),
            );
        }
        duration
    }
}

/// A duration, with its default in seconds.
fn seconds(field: Field<GatewayDuration>, default: u64) -> Duration {
    field.value().map_or_else(|| Duration::from_secs(default), |duration| duration.0)
}

/// `0s` means never.
fn unless_zero(duration: Duration) -> Option<Duration> {
    (!duration.is_zero()).then_some(duration)
}

//! Upstreams and their endpoints.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use super::process::Cluster;
use super::{Context, proxy, seconds, tls, unless_zero};
use crate::config::raw::{self, Field, List};
use crate::config::scalar::{self, GatewayDuration};
use crate::config::{
    Breaker, Endpoint, LoadBalancer, Members, Name, PortRef, Rebalance, Retry, RetryTriggers, ServicePort,
    Upstream, UpstreamDrain, UpstreamLimits, UpstreamTimeouts,
};

/// With the bound on endpoints, the sum of weights stays within `u32`.
const MAX_WEIGHT: u32 = 10_000;
/// More levels of spares than anybody has.
const MAX_PRIORITY: u32 = 100;
/// Each of them is a connect that a client waits for.
const MAX_RETRIES: u32 = 100;
/// Each connection may be tried so many times at most, and then as many times again.
const MAX_BUDGET_PERCENT: u32 = 100 * MAX_RETRIES;
/// More than any process makes.
const MAX_RETRIES_PER_SECOND: u32 = 1_000_000;
/// Nobody waits behind so many.
const MAX_PENDING: u32 = 1_000_000;
/// More in a row is no sign of trouble any more, but trouble.
const MAX_FAILURES: u32 = 1_000;
/// All of them, each second.
const MAX_REBALANCE_PERCENT: f64 = 6_000.0;
/// More than any endpoint holds.
const MAX_CLOSES_PER_SECOND: f64 = 100_000.0;

pub(super) fn upstreams(cx: &Context<'_>, list: List<raw::Upstream>, cluster: &Cluster) -> Vec<Upstream> {
    cx.items(list, "upstreams").filter_map(|(path, raw)| upstream(cx, &path, raw, cluster)).collect()
}

fn upstream(cx: &Context<'_>, path: &str, mut raw: raw::Upstream, cluster: &Cluster) -> Option<Upstream> {
    let members = members(cx, path, &mut raw, cluster.may_follow);
    let timeouts = timeouts(cx, path, raw.timeout.or_default().tcp.or_default());
    let retry = retry(cx, path, raw.retry.or_default());
    let circuit_breaker = raw.circuit_breaker.or_default();
    let limits = limits(cx, path, &circuit_breaker);
    let breaker = breaker(cx, path, circuit_breaker.per_endpoint.or_default());
    let health = super::health::health_check(cx, path, raw.health_check.or_default());
    let keepalive = cx.keepalive(raw.tcp_keepalive, &format!("{path}.tcpKeepalive"));
    let proxy = proxy::upstream(cx, path, raw.proxy_protocol);
    let tls = tls::upstream(cx, path, raw.tls, cluster);
    let drain = drain(cx, path, raw.drain.or_default());
    let mut balancer = raw.load_balancer.or_default();
    let slow_start = std::mem::take(&mut balancer.slow_start).or_default().window;
    let zone_aware = std::mem::take(&mut balancer.zone_aware);
    let load_balancer = super::balancer::load_balancer(cx, path, balancer);
    let zone_aware = super::balancer::zone_aware(cx, path, zone_aware, load_balancer, &cluster.here);
    let rebalance = rebalance(cx, path, raw.rebalance.or_default(), load_balancer);
    Some(Upstream {
        name: raw.name.value()?.0.into(),
        members: members?,
        load_balancer,
        slow_start: unless_zero(seconds(slow_start, 0)),
        zone_aware,
        timeouts,
        keepalive,
        retry,
        breaker,
        limits,
        health,
        proxy,
        tls,
        drain,
        rebalance,
    })
}

fn members(cx: &Context<'_>, path: &str, raw: &mut raw::Upstream, may_follow: bool) -> Option<Members> {
    let has_endpoints = match &raw.endpoints {
        Field::Absent => false,
        Field::Wrong => true,
        Field::Is(items) => !items.is_empty(),
    };
    let has_service = !raw.service.is_absent();
    if has_endpoints && has_service {
        cx.report.add(path, "it has both endpoints and a service; keep one of the two");
    } else if !has_endpoints && !has_service {
        cx.report.add(
            path,
            "it has no endpoints; write at least one, like endpoints: [{address: 10.0.0.7:5432}], or the Service to \
             follow, like service: {namespace: db, name: pg, port: 5432}",
        );
    }
    let endpoints = endpoints(cx, path, std::mem::take(&mut raw.endpoints));
    if !has_service {
        return Some(Members::Listed(endpoints));
    }
    let service = std::mem::take(&mut raw.service).value()?;
    let at = format!("{path}.service");
    if !may_follow {
        cx.report.add(&at, "kubernetes.enabled is false; write auto or true there, or list endpoints here");
    }
    let namespace = cx.required(service.namespace, &format!("{at}.namespace"), "the Service's namespace");
    let name = cx.required(service.name, &format!("{at}.name"), "the Service's name");
    let port = cx.required(service.port, &format!("{at}.port"), "the Service's port, its number or its name");
    Some(Members::Followed(ServicePort {
        namespace: namespace?.0.into(),
        name: name?.0.into(),
        port: match port? {
            scalar::ServicePort::Number(number) => PortRef::Number(number),
            scalar::ServicePort::Name(name) => PortRef::Name(name.into()),
        },
    }))
}

fn drain(cx: &Context<'_>, path: &str, raw: raw::UpstreamDrain) -> UpstreamDrain {
    let per_second = raw.close_per_second.or(0.0);
    if !(0.0..=MAX_CLOSES_PER_SECOND).contains(&per_second) {
        cx.report.add(
            format!("{path}.drain.closePerSecond"),
            format_args!(
                "{per_second} is out of range; write a number from 0 (none) to {MAX_CLOSES_PER_SECOND}"
            ),
        );
    }
    UpstreamDrain {
        timeout: seconds(raw.timeout, 300),
        close_per_second: (per_second > 0.0).then_some(per_second),
    }
}

fn rebalance(
    cx: &Context<'_>,
    path: &str,
    raw: raw::Rebalance,
    load_balancer: LoadBalancer,
) -> Option<Rebalance> {
    let percent = raw.percent_per_minute.or(0.0);
    if !(0.0..=MAX_REBALANCE_PERCENT).contains(&percent) {
        cx.report.add(
            format!("{path}.rebalance.percentPerMinute"),
            format_args!(
                "{percent} is out of range; write a number from 0 (never) to {MAX_REBALANCE_PERCENT}"
            ),
        );
    }
    let in_vain = match load_balancer {
        LoadBalancer::ConsistentHash { .. } => {
            Some("with type ConsistentHash clients come back to the endpoint that they belong to")
        }
        LoadBalancer::PeakEwma => Some("with type PeakEWMA slow endpoints have fewer connections on purpose"),
        _ => None,
    };
    if let Some(why) = in_vain.filter(|_| percent > 0.0) {
        cx.report.add(format!("{path}.rebalance"), format_args!("{why}; remove it, or write another type"));
    }
    (percent > 0.0).then(|| Rebalance {
        percent_per_minute: percent,
        min_age: seconds(raw.min_age, 60),
        dry_run: raw.dry_run.or(false),
    })
}

fn endpoints(cx: &Context<'_>, path: &str, list: List<raw::Endpoint>) -> Vec<Endpoint> {
    let path = format!("{path}.endpoints");
    let mut weights_known =
        list.get().is_some_and(|items| !items.is_empty() && items.iter().all(|item| item.get().is_some()));
    let mut total = 0_u64;
    let mut seen: HashMap<SocketAddr, String> = HashMap::new();
    let mut endpoints = Vec::new();
    for (path, raw) in cx.items(list, &path) {
        weights_known &= !raw.weight.is_wrong();
        let weight = cx.within(raw.weight.or(1), &format!("{path}.weight"), 0, MAX_WEIGHT);
        let priority = cx.within(raw.priority.or(0), &format!("{path}.priority"), 0, MAX_PRIORITY);
        let zone = raw.zone.value().filter(|zone| !zone.is_empty()).map(Name::from);
        total += u64::from(weight);
        let at = format!("{path}.address");
        let example = "one, like address: 10.0.0.7:5432";
        let Some(address) = cx.required(raw.address, &at, example) else {
            continue;
        };
        let address = address.0;
        let canonical = SocketAddr::new(address.ip().to_canonical(), address.port());
        if let Some(first) = seen.get(&canonical) {
            cx.report.add(
                at,
                format_args!(
                    "{address} is already {first}; write it once, with a higher weight if it shall get more"
                ),
            );
            continue;
        }
        seen.insert(canonical, path);
        endpoints.push(Endpoint { address, weight, zone, priority });
    }
    if weights_known && total == 0 {
        cx.report
            .add(path, "every weight is 0, so no connection could go anywhere; write a weight of at least 1");
    }
    endpoints
}

fn timeouts(cx: &Context<'_>, path: &str, raw: raw::UpstreamTcp) -> UpstreamTimeouts {
    let connect = seconds(raw.connect_timeout, 5);
    if connect.is_zero() {
        cx.report.add(
            format!("{path}.timeout.tcp.connectTimeout"),
            "connecting in no time always fails; write how long it may take, like 5s",
        );
    }
    UpstreamTimeouts {
        connect,
        idle: unless_zero(seconds(raw.idle_timeout, 3600)),
        max_duration: unless_zero(seconds(raw.max_connection_duration, 0)),
    }
}

fn retry(cx: &Context<'_>, path: &str, raw: raw::Retry) -> Retry {
    let path = format!("{path}.retry");
    let num_retries = cx.within(raw.num_retries.or(2), &format!("{path}.numRetries"), 0, MAX_RETRIES);
    let has = |wanted: raw::Trigger| match raw.triggers.get() {
        None => true,
        Some(triggers) => triggers.iter().any(|trigger| trigger.get() == Some(&wanted)),
    };
    let connect_failure = has(raw::Trigger::ConnectFailure);
    let triggers = RetryTriggers { connect_failure, tls_failure: has(raw::Trigger::TlsFailure) };
    let per_retry = raw.per_retry.or_default();
    let back_off = per_retry.back_off.or_default();
    let base_interval = millis(back_off.base_interval, 25);
    let max_interval = millis(back_off.max_interval, 1000);
    not_less(cx, &format!("{path}.perRetry.backOff.maxInterval"), max_interval, base_interval);
    let per_retry_timeout = unless_zero(seconds(per_retry.timeout, 1));
    let hedge_after = unless_zero(seconds(raw.hedge_after, 0));
    if let (Some(after), Some(timeout)) = (hedge_after, per_retry_timeout)
        && after >= timeout
    {
        cx.report.add(
            format!("{path}.hedgeAfter"),
            format_args!(
                "no attempt lasts longer than perRetry.timeout, {}; write less than that, or 0s",
                GatewayDuration(timeout)
            ),
        );
    }
    let budget = raw.budget.or_default();
    let at = |name: &str| format!("{path}.budget.{name}");
    Retry {
        budget_percent: cx.within(budget.percent.or(20), &at("percent"), 0, MAX_BUDGET_PERCENT),
        budget_floor: cx.within(
            budget.min_retries_per_second.or(10),
            &at("minRetriesPerSecond"),
            0,
            MAX_RETRIES_PER_SECOND,
        ),
        num_retries,
        triggers,
        hedge_after: hedge_after.filter(|_| connect_failure),
        per_retry_timeout,
        base_interval,
        max_interval,
    }
}

fn limits(cx: &Context<'_>, path: &str, raw: &raw::CircuitBreaker) -> UpstreamLimits {
    let path = format!("{path}.circuitBreaker");
    let limit =
        |field: &Field<u32>| field.get().and_then(|limit| NonZeroUsize::new(usize::try_from(*limit).ok()?));
    let max_connections = limit(&raw.max_connections);
    let max_per_endpoint = raw.per_endpoint.get().and_then(|each| limit(&each.max_connections));
    let at = format!("{path}.maxPendingConnections");
    let max_pending = cx.within(raw.max_pending_connections.get().copied().unwrap_or(0), &at, 0, MAX_PENDING);
    let per_endpoint_known = !raw.per_endpoint.is_wrong()
        && raw.per_endpoint.get().is_none_or(|each| !each.max_connections.is_wrong());
    let limits_known = !raw.max_connections.is_wrong() && per_endpoint_known;
    if max_pending > 0 && limits_known && max_connections.is_none() && max_per_endpoint.is_none() {
        cx.report.add(
            &at,
            "without a limit there is no place to wait for; write maxConnections or perEndpoint.maxConnections too, or 0",
        );
    }
    let pending_timeout = raw.pending_timeout.get().map_or(Duration::from_secs(1), |timeout| timeout.0);
    if max_pending > 0 && pending_timeout.is_zero() {
        cx.report.add(
            format!("{path}.pendingTimeout"),
            "waiting for no time is no waiting; write how long, like 1s, or maxPendingConnections: 0",
        );
    }
    UpstreamLimits {
        max_connections,
        max_per_endpoint,
        max_pending: usize::try_from(max_pending).unwrap_or(usize::MAX),
        pending_timeout,
        max_parallel_retries: limit(&raw.max_parallel_retries),
    }
}

fn breaker(cx: &Context<'_>, path: &str, raw: raw::PerEndpoint) -> Option<Breaker> {
    let path = format!("{path}.circuitBreaker.perEndpoint");
    let at = format!("{path}.consecutiveFailures");
    let consecutive_failures = cx.within(raw.consecutive_failures.or(5), &at, 0, MAX_FAILURES);
    let open_for = raw.open_for.or_default();
    let base_interval = seconds(open_for.base_interval, 1);
    let max_interval = seconds(open_for.max_interval, 30);
    if base_interval.is_zero() {
        cx.report.add(
            format!("{path}.openFor.baseInterval"),
            "a breaker that opens for no time never is open; write how long, like 1s, or consecutiveFailures: 0",
        );
    }
    not_less(cx, &format!("{path}.openFor.maxInterval"), max_interval, base_interval);
    Some(Breaker {
        consecutive_failures: NonZeroU32::new(consecutive_failures)?,
        base_interval,
        max_interval,
    })
}

/// A longest interval cannot be shorter than the first.
fn not_less(cx: &Context<'_>, path: &str, max_interval: Duration, base_interval: Duration) {
    if max_interval < base_interval {
        cx.report.add(
            path,
            format_args!(
                "{} is less than baseInterval; write {} or more",
                GatewayDuration(max_interval),
                GatewayDuration(base_interval)
            ),
        );
    }
}

/// A duration, with its default in milliseconds.
fn millis(field: Field<GatewayDuration>, default: u64) -> Duration {
    field.value().map_or_else(|| Duration::from_millis(default), |duration| duration.0)
}

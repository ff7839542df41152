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

/// No client waits longer.
const MAX_CONNECT: Duration = Duration::from_secs(3_600);
/// Who may be well again is looked at once in this time.
const MAX_OPEN: Duration = Duration::from_secs(3_600);
const MAX_SLOW_START: Duration = Duration::from_secs(24 * 3_600);
/// Of connections that are left alone when others are closed.
const MAX_AGE: Duration = Duration::from_secs(30 * 24 * 3_600);
const MAX_DRAIN: Duration = Duration::from_secs(30 * 24 * 3_600);
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
    let retry = retry(cx, path, raw.retry.or_default(), timeouts.connect);
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
    let at = format!("{path}.loadBalancer.slowStart.window");
    let slow_start = cx.no_longer(seconds(slow_start, 0), &at, MAX_SLOW_START);
    let zone_aware = std::mem::take(&mut balancer.zone_aware);
    let load_balancer = super::balancer::load_balancer(cx, path, balancer);
    let zone_aware = super::balancer::zone_aware(zone_aware, load_balancer, &cluster.here);
    let rebalance = rebalance(cx, path, raw.rebalance.or_default(), load_balancer);
    Some(Upstream {
        name: raw.name.value()?.0.into(),
        members: members?,
        load_balancer,
        slow_start: unless_zero(slow_start),
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
    // -0 is no number that anybody means.
    if !(0.0..=MAX_CLOSES_PER_SECOND).contains(&per_second) || per_second.is_sign_negative() {
        cx.report.add(
            format!("{path}.drain.closePerSecond"),
            format_args!(
                "{per_second} is out of range; write a number from 0 (none) to {MAX_CLOSES_PER_SECOND}"
            ),
        );
    }
    UpstreamDrain {
        timeout: cx.no_longer(seconds(raw.timeout, 300), &format!("{path}.drain.timeout"), MAX_DRAIN),
        close_per_second: (per_second > 0.0).then_some(per_second),
    }
}

fn rebalance(
    cx: &Context<'_>,
    path: &str,
    raw: raw::Rebalance,
    load_balancer: LoadBalancer,
) -> Option<Rebalance> {
    let percent = raw.percent_per_minute.get().copied().unwrap_or(0.0);
    if !(0.0..=MAX_REBALANCE_PERCENT).contains(&percent) || percent.is_sign_negative() {
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
    if raw.percent_per_minute.is_absent() && raw.dry_run.get() == Some(&true) {
        cx.report.add(
            format!("{path}.rebalance.percentPerMinute"),
            "missing, so that nothing would be counted; write how much may be closed, like 5, or 0 for none",
        );
    }
    let min_age = cx.no_longer(seconds(raw.min_age, 60), &format!("{path}.rebalance.minAge"), MAX_AGE);
    (percent > 0.0).then(|| Rebalance {
        percent_per_minute: percent,
        min_age,
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
        let weight = raw.weight.number(1);
        let priority = raw.priority.number(0);
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
    let at = format!("{path}.timeout.tcp.connectTimeout");
    let connect = cx.no_longer(seconds(raw.connect_timeout, 5), &at, MAX_CONNECT);
    if connect.is_zero() {
        cx.report.add(at, "connecting in no time always fails; write how long it may take, like 5s");
    }
    UpstreamTimeouts {
        connect,
        idle: unless_zero(seconds(raw.idle_timeout, 3600)),
        max_duration: unless_zero(seconds(raw.max_connection_duration, 0)),
    }
}

fn retry(cx: &Context<'_>, path: &str, raw: raw::Retry, connect: Duration) -> Retry {
    let path = format!("{path}.retry");
    let num_retries = raw.num_retries.number(2);
    let has = |wanted: raw::Trigger| match raw.triggers.get() {
        None => true,
        Some(triggers) => triggers.iter().any(|trigger| trigger.get() == Some(&wanted)),
    };
    let triggers_known = !raw.triggers.get().is_some_and(|triggers| triggers.iter().any(Field::is_wrong));
    let connect_failure = has(raw::Trigger::ConnectFailure);
    let triggers = RetryTriggers { connect_failure, tls_failure: has(raw::Trigger::TlsFailure) };
    let per_retry = raw.per_retry.or_default();
    let back_off = per_retry.back_off.or_default();
    let base_interval = millis(back_off.base_interval, 25);
    let at = format!("{path}.perRetry.backOff.maxInterval");
    let max_interval = cx.no_longer(millis(back_off.max_interval, 1000), &at, MAX_CONNECT);
    not_less(cx, &at, max_interval, base_interval);
    let at = format!("{path}.perRetry.timeout");
    let per_retry_timeout = unless_zero(cx.no_longer(seconds(per_retry.timeout, 1), &at, MAX_CONNECT));
    let hedge_after = unless_zero(seconds(raw.hedge_after, 0));
    let (bound, longest) = match per_retry_timeout {
        Some(timeout) if timeout <= connect => ("perRetry.timeout", timeout),
        _ => ("connectTimeout", connect),
    };
    if hedge_after.is_some_and(|after| after >= longest) {
        let longest = GatewayDuration(longest);
        cx.report.add(
            format!("{path}.hedgeAfter"),
            format_args!("no attempt lasts longer than {bound}, {longest}; write less than that, or 0s"),
        );
    }
    if hedge_after.is_some() && !connect_failure && triggers_known {
        cx.report.add(
            format!("{path}.hedgeAfter"),
            "nothing is hedged that is not retried on connect-failure; add that to triggers, or write 0s",
        );
    }
    let budget = raw.budget.or_default();
    let (budget_percent, budget_floor) =
        (budget.percent.number(20), budget.min_retries_per_second.number(10));
    if hedge_after.is_some() && budget_percent == 0 && budget_floor == 0 {
        cx.report.add(
            format!("{path}.hedgeAfter"),
            "nothing is hedged without a budget; write budget.percent or budget.minRetriesPerSecond above 0, or 0s here",
        );
    }
    Retry {
        budget_percent,
        budget_floor,
        num_retries,
        triggers,
        hedge_after,
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
    let max_pending = raw.max_pending_connections.number(0);
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
    let at = format!("{path}.pendingTimeout");
    let pending_timeout = cx.no_longer(pending_timeout, &at, MAX_CONNECT);
    if (max_pending > 0 || raw.max_pending_connections.is_wrong()) && pending_timeout.is_zero() {
        cx.report.add(
            at,
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
    let consecutive_failures = raw.consecutive_failures.number(5);
    let open_for = raw.open_for.or_default();
    let base_interval = seconds(open_for.base_interval, 1);
    let at = format!("{path}.openFor.maxInterval");
    let max_interval = cx.no_longer(seconds(open_for.max_interval, 30), &at, MAX_OPEN);
    if base_interval.is_zero() {
        cx.report.add(
            format!("{path}.openFor.baseInterval"),
            "a breaker that opens for no time never is open; write how long, like 1s, or consecutiveFailures: 0",
        );
    }
    not_less(cx, &at, max_interval, base_interval);
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

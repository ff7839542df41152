//! How an endpoint is chosen.

use std::sync::Arc;

use super::Context;
use crate::config::raw::{self, Field, LoadBalancerType, MAX_TABLE_SIZE, MIN_TABLE_SIZE};
use crate::config::{LoadBalancer, Location, ZoneAware};

const TABLE_SIZE: u32 = 65_537;

pub(super) fn load_balancer(cx: &Context<'_>, path: &str, raw: raw::LoadBalancer) -> LoadBalancer {
    let path = format!("{path}.loadBalancer");
    let r#type = raw.r#type.or(LoadBalancerType::LeastConnections);
    let table_size = raw.consistent_hash.or_default().table_size.number(TABLE_SIZE);
    let at = format!("{path}.consistentHash.tableSize");
    match r#type {
        LoadBalancerType::ConsistentHash => {
            return LoadBalancer::ConsistentHash { table_size: checked_size(cx, &at, table_size) };
        }
        _ if table_size != TABLE_SIZE => {
            cx.report.add(at, "only type ConsistentHash has such a table; write that type, or remove this");
        }
        _ => {}
    }
    match r#type {
        LoadBalancerType::RoundRobin => LoadBalancer::RoundRobin,
        LoadBalancerType::Random => LoadBalancer::Random,
        LoadBalancerType::PeakEwma => LoadBalancer::PeakEwma,
        _ => LoadBalancer::LeastConnections,
    }
}

/// `None`: no endpoint is nearer than another.
pub(super) fn zone_aware(
    raw: Field<raw::ZoneAware>,
    load_balancer: LoadBalancer,
    here: &Arc<Location>,
) -> Option<ZoneAware> {
    // Clients of a hash belong to an endpoint, whatever the zone of the replica that they come by, unless it is asked for.
    let default = !matches!(load_balancer, LoadBalancer::ConsistentHash { .. }) || !raw.is_absent();
    let raw = raw.or_default();
    let min_endpoints = raw.min_endpoints_per_zone.number(3);
    let is_wanted = raw.prefer_local.or(default) && **here != Location::default();
    is_wanted.then(|| ZoneAware {
        here: Arc::clone(here),
        min_endpoints: usize::try_from(min_endpoints).unwrap_or(usize::MAX),
    })
}

/// A prime number: with another one not every order of slots would visit all of them.
fn checked_size(cx: &Context<'_>, path: &str, size: u32) -> u32 {
    if is_prime(size) {
        return size;
    }
    let both_ways = (1..size).flat_map(|distance| [size + distance, size - distance]);
    let nearest = both_ways
        .filter(|near| (MIN_TABLE_SIZE..=MAX_TABLE_SIZE).contains(near))
        .find(|near| is_prime(*near));
    let nearest = nearest.unwrap_or(TABLE_SIZE);
    cx.report.add(path, format_args!("{size} is not a prime number; write {nearest}"));
    nearest
}

fn is_prime(number: u32) -> bool {
    let mut divisors = (2..).take_while(|divisor| divisor * divisor <= number);
    number > 1 && divisors.all(|divisor| !number.is_multiple_of(divisor))
}

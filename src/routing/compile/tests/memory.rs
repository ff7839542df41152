//! What an endpoint of a large upstream keeps, beside what the allocator adds.

use super::*;

const COUNT: usize = 10_000;
/// Without its probe.
const BYTES_MAX: u64 = 512;

#[test]
fn an_endpoint_takes_little_memory() {
    let addresses: Vec<String> =
        (0..COUNT).map(|index| format!("10.0.{}.{}:80", index / 250, index % 250)).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let balancers = [
        LoadBalancer::RoundRobin,
        LoadBalancer::LeastConnections,
        LoadBalancer::Random,
        LoadBalancer::PeakEwma,
        LoadBalancer::ConsistentHash { table_size: 65_537 },
    ];
    for load_balancer in balancers {
        let mut config = config();
        config.upstreams = vec![upstream("u", &addresses)];
        config.upstreams[0].load_balancer = load_balancer;
        let mut table = None;
        let counted = allocation_counter::measure(|| {
            let before = RouteTable::empty();
            let next = table.insert(compile(&config, &none(), &before, Instant::now()));
            next.succeed(&before, Instant::now());
        });
        let each = u64::try_from(counted.bytes_current).unwrap() / COUNT as u64;
        println!("{load_balancer:?}: {each} bytes in {} pieces", counted.count_current / COUNT as i64);
        assert!((100..=BYTES_MAX).contains(&each), "{load_balancer:?}: {each} bytes");
    }
}

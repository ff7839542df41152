//! The tables that steps are done with.

use std::error::Error;
use std::fmt::Write;
use std::net::Ipv4Addr;
use std::time::Instant;

use sheave::config::Config;
use sheave::routing::{Findings, RouteTable, compile};

/// One listener, whose routes differ in what they are matched by.
pub(super) fn of_routes(by: &str, routes: usize) -> Result<RouteTable, Box<dyn Error>> {
    let mut text =
        "listeners: [{name: main, address: \"127.0.0.1:1\", protocol: TLS, tls: {mode: Passthrough}}]\n\
                    upstreams: [{name: main, endpoints: [{address: \"127.0.0.1:2\"}]}]\nroutes:\n"
            .to_owned();
    for number in 0..routes {
        let matched = match by {
            "hostname" => format!("hostnames: [tenant-{number}.db.example.com]"),
            "wildcard" => format!("hostnames: [\"*.tenant-{number}.db.example.com\"]"),
            "protocol" => {
                format!("hostnames: [\"*.tenant-{number}.db.example.com\"], alpnProtocols: [h2, imap]")
            }
            _ => format!("sources: [{}/28]", network(number)),
        };
        writeln!(
            text,
            "  - {{name: r{number}, listener: main, {matched}, backendRefs: [{{upstream: main}}]}}"
        )?;
    }
    compiled(&text)
}

/// Where clients of a route come from.
pub(super) fn network(route: usize) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0a00_0000 + (u32::try_from(route).unwrap_or(0) << 4))
}

/// One upstream, `main`, that balances by `kind`.
pub(super) fn of_endpoints(kind: &str, endpoints: usize) -> Result<RouteTable, Box<dyn Error>> {
    let mut text = "listeners: [{name: main, address: \"127.0.0.1:1\"}]\n\
                    routes: [{name: main, listener: main, backendRefs: [{upstream: main}]}]\n"
        .to_owned();
    writeln!(text, "upstreams: [{{name: main, loadBalancer: {{type: {kind}}}, endpoints: [")?;
    for number in 0..u32::try_from(endpoints)? {
        writeln!(text, "  {{address: \"{}:80\"}},", Ipv4Addr::from_bits(0x0a00_0000 + number))?;
    }
    text.push_str("]}]\n");
    compiled(&text)
}

fn compiled(text: &str) -> Result<RouteTable, Box<dyn Error>> {
    let config = Config::parse(text, "bench").map_err(|errors| errors.to_string())?;
    let before = RouteTable::empty();
    let mut table = compile(&config, &Findings::default(), &before, Instant::now());
    table.succeed(&before, Instant::now());
    Ok(table)
}

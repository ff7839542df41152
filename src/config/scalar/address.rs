//! Addresses to listen on and to connect to. Host names are never resolved.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use schemars::{Schema, json_schema};

use super::Scalar;
use crate::config::errors::quoted;

/// Where to listen; port 0 may be refused later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) struct ListenAddress(pub(in crate::config) SocketAddr);

impl Scalar for ListenAddress {
    const EXPECTED: &'static str = "an IP address with a port, like \"[::]:5432\"";
    const NAME: &'static str = "ListenAddress";

    fn parse(text: &str) -> Result<Self, String> {
        if let Some(port) = text.strip_prefix(':').filter(|port| is_port(port)) {
            return Err(format!("{text} has no IP address; write \"[::]:{port}\" for every address"));
        }
        if is_port(text) {
            return Err(format!("{text} is only a port; write \"[::]:{text}\" for every address"));
        }
        let hint = "listening takes an IP address; write 127.0.0.1 for this machine alone, or \"[::]\" for every address";
        socket_address(text, hint).map(ListenAddress)
    }

    fn schema() -> Schema {
        json_schema!({
            "type": "string",
            "description": "An IP address with a port. [::] means every address, IPv4 too.",
            "examples": ["[::]:5432", "127.0.0.1:9901"],
        })
    }
}

/// Where an endpoint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) struct EndpointAddress(pub(in crate::config) SocketAddr);

impl Scalar for EndpointAddress {
    const EXPECTED: &'static str = "an IP address with a port, like 10.0.0.7:5432";
    const NAME: &'static str = "EndpointAddress";

    fn parse(text: &str) -> Result<Self, String> {
        let port = text.strip_prefix(':').unwrap_or(text);
        if is_port(port) {
            return Err(format!("{text} has no IP address; write one before the port, like 10.0.0.7:{port}"));
        }
        let hint = "static endpoints take IP addresses; write the address it resolves to";
        let address = socket_address(text, hint)?;
        let port = address.port();
        if port == 0 {
            return Err("port 0 cannot be connected to; write the port the endpoint listens on".to_owned());
        }
        match address.ip().to_canonical() {
            ip if ip.is_unspecified() => Err(format!(
                "{ip} is every address of a machine, not one endpoint; write 127.0.0.1:{port} for this machine"
            )),
            ip if ip.is_multicast() => Err(format!(
                "{ip} is a multicast address, which TCP cannot connect to; write a unicast address"
            )),
            _ => Ok(Self(address)),
        }
    }

    fn schema() -> Schema {
        json_schema!({
            "type": "string",
            "description": "An IP address with a port; IPv6 in brackets. Host names are not resolved.",
            "examples": ["10.0.0.7:5432", "[fd00::7]:5432"],
        })
    }
}

fn is_port(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

fn socket_address(text: &str, name_hint: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let shown = quoted(text);
    if let Some(help) = bare_address_help(text) {
        return Err(format!("{shown} {help}"));
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err(format!("{shown} is not an IP address with a port; write one, like 10.0.0.7:5432"));
    };
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    if bare.unwrap_or(host).parse::<IpAddr>().is_ok() {
        if bare.is_some_and(|host| !host.contains(':')) {
            return Err(format!(
                "{shown} has brackets around an IPv4 address; write {}:{}",
                bare.unwrap_or(host),
                quoted(port).trim_matches('"')
            ));
        }
        return Err(format!(
            "{} is not a port; write a number from 1 to 65535 after the last colon",
            quoted(port)
        ));
    }
    let is_name = host.bytes().any(|b| b.is_ascii_alphabetic())
        && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    if is_name {
        return Err(format!("{} is a host name, and {name_hint}", quoted(host)));
    }
    Err(format!(
        "{shown} is not an IP address with a port; write one, like 10.0.0.7:5432 or \"[fd00::7]:5432\""
    ))
}

/// For an address whose port or brackets are missing.
fn bare_address_help(text: &str) -> Option<String> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    if let Ok(IpAddr::V4(ip)) = bare.parse() {
        return Some(format!("has no port; write it after a colon, like {ip}:5432"));
    }
    if text.starts_with('[') {
        let ip: Ipv6Addr = bare.parse().ok()?;
        return Some(format!("has no port; write it after the brackets, like \"[{ip}]:5432\""));
    }
    // `::1:80` is a whole IPv6 address too; its last group is far more likely the port.
    if let Some((ip, port)) = text.rsplit_once(':')
        && let Ok(ip) = ip.parse::<Ipv6Addr>()
        && port.parse::<u16>().is_ok()
    {
        return Some(format!("needs brackets around its IPv6 address; write \"[{ip}]:{port}\""));
    }
    let ip: Ipv6Addr = text.parse().ok()?;
    Some(format!("has no port; write the address in brackets and a port, like \"[{ip}]:5432\""))
}

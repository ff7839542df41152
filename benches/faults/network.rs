//! A network of this program's own, and what goes wrong in it.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::process::Command;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::error::{Context, Error, Result};

/// The endpoints of every case.
pub(super) const ENDPOINTS: [SocketAddr; 5] =
    [address(11), address(12), address(13), address(14), address(15)];

const fn address(last: u8) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)), 7000)
}

/// Moves this thread into a new network namespace, which goes with the last process in it.
pub(super) fn enter() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Err(Error::new("it makes a network namespace, which only root may: run it as root"));
    }
    let name = format!("sheave-faults-{}", std::process::id());
    run("ip", &["netns", "add", &name])?;
    let namespace = File::open(format!("/run/netns/{name}"));
    // It has no name any more, so that nothing is left of it however this ends.
    run("ip", &["netns", "del", &name])?;
    let namespace = namespace.context("open the namespace")?;
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).context("enter it")?;
    run("ip", &["link", "set", "lo", "up"])?;
    // Some thousand connections a second wait a minute in TIME_WAIT.
    std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "2000 65000").context("widen the ports")
}

/// What becomes of packets to endpoints. Each SYN to one is counted.
pub(super) struct Network;

impl Network {
    /// All is well.
    pub(super) fn new() -> Result<Self> {
        nft("add table inet faults")?;
        for set in ["silent", "refusing", "lossy"] {
            nft(&format!("add set inet faults {set} {{ type ipv4_addr; }}"))?;
        }
        nft("add chain inet faults input { type filter hook input priority 0; }")?;
        for endpoint in ENDPOINTS {
            let (counter, ip) = (counter_of(endpoint), endpoint.ip());
            nft(&format!("add counter inet faults {counter}"))?;
            nft(&format!(
                "add rule inet faults input ip daddr {ip} tcp flags & (syn | ack) == syn counter name {counter}"
            ))?;
        }
        nft("add rule inet faults input ip daddr @silent drop")?;
        nft("add rule inet faults input ip daddr @refusing reject with tcp reset")?;
        nft(
            "add rule inet faults input ip daddr @lossy tcp flags & (syn | ack) == syn numgen random mod 2 == 0 drop",
        )?;
        Ok(Self)
    }

    /// Nothing that is sent to it arrives.
    pub(super) fn silence(&self, endpoint: SocketAddr) -> Result<()> {
        nft(&format!("add element inet faults silent {{ {} }}", endpoint.ip()))
    }

    /// Every packet to them is answered by a reset.
    pub(super) fn refuse(&self, endpoints: &[SocketAddr]) -> Result<()> {
        let ips: Vec<String> = endpoints.iter().map(|endpoint| endpoint.ip().to_string()).collect();
        nft(&format!("add element inet faults refusing {{ {} }}", ips.join(", ")))
    }

    pub(super) fn accept(&self, endpoint: SocketAddr) -> Result<()> {
        nft(&format!("delete element inet faults refusing {{ {} }}", endpoint.ip()))
    }

    /// Every other SYN to it is lost.
    pub(super) fn lose(&self, endpoint: SocketAddr) -> Result<()> {
        nft(&format!("add element inet faults lossy {{ {} }}", endpoint.ip()))
    }

    /// SYNs to all endpoints so far.
    pub(super) fn syns(&self) -> Result<u64> {
        let text = run("nft", &["list", "counters", "table", "inet", "faults"])?;
        let mut words = text.split_whitespace();
        let mut sum = 0;
        while let Some(word) = words.next() {
            if word == "packets" {
                sum += words.next().unwrap_or_default().parse::<u64>().context("nft's counters")?;
            }
        }
        Ok(sum)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if let Err(error) = nft("delete table inet faults") {
            eprintln!("faults: {error}");
        }
    }
}

fn counter_of(endpoint: SocketAddr) -> String {
    format!("e{}", endpoint.ip().to_string().replace('.', "_"))
}

fn nft(command: &str) -> Result<()> {
    run("nft", &[command]).map(drop)
}

fn run(program: &str, arguments: &[&str]) -> Result<String> {
    // Debian keeps ip and nft where only root's PATH leads.
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let output = Command::new(program).args(arguments).env("PATH", path).output().context(program)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Error::new(format!("{program} {}: {said}", arguments.join(" "))))
}

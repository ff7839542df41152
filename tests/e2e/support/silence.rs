//! Pods that nobody hears from any more, though they run: what comes in is dropped in their own network.

use k8s_openapi::api::core::v1::Pod;

use super::endpoints::ip_of;
use super::{run, say, try_run};

const CLUSTER: &str = "tests/cluster/cluster";

/// Ends when dropped, whatever becomes of the test.
pub(crate) struct Silence {
    networks: Vec<String>,
}

impl Silence {
    /// Nothing reaches these pods: no connection, no answer of a live one, no probe of the kubelet. With `from`, nothing
    /// of this address: all others, the kubelet among them, find them well.
    pub(crate) fn begin(pods: &[&Pod], from: Option<&str>) -> Self {
        let drop = from.map_or_else(|| "drop".to_owned(), |address| format!("ip saddr {address} drop"));
        let networks = pods.iter().map(|pod| network_of(&ip_of(pod))).collect();
        let silence = Self { networks };
        for network in &silence.networks {
            in_network(network, "add table inet silence").unwrap();
            in_network(network, "add chain inet silence input { type filter hook input priority 0; }")
                .unwrap();
            in_network(network, &format!("add rule inet silence input {drop}")).unwrap();
        }
        silence
    }

    pub(crate) fn end(self) {
        drop(self);
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        for network in &self.networks {
            if let Err(error) = in_network(network, "delete table inet silence") {
                say!("a pod stays silent: {error}");
            }
        }
    }
}

/// The network namespace, by the name that the container runtime gave it, in which this address is.
fn network_of(ip: &str) -> String {
    let find =
        "for name in $(ls /run/netns); do ip -n $name -o address | grep -qw $0 && echo $name; done; true";
    let found = run(CLUSTER, &["run", "sh", "-c", find, ip]);
    let mut names = found.lines();
    match (names.next(), names.next()) {
        (Some(name), None) => name.to_owned(),
        _ => panic!("not one network has {ip}: {found:?}"),
    }
}

fn in_network(network: &str, command: &str) -> Result<String, String> {
    try_run(CLUSTER, &["run", "ip", "netns", "exec", network, "nft", command])
}

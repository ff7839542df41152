//! Which endpoints are near: those that Kubernetes hints at for this node or zone, else those in this zone. Pure.

use crate::config::{Name, ZoneAware};
use crate::routing::{Endpoint, Topology};

/// What makes endpoints near.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nearness {
    NodeHints,
    ZoneHints,
    Zone,
}

impl Nearness {
    pub fn label(self) -> &'static str {
        match self {
            Self::NodeHints => "node_hints",
            Self::ZoneHints => "zone_hints",
            Self::Zone => "zone",
        }
    }
}

/// The near ones of `usable`, in order, by what is known of those up to the priority `highest`: spares that are not needed say
/// nothing. `None`: no endpoint is nearer than another, or too few of the near ones are usable
/// to bear what is meant for them.
///
/// Hints are taken as kube-proxy takes them: only if every endpoint has some, and only if one of them is for here. They come
/// from the Service's `trafficDistribution` or its topology mode, where the cluster has judged already how many are enough.
pub(super) fn choose(
    endpoints: &[Endpoint],
    usable: &[u32],
    highest: u32,
    wish: &ZoneAware,
    panic_threshold: u32,
) -> Option<(Nearness, Vec<u32>)> {
    let meant = |endpoint: &&Endpoint| endpoint.weight > 0 && endpoint.priority <= highest;
    let with_weight = || endpoints.iter().filter(meant);
    let near = |is_near: &dyn Fn(&Endpoint) -> bool, least: usize| {
        let all = with_weight().filter(|endpoint| is_near(endpoint)).count();
        near(endpoints, usable, is_near, Enough { least, all, panic_threshold })
    };
    let hinted = |hints: fn(&Topology) -> &[Name], here: &Option<Name>| {
        let here = here.as_ref()?;
        let all_have = with_weight().all(|endpoint| !hints(&endpoint.topology).is_empty());
        let is_near = move |endpoint: &Endpoint| hints(&endpoint.topology).contains(here);
        all_have.then(|| near(&is_near, 1)).flatten()
    };
    let by_node = || Some((Nearness::NodeHints, hinted(|topology| &topology.for_nodes, &wish.here.node)?));
    let by_zone = || Some((Nearness::ZoneHints, hinted(|topology| &topology.for_zones, &wish.here.zone)?));
    let in_zone = || {
        let here = wish.here.zone.as_ref()?;
        let is_near = |endpoint: &Endpoint| endpoint.topology.zone.as_ref() == Some(here);
        Some((Nearness::Zone, near(&is_near, wish.min_endpoints)?))
    };
    let has_hints = |endpoint: &Endpoint| {
        !(endpoint.topology.for_nodes.is_empty() && endpoint.topology.for_zones.is_empty())
    };
    by_node().or_else(by_zone).or_else(|| {
        // Who hints, and not at here, wants connections from here to be spread over all.
        let is_hinted = with_weight().next().is_some() && with_weight().all(has_hints);
        if is_hinted { None } else { in_zone() }
    })
}

/// How many near ones it takes.
struct Enough {
    least: usize,
    /// All near ones, the unhealthy too.
    all: usize,
    panic_threshold: u32,
}

/// Those of `usable` that are near, if they are enough and not all.
fn near(
    endpoints: &[Endpoint],
    usable: &[u32],
    is_near: &dyn Fn(&Endpoint) -> bool,
    enough: Enough,
) -> Option<Vec<u32>> {
    let Enough { least, all, panic_threshold } = enough;
    let mut near: Vec<u32> =
        usable.iter().filter(|index| endpoints.get(**index as usize).is_some_and(is_near)).copied().collect();
    near.sort_unstable();
    let are_enough =
        near.len() >= least.max(1) && near.len() as u64 * 100 >= all as u64 * u64::from(panic_threshold);
    (are_enough && near.len() < usable.len()).then_some(near)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::tests::endpoints;
    use crate::config::Location;
    use std::sync::Arc;

    fn topology(zone: &str, for_zones: &[&str], for_nodes: &[&str]) -> Topology {
        let names = |names: &[&str]| names.iter().map(|name| Name::from(*name)).collect();
        Topology {
            zone: (!zone.is_empty()).then(|| zone.into()),
            node: None,
            for_zones: names(for_zones),
            for_nodes: names(for_nodes),
        }
    }

    /// Near ones for somebody on node `n` in zone `a`, who wants two in a zone at least; `false`: unhealthy.
    fn chosen(all: &[(Topology, bool)]) -> Option<(Nearness, Vec<u32>)> {
        let mut endpoints = endpoints(&vec![1; all.len()]);
        for (endpoint, (topology, _)) in endpoints.iter_mut().zip(all) {
            endpoint.topology = Arc::new(topology.clone());
        }
        let usable: Vec<u32> =
            (0..).zip(all).filter(|(_, (_, healthy))| *healthy).map(|(index, _)| index).collect();
        let here = Location { zone: Some("a".into()), node: Some("n".into()) };
        choose(&endpoints, &usable, 0, &ZoneAware { here: Arc::new(here), min_endpoints: 2 }, 50)
    }

    fn in_zones(zones: &[(&str, bool)]) -> Option<(Nearness, Vec<u32>)> {
        let all: Vec<_> = zones.iter().map(|(zone, healthy)| (topology(zone, &[], &[]), *healthy)).collect();
        chosen(&all)
    }

    #[test]
    fn those_in_the_zone_if_they_are_enough() {
        let near = |indices: &[u32]| Some((Nearness::Zone, indices.to_vec()));
        assert_eq!(in_zones(&[("a", true), ("b", true), ("a", true), ("", true)]), near(&[0, 2]));
        assert_eq!(in_zones(&[("a", true), ("b", true), ("b", true)]), None, "one is too few");
        assert_eq!(in_zones(&[("a", true), ("a", true), ("a", false), ("b", true)]), near(&[0, 1]));
        let ill = [("a", true), ("a", true), ("a", false), ("a", false), ("a", false), ("b", true)];
        assert_eq!(in_zones(&ill), None, "two of five would drown");
        assert_eq!(in_zones(&[("a", true), ("a", true)]), None, "all are near");
        assert_eq!(in_zones(&[]), None);
    }

    #[test]
    fn hints_count_if_all_have_them_and_one_is_for_here() {
        let zones = |all: &[&[&str]]| -> Vec<_> {
            all.iter().map(|zones| (topology("b", zones, &[]), true)).collect()
        };
        let by_zone = |indices: &[u32]| Some((Nearness::ZoneHints, indices.to_vec()));
        assert_eq!(chosen(&zones(&[&["a"], &["b"], &["b", "a"]])), by_zone(&[0, 2]));
        assert_eq!(chosen(&zones(&[&["a"], &["b"], &[]])), None, "one has none");
        assert_eq!(chosen(&zones(&[&["c"], &["b"], &["b"]])), None, "none is for here");
        let mut both = zones(&[&["a"], &["a"], &["b"]]);
        for ((topology, _), node) in both.iter_mut().zip(["n", "other", "other"]) {
            topology.for_nodes.push(node.into());
        }
        assert_eq!(chosen(&both), Some((Nearness::NodeHints, vec![0])), "the node is nearer than the zone");
    }

    #[test]
    fn who_hints_elsewhere_wants_all_to_be_used() {
        let all = ["a", "a", "b"].map(|zone| (topology(zone, &["c"], &[]), true));
        assert_eq!(chosen(&all), None);
    }

    #[test]
    fn hints_at_the_ill_do_not_count() {
        let all = [("a", true), ("a", false), ("a", false), ("b", true)];
        let all: Vec<_> = all.map(|(zone, healthy)| (topology("", &[zone], &[]), healthy)).into();
        assert_eq!(chosen(&all), None);
    }
}

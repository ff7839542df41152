use std::sync::Arc;

use super::*;
use crate::control::kubernetes::object::{SliceMember, SlicePort};

const REACHABLE: Reachable<'static> = &|_| true;

fn wanted(port: PortRef) -> config::ServicePort {
    config::ServicePort { namespace: "db".into(), name: "pg".into(), port }
}

fn number(number: u16) -> config::ServicePort {
    wanted(PortRef::Number(number))
}

fn service(ports: &[(u16, &str)]) -> Service {
    let ports = ports.iter().map(|(number, name)| ServicePort {
        number: *number,
        name: (*name).into(),
        protocol: Protocol::Tcp,
    });
    Service { name: "pg".into(), external_name: None, ports: ports.collect(), families: vec![Family::Ipv4] }
}

fn slice(name: &str, ports: &[(&str, Option<u16>)], members: &[(&str, Condition)]) -> Slice {
    let family = members
        .first()
        .map_or(Family::Ipv4, |(address, _)| if address.contains(':') { Family::Ipv6 } else { Family::Ipv4 });
    let ports = ports.iter().map(|(name, number)| SlicePort {
        name: (*name).into(),
        protocol: Protocol::Tcp,
        number: *number,
    });
    let members = members.iter().map(|(address, condition)| SliceMember {
        address: address.parse().unwrap(),
        pod: Some(address.replace(['.', ':'], "-").into()),
        condition: *condition,
        topology: Arc::default(),
    });
    Slice {
        name: name.into(),
        service: "pg".into(),
        family: Some(family),
        ports: ports.collect(),
        members: members.collect(),
        changed_at: None,
    }
}

/// Addresses, or the reason why there are none, or both.
fn selected(
    wanted: &config::ServicePort,
    service: &Service,
    slices: &[Slice],
    reachable: Reachable<'_>,
) -> (Vec<String>, Option<&'static str>) {
    let found = select(wanted, Some(service), slices.iter(), reachable);
    let addresses = found.members.iter().map(|member| member.address.to_string()).collect();
    (addresses, found.problem.map(|problem| problem.reason))
}

use Condition::{NotReady, Ready, ServingTerminating};

#[test]
fn a_port_leads_by_its_name_to_each_slices_own_number() {
    let service = service(&[(80, "web"), (81, "admin")]);
    let slices = [
        slice("a", &[("web", Some(8080)), ("admin", Some(9000))], &[("10.0.0.1", Ready)]),
        slice("b", &[("web", Some(8081))], &[("10.0.0.2", Ready)]),
    ];
    let expected = (vec!["10.0.0.1:8080".to_owned(), "10.0.0.2:8081".to_owned()], None);
    assert_eq!(selected(&number(80), &service, &slices, REACHABLE), expected);
    assert_eq!(selected(&wanted(PortRef::Name("web".into())), &service, &slices, REACHABLE), expected);
    let found = select(&number(80), Some(&service), slices.iter(), REACHABLE);
    let pods: Vec<_> = found.members.iter().filter_map(|member| member.pod.as_deref()).collect();
    assert_eq!(pods, ["10-0-0-1", "10-0-0-2"]);
    let (addresses, _) = selected(&number(81), &service, &slices, REACHABLE);
    assert_eq!(addresses, ["10.0.0.1:9000"]);
}

#[test]
fn ready_ones_else_those_that_still_serve_never_the_others() {
    let service = service(&[(80, "")]);
    let members = [("10.0.0.1", NotReady), ("10.0.0.2", ServingTerminating), ("10.0.0.3", Ready)];
    let among = |count: usize| {
        selected(&number(80), &service, &[slice("a", &[("", Some(1))], &members[..count])], REACHABLE)
    };
    assert_eq!(among(3), (vec!["10.0.0.3:1".to_owned()], None));
    assert_eq!(among(2), (vec!["10.0.0.2:1".to_owned()], None));
    assert_eq!(among(1), (vec![], Some("none_ready")));
    assert_eq!(among(0), (vec![], Some("no_endpoint")));
}

#[test]
fn one_endpoint_in_two_slices_is_one_and_as_good_as_its_best() {
    let service = service(&[(80, "")]);
    let port = [("", Some(1))];
    let slices = [slice("a", &port, &[("10.0.0.1", Ready)]), slice("b", &port, &[("10.0.0.1", NotReady)])];
    assert_eq!(selected(&number(80), &service, &slices, REACHABLE), (vec!["10.0.0.1:1".to_owned()], None));
}

#[test]
fn of_two_families_the_preferred_one_unless_it_cannot_be_used() {
    let port = [("", Some(1))];
    let v4 = slice("a", &port, &[("10.0.0.1", Ready)]);
    let v6 = slice("b", &port, &[("fd00::1", Ready)]);
    let both = [v4.clone(), v6.clone()];
    let mut service = service(&[(80, "")]);
    let only = |address: &str| (vec![address.to_owned()], None);
    assert_eq!(selected(&number(80), &service, &both, REACHABLE), only("10.0.0.1:1"));
    service.families = vec![Family::Ipv6, Family::Ipv4];
    assert_eq!(selected(&number(80), &service, &both, REACHABLE), only("[fd00::1]:1"));
    assert_eq!(selected(&number(80), &service, &both, &|address| address.is_ipv4()), only("10.0.0.1:1"));
    assert_eq!(selected(&number(80), &service, std::slice::from_ref(&v4), REACHABLE), only("10.0.0.1:1"));
    let down = slice("b", &port, &[("fd00::1", NotReady)]);
    assert_eq!(selected(&number(80), &service, &[v4, down], REACHABLE), only("10.0.0.1:1"));
    assert_eq!(selected(&number(80), &service, &[v6], REACHABLE), only("[fd00::1]:1"));
}

#[test]
fn a_headless_service_without_ports_gives_addresses_only() {
    let slices = [slice("a", &[], &[("10.0.0.1", Ready)])];
    let headless = service(&[]);
    assert_eq!(
        selected(&number(5432), &headless, &slices, REACHABLE),
        (vec!["10.0.0.1:5432".to_owned()], None)
    );
    let named = wanted(PortRef::Name("pg".into()));
    assert_eq!(selected(&named, &headless, &slices, REACHABLE).1, Some("port_missing"));
}

#[test]
fn every_problem_names_what_is_wrong() {
    let text = |wanted: &config::ServicePort, service: Option<&Service>, slices: &[Slice]| {
        select(wanted, service, slices.iter(), REACHABLE).problem.unwrap().text
    };
    let plain = service(&[(80, "web"), (81, "")]);
    assert_eq!(&*text(&number(80), None, &[]), "Service db/pg does not exist; create it or correct the name");
    assert_eq!(
        &*text(&number(5432), Some(&plain), &[]),
        "Service db/pg has no port 5432; it has 80 (web), 81"
    );
    let mut external = plain.clone();
    external.external_name = Some("pg.example.com".into());
    assert!(text(&number(80), Some(&external), &[]).contains("type ExternalName (pg.example.com)"));
    let mut udp = plain.clone();
    udp.ports[0].protocol = Protocol::Other;
    assert_eq!(
        &*text(&number(80), Some(&udp), &[]),
        "port 80 of Service db/pg is not TCP; upstreams carry TCP"
    );
    let other_port = [slice("a", &[("admin", Some(1))], &[("10.0.0.1", Ready)])];
    assert!(
        text(&number(80), Some(&plain), &other_port).starts_with("no pod of Service db/pg has a port for 80")
    );
    let mut names = slice("by-name", &[], &[]);
    names.family = None;
    assert!(
        text(&number(80), Some(&plain), &[names]).starts_with("EndpointSlice db/by-name of Service db/pg")
    );
}

#[test]
fn slices_with_names_instead_of_addresses_do_not_take_others_down() {
    let mut names = slice("names", &[("", Some(1))], &[]);
    names.family = None;
    let slices = [names, slice("b", &[("", Some(1))], &[("10.0.0.1", Ready)])];
    let selected = selected(&number(80), &service(&[(80, "")]), &slices, REACHABLE);
    assert_eq!(selected, (vec!["10.0.0.1:1".to_owned()], Some("fqdn")));
}

use proptest::prelude::*;

use super::*;

/// A route as a scan over all of them sees it.
#[derive(Debug, Clone)]
struct Plain {
    hostnames: Vec<Hostname>,
    sources: Vec<IpNet>,
    alpn: Vec<String>,
}

/// How specific the best of `items` is that matches; empty lists match everything, and least.
fn best<T>(items: &[T], specificity: impl Fn(&T) -> Option<(bool, usize)>) -> Option<(bool, usize)> {
    if items.is_empty() {
        return Some((false, 0));
    }
    items.iter().filter_map(specificity).max()
}

/// The route by its definition: hostname before source before protocols before order.
fn naive(routes: &[Plain], asked: Asked<'_>) -> Option<usize> {
    let name = asked.server_name.map(str::to_lowercase);
    let client = asked.client.to_canonical();
    let matching = routes.iter().enumerate().filter_map(|(index, route)| {
        let hostname = best(&route.hostnames, |hostname| {
            let matches = hostname.matches(name.as_deref()?);
            matches.then(|| (!hostname.is_wildcard(), hostname.name().len()))
        })?;
        let source =
            best(&route.sources, |net| net.contains(&client).then(|| (true, usize::from(net.prefix_len()))))?;
        let is_offered = |protocol: &String| asked.alpn.iter().any(|one| **one == *protocol.as_bytes());
        let names = !route.alpn.is_empty();
        (!names || route.alpn.iter().any(is_offered)).then_some((
            hostname,
            source,
            names,
            std::cmp::Reverse(index),
        ))
    });
    matching.max().map(|(_, _, _, index)| index.0)
}

fn hostname() -> impl Strategy<Value = Hostname> {
    "(\\*\\.)?([ab]\\.){0,3}[ab]".prop_map(|text| text.parse().unwrap())
}

fn source() -> impl Strategy<Value = IpNet> {
    prop_oneof![
        (0..4_u8, 0..=32_u8)
            .prop_map(|(last, length)| IpNet::new([10, 0, 0, last].into(), length).unwrap().trunc()),
        (0..4_u16, 0..=128_u8).prop_map(|(last, length)| IpNet::new(
            [0xfd00, 0, 0, 0, 0, 0, 0, last].into(),
            length
        )
        .unwrap()
        .trunc()),
    ]
}

fn route() -> impl Strategy<Value = Plain> {
    let (hostnames, sources) =
        (prop::collection::vec(hostname(), 0..3), prop::collection::vec(source(), 0..3));
    let alpn = prop::collection::vec("[abA]{1,2}", 0..3);
    (hostnames, sources, alpn).prop_map(|(hostnames, sources, alpn)| Plain { hostnames, sources, alpn })
}

fn client() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        (0..4_u8).prop_map(|last| IpAddr::from([10, 0, 0, last])),
        (0..4_u16).prop_map(|last| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, last])),
        // 10.0.0.x as an IPv6 socket tells it.
        (0..4_u16).prop_map(|last| IpAddr::from([0, 0, 0, 0, 0, 0xffff, 0x0a00, last])),
        Just(IpAddr::from([192, 0, 2, 1])),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_finds_what_a_scan_finds(
        routes in prop::collection::vec(route(), 0..12),
        asked in prop::collection::vec(
            (prop::option::of("[abAB.]{0,7}|([abAB]\\.){0,4}[ab]"), client(), prop::collection::vec("[abA]{1,2}", 0..3)),
            1..12,
        ),
    ) {
        let mut matcher = Matcher::default();
        for (index, route) in routes.iter().enumerate() {
            matcher.add(index, &route.hostnames, &route.sources, &route.alpn);
        }
        for (name, client, alpn) in asked {
            let alpn: Vec<Box<[u8]>> = alpn.iter().map(|protocol| protocol.as_bytes().into()).collect();
            let asked = Asked { server_name: name.as_deref(), alpn: &alpn, client };
            prop_assert_eq!(matcher.find(asked), naive(&routes, asked), "{:?}", asked);
        }
    }
}

#[test]
fn the_hostname_counts_more_than_the_source() {
    let mut matcher = Matcher::default();
    let routes: [(&[&str], &[&str]); 5] = [
        (&[], &["10.1.2.3/32"]),
        (&["*.example.com"], &["10.1.0.0/16"]),
        (&["*.db.example.com"], &[]),
        (&["a.db.example.com"], &["10.0.0.0/8"]),
        (&[], &[]),
    ];
    for (index, (hostnames, sources)) in routes.iter().enumerate() {
        let hostnames: Vec<Hostname> = hostnames.iter().map(|text| text.parse().unwrap()).collect();
        let sources: Vec<IpNet> = sources.iter().map(|text| text.parse().unwrap()).collect();
        matcher.add(index, &hostnames, &sources, &[]);
    }
    let find = |server_name, client: &str| {
        matcher.find(Asked { server_name, alpn: &[], client: client.parse().unwrap() })
    };
    assert_eq!(find(Some("A.db.example.com"), "10.1.2.3"), Some(3));
    assert_eq!(find(Some("a.db.example.com"), "192.0.2.1"), Some(2), "the exact one is for others");
    assert_eq!(find(Some("x.a.db.example.com"), "10.1.2.3"), Some(2), "at any depth");
    assert_eq!(find(Some("www.example.com"), "10.1.2.3"), Some(1));
    assert_eq!(find(Some("www.example.com"), "10.2.2.3"), Some(4));
    assert_eq!(find(Some("example.com"), "10.1.2.3"), Some(0), "no label in the place of the *");
    assert_eq!(find(None, "10.1.2.3"), Some(0));
    assert_eq!(find(None, "10.1.2.4"), Some(4));
}

#[test]
fn protocols_count_less_than_hostnames_and_sources_and_more_than_order() {
    let mut matcher = Matcher::default();
    let routes: [(&[&str], &[&str], &[&str]); 5] = [
        (&["a.example"], &[], &[]),
        (&["a.example"], &[], &["acme-tls/1"]),
        (&["*.example"], &[], &["h2", "acme-tls/1"]),
        (&["a.example"], &["10.0.0.0/8"], &["h2"]),
        (&["a.example"], &[], &["h2"]),
    ];
    for (index, (hostnames, sources, alpn)) in routes.iter().enumerate() {
        let hostnames: Vec<Hostname> = hostnames.iter().map(|text| text.parse().unwrap()).collect();
        let sources: Vec<IpNet> = sources.iter().map(|text| text.parse().unwrap()).collect();
        let alpn: Vec<String> = alpn.iter().map(|text| (*text).to_owned()).collect();
        matcher.add(index, &hostnames, &sources, &alpn);
    }
    let find = |name, client: &str, alpn: &[&[u8]]| {
        let alpn: Vec<Box<[u8]>> = alpn.iter().map(|protocol| (*protocol).into()).collect();
        matcher.find(Asked { server_name: Some(name), alpn: &alpn, client: client.parse().unwrap() })
    };
    assert_eq!(find("a.example", "192.0.2.1", &[b"acme-tls/1"]), Some(1));
    assert_eq!(find("a.example", "192.0.2.1", &[b"h2", b"acme-tls/1"]), Some(1), "the first of the two");
    assert_eq!(find("a.example", "192.0.2.1", &[]), Some(0));
    assert_eq!(find("a.example", "192.0.2.1", &[b"H2", b"\xff"]), Some(0), "compared by bytes");
    assert_eq!(find("a.example", "10.0.0.1", &[b"acme-tls/1", b"h2"]), Some(3));
    assert_eq!(find("a.example", "10.0.0.1", &[b"acme-tls/1"]), Some(1), "the source is for others");
    assert_eq!(find("b.example", "10.0.0.1", &[b"h2"]), Some(2));
    assert_eq!(find("b.example", "10.0.0.1", &[b"http/1.1"]), None);
}

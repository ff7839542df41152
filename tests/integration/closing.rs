//! Looking for a connection among those that are live, and closing it by hand.

use std::io::Read;

use serde_json::Value;

use crate::support::{
    Driver, Endpoint, Proxy, Settings, admin_get, admin_request, admin_request_with, connect, eventually,
    on_both_drivers, round_trip,
};

on_both_drivers!(
    a_connection_is_closed_by_hand,
    nobody_closes_without_the_configurations_leave,
    a_page_of_another_site_closes_nothing,
    connections_are_sorted_and_filtered,
);

fn a_connection_is_closed_by_hand(driver: Driver) {
    let echo = Endpoint::echo();
    let proxy = Proxy::start(&Settings::new(driver, &[echo.address]).with_changes());
    let (mut closed, mut other) = (connect(proxy.address), connect(proxy.address));
    round_trip(&mut closed);
    round_trip(&mut other);
    let client = closed.local_addr().unwrap().to_string();
    let live = proxy.wait_for_live(2);
    let id = &live.iter().find(|connection| connection["client"] == *client).unwrap()["id"];
    let path = format!("/connections/{id}");
    let (status, body) = admin_request(proxy.admin, "DELETE", &path);
    assert_eq!(status, 200, "{body}");
    let answer: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((&answer["id"], &answer["outcome"]), (id, &"admin_closed".into()));
    assert_eq!(closed.read(&mut [0; 1]).unwrap(), 0, "the client is told by an end");
    let record = proxy.record();
    assert_eq!((&record["outcome"], &record["side"]), (&"admin_closed".into(), &"sheave".into()));
    let outcome = ["outcome=\"admin_closed\"", "side=\"sheave\""];
    assert_eq!(proxy.metric("sheave_listener_connections_total", &outcome), 1.0);
    round_trip(&mut other);
    let (status, body) = admin_request(proxy.admin, "DELETE", &path);
    assert_eq!((status, body), (404, format!("connection {id} is not live\n")));
    let (status, body) = admin_request(proxy.admin, "DELETE", "/connections/all");
    assert_eq!(status, 400);
    assert!(body.contains("GET /connections has them"), "{body}");
    let (status, body) = admin_request(proxy.admin, "GET", &path);
    assert_eq!(status, 405);
    assert!(body.contains("DELETE"), "{body}");
    round_trip(&mut other);
}

fn nobody_closes_without_the_configurations_leave(driver: Driver) {
    let echo = Endpoint::echo();
    let proxy = Proxy::start(&Settings::new(driver, &[echo.address]));
    let mut client = connect(proxy.address);
    round_trip(&mut client);
    let id = &proxy.wait_for_live(1)[0]["id"];
    let (status, body) = admin_request(proxy.admin, "DELETE", &format!("/connections/{id}"));
    assert_eq!(status, 403);
    assert!(body.contains("admin.allowChanges: true"), "{body}");
    round_trip(&mut client);
}

fn a_page_of_another_site_closes_nothing(driver: Driver) {
    let echo = Endpoint::echo();
    let proxy = Proxy::start(&Settings::new(driver, &[echo.address]).with_changes());
    let mut client = connect(proxy.address);
    round_trip(&mut client);
    let path = format!("/connections/{}", proxy.wait_for_live(1)[0]["id"]);
    let own = proxy.admin.to_string();
    for (headers, status) in [
        (&[("Origin", "http://evil.example")][..], 403),
        (&[("Origin", "null")], 403),
        (&[("Sec-Fetch-Site", "cross-site")], 403),
        (&[("Sec-Fetch-Site", "same-site")], 403),
        // A name that a stranger lets point here, and the page that came from it.
        (&[("Host", "evil.example"), ("Origin", "http://evil.example")], 421),
    ] {
        let answer = admin_request_with(proxy.admin, "DELETE", &path, headers);
        assert_eq!(answer.status, status, "{headers:?}: {}", answer.body);
    }
    for path in ["/", "/table", "/connections", "/status"] {
        let answer = admin_request_with(proxy.admin, "GET", path, &[("Host", "evil.example:9901")]);
        assert_eq!(answer.status, 421, "{path}");
    }
    // Who scrapes and probes may call it as they like.
    for path in ["/metrics", "/livez"] {
        let answer = admin_request_with(proxy.admin, "GET", path, &[("Host", "node-1.example:9901")]);
        assert_eq!(answer.status, 200, "{path}");
    }
    let page = [("Origin", "http://127.0.0.1"), ("Sec-Fetch-Site", "same-origin")];
    assert_eq!(admin_request_with(proxy.admin, "POST", "/drain", &page).status, 403);
    round_trip(&mut client);
    let origin = format!("http://{own}");
    let page = [("Host", &*own), ("Origin", &*origin), ("Sec-Fetch-Site", "same-origin")];
    assert_eq!(admin_request_with(proxy.admin, "DELETE", &path, &page).status, 200, "the page's own button");
}

fn connections_are_sorted_and_filtered(driver: Driver) {
    let echo = Endpoint::echo();
    let proxy = Proxy::start(&Settings::new(driver, &[echo.address]));
    let clients: Vec<_> = (0..3)
        .map(|number| {
            let mut client = connect(proxy.address);
            (0..=number).for_each(|_| round_trip(&mut client));
            client
        })
        .collect();
    proxy.wait_for_live(3);
    let addresses: Vec<String> = clients.iter().map(|c| c.local_addr().unwrap().to_string()).collect();
    let listed = |query: &str| -> (u64, Vec<String>) {
        let answer: Value =
            serde_json::from_str(&admin_get(proxy.admin, &format!("/connections{query}"))).unwrap();
        let connections = answer["connections"].as_array().unwrap();
        let clients = connections.iter().map(|connection| connection["client"].as_str().unwrap().to_owned());
        (answer["matching"].as_u64().unwrap(), clients.collect())
    };
    let reverse: Vec<String> = addresses.iter().rev().cloned().collect();
    assert_eq!(listed(""), (3, addresses.clone()));
    assert_eq!(listed("?sort=-age"), (3, reverse.clone()));
    eventually("bytes of all", || listed("?sort=sent"), |(_, clients)| *clients == reverse);
    assert_eq!(listed("?sort=-received&limit=1"), (3, vec![addresses[0].clone()]));
    assert_eq!(listed(&format!("?filter={}", addresses[1])), (1, vec![addresses[1].clone()]));
    assert_eq!(listed("?filter=MAIN&limit=2").0, 3, "by the names of listener and upstream too");
    assert_eq!(listed("?filter=nobody"), (0, Vec::new()));
    let (status, body) = admin_request(proxy.admin, "GET", "/connections?sort=client");
    assert_eq!(status, 400);
    assert!(body.contains("age, idle, received, sent"), "{body}");
}

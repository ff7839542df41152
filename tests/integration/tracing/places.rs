//! Where a trace says that its connection was: the addresses of both sockets, and in a cluster Service and pod.

use std::io::{Read, Write};
use std::net::SocketAddr;

use serde_json::{Value, json};

use super::{trace_of, traced};
use crate::discovery::{service, slice};
use crate::support::collector::attribute;
use crate::support::{
    ApiServer, Collector, Driver, Endpoint, Settings, Speech, admin_get, ask, closed_port, connect,
    eventually, on_both_drivers, reset_on_close,
};

on_both_drivers!(both_sockets_are_named, the_pod_of_each_attempt_is_named);

fn both_sockets_are_named(driver: Driver) {
    let collector = Collector::start(Speech::Grpc);
    let (found, peers) = flume::bounded(1);
    // A socket that was reset does not know any more.
    let endpoint = Endpoint::start(move |mut stream| {
        stream.read_exact(&mut [0]).unwrap();
        found.send(stream.peer_addr().unwrap()).unwrap();
        reset_on_close(&stream);
    });
    let settings = Settings::new(driver, &[endpoint.address]);
    let proxy = traced(&collector, Settings { listen: "0.0.0.0:0".to_owned(), ..settings });
    let address = SocketAddr::from(([127, 0, 0, 5], proxy.address.port()));
    let mut client = connect(address);
    client.write_all(b"a").unwrap();
    assert!(client.read(&mut [0]).is_err());
    let trace = trace_of(&collector, &proxy.record());
    let of = |span, key: &str| {
        let value = |name: &str| attribute(span, &format!("{key}.{name}"));
        format!("{}:{}", value("address"), value("port"))
    };
    let root = trace.root();
    assert_eq!(of(root, "network.local"), address.to_string());
    assert_eq!(of(root, "network.peer"), client.local_addr().unwrap().to_string());
    assert_eq!(of(root, "server"), address.to_string());
    let attempt = trace.of_name("connect main")[0];
    assert_eq!(of(attempt, "network.local"), peers.recv().unwrap().to_string());
    assert_eq!(of(attempt, "network.peer"), endpoint.address.to_string());
    assert_eq!(attribute(attempt, "network.type"), "ipv4");
}

fn the_pod_of_each_attempt_is_named(driver: Driver) {
    let (collector, echo, api) = (Collector::start(Speech::Grpc), Endpoint::echo(), ApiServer::start());
    let called = |slice_name: &str, address: SocketAddr, kind: &str, name: &str| {
        let mut slice = slice("db", "pg", slice_name, address);
        slice["endpoints"][0]["targetRef"] = json!({"kind": kind, "namespace": "db", "name": name});
        slice
    };
    let refuses = closed_port();
    api.put_all([
        service("db", "pg"),
        called("one", echo.address, "Pod", "pg-0"),
        called("two", refuses, "Node", "n1"),
    ]);
    let settings = Settings::new(driver, &[])
        .upstream("service: {namespace: db, name: pg, port: 5432}, loadBalancer: {type: RoundRobin}")
        .top(&api.top());
    let proxy = traced(&collector, Settings { workers: 1, ..settings });
    let called_as = |expected: [Option<&str>; 2]| {
        let pods = || {
            let table: Value = serde_json::from_str(&admin_get(proxy.admin, "/table")).unwrap();
            let endpoints = table["upstreams"][0]["endpoints"].as_array().unwrap().clone();
            let pod = |address: SocketAddr| {
                let mut endpoints = endpoints.iter();
                let endpoint = endpoints.find(|endpoint| endpoint["address"] == address.to_string());
                endpoint.and_then(|endpoint| endpoint["pod"].as_str()).map(ToOwned::to_owned)
            };
            (endpoints.len(), [pod(echo.address), pod(refuses)])
        };
        let expected = (2, expected.map(|pod| pod.map(ToOwned::to_owned)));
        eventually(&format!("{expected:?} in the table"), pods, |pods| *pods == expected);
    };
    called_as([Some("pg-0"), None]);
    let named = |number: usize, expected: [(&str, &str); 2]| {
        // At least one of two begins at the endpoint that refuses.
        for _ in 0..2 {
            assert_eq!(ask(proxy.address, "hello"), Ok("hello".to_owned()));
        }
        let records = proxy.records(number);
        let is_retried = |record: &&Value| record["attempts"].as_array().unwrap().len() == 2;
        let record = records[number - 2..].iter().find(is_retried).expect("a retried connection");
        let trace = trace_of(&collector, record);
        let attempts = trace.of_name("connect main");
        for (attempt, (pod, error)) in attempts.iter().zip(expected) {
            assert_eq!(attribute(attempt, "error.type"), error);
            assert_eq!(attribute(attempt, "k8s.pod.name"), pod);
            assert_eq!(attribute(attempt, "k8s.service.name"), "pg");
            assert_eq!(attribute(attempt, "k8s.namespace.name"), "db");
            assert_eq!(attribute(attempt, "service.peer.namespace"), "db");
        }
        assert_eq!(record["pod"], expected[1].0, "{record}");
        assert_eq!(record["attempts"][0]["pod"].as_str().unwrap_or_default(), expected[0].0, "{record}");
        // Its resource says where the proxy is: the root says nothing of another place.
        assert_eq!(attribute(trace.root(), "k8s.pod.name"), "");
    };
    named(2, [("", "connect_refused"), ("pg-0", "")]);
    // Another pod may have the address of one that is gone.
    api.put_all([called("one", echo.address, "Pod", "pg-1"), called("two", refuses, "Pod", "pg-2")]);
    called_as([Some("pg-1"), Some("pg-2")]);
    named(4, [("pg-2", "connect_refused"), ("pg-1", "")]);
}

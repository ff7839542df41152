use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::telemetry::{LiveConnection, LiveQuery, LiveShare};

fn json(reply: &Reply) -> Value {
    assert!(reply.head.contains("content-type: application/json"));
    serde_json::from_str(&reply.body).unwrap()
}

#[test]
fn probes_follow_the_first_table_and_the_phase() {
    let control = Builder { acknowledging: false, ..builder() }.start();
    let statuses =
        || ["/livez", "/startupz", "/readyz", "/healthz/lb"].map(|probe| control.get(probe).status);
    assert_eq!(statuses(), [200, 503, 503, 503]);
    assert!(control.get("/readyz").body.contains("[-]table: no table yet at worker 0, 1"),);
    control.acknowledging.store(true, Ordering::Relaxed);
    eventually("ready", || control.get("/readyz").status == 200);
    assert_eq!(statuses(), [200, 200, 200, 200]);
    assert_eq!(control.get("/readyz").body, "ok\n");
    control.drain.leave();
    assert_eq!(statuses(), [200, 200, 200, 503]);
    assert!(control.get("/healthz/lb").body.contains("[-]phase: leaving"));
    control.drain.drain(Duration::from_secs(60));
    assert_eq!(statuses(), [200, 200, 503, 503]);
}

#[test]
fn no_answer_is_taken_for_something_else() {
    let control = builder().start();
    let paths = [
        "/",
        "/livez",
        "/readyz",
        "/metrics",
        "/table",
        "/connections",
        "/log",
        "/status",
        "/page/page.js",
        "/x",
    ];
    for path in paths {
        let head = control.get(path).head;
        assert_eq!(head.matches("x-content-type-options: nosniff\r\n").count(), 1, "{path}: {head}");
    }
    assert!(control.ask("DELETE", "/livez").head.contains("nosniff"));
}

#[test]
fn readyz_tells_each_check_when_asked() {
    let control = builder().start();
    eventually("ready", || control.get("/readyz").status == 200);
    let body = control.get("/readyz?verbose").body;
    let checks: Vec<&str> = body.lines().map(|line| line.split(':').next().unwrap()).collect();
    assert_eq!(checks, ["[+]table", "[+]phase", "[+]reload", "[+]restart", "readyz check passed"]);
}

#[test]
fn livez_names_the_worker_that_is_stuck() {
    let control = Builder {
        tuning: Tuning { stalled_after: Duration::from_millis(200), ..Tuning::default() },
        ..builder()
    }
    .start();
    let beat = |worker: usize| {
        control.counters[worker]
            .shown
            .heartbeat
            .store(crate::telemetry::process_clock_ms(), Ordering::Relaxed);
    };
    eventually("worker 1 stuck", || {
        beat(0);
        let reply = control.get("/livez");
        reply.status == 503 && reply.body.contains("[+]worker: 0:") && reply.body.contains("[-]worker: 1:")
    });
    beat(0);
    beat(1);
    assert_eq!(control.get("/livez").status, 200);
}

#[test]
fn the_table_is_shown_in_the_files_words() {
    let control = builder().start();
    eventually("acknowledged", || control.get("/readyz").status == 200);
    let expected = json!({
        "generation": 1,
        "acknowledgedGenerations": [1, 1],
        "listeners": [{
            "name": "front", "address": "127.0.0.1:5432", "protocol": "TCP", "limit": 7, "active": 0,
            "routes": [{
                "name": "all", "sources": ["10.0.0.0/8"],
                "backendRefs": [{"upstream": "pg", "weight": 3}],
            }],
        }],
        "upstreams": [{
            "name": "pg", "loadBalancer": "LeastConnections", "problem": null, "panics": false, "pending": 0, "leaving": [],
            "endpoints": [{
                "address": "127.0.0.1:1", "weight": 1, "active": 0,
                "health": "healthy", "breaker": "closed",
            }],
        }],
    });
    assert_eq!(json(&control.get("/table")), expected);
}

#[test]
fn the_table_shows_names_and_where_tls_ends() {
    let text = "listeners: [{name: a, address: \"127.0.0.1:1\", protocol: TLS, tls: {mode: Passthrough}, proxyProtocol: \
                {mode: Require, trusted: [10.0.0.0/8]}}]\n\
                routes: [{name: a, listener: a, hostnames: [a.example, \"*.b.example\"], alpnProtocols: [h2], \
                 backendRefs: [{upstream: a}]}]\n\
                upstreams: [{name: a, endpoints: [{address: \"127.0.0.1:2\"}], proxyProtocol: {version: V1}}]\n";
    let Config { listeners, routes, upstreams, .. } = Config::parse(text, "test").unwrap();
    let config = Config { listeners, routes, upstreams, ..config(&[]) };
    let control = Builder { config, ..builder() }.start();
    eventually("acknowledged", || control.get("/readyz").status == 200);
    let table = json(&control.get("/table"));
    let listener = &table["listeners"][0];
    assert_eq!([&listener["protocol"], &listener["proxyProtocol"]], [&json!("TLS"), &json!("Require")]);
    let expected = json!({
        "name": "a", "hostnames": ["a.example", "*.b.example"], "alpnProtocols": ["h2"], "tlsMode": "Passthrough",
        "sources": [], "backendRefs": [{"upstream": "a", "weight": 1}],
    });
    assert_eq!(listener["routes"][0], expected);
    assert_eq!(table["upstreams"][0]["proxyProtocol"], "V1");
}

/// A worker whose connections are this many seconds old. The second one looks two seconds later.
fn answer(inbox: LiveInbox, worker: usize, ages: &'static [u64]) {
    thread::spawn(move || {
        for query in inbox {
            let LiveQuery::List { reply, .. } = query else { continue };
            let live = |age: &u64| LiveConnection {
                id: 100 - *age,
                worker,
                client: "192.0.2.1:1000".parse().unwrap(),
                listener: "front".into(),
                server_name: None,
                upstream: None,
                endpoint: None,
                age: Duration::from_secs(*age + 2 * worker as u64),
                idle: Duration::ZERO,
                bytes_received: 1,
                bytes_sent: 2,
            };
            reply
                .send(LiveShare { connections: ages.iter().map(live).collect(), matching: ages.len() })
                .unwrap();
        }
    });
}

#[test]
fn connections_come_oldest_first_from_all_workers() {
    let mut control = builder().start();
    for (worker, ages) in [&[9, 3][..], &[8]].into_iter().enumerate() {
        answer(control.inboxes.remove(0), worker, ages);
    }
    let shown = json(&control.get("/connections?limit=2"));
    assert_eq!(shown["complete"], true);
    assert_eq!(shown["connections"].as_array().unwrap().len(), 2);
    assert_eq!(shown["connections"][1]["id"], 92);
    let oldest = json!({
        "id": 91, "worker": 0, "client": "192.0.2.1:1000", "listener": "front",
        "upstream": null, "endpoint": null, "ageSeconds": 9.0, "idleSeconds": 0.0,
        "bytesReceived": 1, "bytesSent": 2,
    });
    assert_eq!(shown["connections"][0], oldest);
}

#[test]
fn connections_say_when_a_worker_did_not_answer() {
    let mut control =
        Builder { tuning: Tuning { live: Duration::from_millis(50), ..Tuning::default() }, ..builder() }
            .start();
    answer(control.inboxes.remove(0), 0, &[1]);
    let shown = json(&control.get("/connections"));
    assert_eq!(shown["complete"], false);
    assert_eq!(shown["connections"].as_array().unwrap().len(), 1);
}

#[test]
fn drain_takes_a_post_and_asks_only_once_the_phase_is_serving() {
    let control = builder().start();
    let get = control.get("/drain");
    assert_eq!(get.status, 405);
    assert!(get.head.contains("allow: post") && get.body.contains("curl -X POST"));
    assert!(control.events.is_empty());

    let reply = control.ask("POST", "/drain");
    assert_eq!(reply.status, 202);
    let expected = json!({"phase": "serving", "drainRequested": true});
    assert_eq!(json(&reply), expected);
    assert_eq!(control.events.recv_timeout(DEADLINE), Ok(Event::DrainRequested));

    control.drain.leave();
    let reply = control.ask("POST", "/drain");
    assert_eq!((reply.status, &json(&reply)["phase"]), (202, &json!("leaving")));
    assert!(control.events.is_empty(), "a second request is not a second signal");
}

#[test]
fn mistakes_are_answered_with_what_would_be_right() {
    let control = builder().start();
    for (method, path, status, hint) in [
        ("GET", "/nothing", 404, "GET /readyz"),
        ("POST", "/livez", 405, "use GET"),
        ("GET", "/connections?limit=0", 400, "limit: \"0\""),
        ("GET", "/connections?limit=10001", 400, "limit: \"10001\""),
        ("GET", "/connections?limit=x", 400, "limit: \"x\""),
        ("GET", "/connections?limt=1", 400, "unknown parameter \"limt\""),
        ("GET", "/readyz?verbos", 400, "unknown parameter \"verbos\""),
    ] {
        let reply = control.ask(method, path);
        assert_eq!(reply.status, status, "{method} {path}");
        assert!(reply.body.contains(hint), "{method} {path}: {}", reply.body);
    }
    let index = control.get("/");
    assert_eq!(index.status, 200);
    assert!(index.head.contains("text/plain") && index.body.contains("POST /drain"));
}

#[test]
fn head_is_get_without_the_body() {
    let control = builder().start();
    for path in ["/livez", "/metrics", "/table", "/"] {
        let reply = control.ask("HEAD", path);
        assert_eq!((reply.status, reply.body.as_str()), (200, ""), "{path}");
    }
}

#[test]
fn silent_clients_do_not_keep_others_out() {
    let control = builder().start();
    let address = control.handle.admin_address();
    let mut silent: Vec<TcpStream> = (0..80)
        .map(|_| {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(b"GET /livez HT").unwrap();
            stream
        })
        .collect();
    assert_eq!(control.get("/livez").status, 200);
    silent[0].set_read_timeout(Some(DEADLINE)).unwrap();
    let closed = silent[0].read(&mut [0; 1]);
    assert!(!matches!(closed, Ok(1..)), "the oldest made room");
}

#[test]
fn stop_ends_the_thread_and_frees_the_port() {
    let control = builder().start();
    let address = control.handle.admin_address();
    let finished = control.handle.finished.clone();
    control.handle.stop();
    assert_eq!(finished.recv_timeout(DEADLINE), Err(flume::RecvTimeoutError::Disconnected));
    assert!(TcpStream::connect(address).is_err());
    assert!(control.events.is_empty(), "a planned end is no failure");
}

#[test]
fn the_main_thread_hears_when_the_control_side_is_lost() {
    let control = Builder { load: Box::new(|| panic!("a defect, on purpose")), ..builder() }.start();
    assert!(control.handle.reload().unwrap_err().contains("has ended"));
    let event = control.events.recv_timeout(DEADLINE).unwrap();
    assert!(matches!(event, Event::Failed(_)), "{event:?}");
}

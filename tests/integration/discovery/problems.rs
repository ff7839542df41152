//! Services that have nothing to follow: said in every place, and no harm to any other upstream.

use super::*;

/// The warnings and the good news about an upstream.
fn said(process: &Process, upstream: &str) -> Vec<Value> {
    let mut lines = process.log.json();
    lines.retain(|line| line["upstream"] == upstream);
    lines
}

/// Waits until the last of `count` lines about an upstream contains `part`.
fn has_said(process: &Process, upstream: &str, count: usize, part: &str) {
    let what = format!("{count} lines about {upstream}");
    let lines = eventually(&what, || said(process, upstream), |lines| lines.len() >= count);
    assert_eq!(lines.len(), count, "{lines:#?}");
    assert!(lines[count - 1]["message"].as_str().unwrap().contains(part), "{lines:#?}");
}

fn has_problem(process: &Process, upstream: &str, reason: &str) {
    let admin = process.admin();
    eventually(&format!("{reason} of {upstream}"), || problem(admin, upstream), |found| found == reason);
    let labels = [&*format!("upstream=\"{upstream}\""), &*format!("reason=\"{reason}\"")];
    assert!(metric(admin, "sheave_upstream_problem", &labels) > 0.5);
    let any = metric(admin, "sheave_upstream_problem", &labels[..1]);
    assert!((any - 1.0).abs() < 0.5, "one problem at a time");
}

const UPSTREAMS: [(&str, &str, &str); 5] = [
    ("missing", "service_missing", "Service db/missing does not exist"),
    ("external", "external_name", "Service db/external is of type ExternalName (pg.example.com)"),
    ("portless", "port_missing", "Service db/portless has no port 5432; it has 80 (http), 443 (https)"),
    ("named", "fqdn", "EndpointSlice db/named of Service db/named has addressType FQDN"),
    ("empty", "no_endpoint", "Service db/empty has no endpoints"),
];

#[test]
fn services_with_problems_are_named_and_harm_no_other() {
    let (good, late) = (Endpoint::polite(), Endpoint::polite());
    let api = ApiServer::start();
    api.put_all([service("db", "pg"), slice("db", "pg", "first", good.address)]);
    put_with_problems(&api);
    let mut settings = following(Driver::Epoll, &api);
    for (name, _, _) in UPSTREAMS {
        settings = also(settings, name, &follows("db", name, "5432"));
    }
    let process = Process::start(&settings, |_| {});
    let admin = process.admin();
    becomes_ready(admin);
    has(admin, "main", &[&good]);
    exchange(process.listener("main")).unwrap();
    for (name, reason, text) in UPSTREAMS {
        has_problem(&process, name, reason);
        assert!(upstream(admin, name)["problem"]["text"].as_str().unwrap().contains(text));
        is_reset(process.listener(name));
        has_said(&process, name, 1, text);
    }
    assert_eq!(said(&process, "main"), [Value::Null; 0]);

    // Nothing new, so nothing to say.
    put_with_problems(&api);
    // The Service comes first, its slice later, as in a cluster.
    api.put(service("db", "missing"));
    has_problem(&process, "missing", "no_endpoint");
    has_said(&process, "missing", 2, "Service db/missing has no endpoints");
    api.put_all(UPSTREAMS.map(|(name, _, _)| slice("db", name, name, late.address)));
    // Services and slices come by two ways: when the last slice is there, so are those before it.
    api.put(slice("db", "pg", "second", late.address));
    has(admin, "main", &[&good, &late]);
    for (name, _, _) in UPSTREAMS {
        api.put(service("db", name));
        has(admin, name, &[&late]);
        exchange(process.listener(name)).unwrap();
        assert_eq!(problem(admin, name), Value::Null);
        let lines = if name == "missing" { 3 } else { 2 };
        has_said(&process, name, lines, "the upstream has its endpoints again");
    }
    let any = || metric(admin, "sheave_upstream_problem", &[]);
    assert!(any() < 0.5, "{}", any());

    api.delete(&service("db", "empty"));
    has_problem(&process, "empty", "service_missing");
    has_said(&process, "empty", 3, "Service db/empty does not exist");
    exchange(process.listener("main")).unwrap();
}

/// All but `missing`.
fn put_with_problems(api: &ApiServer) {
    let mut external = service("db", "external");
    external["spec"] = json!({"type": "ExternalName", "externalName": "pg.example.com"});
    let mut portless = service("db", "portless");
    portless["spec"]["ports"] = json!([{"name": "http", "port": 80}, {"name": "https", "port": 443}]);
    let mut named = slice("db", "named", "named", nowhere(1));
    named["addressType"] = "FQDN".into();
    named["endpoints"][0]["addresses"] = json!(["pg.example.com"]);
    api.put_all([external, portless, service("db", "named"), named, service("db", "empty")]);
}

/// Endpoints that only leave serve until they are gone; those that are not ready never do.
#[test]
fn what_is_not_ready_is_not_chosen() {
    let (ready, leaving) = (Endpoint::polite(), Endpoint::polite());
    let api = ApiServer::start();
    let conditions = |name: &str, endpoint: &Endpoint, ready: bool, serving: bool| {
        let mut slice = slice("db", "pg", name, endpoint.address);
        let conditions = json!({"ready": ready, "serving": serving, "terminating": !ready && serving});
        slice["endpoints"][0]["conditions"] = conditions;
        slice
    };
    api.put(service("db", "pg"));
    api.put(conditions("first", &ready, true, true));
    api.put(conditions("second", &leaving, false, true));
    let proxy = Proxy::start(&following(Driver::Epoll, &api));
    let admin = proxy.admin;
    has(admin, "main", &[&ready]);
    in_step(admin);
    api.put(conditions("first", &ready, false, false));
    has(admin, "main", &[&leaving]);
    exchange(proxy.address).unwrap();
    assert_eq!((ready.accepted(), leaving.accepted()), (0, 1));
    api.put(conditions("second", &leaving, false, false));
    has(admin, "main", &[]);
    assert_eq!(problem(admin, "main"), "none_ready");
    api.put(conditions("first", &ready, true, true));
    has(admin, "main", &[&ready]);
}

/// What a reload brings to light is said like what the cluster does.
#[test]
fn a_problem_that_a_reload_makes_is_said_once() {
    let endpoint = Endpoint::polite();
    let api = ApiServer::start();
    api.put_all([service("db", "pg"), slice("db", "pg", "first", endpoint.address)]);
    let settings = following(Driver::Epoll, &api);
    let process = Process::start(&settings, |_| {});
    let admin = process.admin();
    has(admin, "main", &[&endpoint]);
    let reload = |settings: &Settings| {
        let before = generation(admin);
        std::fs::write(&process.config, settings.yaml()).unwrap();
        process.signal(rustix::process::Signal::HUP);
        eventually("the next table", || generation(admin), |now| *now > before);
    };
    reload(&settings.clone().upstream(&follows("db", "pg", "5433")));
    has_problem(&process, "main", "port_missing");
    has_said(&process, "main", 1, "Service db/pg has no port 5433; it has 5432 (sql)");
    reload(&settings);
    has(admin, "main", &[&endpoint]);
    has_said(&process, "main", 2, "the upstream has its endpoints again");
}

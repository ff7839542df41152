//! The API server is away, comes back, forgets, and stops in the middle: what was seen last keeps serving.

use super::*;

on_both_drivers!(away_at_the_start, away_under_load);

fn away_at_the_start(driver: Driver) {
    let (followed, listed) = (Endpoint::polite(), Endpoint::polite());
    let api = ApiServer::start();
    api.put_all([service("db", "pg"), slice("db", "pg", "first", followed.address)]);
    api.stop();
    let settings =
        also(following(driver, &api), "listed", &format!("endpoints: [{{address: \"{}\"}}]", listed.address));
    let proxy = Proxy::start(&settings);
    let admin = proxy.admin;
    let says_why = |(status, text): &(u16, String)| {
        *status == 503 && text.contains("[-]kubernetes:") && text.contains("Connection refused")
    };
    eventually("unreadiness with a reason", || readiness(admin), says_why);
    for probe in ["/livez", "/startupz"] {
        assert_eq!(admin_get(admin, probe), "ok\n", "{probe}");
    }
    assert_eq!(problem(admin, "main"), "waiting");
    exchange(proxy.listener("listed")).unwrap();
    is_reset(proxy.address);
    let records = proxy.records(2);
    let outcomes: Vec<_> = records.iter().map(|r| (r["listener"].as_str(), r["outcome"].as_str())).collect();
    assert!(outcomes.contains(&(Some("main"), Some("no_endpoint"))), "{records:?}");
    assert!(outcomes.contains(&(Some("listed"), Some("upstream_closed"))), "{records:?}");

    api.resume();
    becomes_ready(admin);
    has(admin, "main", &[&followed]);
    exchange(proxy.address).unwrap();
    assert_eq!(followed.accepted(), 1);
}

fn away_under_load(driver: Driver) {
    let (leaves, comes) = (Endpoint::polite(), Endpoint::polite());
    let api = ApiServer::start();
    let first = slice("db", "pg", "first", leaves.address);
    api.put_all([service("db", "pg"), first.clone()]);
    let proxy = Proxy::start(&following(driver, &api));
    let admin = proxy.admin;
    has(admin, "main", &[&leaves]);
    in_step(admin);
    let load = [Load::long(connect(proxy.address)), Load::short(proxy.address)];

    api.stop();
    for resource in ["services", "endpointslices"] {
        eventually(&format!("{resource} out of step"), || synced(admin, resource), |synced| !synced);
    }
    let (status, text) = readiness(admin);
    assert_eq!(status, 200, "{text}");
    assert!(
        text.contains("[-](does not fail the probe) kubernetes: the endpoints known so far keep"),
        "{text}"
    );
    let age = || {
        let services = ["resource=\"services\"", "watched_namespace=\"db\""];
        proxy.metric("sheave_kubernetes_last_event_age_seconds", &services)
    };
    eventually("a growing age", age, |age| *age > 0.3);
    let before = load[1].exchanges();
    eventually("more connections", || load[1].exchanges(), |exchanges| *exchanges > before + 10);
    assert_eq!(addresses(admin, "main"), [leaves.address]);
    assert!(watch_errors(admin, "unreachable") >= 2.0);

    api.delete(&first);
    api.put(slice("db", "pg", "second", comes.address));
    api.resume();
    has(admin, "main", &[&comes]);
    in_step(admin);
    eventually(
        "no trouble",
        || readiness(admin).1,
        |text| text.contains("[+]kubernetes: all watches are in step"),
    );
    exchange(proxy.address).unwrap();
    for load in load {
        assert!(load.stop().unwrap() > 0);
    }
}

/// The endpoints that left while nobody could say so leave with the new list.
fn forgets(gone: Gone) {
    let (leaves, stays) = (Endpoint::polite(), Endpoint::polite());
    let api = ApiServer::start();
    let first = slice("db", "pg", "first", leaves.address);
    api.put_all([service("db", "pg"), first.clone(), slice("db", "pg", "second", stays.address)]);
    let proxy = Proxy::start(&following(Driver::Epoll, &api));
    let admin = proxy.admin;
    has(admin, "main", &[&leaves, &stays]);
    in_step(admin);
    let load = Load::short(proxy.address);
    api.stop();
    api.delete(&first);
    api.compact(gone);
    api.resume();
    has(admin, "main", &[&stays]);
    assert!(load.stop().unwrap() > 0);
    let lists = || [api.count(Verb::List, "services"), api.count(Verb::List, "endpointslices")];
    eventually("a second list of each", lists, |lists| *lists == [2, 2]);
    in_step(admin);
    // Each watch has learnt it once.
    assert!((watch_errors(admin, "expired") - 2.0).abs() < 0.5);
}

#[test]
fn a_forgotten_version_as_a_status_is_a_new_list() {
    forgets(Gone::AsStatus);
}

#[test]
fn a_forgotten_version_as_an_event_is_a_new_list() {
    forgets(Gone::AsEvent);
}

/// A bookmark moves the version on, so that what is forgotten before it does not matter.
#[test]
fn a_watch_goes_on_from_where_a_bookmark_says() {
    let (first, second) = (Endpoint::polite(), Endpoint::polite());
    let api = ApiServer::start();
    api.put_all([service("db", "pg"), slice("db", "pg", "first", first.address)]);
    let proxy = Proxy::start(&following(Driver::Epoll, &api));
    let admin = proxy.admin;
    eventually("two watches", || api.watches(), |watches| watches.len() == 2);
    api.compact(Gone::AsStatus);
    api.bookmark();
    // Sent to all watches in the order of events; the change says that it has arrived.
    api.put_all([service("db", "pg"), slice("db", "pg", "second", second.address)]);
    has(admin, "main", &[&first, &second]);
    for _ in 0..3 {
        let opened = api.count(Verb::Watch, "endpointslices");
        api.end_watches();
        let count = || api.count(Verb::Watch, "endpointslices");
        eventually("another watch", count, |count| *count > opened);
        eventually("two watches", || api.watches(), |watches| watches.len() == 2);
    }
    assert_eq!([api.count(Verb::List, "services"), api.count(Verb::List, "endpointslices")], [1, 1]);
    assert!(watch_errors(admin, "expired") < 0.5);
}

fn is_later_page(request: &Request) -> bool {
    request.parameter("continue").is_some()
}

/// Half a list is no list: neither the first one nor one that replaces what is known.
#[test]
fn a_list_that_breaks_off_changes_nothing() {
    let endpoints: Vec<Endpoint> = (0..5).map(|_| Endpoint::polite()).collect();
    let slices: Vec<Value> = endpoints
        .iter()
        .enumerate()
        .map(|(number, endpoint)| slice("db", "pg", &format!("slice-{number}"), endpoint.address))
        .collect();
    let api = ApiServer::start();
    api.page(2);
    api.put(service("db", "pg"));
    api.put_all(slices.clone());
    let breaks = |request: &Request| if is_later_page(request) { Reply::Break } else { Reply::Served };
    let broken = || api.requests().iter().filter(|request| is_later_page(request)).count();
    api.reply(breaks);
    let proxy = Proxy::start(&following(Driver::Epoll, &api));
    let admin = proxy.admin;
    eventually("lists that break off", broken, |count| *count >= 3);
    assert_eq!((generation(admin), problem(admin, "main")), (1, "waiting".into()));
    assert_eq!(readiness(admin).0, 503);
    api.reply(|_| Reply::Served);
    becomes_ready(admin);
    has(admin, "main", &endpoints.iter().collect::<Vec<_>>());
    assert_eq!(generation(admin), 2, "all of them in one table");

    in_step(admin);
    api.reply(breaks);
    let before = broken();
    api.stop();
    slices[..4].iter().for_each(|slice| api.delete(slice));
    api.put_all(slices[..3].iter().cloned());
    api.compact(Gone::AsStatus);
    api.resume();
    eventually("more lists that break off", broken, |count| *count >= before + 3);
    has(admin, "main", &endpoints.iter().collect::<Vec<_>>());
    assert_eq!(generation(admin), 2);
    // A page that has expired is a list that broke off.
    api.reply(|request| if is_later_page(request) { Reply::Status(410) } else { Reply::Served });
    let before = broken();
    eventually("lists whose pages expire", broken, |count| *count >= before + 3);
    assert_eq!(generation(admin), 2);
    api.reply(|_| Reply::Served);
    has(admin, "main", &[&endpoints[0], &endpoints[1], &endpoints[2], &endpoints[4]]);
    assert_eq!(generation(admin), 3);
}

#[test]
fn a_kubeconfig_that_comes_late_is_read() {
    let endpoint = Endpoint::polite();
    let api = ApiServer::start();
    api.put_all([service("db", "pg"), slice("db", "pg", "first", endpoint.address)]);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("late");
    let top = format!("kubernetes: {{kubeconfig: {file:?}}}");
    let proxy = Proxy::start(&following(Driver::Epoll, &api).top(&top));
    let admin = proxy.admin;
    let says_why =
        |(status, text): &(u16, String)| *status == 503 && text.contains("no way to the API server");
    eventually("unreadiness with a reason", || readiness(admin), says_why);
    assert!(watch_errors(admin, "no_client") >= 1.0);
    let written = directory.path().join("written");
    std::fs::write(&written, api.kubeconfig()).unwrap();
    std::fs::rename(written, file).unwrap();
    becomes_ready(admin);
    has(admin, "main", &[&endpoint]);
    exchange(proxy.address).unwrap();
}

/// It answers connections and nothing else; whatever does not need it goes on.
#[test]
fn an_api_server_that_hangs_holds_up_nothing_else() {
    let (followed, listed) = (Endpoint::polite(), Endpoint::polite());
    let api = ApiServer::start();
    api.put_all([service("db", "pg"), slice("db", "pg", "first", followed.address)]);
    api.reply(|_| Reply::Hang);
    let members = format!("endpoints: [{{address: \"{}\"}}]", listed.address);
    let settings = also(following(Driver::Epoll, &api), "listed", &members);
    let proxy = Proxy::start(&settings);
    let admin = proxy.admin;
    eventually("two requests", || api.requests(), |requests| requests.len() == 2);
    let (status, text) = readiness(admin);
    assert!(status == 503 && text.contains("no answer yet"), "{text}");
    proxy.reload(&settings.clone().listener("connection: {limit: 100}")).unwrap();
    exchange(proxy.listener("listed")).unwrap();
    api.reply(|_| Reply::Served);
    api.break_connections();
    becomes_ready(admin);
    has(admin, "main", &[&followed]);
    exchange(proxy.address).unwrap();
}

/// Whoever is told that the process is ready may send connections at once.
#[test]
fn ready_is_who_has_the_endpoints_in_its_table() {
    let api = ApiServer::start();
    api.put_all([service("db", "pg"), slice("db", "pg", "first", nowhere(0))]);
    let mut settings = following(Driver::Epoll, &api);
    for number in 1..10 {
        let namespace = format!("db-{number}");
        api.put_all([service(&namespace, "pg"), slice(&namespace, "pg", "first", nowhere(number))]);
        let members = follows(&namespace, "pg", "5432");
        settings.more_upstreams.push(format!("{{name: {namespace}, {members}}}"));
    }
    let proxy = Proxy::start(&settings);
    becomes_ready(proxy.admin);
    let table = table(proxy.admin);
    let upstreams = table["upstreams"].as_array().unwrap();
    let empty: Vec<&Value> = upstreams.iter().filter(|u| u["endpoints"] == json!([])).collect();
    assert!(empty.is_empty(), "{empty:#?}");
}

//! The API server answers, and says no.

use std::time::Instant;

use super::*;

/// How long refusals hold up readiness.
const PATIENCE: Duration = Duration::from_secs(10);

fn warnings(process: &Process, part: &str) -> Vec<Value> {
    let mut lines = process.log.json();
    lines.retain(|line| line["level"] == "WARN" && line["message"].as_str().unwrap().contains(part));
    lines
}

#[test]
fn a_forbidden_namespace_holds_up_no_other() {
    let (allowed, forbidden) = (Endpoint::polite(), Endpoint::polite());
    let api = ApiServer::start();
    api.put_all([service("db", "pg"), slice("db", "pg", "first", allowed.address)]);
    api.put_all([service("web", "shop"), slice("web", "shop", "first", forbidden.address)]);
    api.reply(|request| if request.namespace == "web" { Reply::Status(403) } else { Reply::Served });
    let started = Instant::now();
    let settings = also(following(Driver::Epoll, &api), "shop", &follows("web", "shop", "5432"));
    let process = Process::start(&settings, |_| {});
    let admin = process.admin();
    has(admin, "main", &[&allowed]);
    exchange(process.listener("main")).unwrap();
    is_reset(process.listener("shop"));
    let says_why = |(status, text): &(u16, String)| *status == 503 && text.contains("is forbidden");
    eventually("unreadiness with a reason", || readiness(admin), says_why);

    let refused = || api.requests().iter().filter(|request| request.namespace == "web").count();
    eventually("many refusals", refused, |count| *count >= 10);
    for (group, resource) in [("\"\"", "services"), ("\"discovery.k8s.io\"", "endpointslices")] {
        let said = warnings(&process, &format!("listing {resource} in namespace web is forbidden"));
        assert_eq!(said.len(), 1, "once, and not for each attempt: {said:?}");
        let rule = format!("{{apiGroups: [{group}], resources: [{resource}], verbs: [list, watch]}}");
        let text = said[0]["message"].as_str().unwrap();
        assert!(text.contains(&rule) && text.contains("Role in namespace web"), "{text}");
    }
    becomes_ready(admin);
    assert!(started.elapsed() >= PATIENCE, "ready after {:?}", started.elapsed());
    let (_, text) = readiness(admin);
    assert!(text.contains("[-](does not fail the probe) kubernetes:"), "{text}");
    exchange(process.listener("main")).unwrap();

    api.reply(|_| Reply::Served);
    has(admin, "shop", &[&forbidden]);
    exchange(process.listener("shop")).unwrap();
    let is_said = || process.log.get().matches("watching again").count();
    eventually("both watches again", is_said, |count| *count == 2);
    assert_eq!(warnings(&process, "is forbidden").len(), 2);
}

/// A permission that is taken away takes no endpoint away.
#[test]
fn every_refusal_has_its_reason_and_takes_nothing_away() {
    let (first, second) = (Endpoint::polite(), Endpoint::polite());
    let api = ApiServer::start();
    api.put_all([service("db", "pg"), slice("db", "pg", "first", first.address)]);
    let proxy = Proxy::start(&following(Driver::Epoll, &api));
    let admin = proxy.admin;
    has(admin, "main", &[&first]);
    in_step(admin);
    let load = Load::short(proxy.address);
    for (code, reason) in [
        (401, "unauthorized"),
        (403, "forbidden"),
        (404, "refused"),
        (429, "unavailable"),
        (500, "unavailable"),
        (503, "unavailable"),
    ] {
        let refused = || RESOURCES.map(|resource| watch_errors_of(admin, resource, reason));
        let before = refused();
        let asked = api.requests().len();
        let listed = api.count(Verb::List, "endpointslices");
        api.reply(move |_| Reply::Status(code));
        api.break_connections();
        let what = format!("{reason} for {code}");
        // Both of them: one that is still pausing when all is well again never hears of the refusal.
        let is_more = |counts: &[f64; 2]| counts.iter().zip(before).all(|(now, before)| *now > before);
        eventually(&what, refused, is_more);
        // A few times for each of two watches, and not in a loop.
        assert!(api.requests().len() - asked < 20, "{code}");
        assert_eq!(addresses(admin, "main"), [first.address], "{code}");
        assert_eq!(readiness(admin).0, 200, "{code}");
        api.reply(|_| Reply::Served);
        in_step(admin);
        // What asking again does not change needs a new list, and so do new credentials; nothing else does.
        let again = api.count(Verb::List, "endpointslices") > listed;
        assert_eq!(again, ["refused", "unauthorized"].contains(&reason), "{code}");
    }
    api.put(slice("db", "pg", "second", second.address));
    has(admin, "main", &[&first, &second]);
    assert!(load.stop().unwrap() > 0);
}

/// As with credentials that were renewed while they ran out.
#[test]
fn a_changed_kubeconfig_is_read_when_the_old_one_is_refused() {
    let (first, second) = (Endpoint::polite(), Endpoint::polite());
    let (old, new) = (ApiServer::start(), ApiServer::start());
    old.put_all([service("db", "pg"), slice("db", "pg", "first", first.address)]);
    new.put_all([service("db", "pg"), slice("db", "pg", "first", second.address)]);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("kubeconfig");
    std::fs::write(&file, old.kubeconfig()).unwrap();
    let settings = following(Driver::Epoll, &old).top(&format!("kubernetes: {{kubeconfig: {file:?}}}"));
    let proxy = Proxy::start(&settings);
    has(proxy.admin, "main", &[&first]);
    in_step(proxy.admin);
    std::fs::write(&file, new.kubeconfig()).unwrap();
    old.reply(|_| Reply::Status(401));
    old.break_connections();
    has(proxy.admin, "main", &[&second]);
    in_step(proxy.admin);
    exchange(proxy.address).unwrap();
}

/// The client library would wait for longer and longer by itself, without a word.
#[test]
fn an_overloaded_api_server_at_the_start_is_named() {
    let endpoint = Endpoint::polite();
    let api = ApiServer::start();
    api.put_all([service("db", "pg"), slice("db", "pg", "first", endpoint.address)]);
    api.reply(|_| Reply::Status(503));
    let proxy = Proxy::start(&following(Driver::Epoll, &api));
    let admin = proxy.admin;
    let started = Instant::now();
    let says_why = |(status, text): &(u16, String)| *status == 503 && text.contains("the API server says");
    eventually("unreadiness with a reason", || readiness(admin), says_why);
    assert!(started.elapsed() < PATIENCE, "said after {:?}", started.elapsed());
    api.reply(|_| Reply::Served);
    becomes_ready(admin);
    has(admin, "main", &[&endpoint]);
    exchange(proxy.address).unwrap();
}

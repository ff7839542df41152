//! New configurations: what is followed changes, while the API server is there and while it is not.

use super::*;

/// Slices of `other` have a port for each of its Service's ports.
fn with_two_ports(api: &ApiServer, sql: &Endpoint, admin: &Endpoint) {
    let mut other = service("db", "other");
    other["spec"]["ports"] = json!([{"name": "sql", "port": 5432}, {"name": "admin", "port": 9000}]);
    let mut both = slice("db", "other", "other", sql.address);
    both["ports"] =
        json!([{"name": "sql", "port": sql.address.port()}, {"name": "admin", "port": admin.address.port()}]);
    api.put_all([other, both]);
}

/// The settings, with all new connections to Service db/other; the others may stay where they are.
fn to_other(mut settings: Settings, port: &str) -> Settings {
    settings.more_upstreams.push(format!("{{name: other, {}}}", follows("db", "other", port)));
    settings.route("backendRefs: [{upstream: main, weight: 0}, {upstream: other}]")
}

fn selectors(api: &ApiServer) -> Vec<String> {
    let watches = api.watches();
    let slices = watches.iter().filter(|watch| watch.resource == "endpointslices");
    slices.map(|watch| watch.parameter("labelSelector").unwrap().to_owned()).collect()
}

fn watches_only(api: &ApiServer, services: &str) {
    let expected = [format!("kubernetes.io/service-name in ({services})")];
    eventually(&format!("a watch of {services} only"), || selectors(api), |found| *found == expected);
    eventually("two watches in all", || api.watches(), |watches| watches.len() == 2);
}

#[test]
fn services_come_change_their_port_and_leave_by_reload() {
    let (first, sql, console) = (Endpoint::polite(), Endpoint::polite(), Endpoint::polite());
    let api = ApiServer::start();
    api.put_all([service("db", "pg"), slice("db", "pg", "pg", first.address)]);
    with_two_ports(&api, &sql, &console);
    let settings = following(Driver::Epoll, &api);
    let proxy = Proxy::start(&settings);
    let admin = proxy.admin;
    has(admin, "main", &[&first]);
    in_step(admin);
    let held = Load::long(connect(proxy.address));
    eventually("a connection by the first table", || held.exchanges(), |exchanges| *exchanges > 0);

    proxy.reload(&to_other(settings.clone(), "sql")).unwrap();
    assert_eq!(addresses(admin, "main"), [first.address], "what is known stays known");
    assert_eq!(readiness(admin).0, 200, "a reload makes nobody unready");
    has(admin, "other", &[&sql]);
    watches_only(&api, "other,pg");
    exchange(proxy.address).unwrap();
    assert_eq!(sql.accepted(), 1);

    proxy.reload(&to_other(settings.clone(), "9000")).unwrap();
    assert_eq!(addresses(admin, "other"), [console.address], "known already, so in the reload's own table");
    exchange(proxy.address).unwrap();
    assert_eq!(console.accepted(), 1);

    proxy.reload(&settings).unwrap();
    watches_only(&api, "pg");
    let before = generation(admin);
    api.put(slice("db", "other", "other", nowhere(1)));
    api.put(slice("db", "pg", "second", sql.address));
    has(admin, "main", &[&first, &sql]);
    assert_eq!(generation(admin), before + 1, "nobody follows the other one");
    assert!(held.stop().unwrap() > 0);
}

#[test]
fn reloads_go_on_without_the_api_server() {
    let (first, sql, console) = (Endpoint::polite(), Endpoint::polite(), Endpoint::polite());
    let api = ApiServer::start();
    api.put_all([service("db", "pg"), slice("db", "pg", "pg", first.address)]);
    with_two_ports(&api, &sql, &console);
    let settings = also(following(Driver::Epoll, &api), "stays", &follows("db", "pg", "5432"));
    let proxy = Proxy::start(&settings);
    let (admin, stays) = (proxy.admin, proxy.listener("stays"));
    has(admin, "stays", &[&first]);
    in_step(admin);
    let load = [Load::short(stays), Load::long(connect(stays))];
    api.stop();
    eventually("out of step", || synced(admin, "services"), |synced| !synced);

    proxy.reload(&to_other(settings.clone(), "sql")).unwrap();
    assert_eq!(addresses(admin, "main"), [first.address]);
    assert_eq!(addresses(admin, "stays"), [first.address]);
    assert_eq!((addresses(admin, "other"), problem(admin, "other")), (vec![], "waiting".into()));
    assert_eq!(problem(admin, "stays"), Value::Null);
    is_reset(proxy.address);
    assert_eq!(readiness(admin).0, 200);
    // Another port of a Service that is known; one that is not known stays unknown.
    proxy.reload(&to_other(settings.clone().upstream(&follows("db", "pg", "sql")), "9000")).unwrap();
    assert_eq!(addresses(admin, "main"), [first.address]);
    assert_eq!(problem(admin, "other"), "waiting");

    api.resume();
    has(admin, "other", &[&console]);
    in_step(admin);
    exchange(proxy.address).unwrap();
    assert_eq!(console.accepted(), 1);
    api.stop();
    proxy.reload(&settings).unwrap();
    exchange(proxy.address).unwrap();
    api.resume();
    watches_only(&api, "pg");
    for load in load {
        assert!(load.stop().unwrap() > 0);
    }
}

/// A process that follows nothing asks for nothing; the first Service comes with a reload.
#[test]
fn following_begins_with_a_reload() {
    let (listed, followed) = (Endpoint::polite(), Endpoint::polite());
    let api = ApiServer::start();
    api.put_all([service("db", "pg"), slice("db", "pg", "pg", followed.address)]);
    let proxy = Proxy::start(&Settings::new(Driver::Epoll, &[listed.address]).top(&api.top()));
    let admin = proxy.admin;
    exchange(proxy.address).unwrap();
    assert_eq!(readiness(admin).0, 200);
    assert!(api.requests().is_empty());
    proxy.reload(&following(Driver::Epoll, &api)).unwrap();
    assert_eq!(readiness(admin).0, 200, "it was ready before");
    has(admin, "main", &[&followed]);
    exchange(proxy.address).unwrap();
    proxy.reload(&Settings::new(Driver::Epoll, &[listed.address]).top(&api.top())).unwrap();
    eventually("no watch", || api.watches(), Vec::is_empty);
    exchange(proxy.address).unwrap();
    assert_eq!((listed.accepted(), followed.accepted()), (2, 1));
}

//! What is asked of the API server: what the configuration names, and nothing else.

use super::*;

fn of<'a>(requests: &'a [Request], namespace: &str, resource: &str) -> Vec<&'a Request> {
    requests.iter().filter(|r| r.namespace == namespace && r.resource == resource).collect()
}

#[test]
fn only_what_is_named_is_requested() {
    let api = ApiServer::start();
    let names = [("db", "pg"), ("db", "redis"), ("web", "a"), ("web", "b"), ("web", "c"), ("etc", "x")];
    for (number, (namespace, name)) in names.into_iter().enumerate() {
        api.put_all([service(namespace, name), slice(namespace, name, name, nowhere(number))]);
    }
    let mut settings = following(Driver::Epoll, &api);
    settings = also(settings, "a", &follows("web", "a", "5432"));
    settings = also(settings, "b", &follows("web", "b", "sql"));
    let proxy = Proxy::start(&settings);
    let admin = proxy.admin;
    for (upstream, number) in [("main", 0), ("a", 2), ("b", 3)] {
        let look = || addresses(admin, upstream);
        eventually("the endpoint", look, |found| *found == [nowhere(number)]);
    }
    eventually("all watches", || api.watches(), |watches| watches.len() == 4);
    let requests = api.requests();
    assert_eq!(requests.len(), 8, "a list and a watch of each: {requests:#?}");
    for (namespace, services, selector) in [("db", Some("metadata.name=pg"), "pg"), ("web", None, "a,b")] {
        for request in of(&requests, namespace, "services") {
            assert_eq!(request.parameter("fieldSelector"), services);
            assert_eq!(request.parameter("labelSelector"), None);
        }
        for request in of(&requests, namespace, "endpointslices") {
            let expected = format!("kubernetes.io/service-name in ({selector})");
            assert_eq!(request.parameter("labelSelector"), Some(&*expected));
            assert_eq!(request.parameter("fieldSelector"), None);
        }
        assert_eq!(of(&requests, namespace, "services").len(), 2);
        assert_eq!(of(&requests, namespace, "endpointslices").len(), 2);
    }

    // `c` is in the watched namespace, and of no interest.
    let before = generation(admin);
    let mut other = service("web", "c");
    other["spec"]["ports"] = json!([{"port": 1}]);
    let mut known = service("web", "a");
    known["spec"]["ports"][0]["name"] = "renamed".into();
    api.put_all([other.clone(), known]);
    api.delete(&other);
    eventually("the change of `a`", || problem(admin, "a"), |reason| *reason == "port_unresolved");
    assert_eq!(addresses(admin, "a"), [nowhere(2)], "kept until the slices have the new name");
    assert_eq!(generation(admin), before + 1);
}

#[test]
fn many_services_of_one_namespace_are_two_watches() {
    const SERVICES: usize = 101;
    let api = ApiServer::start();
    let name = |number: usize| format!("service-{number:03}");
    let mut settings = following(Driver::Epoll, &api).upstream(&follows("db", &name(0), "5432"));
    for number in 0..SERVICES {
        let service = service("db", &name(number));
        api.put_all([service, slice("db", &name(number), &name(number), nowhere(number))]);
        let members = follows("db", &name(number), "5432");
        settings.more_upstreams.push(format!("{{name: {}, {members}}}", name(number)));
    }
    let proxy = Proxy::start(&settings);
    becomes_ready(proxy.admin);
    let all_have = |table: &Value| {
        let upstreams = table["upstreams"].as_array().unwrap();
        upstreams.iter().filter(|upstream| upstream["endpoints"].as_array().unwrap().len() == 1).count()
            == SERVICES + 1
    };
    eventually("an endpoint for each", || table(proxy.admin), all_have);
    let watches = eventually("all watches", || api.watches(), |watches| watches.len() == 3);
    let slices = of(&watches, "db", "endpointslices");
    let mut sizes: Vec<usize> =
        slices.iter().map(|request| request.parameter("labelSelector").unwrap().split(',').count()).collect();
    sizes.sort_unstable();
    assert_eq!(
        (sizes.len(), sizes.iter().sum::<usize>()),
        (2, SERVICES),
        "each Service in one of them: {sizes:?}"
    );
    assert_eq!(of(&watches, "db", "services").len(), 1);
}

//! Many changes at once, and how little work a change makes.

use std::time::Instant;

use super::*;

on_both_drivers!(a_burst_of_changes_is_a_few_tables);

/// At least this much time is between two tables made of changes.
const SPACING: Duration = Duration::from_millis(20);

fn a_burst_of_changes_is_a_few_tables(driver: Driver) {
    const CHANGES: usize = 200;
    let (stays, last) = (Endpoint::polite(), Endpoint::polite());
    let api = ApiServer::start();
    api.put_all([service("db", "pg"), slice("db", "pg", "stays", stays.address)]);
    let proxy = Proxy::start(&following(driver, &api));
    let admin = proxy.admin;
    has(admin, "main", &[&stays]);
    in_step(admin);
    let load = Load::short(proxy.address);
    let (before, began) = (generation(admin), Instant::now());
    let mut changes: Vec<Value> = (1..CHANGES)
        .map(|number| {
            let mut slice = slice("db", "pg", "changes", last.address);
            slice["endpoints"][0]["zone"] = format!("zone-{number}").into();
            slice
        })
        .collect();
    changes.push(slice("db", "pg", "changes", last.address));
    api.put_all(changes);
    let is_last = || upstream(admin, "main")["endpoints"].clone();
    let is_as_it_was_last = |endpoints: &Value| {
        let endpoints = endpoints.as_array().unwrap();
        endpoints.len() == 2 && endpoints.iter().all(|endpoint| endpoint.get("zone").is_none())
    };
    eventually("the last state", is_last, is_as_it_was_last);
    let tables = generation(admin) - before;
    let possible = began.elapsed().as_millis() / SPACING.as_millis() + 2;
    assert!(u128::from(tables) <= possible, "{tables} tables in {:?}", began.elapsed());
    assert!(tables <= CHANGES as u64 / 4, "{tables} tables for {CHANGES} changes");
    eventually("connections to what came", || last.accepted(), |accepted| *accepted > 0);
    assert!(load.stop().unwrap() > 0);
    let receipts = || proxy.metric("sheave_propagation_seconds_count", &["from=\"receipt\""]);
    eventually("a measure of each change", receipts, |count| (*count - CHANGES as f64).abs() < 0.5);
}

#[test]
fn a_changed_slice_compiles_the_upstreams_of_its_service_and_no_other() {
    let api = ApiServer::start();
    let mut settings = following(Driver::Epoll, &api);
    api.put_all([service("db", "pg"), slice("db", "pg", "pg", nowhere(0))]);
    for number in 1..20 {
        let name = format!("other-{number}");
        api.put_all([service("db", &name), slice("db", &name, &name, nowhere(number))]);
        settings.more_upstreams.push(format!("{{name: {name}, {}}}", follows("db", &name, "sql")));
    }
    settings.more_upstreams.push(format!("{{name: twin, {}}}", follows("db", "other-1", "5432")));
    let proxy = Proxy::start(&settings);
    let admin = proxy.admin;
    eventually("an endpoint", || addresses(admin, "main"), |found| !found.is_empty());
    becomes_ready(admin);
    let compilations = || proxy.metric("sheave_upstream_compilations_total", &[]);
    let after = |what: &str, upstream: &str, changed: Value, expected: SocketAddr| {
        let before = (compilations(), generation(admin));
        api.put(changed);
        eventually(what, || addresses(admin, upstream), |found| *found == [expected]);
        let compiled = compilations() - before.0;
        (compiled.round() as u64, generation(admin) - before.1)
    };
    let changed = slice("db", "pg", "pg", nowhere(100));
    assert_eq!(after("the change", "main", changed, nowhere(100)), (1, 1));
    let changed = slice("db", "other-1", "other-1", nowhere(101));
    assert_eq!(after("the change for two", "twin", changed, nowhere(101)), (2, 1));
    // The first of these changes says nothing new, the second only when it happened.
    api.put(slice("db", "pg", "pg", nowhere(100)));
    api.put(dated(slice("db", "pg", "pg", nowhere(100)), SystemTime::now()));
    let changed = slice("db", "other-2", "other-2", nowhere(102));
    assert_eq!(after("the change after them", "other-2", changed, nowhere(102)), (1, 1));
}

//! The parser as its users meet it: text in, values or whole error lines out.

mod bounds;
mod files;
mod form;
mod meaning;
mod property;
mod refused;
mod scalars;
mod syntax;
mod tls;
mod together;
mod valid;

use super::*;

/// A right file; the tables of mistakes change one place of it.
pub(super) const BASE: &str = r#"listeners:
  - name: pg
    address: "[::]:5432"
routes:
  - name: pg
    listener: pg
    backendRefs: [{upstream: pg}]
upstreams:
  - name: pg
    endpoints: [{address: "10.0.0.7:5432"}]
    loadBalancer: {type: RoundRobin}
"#;

fn edit(old: &str, new: &str) -> String {
    assert!(BASE.contains(old), "the base has no {old:?}");
    BASE.replacen(old, new, 1)
}

/// Adds a line at the top, so that it is line 1.
fn top(line: &str) -> String {
    format!("{line}\n{BASE}")
}

/// Adds a field to the listener, as line 4.
fn listener(field: &str) -> String {
    let address = r#"address: "[::]:5432""#;
    edit(address, &format!("{address}\n    {field}"))
}

/// The listener's address, on line 3.
fn address(address: &str) -> String {
    edit(r#"address: "[::]:5432""#, &format!("address: {address}"))
}

/// Adds a field to the route, as line 7.
fn route(field: &str) -> String {
    edit("listener: pg", &format!("listener: pg\n    {field}"))
}

/// A field of the upstream, on line 11.
fn upstream(field: &str) -> String {
    edit("loadBalancer: {type: RoundRobin}", field)
}

/// The upstream's endpoints, on line 10.
fn endpoint(endpoint: &str) -> String {
    edit(r#"{address: "10.0.0.7:5432"}"#, endpoint)
}

fn parse(text: &str) -> Result<Config, Errors> {
    Config::parse(text, "t.yaml")
}

fn lines(text: &str) -> Vec<String> {
    match parse(text) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.iter().map(Error::to_string).collect(),
    }
}

/// Checks a table of files and their whole error lines, and reports every row that differs.
fn check(cases: &[(String, &[&str])]) {
    let mut wrong = String::new();
    for (text, expected) in cases {
        let found = lines(text);
        if found != *expected {
            wrong += &format!("{text}\nexpected {expected:#?}\nfound {found:#?}\n\n");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

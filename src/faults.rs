//! Faults on purpose, for the tests of behaviour under failure. Compiled only with the feature `faults`, which no
//! release has; what happens is chosen by the environment variable `SHEAVE_FAULT`.

use std::net::IpAddr;

/// `connection-panic=127.0.0.9`: the task of each connection from this address panics.
pub(crate) fn panic_in_connection(client: IpAddr) {
    if let Some(address) = fault("connection-panic")
        && address.parse() == Ok(client)
    {
        panic_now("connection");
    }
}

/// `worker-panic=127.0.0.9`: the worker that accepts a connection from this address dies.
pub(crate) fn panic_in_worker(client: IpAddr) {
    if let Some(address) = fault("worker-panic")
        && address.parse() == Ok(client)
    {
        panic_now("worker");
    }
}

fn fault(name: &str) -> Option<String> {
    let wanted = std::env::var("SHEAVE_FAULT").ok()?;
    let (fault, argument) = wanted.split_once('=')?;
    (fault == name).then(|| argument.to_owned())
}

#[expect(clippy::panic, reason = "that is what it is for")]
fn panic_now(what: &str) {
    panic!("fault injected into a {what}");
}

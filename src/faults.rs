//! Faults on purpose, for the tests of behaviour under failure. Compiled only with the feature `faults`, which no
//! release has; what happens is chosen by the environment variable `SHEAVE_FAULT`.

use std::net::IpAddr;

use rustls::crypto::{CipherSuiteCommon, CryptoProvider};
use rustls::{SupportedCipherSuite, Tls12CipherSuite};

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

/// `worker-stall=/path`: while the file `stall` in there says a number, each heartbeat of each worker blocks it so many milliseconds.
pub(crate) fn stall_worker() {
    let milliseconds = fault("worker-stall")
        .and_then(|path| std::fs::read_to_string(format!("{path}/stall")).ok()?.parse().ok());
    if let Some(milliseconds) = milliseconds {
        block(std::time::Duration::from_millis(milliseconds));
    }
}

/// `top-panic=x`: `sheave top` panics over this key.
pub(crate) fn panic_in_top(key: char) {
    if fault("top-panic").is_some_and(|wanted| wanted.starts_with(key)) {
        panic_now("terminal");
    }
}

/// `cgroup=/path`: this directory in place of the one of the process's cgroup.
pub(crate) fn cgroup() -> Option<std::path::PathBuf> {
    fault("cgroup").map(Into::into)
}

/// `long-lived=300`: a connection lives long after so many milliseconds.
pub(crate) fn long_lived() -> Option<std::time::Duration> {
    fault("long-lived").and_then(|time| time.parse().ok()).map(std::time::Duration::from_millis)
}

/// `tls-records=100`: keys of TLS 1.2 are worn out after so many records.
pub(crate) fn wear_out_keys(mut provider: CryptoProvider) -> CryptoProvider {
    let Some(limit) = fault("tls-records").and_then(|limit| limit.parse().ok()) else { return provider };
    for suite in &mut provider.cipher_suites {
        if let SupportedCipherSuite::Tls12(known) = suite {
            let common = CipherSuiteCommon { confidentiality_limit: limit, ..known.common };
            *suite = SupportedCipherSuite::Tls12(Box::leak(Box::new(Tls12CipherSuite { common, ..**known })));
        }
    }
    provider
}

#[expect(clippy::disallowed_methods, reason = "that is what it is for")]
fn block(time: std::time::Duration) {
    std::thread::sleep(time);
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

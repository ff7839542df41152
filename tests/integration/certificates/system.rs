//! Whom the system trusts may change while a process runs.

use rustix::process::Signal;

use crate::support::{Process, ask, echo_securely, secure_endpoint};

use super::*;

on_both_drivers!(a_reload_sees_whom_the_system_trusts_now);

fn a_reload_sees_whom_the_system_trusts_now(driver: Driver) {
    let (before, now) = (Authority::new(), Authority::new());
    let endpoint = secure_endpoint(now.certify(&[NAME]).server(), echo_securely);
    let tls = format!("tls: {{validation: {{hostname: {NAME}, wellKnownCACertificates: System}}}}");
    let settings = Settings::new(driver, &[endpoint.address]).upstream(&tls);
    let trusted = before.file();
    let process = Process::start(&settings, |command| {
        command.env("SSL_CERT_FILE", &trusted).env_remove("SSL_CERT_DIR");
    });
    let listener = process.listener("main");
    assert!(ask(listener, "hello").is_err(), "its authority is not trusted");
    std::fs::copy(now.file(), &trusted).unwrap();
    process.signal(Signal::HUP);
    eventually("an answer", || ask(listener, "hello"), Result::is_ok).unwrap();
}

use std::fs;
use std::path::Path;

use rcgen::{Issuer, KeyPair};

use super::*;
use crate::tls::ServerSide;
use crate::tls::examples::{Wanted, authority};

/// A TLS listener whose certificate is in `folder`, and that takes the certificates of clients.
fn terminating(folder: &Path) -> Builder {
    let mut config = config(&["127.0.0.1:1"]);
    let listener = &mut config.listeners[0];
    listener.protocol = config::Protocol::Tls;
    listener.tls = Some(config::ListenerTls {
        mode: config::TlsMode::Terminate,
        certificates: vec![config::CertificateRef::Files {
            certificate: folder.join("tls.crt"),
            key: folder.join("tls.key"),
        }],
        min_version: config::TlsVersion::Tls12,
        max_version: config::TlsVersion::Tls13,
        alpn: Vec::new(),
        start_tls: None,
        client_validation: None,
    });
    Builder { config, ..builder() }
}

fn write(folder: &Path, name: &str, issuer: &Issuer<'static, KeyPair>) {
    let (certificate, key) = Wanted::dns(&[name]).by(issuer);
    fs::write(folder.join("tls.crt"), certificate).unwrap();
    fs::write(folder.join("tls.key"), key).unwrap();
}

fn server_side(control: &Control) -> Arc<ServerSide> {
    Arc::clone(control.handle.shared.publisher.current().listeners[0].tls.as_ref().unwrap())
}

/// The first certificate in `/table`.
fn shown(control: &Control) -> serde_json::Value {
    let table: serde_json::Value = serde_json::from_str(&control.get("/table").body).unwrap();
    table["certificates"][0].clone()
}

#[test]
fn a_new_certificate_is_published_and_a_broken_one_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path();
    let issuer = authority("ca").0;
    write(folder, "one.example", &issuer);
    let control = terminating(folder).start();
    eventually("the first", || server_side(&control).config().is_some());
    let (first, generation) = (server_side(&control), control.generation());
    let source = format!("file {}", folder.join("tls.crt").display());
    let labels = format!("{{certificate=\"{source}\",kind=\"certificate\"}}");
    let expiry = format!("sheave_certificate_expiry_timestamp_seconds{labels}");
    assert_eq!(control.metric(&expiry), Some(4_102_444_800.0));

    write(folder, "two.example", &issuer);
    eventually("the second", || shown(&control)["names"][0] == "two.example");
    eventually("its table", || control.generation() > generation);
    assert!(!Arc::ptr_eq(&first, &server_side(&control)));
    let (second, generation) = (server_side(&control), control.generation());
    let certificate = shown(&control);
    assert_eq!((&certificate["source"], &certificate["problem"]), (&source.into(), &serde_json::Value::Null));
    assert_eq!(certificate["notAfter"], "2100-01-01T00:00:00.000000Z");
    let text = control.get("/table").body;
    assert!(!text.contains("PRIVATE") && !text.contains("key\""), "{text}");

    fs::write(folder.join("tls.key"), Wanted::dns(&["three.example"]).by(&issuer).1).unwrap();
    eventually("a problem", || shown(&control)["problem"]["reason"] == "mismatched");
    assert_eq!(control.metric(&format!("sheave_certificate_load_errors_total{labels}")), Some(1.0));
    let ready = control.get("/readyz?verbose");
    let noted = "[-](does not fail the probe) certificates: 1 are wrong";
    assert!(ready.status == 200 && ready.body.contains(noted), "{}", ready.body);
    assert_eq!(control.generation(), generation);
    assert!(Arc::ptr_eq(&second, &server_side(&control)), "the last good one serves");

    write(folder, "four.example", &issuer);
    eventually("well again", || {
        control.get("/readyz?verbose").body.contains("[+]certificates: all are loaded")
    });
    eventually("the fourth", || control.generation() > generation);
}

#[test]
fn without_any_certificate_a_process_is_not_ready() {
    let directory = tempfile::tempdir().unwrap();
    let control = terminating(directory.path()).start();
    let why = "[-]certificates: listener front cannot shake hands: none of its certificates could be loaded";
    eventually("a reason", || control.get("/readyz").body.contains(why));
    eventually("what is missing", || control.get("/readyz").body.contains("there is no file"));
    write(directory.path(), "one.example", &authority("ca").0);
    eventually("readiness", || control.get("/readyz").status == 200);
}

#[test]
fn a_reload_that_wants_files_is_tried_again_until_they_are_there() {
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path();
    let wanted = terminating(folder).config;
    let (looked, looks) = flume::bounded(1024);
    let mut builder = Builder {
        load: Box::new(move || {
            let _enough = looked.try_send(());
            Ok(wanted.clone())
        }),
        ..builder()
    };
    builder.tuning.poll = Duration::from_millis(10);
    let control = builder.start();
    let error = control.handle.reload().unwrap_err();
    assert!(error.starts_with("listeners[0].tls.certificateRefs[0].file: "), "{error}");
    for _ in 0..5 {
        looks.recv_timeout(DEADLINE).unwrap();
    }
    assert_eq!(control.metric("sheave_config_reload_failures_total"), Some(1.0), "the same is said once");
    assert_eq!(control.generation(), 1);
    write(folder, "one.example", &authority("ca").0);
    eventually("the reload", || control.metric("sheave_config_last_reload_successful") == Some(1.0));
    let table = control.handle.shared.publisher.current();
    assert!(table.listeners[0].tls.as_ref().unwrap().config().is_some());
}

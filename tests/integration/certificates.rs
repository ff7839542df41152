//! Certificates that change while handshakes go on: in Secrets of an API server that the test owns, and in files.

mod clients;
mod problems;
mod system;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use k8s_openapi::ByteString;
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};

use crate::support::{
    ApiServer, Authority, Certificate, Driver, Endpoint, Proxy, Request, Settings, Verb, admin_get,
    admin_request, eventually, metric, on_both_drivers, shake_hands,
};

on_both_drivers!(secrets_are_rotated_under_handshakes, files_are_rotated_under_handshakes);

const NAME: &str = "web.example";
const ROTATIONS: usize = 50;

/// A listener with the certificate of this reference.
fn terminating(driver: Driver, endpoint: &Endpoint, reference: &str, more: &str) -> Settings {
    let tls = format!("protocol: TLS, tls: {{certificateRefs: [{reference}]{more}}}");
    Settings::new(driver, &[endpoint.address]).listener(&tls)
}

/// The Secret edge/`name`, of type kubernetes.io/tls, with this certificate.
fn secret(name: &str, certificate: &Certificate) -> Value {
    let read = |file| ByteString(std::fs::read(file).unwrap());
    with_data(name, json!({"tls.crt": read(&certificate.certificate), "tls.key": read(&certificate.key)}))
}

fn with_data(name: &str, data: Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {"namespace": "edge", "name": name},
        "data": data,
    })
}

fn first(certificate: &Certificate) -> CertificateDer<'static> {
    certificate.load().0.swap_remove(0)
}

/// The certificate that a new handshake is shown.
fn shown(address: SocketAddr, authority: &Authority) -> std::io::Result<CertificateDer<'static>> {
    let client = shake_hands(address, NAME, authority.client())?;
    Ok(client.conn.peer_certificates().unwrap()[0].clone())
}

/// Waits until every worker shows this certificate: handshakes go to either.
fn is_shown(proxy: &Proxy, authority: &Authority, expected: &CertificateDer<'static>) {
    let all_show_it = || {
        let shown: Vec<_> = (0..8).map(|_| shown(proxy.address, authority)).collect();
        shown.iter().filter(|shown| shown.as_ref().is_ok_and(|shown| shown == expected)).count()
    };
    eventually("the new certificate in 8 of 8 handshakes", all_show_it, |count| *count == 8);
}

fn certificates(admin: SocketAddr) -> Vec<Value> {
    let table: Value = serde_json::from_str(&admin_get(admin, "/table")).unwrap();
    table["certificates"].as_array().unwrap().clone()
}

/// Handshakes on two threads, one after the other on each.
struct Handshakes {
    over: Arc<AtomicBool>,
    made: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Vec<String>>>,
}

impl Handshakes {
    fn start(address: SocketAddr, authority: &Authority) -> Self {
        let (over, made) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let threads = (0..2)
            .map(|_| {
                let (over, made, config) = (Arc::clone(&over), Arc::clone(&made), authority.client());
                thread::spawn(move || {
                    let mut failures = Vec::new();
                    while !over.load(Ordering::Relaxed) {
                        match shake_hands(address, NAME, config.clone()) {
                            Ok(_) => _ = made.fetch_add(1, Ordering::Relaxed),
                            Err(error) => failures.push(error.to_string()),
                        }
                    }
                    failures
                })
            })
            .collect();
        Self { over, made, threads }
    }

    /// How many were made; none may have failed.
    fn stop(self) -> u64 {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads {
            let failures = thread.join().unwrap();
            assert!(failures.is_empty(), "{} handshakes failed: {:?}", failures.len(), failures.first());
        }
        self.made.load(Ordering::Relaxed)
    }
}

/// Rotates, and says how long each took until every worker had it.
fn rotate(proxy: &Proxy, authority: &Authority, mut put: impl FnMut(&Certificate)) {
    let handshakes = Handshakes::start(proxy.address, authority);
    let mut took: Vec<Duration> = (0..ROTATIONS)
        .map(|_| {
            let next = authority.certify(&[NAME]);
            let started = Instant::now();
            put(&next);
            is_shown(proxy, authority, &first(&next));
            started.elapsed()
        })
        .collect();
    took.sort();
    assert!(took[ROTATIONS / 2] < Duration::from_secs(1), "{took:?}");
    let made = handshakes.stop();
    assert!(made > ROTATIONS as u64, "{made} handshakes");
    let errors = proxy.metric("sheave_certificate_load_errors_total", &[]);
    assert!(errors < 0.5, "{errors} versions could not be used");
}

fn secrets_are_rotated_under_handshakes(driver: Driver) {
    let (authority, endpoint, api) = (Authority::new(), Endpoint::polite(), ApiServer::start());
    let one = authority.certify(&[NAME]);
    api.put(secret("web", &one));
    let settings = terminating(driver, &endpoint, "{secret: edge/web}", "").top(&api.top());
    let proxy = Proxy::start(&settings);
    eventually(
        "readiness",
        || admin_request(proxy.admin, "GET", "/readyz?verbose"),
        |(status, _)| *status == 200,
    );
    is_shown(&proxy, &authority, &first(&one));
    rotate(&proxy, &authority, |next| api.put(secret("web", next)));

    let by_name = |request: &Request| request.parameter("fieldSelector") == Some("metadata.name=web");
    let requests = api.requests();
    assert!(!requests.is_empty() && requests.iter().all(by_name), "nothing but the one Secret: {requests:?}");
    let [certificate] = &certificates(proxy.admin)[..] else { panic!("one certificate") };
    assert_eq!((&certificate["source"], &certificate["names"]), (&json!("Secret edge/web"), &json!([NAME])));

    api.stop();
    is_shown(&proxy, &authority, &first(&authority_last(&authority)));
    api.resume();
    let next = authority.certify(&[NAME]);
    api.put(secret("web", &next));
    is_shown(&proxy, &authority, &first(&next));
}

/// The newest certificate, which is where each of this name is.
fn authority_last(authority: &Authority) -> Certificate {
    let folder = authority.file();
    let file = |end: &str| folder.with_file_name(format!("{NAME}.{end}"));
    Certificate { certificate: file("crt"), key: file("key") }
}

fn files_are_rotated_under_handshakes(driver: Driver) {
    let (authority, endpoint) = (Authority::new(), Endpoint::polite());
    // Written one after the other, into the files that the configuration names.
    let one = authority.certify(&[NAME]);
    let proxy = Proxy::start(&terminating(driver, &endpoint, &one.reference(), ""));
    is_shown(&proxy, &authority, &first(&one));
    rotate(&proxy, &authority, |_| {});
}

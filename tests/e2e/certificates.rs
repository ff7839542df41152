//! A certificate in a Secret is replaced again and again while clients shake hands: none of them fails, and every worker
//! shows the new one within a second.

use std::time::{Duration, Instant};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};

use crate::support::release::{merged, of_service, straight};
use crate::support::{Endpoints, Load, Namespace, PORT, Release, Wish, eventually, figures, is_full};

const NAME: &str = "web.example";
const ARRIVES: Duration = Duration::from_secs(30);

#[test]
fn a_certificate_in_a_secret_is_rotated_under_handshakes() {
    let (rate, rotations) = if is_full() { (200, 50) } else { (100, 10) };
    let namespace = Namespace::create("certificates");
    let mut authority = CertificateParams::new([]).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let mut shown = rotate(&namespace, &authority);
    let _endpoints = Endpoints::start(&namespace, &Wish::new("web", 3));
    let web = straight("web", PORT, of_service(&namespace, "web", "talk"));
    let mut config = merged(web, json!({"accessLog": {"sample": 0}}));
    config["listeners"][0]["protocol"] = "TLS".into();
    config["listeners"][0]["tls"] =
        json!({"certificateRefs": [{"secret": format!("{}/web", namespace.name)}]});
    let release = Release::install(&namespace, config, json!({}));
    let target = format!("web={},rate={rate},tls={NAME}", release.address(PORT));
    let load = Load::trusting(&namespace, &[target], &authority.pem());
    load.settle("web");

    let pod = release.pod();
    let table = || -> Value { serde_json::from_str(&release.ask(&pod, "table").unwrap()).unwrap() };
    let mut took = Vec::new();
    for _ in 0..rotations {
        let before = table()["generation"].as_u64().unwrap();
        shown = rotate(&namespace, &authority);
        let started = Instant::now();
        let is_everywhere = |table: &Value| {
            let workers = table["acknowledgedGenerations"].as_array().unwrap();
            table["certificates"][0]["fingerprint"] == shown.as_str()
                && workers.iter().all(|generation| generation.as_u64().unwrap() > before)
        };
        eventually("all workers have the new certificate", ARRIVES, table, is_everywhere);
        took.push(started.elapsed().as_secs_f64());
    }
    assert_ne!(shown, "");
    took.sort_by(f64::total_cmp);
    let seen = load.target("web");
    seen.assert_no_failure("while the certificate was rotated");
    figures!(
        "certificates",
        rotations = rotations,
        attempted = seen.attempted,
        failed = seen.failed,
        median_seconds = took[took.len() / 2],
        longest_seconds = took[took.len() - 1],
        p99_ms = seen.latency.p99,
    );
    // Every look goes by way of the API server.
    assert!(took[took.len() / 2] < 1.0, "{took:?}");
    let metrics = release.metrics();
    assert!(metrics.count("sheave_certificate_load_errors_total", &[]) < 0.5);
}

/// Puts another certificate into the Secret, and says its fingerprint.
fn rotate(namespace: &Namespace, authority: &CertifiedIssuer<'static, KeyPair>) -> String {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new([NAME.to_owned()]).unwrap().signed_by(&key, authority).unwrap();
    let bytes = |text: String| ByteString(text.into_bytes());
    namespace.apply::<Secret>(json!({
        "metadata": {"name": "web"},
        "type": "kubernetes.io/tls",
        "data": {"tls.crt": bytes(certificate.pem()), "tls.key": bytes(key.serialize_pem())},
    }));
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, certificate.der());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

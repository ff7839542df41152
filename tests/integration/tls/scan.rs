//! What a scanner would find: every cipher suite, key exchange and version that OpenSSL has is offered alone.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use crate::support::{Authority, Certificate, Driver, Endpoint, Proxy};

use super::terminating;

const SUITES_13: [&str; 3] =
    ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"];
/// Authenticated encryption, with keys that are found out by nobody who gets the certificate's key later.
const SUITES_12: [&str; 3] =
    ["ECDHE-*-AES128-GCM-SHA256", "ECDHE-*-AES256-GCM-SHA384", "ECDHE-*-CHACHA20-POLY1305"];
const GROUPS: [&str; 3] = ["X25519", "P-256", "P-384"];

/// The driver has no part in it, so one does.
#[test]
fn only_what_is_safe_is_negotiated() {
    let authority = Authority::new();
    let endpoint = Endpoint::echo();
    scan(&authority.certify(&["a.test"]), &endpoint, "ECDSA");
    scan(&authority.certify_rsa(&["rsa.a.test", "a.test"]), &endpoint, "RSA");
}

fn scan(certificate: &Certificate, endpoint: &Endpoint, kind: &str) {
    let proxy = Proxy::start(&terminating(Driver::IoUring, certificate, endpoint));
    let suites = openssl(&["ciphers", "-s", "-tls1_2", "ALL:COMPLEMENTOFALL:@SECLEVEL=0"]);
    let suites: Vec<&str> = suites.trim().split(':').filter(|name| !name.starts_with("TLS_")).collect();
    assert!(suites.len() > 50 && suites.contains(&"AES128-SHA"), "{suites:?}");
    let found = negotiated(&proxy, &suites, |suite| {
        vec!["-tls1_2".into(), "-cipher".into(), format!("{suite}:@SECLEVEL=0")]
    });
    assert_eq!(found, SUITES_12.map(|suite| suite.replace('*', kind)).into());
    let suites = [&SUITES_13[..], &["TLS_AES_128_CCM_SHA256", "TLS_AES_128_CCM_8_SHA256"]].concat();
    let found =
        negotiated(&proxy, &suites, |suite| vec!["-tls1_3".into(), "-ciphersuites".into(), suite.into()]);
    assert_eq!(found, SUITES_13.map(str::to_owned).into());
    let groups = [&GROUPS[..], &["P-521", "X448"]].concat();
    for version in ["-tls1_2", "-tls1_3"] {
        let found = negotiated(&proxy, &groups, |group| vec![version.into(), "-groups".into(), group.into()]);
        assert_eq!(found, GROUPS.map(str::to_owned).into(), "{version} {kind}");
    }
    let old = negotiated(&proxy, &["-tls1", "-tls1_1"], |version| {
        vec![version.into(), "-cipher".into(), "ALL:@SECLEVEL=0".into()]
    });
    assert_eq!(old, BTreeSet::new());
}

/// Which of these lead to a key exchange when a client offers nothing else.
fn negotiated(proxy: &Proxy, all: &[&str], offer: impl Fn(&str) -> Vec<String>) -> BTreeSet<String> {
    let address = proxy.address.to_string();
    let is_negotiated = |one: &&&str| {
        let offer = offer(one);
        let mut arguments = vec!["s_client", "-connect", &address, "-servername", "a.test"];
        arguments.extend(offer.iter().map(String::as_str));
        let said = openssl(&arguments);
        let [accepted, refused] = ["Server Temp Key: ", "SSL alert number "].map(|text| said.contains(text));
        assert!(accepted != refused, "{offer:?}: {said}");
        accepted
    };
    all.iter().filter(is_negotiated).map(|one| (*one).to_owned()).collect()
}

fn openssl(arguments: &[&str]) -> String {
    let mut command = Command::new("openssl");
    command.args(arguments).stdin(Stdio::null());
    let output = command.output().expect("openssl; scripts/setup installs what the tests need");
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

//! Clients whose certificates are no longer good are closed while their connections live.

use std::io::{Read, Write};

use rustls::HandshakeKind;

use super::*;

on_both_drivers!(
    clients_of_an_authority_that_is_dropped_are_closed,
    a_list_closes_whom_it_names_and_not_who_has_expired,
    clients_are_not_remembered_longer_than_their_certificates_are_good
);

/// The ConfigMap edge/clients, with the certificates of these authorities.
fn trusting(authorities: &[&Authority]) -> Value {
    let pem: String =
        authorities.iter().map(|authority| std::fs::read_to_string(authority.file()).unwrap()).collect();
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"namespace": "edge", "name": "clients"},
        "data": {"ca.crt": pem},
    })
}

fn clients_of_an_authority_that_is_dropped_are_closed(driver: Driver) {
    let (authority, stays, goes) = (Authority::new(), Authority::new(), Authority::new());
    let (endpoint, api) = (Endpoint::echo(), ApiServer::start());
    let (own, others) = (stays.certify(&["stays.example"]), goes.certify(&["goes.example"]));
    let web = authority.certify(&[NAME]);
    api.put_all([secret("web", &web), trusting(&[&stays, &goes])]);
    let asks = ", clientValidation: {mode: Require, caCertificateRefs: [{configMap: edge/clients}]}";
    let proxy = Proxy::start(&terminating(driver, &endpoint, "{secret: edge/web}", asks).top(&api.top()));
    eventually("readiness", || admin_request(proxy.admin, "GET", "/readyz"), |(status, _)| *status == 200);
    let connect = |certificate: &Certificate| {
        let mut client = shake_hands(proxy.address, NAME, authority.client_with(certificate)).unwrap();
        client.write_all(b"a").unwrap();
        client.read_exact(&mut [0]).unwrap();
        client
    };
    let (mut stays_open, mut is_closed) = (connect(&own), connect(&others));
    proxy.wait_for_live(2);

    let dropped = Instant::now();
    api.put(trusting(&[&stays]));
    let closed = is_closed.read(&mut [0]);
    let after = dropped.elapsed();
    assert!(!matches!(closed, Ok(1..)), "{closed:?}");
    assert!(after < Duration::from_secs(5), "{after:?}");
    let record = proxy.record();
    assert_eq!(record["outcome"], "policy", "{record}");
    let failure = record["tls"]["failure"].as_str().unwrap_or_default();
    assert!(failure.starts_with("its certificate is not good: "), "{record}");
    stays_open.write_all(b"b").unwrap();
    stays_open.read_exact(&mut [0]).unwrap();
    let mut refused = shake_hands(proxy.address, NAME, authority.client_with(&others));
    let answer = refused.as_mut().map(|client| client.read(&mut [0]).is_err()).unwrap_or(true);
    assert!(answer, "with TLS 1.3 a client hears of it after its handshake");
}

/// Certificates of a few hours or minutes are usual (SPIFFE), and a list comes every day.
fn a_list_closes_whom_it_names_and_not_who_has_expired(driver: Driver) {
    let (authority, endpoint) = (Authority::new(), Endpoint::echo());
    let web = authority.certify(&[NAME]);
    let asks = format!(
        ", clientValidation: {{caCertificateRefs: [{{file: {}}}], crl: [{}]}}",
        authority.file().display(),
        authority.revoke(&[]).display(),
    );
    let mut settings = terminating(driver, &endpoint, &web.reference(), &asks);
    // Each has its own turn to look: here both connections are looked at in the same one.
    settings.workers = 1;
    let proxy = Proxy::start(&settings);
    let stolen = authority.certify(&["stolen.example"]);
    let short = authority.certify_for(&["short.example"], Duration::from_secs(6));
    let connect = |certificate: &Certificate| {
        let mut client = shake_hands(proxy.address, NAME, authority.client_with(certificate))?;
        client.write_all(b"a").and_then(|()| client.read_exact(&mut [0])).map(|()| client)
    };
    let mut expired = connect(&short).unwrap();
    let mut named = connect(&stolen).unwrap();
    proxy.wait_for_live(2);
    eventually("the end of a short certificate", || connect(&short), Result::is_err).unwrap_err();

    authority.revoke(&[&stolen]);
    let revoked = Instant::now();
    let closed = named.read(&mut [0]);
    let after = revoked.elapsed();
    assert!(!matches!(closed, Ok(1..)), "{closed:?}");
    assert!(after < Duration::from_secs(5), "{after:?}");
    let is_policy = |record: &Value| record["outcome"] == "policy";
    let records = eventually("its record", || proxy.lines.all(), |lines| lines.iter().any(is_policy));
    let closed: Vec<_> = records.iter().filter(|record| is_policy(record)).collect();
    let [record] = &closed[..] else { panic!("one is closed: {closed:?}") };
    assert_eq!(record["tls"]["failure"], "its certificate is not good: it was revoked", "{record}");
    assert_eq!(record["tls"]["client"]["names"], json!(["stolen.example"]), "{record}");
    expired.write_all(b"b").unwrap();
    expired.read_exact(&mut [0]).unwrap();
    connect(&stolen).unwrap_err();
}

fn clients_are_not_remembered_longer_than_their_certificates_are_good(driver: Driver) {
    let (authority, endpoint) = (Authority::new(), Endpoint::echo());
    let web = authority.certify(&[NAME]);
    let ca = authority.file();
    let asks =
        format!(", clientValidation: {{mode: Require, caCertificateRefs: [{{file: {}}}]}}", ca.display());
    let proxy = Proxy::start(&terminating(driver, &endpoint, &web.reference(), &asks));
    let own = authority.certify_for(&["client.example"], Duration::from_secs(5));
    // It holds the sessions, for all connections.
    let config = authority.client_with(&own);
    let connect = || {
        let mut client = shake_hands(proxy.address, NAME, config.clone()).unwrap();
        // Tickets come behind the handshake.
        let answer = client.write_all(b"a").and_then(|()| client.read_exact(&mut [0]));
        (client.conn.handshake_kind().unwrap(), answer.is_ok())
    };
    assert_eq!(connect(), (HandshakeKind::Full, true));
    assert_eq!(connect(), (HandshakeKind::Resumed, true));
    let (kind, _) = eventually("a refusal", connect, |(_, is_served)| !is_served);
    assert_eq!(kind, HandshakeKind::Resumed);
    let is_refusal = |record: &Value| {
        let failure = record["tls"]["failure"].as_str().unwrap_or_default();
        record["outcome"] == "tls_handshake_failed" && failure.contains("expired")
    };
    eventually("its record", || proxy.records(1).iter().any(is_refusal), |is_there| *is_there);
}

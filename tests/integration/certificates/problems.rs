//! What is missing or broken is said by name, and takes nothing away that works.

use super::*;

on_both_drivers!(the_last_good_one_serves, a_missing_secret_keeps_the_others_from_nothing);

/// The reason why something is wrong with a certificate.
fn problem(admin: SocketAddr) -> Value {
    certificates(admin)[0]["problem"]["reason"].clone()
}

fn the_last_good_one_serves(driver: Driver) {
    let (authority, endpoint, api) = (Authority::new(), Endpoint::polite(), ApiServer::start());
    let one = authority.certify(&[NAME]);
    api.put(secret("web", &one));
    let proxy = Proxy::start(&terminating(driver, &endpoint, "{secret: edge/web}", "").top(&api.top()));
    let (admin, good) = (proxy.admin, first(&one));
    is_shown(&proxy, &authority, &good);

    let read = |file| ByteString(std::fs::read(file).unwrap());
    let (certificate, other) = (read(&one.certificate), read(&authority.certify(&["other.example"]).key));
    let expired = authority.certify_until(&["expired.example"], 2021);
    for (object, reason) in [
        (with_data("web", json!({"tls.crt": certificate, "tls.key": other})), "mismatched"),
        (with_data("web", json!({"tls.crt": certificate})), "missing"),
        (with_data("web", json!({"tls.crt": other, "tls.key": other})), "invalid"),
        (secret("web", &expired), "expired"),
    ] {
        api.put(object);
        eventually(reason, || problem(admin), |problem| problem == reason);
        is_shown(&proxy, &authority, &good);
        let labels = ["certificate=\"Secret edge/web\"", &*format!("reason=\"{reason}\"")];
        assert!(metric(admin, "sheave_certificate_problem", &labels) > 0.5, "{reason}");
        let (status, text) = admin_request(admin, "GET", "/readyz?verbose");
        assert!(status == 200 && text.contains("Secret edge/web: "), "{text}");
    }
    assert!(metric(admin, "sheave_certificate_load_errors_total", &[]) > 3.5);
    api.delete(&with_data("web", json!({})));
    eventually("a Secret that is gone", || problem(admin), |problem| problem == "missing");
    is_shown(&proxy, &authority, &good);
    let next = authority.certify(&[NAME]);
    api.put(secret("web", &next));
    is_shown(&proxy, &authority, &first(&next));
    assert_eq!(problem(admin), Value::Null);
}

fn a_missing_secret_keeps_the_others_from_nothing(driver: Driver) {
    let (authority, endpoint, api) = (Authority::new(), Endpoint::polite(), ApiServer::start());
    let mut settings = terminating(driver, &endpoint, "{secret: edge/web}", "").top(&api.top());
    settings.more_listeners.push("{name: plain, address: \"127.0.0.2:0\"}".to_owned());
    settings.more_routes.push("{name: plain, listener: plain, backendRefs: [{upstream: main}]}".to_owned());
    let proxy = Proxy::start(&settings);
    let says_why = |(status, text): &(u16, String)| {
        *status == 503
            && text.contains("[-]certificates: listener main")
            && text.contains("there is no such Secret")
    };
    eventually("unreadiness", || admin_request(proxy.admin, "GET", "/readyz"), says_why);
    crate::support::exchange(proxy.listener("plain")).unwrap();
    assert!(shown(proxy.address, &authority).is_err());
    let record = eventually("its record", || proxy.lines.all(), |lines| lines.len() >= 2);
    assert!(record.iter().any(|line| line["listener"] == "main"), "{record:?}");

    let one = authority.certify(&[NAME]);
    api.put(secret("web", &one));
    is_shown(&proxy, &authority, &first(&one));
    eventually("readiness", || admin_request(proxy.admin, "GET", "/readyz"), |(status, _)| *status == 200);
    assert!(api.count(Verb::Watch, "secrets") > 0);
}

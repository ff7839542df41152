//! TLS and the PROXY protocol: right files and the values they become, and wrong ones.

use super::*;

/// A right file with a TLS listener.
const TLS: &str = r#"listeners:
  - name: web
    address: "[::]:443"
    protocol: TLS
    tls: {certificateRefs: [{secret: edge/example-com}]}
routes:
  - name: web
    listener: web
    backendRefs: [{upstream: web}]
upstreams:
  - name: web
    endpoints: [{address: "10.0.0.7:80"}]
"#;

fn web(old: &str, new: &str) -> String {
    assert!(TLS.contains(old), "the file has no {old:?}");
    TLS.replacen(old, new, 1)
}

/// What a listener's `tls` says.
fn tls(fields: &str) -> String {
    web("{certificateRefs: [{secret: edge/example-com}]}", fields)
}

/// More of it beside a certificate.
fn more(fields: &str) -> String {
    web("example-com}]}", &format!("example-com}}], {fields}}}"))
}

/// A field of the route, on line 9.
fn route(field: &str) -> String {
    web("    listener: web\n", &format!("    listener: web\n    {field}\n"))
}

/// Fields of the upstream, on line 13.
fn upstream(field: &str) -> String {
    format!("{TLS}    {field}\n")
}

fn listener_of(text: &str) -> ListenerTls {
    config(text).listeners.remove(0).tls.unwrap()
}

fn config(text: &str) -> Config {
    parse(text).unwrap_or_else(|errors| panic!("{text}\n{errors}"))
}

fn object(name: &str) -> ObjectRef {
    ObjectRef { namespace: "edge".into(), name: name.into() }
}

#[test]
fn a_tls_listener_has_defaults() {
    let expected = ListenerTls {
        mode: TlsMode::Terminate,
        certificates: vec![CertificateRef::Secret(object("example-com"))],
        min_version: TlsVersion::Tls12,
        max_version: TlsVersion::Tls13,
        alpn: vec![],
        start_tls: None,
        client_validation: None,
    };
    assert_eq!(listener_of(TLS), expected);
    assert_eq!(config(TLS).listeners[0].protocol, Protocol::Tls);
    assert_eq!(config(TLS).listeners[0].timeouts.tls_handshake, Duration::from_secs(10));
}

#[test]
fn a_tls_listener_says_it_all() {
    let text = tls(
        "\n      certificateRefs:\n        - {file: {certificate: /c.pem, key: /k.pem}}\n      minVersion: \"1.3\"\n      \
                    alpnProtocols: [h2, http/1.1]\n      startTls: postgres\n      clientValidation:\n        mode: Optional\n        \
                    caCertificateRefs: [{configMap: edge/ca}, {secret: edge/ca}, {file: /ca.pem}]\n        subjectAltNames: \
                    [DB.example.com, \"spiffe://td/Web\", 10.0.0.7]\n        crl: [/crl.pem]\n",
    );
    let validation = ClientValidation {
        mode: ClientValidationMode::Optional,
        authorities: vec![
            AuthorityRef::ConfigMap(object("ca")),
            AuthorityRef::Secret(object("ca")),
            AuthorityRef::File("/ca.pem".into()),
        ],
        names: vec![
            SubjectAltName::Dns("db.example.com".to_owned()),
            SubjectAltName::Uri("spiffe://td/Web".to_owned()),
            SubjectAltName::Ip("10.0.0.7".parse().unwrap()),
        ],
        crls: vec!["/crl.pem".into()],
    };
    let expected = ListenerTls {
        mode: TlsMode::Terminate,
        certificates: vec![CertificateRef::Files { certificate: "/c.pem".into(), key: "/k.pem".into() }],
        min_version: TlsVersion::Tls13,
        max_version: TlsVersion::Tls13,
        alpn: vec!["h2".to_owned(), "http/1.1".to_owned()],
        start_tls: Some(StartTls::Postgres),
        client_validation: Some(validation),
    };
    let found = listener_of(&text);
    assert_eq!(found, expected);
    assert_eq!(found.objects(), (vec![&object("ca")], vec![&object("ca")]));
    assert_eq!(found.certificates[0].to_string(), "file /c.pem");
}

#[test]
fn routes_say_which_names_and_where_tls_ends() {
    let text = route("hostnames: [Db.Example.com, \"*.example.com\"]\n    tls: {mode: Passthrough}");
    let text = text.replacen("{certificateRefs: [{secret: edge/example-com}]}", "{mode: Passthrough}", 1);
    let config = config(&text);
    let route = &config.routes[0];
    let names: Vec<String> = route.hostnames.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["db.example.com", "*.example.com"]);
    assert_eq!(route.tls_mode, Some(TlsMode::Passthrough));
    let matches = |name: &str| route.hostnames.iter().map(|host| host.matches(name)).collect::<Vec<_>>();
    assert_eq!(matches("db.example.com"), [true, true]);
    assert_eq!(matches("a.b.example.com"), [false, true]);
    for other in ["example.com", ".example.com", "xexample.com", "db.example.com.org", ""] {
        assert_eq!(matches(other), [false, false], "{other}");
    }
}

#[test]
fn an_upstream_may_speak_tls() {
    let text = "tls: {validation: {caCertificateRefs: [{configMap: edge/ca}], hostname: Pg.db.svc, subjectAltNames: \
                [\"spiffe://td/pg\"]}, clientCertificateRef: {secret: edge/sheave}}";
    let expected = UpstreamTls {
        roots: Roots::Authorities(vec![AuthorityRef::ConfigMap(object("ca"))]),
        hostname: ServerNameText::Dns("pg.db.svc".to_owned()),
        names: vec![SubjectAltName::Uri("spiffe://td/pg".to_owned())],
        client_certificate: Some(CertificateRef::Secret(object("sheave"))),
    };
    let found = config(&upstream(text)).upstreams.remove(0).tls.unwrap();
    assert_eq!(found, expected);
    assert_eq!(found.objects(), (vec![&object("sheave")], vec![&object("ca")]));
    let system = "tls: {validation: {wellKnownCACertificates: System, hostname: \"::1\"}}";
    let found = config(&upstream(system)).upstreams.remove(0).tls.unwrap();
    assert_eq!(found.roots, Roots::System);
    assert_eq!(found.hostname, ServerNameText::Ip("::1".parse().unwrap()));
}

#[test]
fn proxy_headers_come_in_and_go_out() {
    let proxy_in =
        |fields: &str| config(&listener(&format!("proxyProtocol: {fields}"))).listeners.remove(0).proxy;
    let expected = |mode| Some(ProxyIn { mode, trusted: vec!["10.0.0.0/8".parse().unwrap()] });
    assert_eq!(proxy_in("{mode: Require, trusted: [10.0.0.0/8]}"), expected(ProxyMode::Require));
    assert_eq!(proxy_in("{mode: Optional, trusted: [10.0.0.0/8]}"), expected(ProxyMode::Optional));
    assert_eq!(proxy_in("{trusted: [10.0.0.0/8]}"), None);
    let proxy_out = |fields: &str| {
        config(&upstream(&format!("proxyProtocol: {fields}"))).upstreams.remove(0).proxy.unwrap()
    };
    assert_eq!(proxy_out("{}"), ProxyOut { version: ProxyVersion::V2, tlvs: vec![] });
    assert_eq!(proxy_out("{version: V1, tlvs: []}"), ProxyOut { version: ProxyVersion::V1, tlvs: vec![] });
    let tlvs =
        vec![ProxyTlv::Authority, ProxyTlv::Alpn, ProxyTlv::UniqueId, ProxyTlv::Traceparent, ProxyTlv::Tls];
    assert_eq!(proxy_out("{tlvs: [authority, alpn, unique-id, traceparent, tls]}").tlvs, tlvs);
}

#[test]
#[rustfmt::skip]
fn listeners_that_fit_not_together() {
    check(&[
        (web("    tls: {certificateRefs: [{secret: edge/example-com}]}\n", ""), &[
            r#"t.yaml:2: listeners[0].tls: missing; write which certificates to show, like tls: {certificateRefs: [{secret: edge/example-com}]}, or tls: {mode: Passthrough} (listener "web")"#,
        ]),
        (web("    protocol: TLS\n", ""), &[
            r#"t.yaml:4: listeners[0].tls: with protocol TCP nobody speaks TLS; write protocol: TLS, or remove it (listener "web")"#,
        ]),
        (tls("{}"), &[
            r#"t.yaml:5: listeners[0].tls.certificateRefs: missing; TLS of route "web" ends here, so write a certificate, like certificateRefs: [{secret: edge/example-com}], or mode: Passthrough (listener "web")"#,
        ]),
        (tls("{mode: Passthrough, certificateRefs: [{secret: edge/example-com}], minVersion: \"1.3\", alpnProtocols: []}"), &[
            r#"t.yaml:5: listeners[0].tls.certificateRefs: TLS of no route ends here (mode is Passthrough), so this would never be used; remove it, or write mode: Terminate here or in a route's tls (listener "web")"#,
            r#"t.yaml:5: listeners[0].tls.minVersion: TLS of no route ends here (mode is Passthrough), so this would never be used; remove it, or write mode: Terminate here or in a route's tls (listener "web")"#,
        ]),
        (route("tls: {mode: Passthrough}"), &[
            r#"t.yaml:5: listeners[0].tls.certificateRefs: TLS of no route ends here (mode is Passthrough), so this would never be used; remove it, or write mode: Terminate here or in a route's tls (listener "web")"#,
        ]),
        (more("minVersion: \"1.3\", maxVersion: \"1.2\""), &[
            r#"t.yaml:5: listeners[0].tls.maxVersion: 1.2 is older than minVersion; write "1.3" or newer (listener "web")"#,
        ]),
        (more("minVersion: 1.2"), &[
            r#"t.yaml:5: listeners[0].tls.minVersion: 1.2 is read as a number; write "1.2" in quotes (listener "web")"#,
        ]),
        (more("minVersion: \"1.1\""), &[
            r#"t.yaml:5: listeners[0].tls.minVersion: "1.1" is not a known value; write "1.2" (listener "web")"#,
        ]),
        (more("alpnProtocols: [h2, \"\", h2]"), &[
            r#"t.yaml:5: listeners[0].tls.alpnProtocols[1]: 0 bytes are no application protocol; write 1 to 255, like h2 (listener "web")"#,
            r#"t.yaml:5: listeners[0].tls.alpnProtocols[2]: the same as listeners[0].tls.alpnProtocols[0]; remove one of the two (listener "web")"#,
        ]),
        (web("tls: {cert", "timeout: {tcp: {tlsHandshakeTimeout: 0s}}\n    tls: {cert"), &[
            r#"t.yaml:5: listeners[0].timeout.tcp.tlsHandshakeTimeout: a handshake in no time always fails; write how long it may take, like 10s (listener "web")"#,
        ]),
        (more("clientValidation: {mode: Require}"), &[
            r#"t.yaml:5: listeners[0].tls.clientValidation.caCertificateRefs: missing; write who may sign clients' certificates, like caCertificateRefs: [{configMap: edge/clients-ca}] (listener "web")"#,
        ]),
        (more("clientValidation: {caCertificateRefs: [{file: /ca.pem}], subjectAltNames: [\"a b\", \"spiffe:// x\"], crl: [\"\"]}"), &[
            r#"t.yaml:5: listeners[0].tls.clientValidation.subjectAltNames[0]: "a b" is no DNS name; write a DNS name like db.example.com, of labels with a-z, 0-9 and - (listener "web")"#,
            r#"t.yaml:5: listeners[0].tls.clientValidation.subjectAltNames[1]: "spiffe:// x" is no URI; write one like spiffe://cluster.local/ns/shop/sa/web (listener "web")"#,
            r#"t.yaml:5: listeners[0].tls.clientValidation.crl[0]: "" is no path; write that of a file, like /certs/tls.crt (listener "web")"#,
        ]),
    ]);
}

#[test]
#[rustfmt::skip]
fn references() {
    check(&[
        (tls("{certificateRefs: [{secret: example-com}]}"), &[
            r#"t.yaml:5: listeners[0].tls.certificateRefs[0].secret: "example-com" has no namespace; write namespace/name, like edge/example-com (listener "web")"#,
        ]),
        (tls("{certificateRefs: [{secret: Edge/example_com}]}"), &[
            r#"t.yaml:5: listeners[0].tls.certificateRefs[0].secret: "Edge/example_com" is no name that Kubernetes gives; write namespace/name, like edge/example-com (listener "web")"#,
        ]),
        (tls("{certificateRefs: [{}]}"), &[
            r#"t.yaml:5: listeners[0].tls.certificateRefs[0]: it refers to nothing; write {secret: edge/example-com}, or {file: {certificate: /certs/tls.crt, key: /certs/tls.key}} (listener "web")"#,
        ]),
        (tls("{certificateRefs: [{secret: a/b, file: {certificate: a, key: b}}, {file: {certificate: a}}]}"), &[
            r#"t.yaml:5: listeners[0].tls.certificateRefs[0]: it has both a secret and a file; keep one of the two (listener "web")"#,
            r#"t.yaml:5: listeners[0].tls.certificateRefs[1].file.key: missing; write the file of the private key (listener "web")"#,
        ]),
        (more("clientValidation: {caCertificateRefs: [{configMap: a/b, file: /ca.pem}, {}]}"), &[
            r#"t.yaml:5: listeners[0].tls.clientValidation.caCertificateRefs[0]: it refers not to one thing; write {configMap: edge/clients-ca}, {secret: edge/clients-ca} or {file: /certs/ca.crt} (listener "web")"#,
            r#"t.yaml:5: listeners[0].tls.clientValidation.caCertificateRefs[1]: it refers not to one thing; write {configMap: edge/clients-ca}, {secret: edge/clients-ca} or {file: /certs/ca.crt} (listener "web")"#,
        ]),
        (format!("kubernetes: {{enabled: false}}\n{TLS}"), &[
            r#"t.yaml:6: listeners[0].tls.certificateRefs[0].secret: kubernetes.enabled is false; write auto or true there, or a file here (listener "web")"#,
        ]),
    ]);
}

#[test]
#[rustfmt::skip]
fn hostnames() {
    check(&[
        (super::route("hostnames: [a.example]\n    tls: {mode: Passthrough}"), &[
            r#"t.yaml:7: routes[0].hostnames: clients of listener "pg" speak no TLS; write protocol: TLS there, or remove it (route "pg")"#,
            r#"t.yaml:8: routes[0].tls: clients of listener "pg" speak no TLS; write protocol: TLS there, or remove it (route "pg")"#,
        ]),
        (route("hostnames: [\"*\", a.*.example, \"*a.example\", 10.0.0.7, a.example., \"a.example:443\"]"), &[
            r#"t.yaml:9: routes[0].hostnames[0]: * alone is no hostname; remove hostnames for every name (route "web")"#,
            r#"t.yaml:9: routes[0].hostnames[1]: "a.*.example" has a * elsewhere than in the place of its first labels; write one like *.example.com (route "web")"#,
            r#"t.yaml:9: routes[0].hostnames[2]: "*a.example" has a * elsewhere than in the place of its first labels; write one like *.example.com (route "web")"#,
            r#"t.yaml:9: routes[0].hostnames[3]: "10.0.0.7" is an IP address, which no TLS client asks for by name; write a DNS name like db.example.com (route "web")"#,
            r#"t.yaml:9: routes[0].hostnames[4]: "a.example." ends in a dot, which is never sent; write "a.example" (route "web")"#,
            r#"t.yaml:9: routes[0].hostnames[5]: "a.example:443" has a port, which belongs to an address; write "a.example" (route "web")"#,
        ]),
        (route("hostnames: [bücher.example, -a.example, \"a b\", a..example]"), &[
            r#"t.yaml:9: routes[0].hostnames[0]: "bücher.example" has letters that DNS has no room for; write its form that begins with xn-- (route "web")"#,
            r#"t.yaml:9: routes[0].hostnames[1]: "-a.example" is no DNS name; write a DNS name like db.example.com, of labels with a-z, 0-9 and - (route "web")"#,
            r#"t.yaml:9: routes[0].hostnames[2]: "a b" is no DNS name; write a DNS name like db.example.com, of labels with a-z, 0-9 and - (route "web")"#,
            r#"t.yaml:9: routes[0].hostnames[3]: "a..example" is no DNS name; write a DNS name like db.example.com, of labels with a-z, 0-9 and - (route "web")"#,
        ]),
    ]);
}

#[test]
#[rustfmt::skip]
fn hostnames_that_collide() {
    let two = |one: &str, other: &str| {
        let other = format!("  - {{name: b, listener: web, {other}, backendRefs: [{{upstream: web}}]}}\nupstreams:");
        route(one).replacen("upstreams:", &other, 1)
    };
    check(&[
        (two("hostnames: [a.example]", "hostnames: [b.example, A.example]"), &[
            r#"t.yaml:11: routes[1].hostnames[1]: a.example of listener "web" is already taken by routes[0]; remove it from one of the two, or write the sources this route is for (route "b")"#,
        ]),
        (two("hostnames: [a.example]", "hostnames: [\"*.example\"], sources: [10.0.0.0/8]"), &[]),
        (two("hostnames: [a.example]", "hostnames: [a.example], sources: [10.0.0.0/8]"), &[]),
        (two("{hostnames: [a.example], sources: [10.0.0.0/8]}".trim_matches(['{', '}']).replace(", s", "\n    s").as_str(), "hostnames: [a.example], sources: [fd00::/8, 10.0.0.0/8]"), &[
            r#"t.yaml:12: routes[1].hostnames[0]: a.example for 10.0.0.0/8 of listener "web" is already taken by routes[0]; remove it from one of the two (route "b")"#,
        ]),
        (two("hostnames: []", "hostnames: []"), &[
            r#"t.yaml:11: routes[1].sources: every client of listener "web" is already taken by routes[0]; write the hostnames or sources this route is for (route "b")"#,
        ]),
    ]);
}

#[test]
#[rustfmt::skip]
fn protocols_of_routes() {
    let two = |one: &str, other: &str| {
        let other = format!("  - {{name: b, listener: web, {other}, backendRefs: [{{upstream: web}}]}}\nupstreams:");
        let both = route(one).replacen("upstreams:", &other, 1);
        both.replacen("{certificateRefs: [{secret: edge/example-com}]}", "{mode: Passthrough}", 1)
    };
    let beside_certificate = |fields: &str, text: String| text.replacen("example-com}]", &format!("example-com}}], {fields}"), 1);
    check(&[
        (beside_certificate("alpnProtocols: [h2, http/1.1]", route("alpnProtocols: [h2]")), &[]),
        (beside_certificate("startTls: postgres", route("alpnProtocols: [postgresql]")), &[]),
        (route("alpnProtocols: [h2]"), &[
            r#"t.yaml:9: routes[0].alpnProtocols[0]: TLS ends here, and listener "web" offers none; add it to tls.alpnProtocols there, or write tls: {mode: Passthrough} in this route (route "web")"#,
        ]),
        (beside_certificate("alpnProtocols: [h2]", route("alpnProtocols: [h2, acme-tls/1, \"\"]")), &[
            r#"t.yaml:9: routes[0].alpnProtocols[2]: 0 bytes are no application protocol; write 1 to 255, like h2 (route "web")"#,
            r#"t.yaml:9: routes[0].alpnProtocols[1]: TLS ends here, and listener "web" does not offer it; add it to tls.alpnProtocols there, or write tls: {mode: Passthrough} in this route (route "web")"#,
        ]),
        (super::route("alpnProtocols: [h2]"), &[
            r#"t.yaml:7: routes[0].alpnProtocols: clients of listener "pg" speak no TLS; write protocol: TLS there, or remove it (route "pg")"#,
        ]),
        (two("alpnProtocols: [acme-tls/1]", "alpnProtocols: []"), &[]),
        (two("alpnProtocols: [h2, imap]", "alpnProtocols: [pop3, imap]"), &[
            r#"t.yaml:11: routes[1].alpnProtocols[1]: every client with ALPN imap of listener "web" is already taken by routes[0]; remove it from one of the two, or write the hostnames or sources this route is for (route "b")"#,
        ]),
        (two("{hostnames: [a.example], alpnProtocols: [h2]}".trim_matches(['{', '}']).replace(", a", "\n    a").as_str(), "hostnames: [a.example], alpnProtocols: [h2]"), &[
            r#"t.yaml:12: routes[1].hostnames[0]: a.example with ALPN h2 of listener "web" is already taken by routes[0]; remove it from one of the two, or write the sources this route is for (route "b")"#,
        ]),
    ]);
}

#[test]
#[rustfmt::skip]
fn upstreams_that_speak_tls() {
    check(&[
        (upstream("tls: {}"), &[
            r#"t.yaml:13: upstreams[0].tls.validation: missing; write how certificates are checked, like validation: {caCertificateRefs: [{configMap: db/ca}], hostname: pg.db.svc} (upstream "web")"#,
        ]),
        (upstream("tls: {validation: {hostname: a.example}}"), &[
            r#"t.yaml:13: upstreams[0].tls.validation: it accepts nobody's certificates; write caCertificateRefs: [{configMap: db/ca}], or wellKnownCACertificates: System (upstream "web")"#,
        ]),
        (upstream("tls: {validation: {caCertificateRefs: [{file: /ca.pem}], wellKnownCACertificates: System}}"), &[
            r#"t.yaml:13: upstreams[0].tls.validation: it has both caCertificateRefs and wellKnownCACertificates; keep one of the two (upstream "web")"#,
            r#"t.yaml:13: upstreams[0].tls.validation.hostname: missing; write the name that endpoints' certificates have, like hostname: pg.db.svc (upstream "web")"#,
        ]),
        (upstream("tls: {validation: {wellKnownCACertificates: Everyone, hostname: \"*.a\"}}"), &[
            r#"t.yaml:13: upstreams[0].tls.validation.wellKnownCACertificates: "Everyone" is not a known value; write System (upstream "web")"#,
            r#"t.yaml:13: upstreams[0].tls.validation.hostname: "*.a" is no DNS name; write a DNS name like db.example.com, of labels with a-z, 0-9 and - (upstream "web")"#,
        ]),
        (upstream("tls: {validation: {wellKnownCACertificates: System, hostname: a.example}}").replacen("{certificateRefs: [{secret: edge/example-com}]}", "{mode: Passthrough}", 1), &[
            r#"t.yaml:9: routes[0].backendRefs: clients of a route with mode Passthrough speak TLS to the endpoint, and upstream "web" would wrap that in another; remove its tls, or write mode: Terminate (route "web")"#,
        ]),
    ]);
}

#[test]
#[rustfmt::skip]
fn proxy_headers_that_nobody_believes_or_understands() {
    check(&[
        (listener("proxyProtocol: {mode: Require}"), &[
            r#"t.yaml:4: listeners[0].proxyProtocol.trusted: nobody's header would be believed; write the networks of the load balancers in front, like trusted: [10.0.0.0/8], or [0.0.0.0/0, "::/0"] where no client can reach this port (listener "pg")"#,
        ]),
        (listener("proxyProtocol: {mode: Optional, trusted: []}"), &[
            r#"t.yaml:4: listeners[0].proxyProtocol.trusted: nobody's header would be believed; write the networks of the load balancers in front, like trusted: [10.0.0.0/8], or [0.0.0.0/0, "::/0"] where no client can reach this port (listener "pg")"#,
        ]),
        (upstream("proxyProtocol: {version: V1, tlvs: [alpn]}"), &[
            r#"t.yaml:13: upstreams[0].proxyProtocol.tlvs: a V1 header has no room for them; write version: V2, or remove them (upstream "web")"#,
        ]),
        (upstream("proxyProtocol: {tlvs: [alpn, alpn, ssl]}"), &[
            r#"t.yaml:13: upstreams[0].proxyProtocol.tlvs[2]: "ssl" is not a known value; write authority, alpn, unique-id, traceparent or tls (upstream "web")"#,
            r#"t.yaml:13: upstreams[0].proxyProtocol.tlvs[1]: it is in the list already; remove one of the two (upstream "web")"#,
        ]),
    ]);
}

/// Another listener with these fields, at the address of the first, and its route.
fn beside(fields: &str, hostnames: &str) -> String {
    let listener = format!("  - {{name: b, address: \"[::]:443\", protocol: TLS, {fields}}}\nroutes:");
    let route = format!(
        "  - {{name: b, listener: b, hostnames: {hostnames}, backendRefs: [{{upstream: web}}]}}\nupstreams:"
    );
    TLS.replacen("routes:", &listener, 1).replacen("upstreams:", &route, 1)
}

#[test]
#[rustfmt::skip]
fn listeners_that_share_an_address() {
    let passthrough = "tls: {mode: Passthrough}";
    let mine = |address: &str| beside(passthrough, "[b.example]").replacen("{name: b, address: \"[::]:443\"", &format!("{{name: b, address: \"{address}\""), 1);
    check(&[
        (beside(passthrough, "[b.example]"), &[]),
        (beside("tls: {mode: Passthrough}, timeout: {tcp: {idleTimeout: 1s}}, connection: {limit: 5}", "[b.example]"), &[]),
        (beside(passthrough, "[]"), &[
            r#"t.yaml:11: routes[1].sources: every client of listener "b" is already taken by routes[0]; write the hostnames or sources this route is for (route "b")"#,
        ]),
        (beside("tls: {mode: Passthrough, startTls: postgres}, allow: [10.0.0.0/8], proxyProtocol: {mode: Require, trusted: [10.0.0.0/8]}, connection: {limit: 5, limitPerSource: 2, whenFull: Wait}", "[b.example]"), &[
            r#"t.yaml:6: listeners[1].proxyProtocol: it shares [::]:443 with listener "web", and this counts before a client has said which of the two it wants; write the same in both (listener "b")"#,
            r#"t.yaml:6: listeners[1].allow: it shares [::]:443 with listener "web", and this counts before a client has said which of the two it wants; write the same in both (listener "b")"#,
            r#"t.yaml:6: listeners[1].connection.limitPerSource: it shares [::]:443 with listener "web", and this counts before a client has said which of the two it wants; write the same in both (listener "b")"#,
            r#"t.yaml:6: listeners[1].tls.startTls: it shares [::]:443 with listener "web", and this counts before a client has said which of the two it wants; write the same in both (listener "b")"#,
            r#"t.yaml:6: listeners[1].connection.whenFull: in the backlog of [::]:443 nobody knows yet which listener a connection is for; write Reset, or another address (listener "b")"#,
        ]),
        (mine("[::]:443").replacen("protocol: TLS, tls: {mode: Passthrough}", "protocol: TCP", 1).replacen("hostnames: [b.example], ", "", 1), &[
            r#"t.yaml:6: listeners[1].address: [::]:443 is already the address of listeners[0], which only listeners with protocol TLS can share; write another port, or add routes to that listener (listener "b")"#,
        ]),
        (mine("0.0.0.0:443"), &[
            r#"t.yaml:6: listeners[1].address: 0.0.0.0:443 overlaps listeners[0], because [::] takes IPv4 too; remove one of the two, or write another port (listener "b")"#,
        ]),
        (mine("[::ffff:10.0.0.1]:443").replacen("[::]:443", "10.0.0.1:443", 1), &[
            r#"t.yaml:6: listeners[1].address: [::ffff:10.0.0.1]:443 is the address of listeners[0] in other words; write 10.0.0.1:443 here too (listener "b")"#,
        ]),
    ]);
}

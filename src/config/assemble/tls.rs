//! TLS: what is shown to clients and asked of them, how endpoints are spoken to, and whether routes fit to that.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;

use super::Context;
use super::names::Names;
use super::process::Cluster;
use crate::config::errors::quoted;
use crate::config::raw::{self, Field, List};
use crate::config::{
    AuthorityRef, CertificateRef, ClientValidation, ClientValidationMode, Listener, ListenerTls, ObjectRef,
    Protocol, Roots, Route, StartTls, TlsMode, TlsVersion, Upstream, UpstreamTls,
};

/// Certificates of one listener, authorities of one bundle, names and files in one list.
const MAX_ITEMS: usize = 1_000;

pub(super) fn mode(raw: raw::TlsMode) -> TlsMode {
    match raw {
        raw::TlsMode::Terminate => TlsMode::Terminate,
        raw::TlsMode::Passthrough => TlsMode::Passthrough,
    }
}

/// `protocol` is `None` where it is not known.
pub(super) fn listener(
    cx: &Context<'_>,
    path: &str,
    raw: Field<raw::Tls>,
    protocol: Option<Protocol>,
    cluster: &Cluster,
) -> Option<ListenerTls> {
    let path = format!("{path}.tls");
    match protocol {
        Some(Protocol::Tls) if raw.is_absent() => cx.report.add(
            path.as_str(),
            "missing; write which certificates to show, like tls: {certificateRefs: [{secret: edge/example-com}]}, or \
             tls: {mode: Passthrough}",
        ),
        Some(Protocol::Tcp) if !raw.is_absent() => {
            cx.report.add(path.as_str(), "with protocol TCP nobody speaks TLS; write protocol: TLS, or remove it");
        }
        _ => {}
    }
    let raw = raw.value()?;
    let version = |field: Field<raw::TlsVersion>, default| match field.value() {
        None => default,
        Some(raw::TlsVersion::Tls12) => TlsVersion::Tls12,
        Some(raw::TlsVersion::Tls13) => TlsVersion::Tls13,
    };
    let min_version = version(raw.min_version, TlsVersion::Tls12);
    let max_version = version(raw.max_version, TlsVersion::Tls13);
    if max_version < min_version {
        cx.report.add(
            format!("{path}.maxVersion"),
            format_args!("{max_version} is older than minVersion; write \"{min_version}\" or newer"),
        );
    }
    let alpn = distinct(cx, raw.alpn_protocols, &format!("{path}.alpnProtocols"), |_, name| Some(name.0));
    let certificates = distinct(cx, raw.certificate_refs, &format!("{path}.certificateRefs"), |path, raw| {
        certificate(cx, path, raw, cluster)
    });
    let validation = raw.client_validation.value();
    Some(ListenerTls {
        mode: raw.mode.value().map_or(TlsMode::Terminate, mode),
        certificates,
        min_version,
        max_version,
        alpn,
        start_tls: raw.start_tls.value().and_then(|start| match start {
            raw::StartTls::None => None,
            raw::StartTls::Postgres => Some(StartTls::Postgres),
        }),
        client_validation: validation
            .map(|raw| client_validation(cx, &format!("{path}.clientValidation"), raw, cluster)),
    })
}

fn client_validation(
    cx: &Context<'_>,
    path: &str,
    raw: raw::ClientValidation,
    cluster: &Cluster,
) -> ClientValidation {
    let at = format!("{path}.caCertificateRefs");
    let is_missing = is_nothing(&raw.ca_certificate_refs);
    let authorities = authorities(cx, raw.ca_certificate_refs, &at, cluster);
    if is_missing {
        cx.report.add(
            at,
            "missing; write who may sign clients' certificates, like caCertificateRefs: [{configMap: edge/clients-ca}]",
        );
    }
    ClientValidation {
        mode: match raw.mode.or(raw::ClientValidationMode::Require) {
            raw::ClientValidationMode::Require => ClientValidationMode::Require,
            raw::ClientValidationMode::Optional => ClientValidationMode::Optional,
        },
        authorities,
        names: distinct(cx, raw.subject_alt_names, &format!("{path}.subjectAltNames"), |_, name| Some(name)),
        crls: distinct(cx, raw.crl, &format!("{path}.crl"), |_, file| Some(file.0)),
    }
}

pub(super) fn upstream(
    cx: &Context<'_>,
    path: &str,
    raw: Field<raw::UpstreamTls>,
    cluster: &Cluster,
) -> Option<UpstreamTls> {
    let path = format!("{path}.tls");
    let raw = raw.value()?;
    let client = format!("{path}.clientCertificateRef");
    let client_certificate =
        raw.client_certificate_ref.value().and_then(|raw| certificate(cx, &client, raw, cluster));
    let path = format!("{path}.validation");
    let example = "how certificates are checked, like validation: {caCertificateRefs: [{configMap: db/ca}], hostname: \
                   pg.db.svc}";
    let raw = cx.required(raw.validation, &path, example)?;
    let has_system = !raw.well_known_ca_certificates.is_absent();
    let has_authorities = !is_nothing(&raw.ca_certificate_refs);
    if has_system && has_authorities {
        cx.report.add(
            path.as_str(),
            "it has both caCertificateRefs and wellKnownCACertificates; keep one of the two",
        );
    } else if !has_system && !has_authorities {
        cx.report.add(
            path.as_str(),
            "it accepts nobody's certificates; write caCertificateRefs: [{configMap: db/ca}], or \
             wellKnownCACertificates: System",
        );
    }
    let authorities = authorities(cx, raw.ca_certificate_refs, &format!("{path}.caCertificateRefs"), cluster);
    let example = "the name that endpoints' certificates have, like hostname: pg.db.svc";
    let hostname = cx.required(raw.hostname, &format!("{path}.hostname"), example);
    let names = distinct(cx, raw.subject_alt_names, &format!("{path}.subjectAltNames"), |_, name| Some(name));
    Some(UpstreamTls {
        roots: if has_system { Roots::System } else { Roots::Authorities(authorities) },
        hostname: hostname?,
        names,
        client_certificate,
    })
}

fn certificate(
    cx: &Context<'_>,
    path: &str,
    raw: raw::CertificateRef,
    cluster: &Cluster,
) -> Option<CertificateRef> {
    match (raw.secret, raw.file) {
        (Field::Absent, Field::Absent) => {
            cx.report.add(
                path,
                "it refers to nothing; write {secret: edge/example-com}, or {file: {certificate: /certs/tls.crt, key: \
                 /certs/tls.key}}",
            );
            None
        }
        (secret, Field::Absent) => object(cx, path, secret, "secret", cluster).map(CertificateRef::Secret),
        (Field::Absent, file) => {
            let file = file.value()?;
            let at = |name: &str| format!("{path}.file.{name}");
            let certificate =
                cx.required(file.certificate, &at("certificate"), "the file of the certificate chain");
            let key = cx.required(file.key, &at("key"), "the file of the private key");
            Some(CertificateRef::Files { certificate: certificate?.0, key: key?.0 })
        }
        _ => {
            cx.report.add(path, "it has both a secret and a file; keep one of the two");
            None
        }
    }
}

fn authorities(
    cx: &Context<'_>,
    list: List<raw::CaCertificateRef>,
    path: &str,
    cluster: &Cluster,
) -> Vec<AuthorityRef> {
    distinct(cx, list, path, |path, raw| match (raw.config_map, raw.secret, raw.file) {
        (map, Field::Absent, Field::Absent) if !map.is_absent() => {
            object(cx, path, map, "configMap", cluster).map(AuthorityRef::ConfigMap)
        }
        (Field::Absent, secret, Field::Absent) if !secret.is_absent() => {
            object(cx, path, secret, "secret", cluster).map(AuthorityRef::Secret)
        }
        (Field::Absent, Field::Absent, file) if !file.is_absent() => {
            file.value().map(|file| AuthorityRef::File(file.0))
        }
        _ => {
            cx.report.add(
                path,
                "it refers not to one thing; write {configMap: edge/clients-ca}, {secret: edge/clients-ca} or {file: \
                 /certs/ca.crt}",
            );
            None
        }
    })
}

fn object(
    cx: &Context<'_>,
    path: &str,
    field: Field<ObjectRef>,
    name: &str,
    cluster: &Cluster,
) -> Option<ObjectRef> {
    if !cluster.may_follow {
        cx.report.add(
            format!("{path}.{name}"),
            "kubernetes.enabled is false; write auto or true there, or a file here",
        );
    }
    field.value()
}

/// What is made of a list's items, each of which may be there once.
fn distinct<T, U: Clone + Eq + Hash>(
    cx: &Context<'_>,
    list: List<T>,
    path: &str,
    make: impl Fn(&str, T) -> Option<U>,
) -> Vec<U> {
    let length = list.get().map_or(0, Vec::len);
    if length > MAX_ITEMS {
        cx.report.add(path, format_args!("{length} are too many; write at most {MAX_ITEMS}"));
    }
    let mut seen: HashMap<U, String> = HashMap::new();
    let mut made = Vec::new();
    for (at, item) in cx.items(list, path) {
        let Some(item) = make(&at, item) else { continue };
        match seen.get(&item) {
            Some(first) => cx.report.add(at, format_args!("the same as {first}; remove one of the two")),
            None => {
                seen.insert(item.clone(), at);
                made.push(item);
            }
        }
    }
    made
}

/// Whether a list is not there, or has nothing in it.
fn is_nothing<T>(list: &List<T>) -> bool {
    list.is_absent() || list.get().is_some_and(Vec::is_empty)
}

/// What a listener says must be of use to its routes, and what its routes need must be said. To be called with all that is
/// written: of a route that was left out nobody knows where TLS ends.
pub(super) fn agree(
    cx: &Context<'_>,
    names: &Names,
    listeners: &[Listener],
    routes: &[Route],
    upstreams: &[Upstream],
) {
    let modes: HashMap<&str, TlsMode> = listeners
        .iter()
        .filter_map(|listener| Some((&*listener.name, listener.tls.as_ref()?.mode)))
        .collect();
    let speak_tls: HashSet<&str> =
        upstreams.iter().filter(|upstream| upstream.tls.is_some()).map(|upstream| &*upstream.name).collect();
    let mut ends_here: HashMap<&str, &str> = HashMap::new();
    for (i, route) in routes.iter().enumerate() {
        let Some(mode) = modes.get(&*route.listener) else { continue };
        if route.tls_mode.unwrap_or(*mode) == TlsMode::Terminate {
            ends_here.entry(&route.listener).or_insert(&route.name);
            continue;
        }
        let twice = route.backends.iter().find(|backend| speak_tls.contains(&*backend.upstream));
        if let Some(backend) = twice {
            cx.report.add(
                format!("routes[{i}].backendRefs"),
                format_args!(
                    "clients of a route with mode Passthrough speak TLS to the endpoint, and upstream {} would wrap that \
                     in another; remove its tls, or write mode: Terminate",
                    quoted(&backend.upstream)
                ),
            );
        }
    }
    for (name, i) in names.all().filter(|(name, _)| modes.contains_key(name)) {
        let path = format!("listeners[{i}].tls");
        match ends_here.get(name) {
            Some(route) if !cx.is_written(&format!("{path}.certificateRefs")) => cx.report.add(
                format!("{path}.certificateRefs"),
                format_args!(
                    "missing; TLS of route {} ends here, so write a certificate, like certificateRefs: [{{secret: \
                     edge/example-com}}], or mode: Passthrough",
                    quoted(route)
                ),
            ),
            Some(_) => {}
            None => {
                for field in ["certificateRefs", "minVersion", "maxVersion", "alpnProtocols", "clientValidation"] {
                    let at = format!("{path}.{field}");
                    if cx.is_written(&at) {
                        cx.report.add(
                            at,
                            "TLS of no route ends here (mode is Passthrough), so this would never be used; remove it, or \
                             write mode: Terminate here or in a route's tls",
                        );
                    }
                }
            }
        }
    }
}

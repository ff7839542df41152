//! What a configuration refers to, and where in it. Pure.

use crate::config::{CertificateRef, ClientValidation, Config, Roots, UpstreamTls};

use super::Source;

/// A reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// In the file's own words: `listeners[0].tls.certificateRefs[1].file`.
    pub(super) path: String,
    pub(super) source: Source,
}

pub(super) fn places(config: &Config) -> Vec<Place> {
    let mut places = Vec::new();
    for (index, listener) in config.listeners.iter().enumerate() {
        let Some(tls) = &listener.tls else { continue };
        let path = format!("listeners[{index}].tls");
        let certificates = tls.certificates.iter().enumerate();
        places.extend(certificates.map(|(n, certificate)| {
            place(&format!("{path}.certificateRefs[{n}]"), Source::Certificate(certificate.clone()))
        }));
        places.extend(tls.client_validation.iter().flat_map(|validation| of_clients(&path, validation)));
    }
    for (index, upstream) in config.upstreams.iter().enumerate() {
        let path = format!("upstreams[{index}].tls");
        places.extend(upstream.tls.iter().flat_map(|tls| of_endpoints(&path, tls)));
    }
    places
}

fn of_clients(path: &str, validation: &ClientValidation) -> Vec<Place> {
    let path = format!("{path}.clientValidation");
    let authorities = validation.authorities.iter().enumerate();
    let crls = validation.crls.iter().enumerate();
    let authorities = authorities.map(|(n, authorities)| {
        place(&format!("{path}.caCertificateRefs[{n}]"), Source::Authorities(authorities.clone()))
    });
    let crls = crls.map(|(n, file)| Place {
        path: format!("{path}.crl[{n}]"),
        source: Source::Revocations(file.clone()),
    });
    authorities.chain(crls).collect()
}

pub(super) fn of_endpoints(path: &str, tls: &UpstreamTls) -> Vec<Place> {
    let certificate: Option<&CertificateRef> = tls.client_certificate.as_ref();
    let certificate = certificate.map(|certificate| {
        place(&format!("{path}.clientCertificateRef"), Source::Certificate(certificate.clone()))
    });
    let validation = format!("{path}.validation");
    let mut places: Vec<Place> = match &tls.roots {
        Roots::System => vec![Place {
            path: format!("{validation}.wellKnownCACertificates"),
            source: Source::SystemAuthorities,
        }],
        Roots::Authorities(authorities) => authorities
            .iter()
            .enumerate()
            .map(|(n, authorities)| {
                place(
                    &format!("{validation}.caCertificateRefs[{n}]"),
                    Source::Authorities(authorities.clone()),
                )
            })
            .collect(),
    };
    places.extend(certificate);
    places
}

fn place(path: &str, source: Source) -> Place {
    let kind = if source.secret().is_some() {
        "secret"
    } else if source.config_map().is_some() {
        "configMap"
    } else {
        "file"
    };
    Place { path: format!("{path}.{kind}"), source }
}

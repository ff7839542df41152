//! How an upstream's endpoints are spoken to.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use crate::config::{Roots, ServerNameText, UpstreamTls};

use super::credentials::{Certificate, Credentials, Fingerprint, Source};
use super::{provider, verify};

/// Made on the control side, for all workers, and the same in every table until something in it changes: sessions that
/// may be resumed are in it.
#[derive(Debug)]
pub struct ClientSide {
    settings: UpstreamTls,
    parts: Vec<Option<Fingerprint>>,
    made: Result<Made, String>,
}

#[derive(Debug)]
struct Made {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    /// What endpoints are shown.
    own: Option<Arc<Certificate>>,
}

impl ClientSide {
    /// What `settings` ask for; `previous` itself where that is the same. While the client certificate is missing, what `previous`
    /// showed, or did not show, is kept: a Secret whose name is new is not there yet, and may never be.
    pub fn new(settings: &UpstreamTls, credentials: &Credentials, previous: Option<&Arc<Self>>) -> Arc<Self> {
        let parts = parts(settings, credentials);
        let is_same = |previous: &&Arc<Self>| previous.settings == *settings && previous.parts == parts;
        if let Some(same) = previous.filter(is_same) {
            return Arc::clone(same);
        }
        let made = make(settings, credentials, previous.and_then(|previous| previous.made.as_ref().ok()));
        Arc::new(Self { settings: settings.clone(), parts, made })
    }

    /// What handshakes go by; `None` while there is none, which [`ClientSide::problem`] tells about.
    pub fn config(&self) -> Option<&Arc<ClientConfig>> {
        self.made.as_ref().ok().map(|made| &made.config)
    }

    /// What endpoints are asked for, by SNI if it is a DNS name. `None` as of [`ClientSide::config`].
    pub fn server_name(&self) -> Option<&ServerName<'static>> {
        self.made.as_ref().ok().map(|made| &made.name)
    }

    /// Why no handshake can be made.
    pub fn problem(&self) -> Option<&str> {
        self.made.as_ref().err().map(String::as_str)
    }
}

/// Whose certificates are accepted.
pub(super) fn sources(roots: &Roots) -> Vec<Source> {
    match roots {
        Roots::System => vec![Source::SystemAuthorities],
        Roots::Authorities(authorities) => authorities.iter().cloned().map(Source::Authorities).collect(),
    }
}

fn parts(settings: &UpstreamTls, credentials: &Credentials) -> Vec<Option<Fingerprint>> {
    let sources = sources(&settings.roots);
    let authorities =
        sources.iter().map(|source| credentials.authorities(source).map(|found| found.fingerprint));
    let certificate = settings.client_certificate.iter();
    let certificate = certificate.map(|of| credentials.certificate(of).map(|found| found.fingerprint));
    authorities.chain(certificate).collect()
}

fn make(settings: &UpstreamTls, credentials: &Credentials, previous: Option<&Made>) -> Result<Made, String> {
    let verifier = verify::endpoints(settings, credentials)?;
    let builder = ClientConfig::builder_with_provider(Arc::clone(provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let own = match &settings.client_certificate {
        None => None,
        Some(of) => match (credentials.certificate(of), previous) {
            (Some(certificate), _) => Some(Arc::clone(certificate)),
            (None, Some(previous)) => previous.own.clone(),
            (None, None) => return Err("its client certificate could not be loaded".to_owned()),
        },
    };
    let config = match &own {
        None => builder.with_no_client_auth(),
        Some(certificate) => {
            let key = CertifiedKey::clone(&certificate.key);
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key)))
        }
    };
    let name = match &settings.hostname {
        ServerNameText::Dns(name) => ServerName::try_from(name.clone()).map_err(|error| error.to_string())?,
        ServerNameText::Ip(address) => ServerName::IpAddress((*address).into()),
    };
    Ok(Made { config: Arc::new(config), name, own })
}

#[cfg(test)]
mod tests;

//! What a TLS listener shows and asks.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, NoClientAuth, ProducesTickets, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};

use crate::config::{
    CertificateRef, ClientValidationMode, ListenerTls, Name, StartTls, SubjectAltName, TlsMode, TlsVersion,
};

use super::credentials::{Certificate, Credentials, Fingerprint, Source, fingerprint, tickets};
use super::{postgres, provider, verify};

/// So many certificates are kept for want of others.
const KEPT_MAX: usize = 64;

/// Made on the control side, for all workers, and the same in every table until something in it changes.
#[derive(Debug)]
pub struct ServerSide {
    listener: Name,
    settings: ListenerTls,
    /// What there was of each that the settings name.
    certificates: Vec<Option<(Fingerprint, bool)>>,
    /// What is shown, with what stands in for some that are missing.
    shown: Vec<Shown>,
    /// Of authorities and lists of revoked certificates.
    validation: Vec<Option<Fingerprint>>,
    made: Result<Made, String>,
}

#[derive(Debug)]
struct Made {
    config: Arc<ServerConfig>,
    /// `None`: clients are not asked for certificates.
    clients: Option<Arc<dyn ClientCertVerifier>>,
}

impl ServerSide {
    /// What `settings` ask for; `previous` itself where that is the same. While a certificate is missing, those that `previous`
    /// showed and `settings` no longer name are kept behind the others: a Secret whose name is new is not there yet, and may never be.
    pub fn new(
        listener: &Name,
        settings: &ListenerTls,
        credentials: &Credentials,
        previous: Option<&Arc<Self>>,
    ) -> Arc<Self> {
        let found: Vec<Option<Shown>> =
            settings.certificates.iter().map(|of| Shown::find(of, credentials)).collect();
        let certificates: Vec<_> = found.iter().map(|found| found.as_ref().map(Shown::state)).collect();
        let validation = validation(settings, credentials);
        let is_same = |previous: &&Arc<Self>| {
            previous.listener == *listener
                && previous.settings == *settings
                && previous.certificates == certificates
                && previous.validation == validation
        };
        if let Some(same) = previous.filter(is_same) {
            return Arc::clone(same);
        }
        let is_any_missing = found.iter().any(Option::is_none);
        let mut shown: Vec<Shown> = found.into_iter().flatten().collect();
        if let Some(previous) = previous.filter(|_| is_any_missing) {
            let dropped = previous.shown.iter().filter(|shown| !settings.certificates.contains(&shown.of));
            shown.extend(dropped.take(KEPT_MAX).cloned());
        }
        let made = make(listener, settings, credentials, &shown, &validation);
        Arc::new(Self {
            listener: Name::clone(listener),
            settings: settings.clone(),
            certificates,
            shown,
            validation,
            made,
        })
    }

    /// What handshakes go by; `None` while there is none, which [`ServerSide::problem`] tells about.
    pub fn config(&self) -> Option<&Arc<ServerConfig>> {
        self.made.as_ref().ok().map(|made| &made.config)
    }

    /// Why no handshake can be made. One that only passes TLS on needs nothing for it.
    pub fn problem(&self) -> Option<&str> {
        let is_needed = !self.settings.certificates.is_empty();
        self.made.as_ref().err().map(String::as_str).filter(|_| is_needed)
    }

    /// Where TLS ends, unless a route says otherwise.
    pub fn mode(&self) -> TlsMode {
        self.settings.mode
    }

    /// What comes before TLS.
    pub fn start_tls(&self) -> Option<StartTls> {
        self.settings.start_tls
    }

    /// Whether clients may be asked for certificates.
    pub fn asks_clients(&self) -> bool {
        self.settings.client_validation.is_some()
    }

    /// Whether a client that showed this chain (which may be empty) may stay, by what is known now of authorities and revoked
    /// certificates. `then`: when it was let in, by which dates are judged.
    ///
    /// # Errors
    /// Why it may not.
    pub fn admits_client(&self, chain: &[CertificateDer<'_>], then: UnixTime) -> Result<(), rustls::Error> {
        let clients = self.made.as_ref().ok().and_then(|made| made.clients.as_ref());
        let asked = self.settings.client_validation.as_ref();
        match (clients, chain) {
            // Whether or not authorities could be loaded.
            (_, []) if asked.is_some_and(|asked| asked.mode == ClientValidationMode::Require) => {
                Err(rustls::Error::NoCertificatesPresented)
            }
            (None, _) | (Some(_), []) => Ok(()),
            (Some(clients), [first, others @ ..]) => {
                clients.verify_client_cert(first, others, then).map(|_| ())
            }
        }
    }

    /// Whether the same clients may connect as by `other`.
    pub fn admits_as(&self, other: &Self) -> bool {
        self.settings.client_validation == other.settings.client_validation
            && self.validation == other.validation
    }
}

/// What the client's certificate is judged by.
fn validation(settings: &ListenerTls, credentials: &Credentials) -> Vec<Option<Fingerprint>> {
    let Some(validation) = &settings.client_validation else { return Vec::new() };
    let authorities = validation.authorities.iter().map(|of| {
        credentials.authorities(&Source::Authorities(of.clone())).map(|authorities| authorities.fingerprint)
    });
    let lists = validation.crls.iter();
    let lists = lists.map(|file| credentials.revocations(file).map(|lists| lists.fingerprint));
    authorities.chain(lists).collect()
}

fn make(
    listener: &Name,
    settings: &ListenerTls,
    credentials: &Credentials,
    shown: &[Shown],
    validation: &[Option<Fingerprint>],
) -> Result<Made, String> {
    if shown.is_empty() {
        return Err("none of its certificates could be loaded".to_owned());
    }
    let clients = settings.client_validation.as_ref().map(|asked| verify::clients(asked, credentials));
    let clients = clients.transpose()?;
    let versions = match (settings.min_version, settings.max_version) {
        (TlsVersion::Tls13, _) => &[&TLS13][..],
        (_, TlsVersion::Tls12) => &[&TLS12],
        (TlsVersion::Tls12, TlsVersion::Tls13) => &[&TLS13, &TLS12],
    };
    let builder = ServerConfig::builder_with_provider(Arc::clone(provider()))
        .with_protocol_versions(versions)
        .map_err(|error| error.to_string())?;
    let verifier = clients.clone().unwrap_or_else(|| Arc::new(NoClientAuth));
    let mut config =
        builder.with_client_cert_verifier(verifier).with_cert_resolver(Arc::new(ByName::new(shown)));
    config.alpn_protocols = settings.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    if settings.start_tls == Some(StartTls::Postgres)
        && !config.alpn_protocols.iter().any(|name| name == postgres::ALPN)
    {
        config.alpn_protocols.push(postgres::ALPN.to_vec());
    }
    config.ticketer = Arc::new(BoundTickets {
        tickets: Arc::clone(tickets().map_err(|error| error.to_string())?),
        bond: bond(listener, settings, validation),
    });
    // More would only be kept by clients that connect many times at once.
    config.send_tls13_tickets = 2;
    Ok(Made { config: Arc::new(config), clients })
}

/// What a session must have been made under to be resumed.
fn bond(listener: &Name, settings: &ListenerTls, validation: &[Option<Fingerprint>]) -> Fingerprint {
    let asked = format!("{listener}\n{:?}\n{validation:?}", settings.client_validation);
    fingerprint([asked.as_bytes()])
}

/// Tickets that are good on this listener only, and only while it asks the same of clients: a resumed session shows no
/// certificate, so one that was made where none was asked for, or before an authority was dropped, must not be.
#[derive(Debug)]
struct BoundTickets {
    tickets: Arc<dyn ProducesTickets>,
    bond: Fingerprint,
}

impl ProducesTickets for BoundTickets {
    fn enabled(&self) -> bool {
        self.tickets.enabled()
    }

    fn lifetime(&self) -> u32 {
        self.tickets.lifetime()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.tickets.encrypt(&[&self.bond, plain].concat())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        let plain = self.tickets.decrypt(cipher)?;
        plain.strip_prefix(&self.bond[..]).map(<[u8]>::to_vec)
    }
}

/// A certificate that may be shown.
#[derive(Clone, Debug)]
struct Shown {
    of: CertificateRef,
    certificate: Arc<Certificate>,
    /// Any other is better.
    is_untimely: bool,
}

impl Shown {
    fn find(of: &CertificateRef, credentials: &Credentials) -> Option<Self> {
        let certificate = Arc::clone(credentials.certificate(of)?);
        Some(Self { of: of.clone(), certificate, is_untimely: credentials.is_untimely(of) })
    }

    fn state(&self) -> (Fingerprint, bool) {
        (self.certificate.fingerprint, self.is_untimely)
    }

    fn names(&self) -> impl Iterator<Item = &String> {
        self.certificate.facts.names.iter().filter_map(|name| match name {
            SubjectAltName::Dns(name) => Some(name),
            _ => None,
        })
    }
}

/// Chooses a certificate by the name that a client asks for, and by the signatures that it can check. Between those of the same
/// name the order in the configuration decides and nothing that is written in them, because not all may be of one hand.
struct ByName {
    exact: HashMap<String, Vec<Shown>>,
    /// By what is below the first label, for which one `*` stands (RFC 6125, 6.4.3).
    wildcard: HashMap<String, Vec<Shown>>,
    /// For clients that ask for no name, or for one that none of the certificates has.
    default: Vec<Shown>,
}

impl ByName {
    /// The first of them is the default.
    fn new(all: &[Shown]) -> Self {
        let mut by_name = Self { exact: HashMap::new(), wildcard: HashMap::new(), default: Vec::new() };
        let of_default: HashSet<&String> = all.first().into_iter().flat_map(Shown::names).collect();
        for (index, shown) in all.iter().enumerate() {
            // The same again, with another algorithm or of another time.
            if index == 0 || shown.names().any(|name| of_default.contains(name)) {
                by_name.default.push(shown.clone());
            }
            for name in shown.names() {
                let (named, name) = match name.strip_prefix("*.") {
                    Some(below) => (&mut by_name.wildcard, below),
                    None => (&mut by_name.exact, name.as_str()),
                };
                named.entry(name.to_owned()).or_default().push(shown.clone());
            }
        }
        by_name
    }

    /// Those that have this name, the more specific ones first.
    fn named(&self, name: Option<&str>) -> impl Iterator<Item = &Shown> {
        let name = name.map(|name| name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase());
        let exact = name.as_ref().and_then(|name| self.exact.get(name));
        let below = name.as_ref().and_then(|name| name.split_once('.')).map(|(_, below)| below);
        let wildcard = below.and_then(|below| self.wildcard.get(below));
        let none_has_it = exact.is_none() && wildcard.is_none();
        let default = none_has_it.then_some(&self.default);
        [exact, wildcard, default].into_iter().flatten().flatten()
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let suits =
            |shown: &&Shown| shown.certificate.key.key.choose_scheme(hello.signature_schemes()).is_some();
        // Of those alike in this the first.
        let best = self.named(hello.server_name()).filter(suits).min_by_key(|shown| shown.is_untimely);
        best.map(|shown| Arc::clone(&shown.certificate.key))
    }
}

impl fmt::Debug for ByName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByName").field("default", &self.default).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod choice_tests;
#[cfg(test)]
mod client_tests;
#[cfg(test)]
pub(super) mod tests;

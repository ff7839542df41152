//! Why a handshake failed, for people: the library's own texts are for its developers.

use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible};

/// What went wrong, as the end of a sentence like `shaking hands: ...`.
pub fn reason(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(error) => format!("its certificate is not good: {}", of_certificate(error)),
        Error::NoCertificatesPresented => "it showed no certificate, and one is required".to_owned(),
        Error::AlertReceived(alert) => format!("it ended the handshake, alert {}", name(*alert)),
        Error::NoApplicationProtocol => "it offers none of the configured ALPN protocols".to_owned(),
        Error::PeerIncompatible(
            PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::Tls13RequiredForQuic
            | PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
        ) => "it speaks none of the configured TLS versions".to_owned(),
        other => other.to_string(),
    }
}

fn of_certificate(error: &CertificateError) -> String {
    let fixed = match error {
        CertificateError::UnknownIssuer => "none of the trusted authorities vouches for it",
        CertificateError::Revoked => "it was revoked",
        CertificateError::UnknownRevocationStatus => {
            "there is no list of revoked certificates of its authority, or of one between"
        }
        CertificateError::ExpiredRevocationList | CertificateError::ExpiredRevocationListContext { .. } => {
            "its authority's list of revoked certificates is too old"
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "it has expired",
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => "it is not valid yet",
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "it is not meant for this side of a connection (extendedKeyUsage)"
        }
        CertificateError::BadSignature => "it is not signed by the authority that it names",
        CertificateError::BadEncoding => "it cannot be read",
        CertificateError::NotValidForName => "it is for another name",
        CertificateError::Other(error) => return error.0.to_string(),
        other => return other.to_string(),
    };
    fixed.to_owned()
}

/// As RFC 8446 calls it: `bad_certificate`.
fn name(alert: AlertDescription) -> String {
    let mut name = String::new();
    let mut was_lower = false;
    for letter in format!("{alert:?}").chars() {
        if letter.is_ascii_uppercase() && was_lower {
            name.push('_');
        }
        was_lower = letter.is_ascii_lowercase();
        name.push(letter.to_ascii_lowercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::UnixTime;

    use super::*;

    #[test]
    fn reasons_are_for_people() {
        let of = |error| reason(&Error::InvalidCertificate(error));
        assert_eq!(
            of(CertificateError::UnknownIssuer),
            "its certificate is not good: none of the trusted authorities vouches for it"
        );
        // What the library says of dates are seconds since 1970.
        let (time, not_after) = (UnixTime::now(), UnixTime::now());
        assert_eq!(
            of(CertificateError::ExpiredContext { time, not_after }),
            "its certificate is not good: it has expired"
        );
        assert_eq!(
            reason(&Error::AlertReceived(AlertDescription::BadCertificate)),
            "it ended the handshake, alert bad_certificate"
        );
        assert_eq!(name(AlertDescription::UnknownCA), "unknown_ca");
        assert_eq!(name(AlertDescription::NoApplicationProtocol), "no_application_protocol");
        assert_eq!(reason(&Error::DecryptError), Error::DecryptError.to_string());
    }
}

//! Why a handshake failed, for people: the library's own texts are for its developers.

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, PeerIncompatible};

/// What went wrong, as the end of a sentence like `shaking hands: ...`.
pub fn reason(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(error) => format!("its certificate is not good: {}", of_certificate(error)),
        Error::General(text) if text == UNRESOLVED => {
            "it can check the signatures of none of the certificates that there are for the name".to_owned()
        }
        Error::NoCertificatesPresented => "it showed no certificate, and one is required".to_owned(),
        Error::AlertReceived(alert) => format!("it ended the connection with the alert {}", name(*alert)),
        Error::NoApplicationProtocol => "it offers none of the configured ALPN protocols".to_owned(),
        Error::InvalidMessage(InvalidMessage::HandshakePayloadTooLarge) => {
            "it sent a handshake message that is longer than any has to be".to_owned()
        }
        Error::PeerIncompatible(
            PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::Tls13RequiredForQuic
            | PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
        ) => "it speaks none of the configured TLS versions".to_owned(),
        Error::PeerIncompatible(what) => format!("there is too little that both can do ({what:?})"),
        Error::InvalidMessage(
            InvalidMessage::InvalidContentType
            | InvalidMessage::UnknownProtocolVersion
            | InvalidMessage::MessageTooLarge
            | InvalidMessage::InvalidEmptyPayload,
        ) => "what it sent is no TLS".to_owned(),
        Error::InvalidMessage(what) => format!("a message of its cannot be read ({what:?})"),
        Error::InappropriateMessage { got_type, .. } => format!("it sent {got_type:?} out of turn"),
        Error::InappropriateHandshakeMessage { got_type, .. } => format!("it sent {got_type:?} out of turn"),
        Error::PeerMisbehaved(what) => format!("it does not keep to the rules of TLS ({what:?})"),
        Error::DecryptError => {
            "what it sent was changed on the way, or was not encrypted with the agreed keys".to_owned()
        }
        Error::PeerSentOversizedRecord => "it sent a record that is longer than TLS permits".to_owned(),
        other => other.to_string(),
    }
}

/// How the library says that no certificate was chosen, for which it has no kind of error.
pub(super) const UNRESOLVED: &str = "no server certificate chain resolved";

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
        CertificateError::NotValidForNameContext { expected, presented } => {
            return format!("it is for {}, and not for {}", names(presented), expected.to_str());
        }
        CertificateError::UnhandledCriticalExtension => "it has a critical extension that is not known here",
        CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "it is signed with an algorithm that is not accepted any more, or not known here"
        }
        CertificateError::Other(error) => return error.0.to_string(),
        other => return other.to_string(),
    };
    fixed.to_owned()
}

/// So many names of a certificate are named.
const NAMED: usize = 5;

/// The first names of a certificate; the library says `DnsName("a.example")` and `IpAddress(10.0.0.7)`.
fn names(presented: &[String]) -> String {
    let plain = |name: &String| {
        let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
        inner.unwrap_or(name).trim_matches('"').to_owned()
    };
    let named: Vec<String> = presented.iter().take(NAMED).map(plain).collect();
    let more = if presented.len() > NAMED { ", ..." } else { "" };
    if named.is_empty() { "no name".to_owned() } else { named.join(", ") + more }
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
            "it ended the connection with the alert bad_certificate"
        );
        assert_eq!(name(AlertDescription::UnknownCA), "unknown_ca");
        assert_eq!(name(AlertDescription::NoApplicationProtocol), "no_application_protocol");
    }

    #[test]
    fn no_words_are_those_of_developers() {
        let words = [
            (Error::InvalidMessage(InvalidMessage::InvalidContentType), "what it sent is no TLS"),
            (
                Error::InvalidMessage(InvalidMessage::MessageTooShort),
                "a message of its cannot be read (MessageTooShort)",
            ),
            (
                Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon),
                "there is too little that both can do (NoCipherSuitesInCommon)",
            ),
            (
                Error::DecryptError,
                "what it sent was changed on the way, or was not encrypted with the agreed keys",
            ),
        ];
        for (error, expected) in words {
            assert_eq!(reason(&error), expected);
        }
        let other = CertificateError::NotValidForNameContext {
            expected: "pg.example".try_into().unwrap(),
            presented: vec!["DnsName(\"db.example\")".to_owned(), "IpAddress(10.0.0.7)".to_owned()],
        };
        assert_eq!(
            reason(&Error::InvalidCertificate(other)),
            "its certificate is not good: it is for db.example, 10.0.0.7, and not for pg.example"
        );
    }
}

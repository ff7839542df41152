//! What TLS needs of a Secret or a ConfigMap, and nothing else of it. The types of the API end here.

use std::fmt;

use k8s_openapi::api::core::v1 as core;
use zeroize::{Zeroize, Zeroizing};

use crate::config::Name;
use crate::tls::{Material, Problem, Source};

/// Keys of Secrets of type kubernetes.io/tls, and where authorities are by convention.
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
const AUTHORITIES: &str = "ca.crt";

/// Wiped when dropped.
pub(super) struct Bundle {
    pub(super) name: Name,
    certificate: Option<Zeroizing<Vec<u8>>>,
    key: Option<Zeroizing<Vec<u8>>>,
    authorities: Option<Zeroizing<Vec<u8>>>,
}

impl Bundle {
    pub(super) fn of_secret(secret: core::Secret) -> Option<Self> {
        let mut data = secret.data.unwrap_or_default();
        let mut take = |key: &str| data.remove(key).map(|value| Zeroizing::new(value.0));
        let bundle = Self {
            name: secret.metadata.name?.into(),
            certificate: take(CERTIFICATE),
            key: take(KEY),
            authorities: take(AUTHORITIES),
        };
        data.values_mut().for_each(|value| value.0.zeroize());
        Some(bundle)
    }

    pub(super) fn of_config_map(map: core::ConfigMap) -> Option<Self> {
        let text = map.data.unwrap_or_default().remove(AUTHORITIES).map(String::into_bytes);
        let bytes = map.binary_data.unwrap_or_default().remove(AUTHORITIES).map(|value| value.0);
        let authorities = text.or(bytes).map(Zeroizing::new);
        Some(Self { name: map.metadata.name?.into(), certificate: None, key: None, authorities })
    }

    /// What `source` is in here.
    pub(super) fn material(&self, source: &Source) -> Result<Material, Problem> {
        match source {
            Source::Certificate(_) => Material::certificate(
                needed(self.certificate.as_ref(), CERTIFICATE)?,
                needed(self.key.as_ref(), KEY)?,
            ),
            _ => Material::authorities(needed(self.authorities.as_ref(), AUTHORITIES)?),
        }
    }
}

fn needed<'a>(value: Option<&'a Zeroizing<Vec<u8>>>, key: &str) -> Result<&'a [u8], Problem> {
    let value = value.map(|value| value.as_slice());
    value.ok_or_else(|| Problem::missing(format!("it has no key {key}; add that, with PEM text")))
}

/// There is no such object.
pub(super) fn absent(source: &Source) -> Problem {
    Problem::missing(match source {
        Source::Certificate(_) => "there is no such Secret; create it, of type kubernetes.io/tls",
        _ if source.config_map().is_some() => "there is no such ConfigMap; create it, with the key ca.crt",
        _ => "there is no such Secret; create it, with the key ca.crt",
    })
}

/// Nothing of what is in it.
impl fmt::Debug for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bundle").field("name", &self.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::ByteString;

    use super::*;
    use crate::config::{AuthorityRef, CertificateRef, ObjectRef};
    use crate::tls::examples::{Wanted, authority};

    fn object() -> ObjectRef {
        ObjectRef { namespace: "edge".into(), name: "a".into() }
    }

    fn secret(data: &[(&str, &str)]) -> Bundle {
        let data: BTreeMap<String, ByteString> =
            data.iter().map(|(key, value)| ((*key).into(), ByteString(value.as_bytes().to_vec()))).collect();
        let mut secret = core::Secret { data: Some(data), ..Default::default() };
        secret.metadata.name = Some("a".into());
        Bundle::of_secret(secret).unwrap()
    }

    #[test]
    fn a_secret_has_what_its_type_says_and_nothing_of_it_is_printed() {
        let (issuer, ca) = authority("ca");
        let (certificate, key) = Wanted::dns(&["a.example"]).by(&issuer);
        let certificates = Source::Certificate(CertificateRef::Secret(object()));
        let authorities = Source::Authorities(AuthorityRef::Secret(object()));
        let whole =
            secret(&[("tls.crt", &certificate), ("tls.key", &key), ("ca.crt", &ca.pem()), ("x", "y")]);
        assert!(whole.material(&certificates).is_ok() && whole.material(&authorities).is_ok());
        assert_eq!(format!("{whole:?}"), "Bundle { name: \"a\", .. }");
        let partial = secret(&[("tls.crt", &certificate)]);
        let problem = partial.material(&certificates).unwrap_err();
        assert_eq!(
            (problem.reason, &*problem.text),
            ("missing", "it has no key tls.key; add that, with PEM text")
        );
        assert_eq!(partial.material(&authorities).unwrap_err().reason, "missing");
        assert!(absent(&certificates).text.contains("no such Secret"));
    }

    #[test]
    fn a_config_map_has_authorities_as_text_or_as_bytes() {
        let pem = authority("ca").1.pem();
        let source = Source::Authorities(AuthorityRef::ConfigMap(object()));
        let mut map = core::ConfigMap::default();
        map.metadata.name = Some("a".into());
        assert!(Bundle::of_config_map(map.clone()).unwrap().material(&source).is_err());
        map.data = Some([("ca.crt".to_owned(), pem.clone())].into());
        assert!(Bundle::of_config_map(map.clone()).unwrap().material(&source).is_ok());
        map.data = None;
        map.binary_data = Some([("ca.crt".to_owned(), ByteString(pem.into_bytes()))].into());
        assert!(Bundle::of_config_map(map).unwrap().material(&source).is_ok());
        assert!(absent(&source).text.contains("no such ConfigMap"));
    }
}

//! What is written of TLS in one word: names of clients and certificates, objects of a cluster, files.

use std::path::PathBuf;

use schemars::{Schema, json_schema};

use super::service::is_label;
use super::{Scalar, quoted};
use crate::config::hostname::dns_name;
use crate::config::{Hostname, ObjectRef, ServerNameText, SubjectAltName};

/// The path of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) struct FilePath(pub(in crate::config) PathBuf);

/// An application protocol (RFC 7301).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) struct AlpnName(pub(in crate::config) String);

/// Of a Secret or a ConfigMap (RFC 1123 subdomain).
const MAX_SUBDOMAIN: usize = 253;
/// One byte of a ClientHello holds its length.
const MAX_ALPN: usize = 255;

impl Scalar for Hostname {
    const EXPECTED: &'static str = "a DNS name like db.example.com, or one like *.example.com";
    const NAME: &'static str = "Hostname";
    const UNQUOTED: bool = false;

    fn parse(text: &str) -> Result<Self, String> {
        text.parse()
    }

    fn schema() -> Schema {
        json_schema!({
            "type": "string",
            "maxLength": 255,
            "pattern": "^(\\*\\.)?[a-zA-Z0-9_]([a-zA-Z0-9_-]*[a-zA-Z0-9_])?(\\.[a-zA-Z0-9_]([a-zA-Z0-9_-]*[a-zA-Z0-9_])?)*$",
            "description": "A DNS name, or *. and one: all names below it, at any depth.",
            "examples": ["db.example.com", "*.example.com"],
        })
    }
}

impl Scalar for ServerNameText {
    const EXPECTED: &'static str = "a DNS name like pg.db.svc, or an IP address";
    const NAME: &'static str = "ServerName";
    const UNQUOTED: bool = false;

    fn parse(text: &str) -> Result<Self, String> {
        if let Ok(ip) = text.parse() {
            return Ok(Self::Ip(ip));
        }
        dns_name(text).map(Self::Dns).map_err(|help| format!("{} {help}", quoted(text)))
    }

    fn schema() -> Schema {
        json_schema!({
            "type": "string",
            "minLength": 1,
            "maxLength": 253,
            "description": "A DNS name, or an IP address.",
            "examples": ["pg.db.svc", "10.0.0.7"],
        })
    }
}

impl Scalar for SubjectAltName {
    const EXPECTED: &'static str =
        "a DNS name, a URI like spiffe://cluster.local/ns/shop/sa/web, or an IP address";
    const NAME: &'static str = "SubjectAltName";
    const UNQUOTED: bool = false;

    fn parse(text: &str) -> Result<Self, String> {
        if let Some((scheme, rest)) = text.split_once("://") {
            let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
            if is_scheme && !rest.is_empty() && text.bytes().all(|b| b.is_ascii_graphic()) {
                return Ok(Self::Uri(text.to_owned()));
            }
            return Err(format!(
                "{} is no URI; write one like spiffe://cluster.local/ns/shop/sa/web",
                quoted(text)
            ));
        }
        if let Ok(ip) = text.parse() {
            return Ok(Self::Ip(ip));
        }
        dns_name(text).map(Self::Dns).map_err(|help| format!("{} {help}", quoted(text)))
    }

    fn schema() -> Schema {
        json_schema!({
            "type": "string",
            "minLength": 1,
            "description": "A name of a certificate: a DNS name, a URI, or an IP address.",
            "examples": ["db.example.com", "spiffe://cluster.local/ns/shop/sa/web", "10.0.0.7"],
        })
    }
}

impl Scalar for ObjectRef {
    const EXPECTED: &'static str = "namespace/name";
    const NAME: &'static str = "ObjectRef";
    const UNQUOTED: bool = false;

    fn parse(text: &str) -> Result<Self, String> {
        let Some((namespace, name)) = text.split_once('/') else {
            return Err(format!(
                "{} has no namespace; write namespace/name, like edge/example-com",
                quoted(text)
            ));
        };
        if !is_label(namespace) || !is_subdomain(name) {
            return Err(format!(
                "{} is no name that Kubernetes gives; write namespace/name, like edge/example-com",
                quoted(text)
            ));
        }
        Ok(Self { namespace: namespace.into(), name: name.into() })
    }

    fn schema() -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^[a-z0-9]([a-z0-9-]*[a-z0-9])?/[a-z0-9]([a-z0-9.-]*[a-z0-9])?$",
            "description": "An object of the cluster: namespace/name.",
            "examples": ["edge/example-com"],
        })
    }
}

impl Scalar for FilePath {
    const EXPECTED: &'static str = "the path of a file";
    const NAME: &'static str = "FilePath";
    const UNQUOTED: bool = false;

    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.contains('\0') {
            return Err(format!("{} is no path; write that of a file, like /certs/tls.crt", quoted(text)));
        }
        Ok(Self(text.into()))
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "minLength": 1, "description": "The path of a file." })
    }
}

impl Scalar for AlpnName {
    const EXPECTED: &'static str = "an application protocol like h2";
    const NAME: &'static str = "AlpnName";
    const UNQUOTED: bool = false;

    fn parse(text: &str) -> Result<Self, String> {
        if (1..=MAX_ALPN).contains(&text.len()) {
            return Ok(Self(text.to_owned()));
        }
        Err(format!("{} bytes are no application protocol; write 1 to {MAX_ALPN}, like h2", text.len()))
    }

    fn schema() -> Schema {
        json_schema!({
            "type": "string",
            "minLength": 1,
            "maxLength": MAX_ALPN,
            "description": "An application protocol by its registered name.",
            "examples": ["h2", "http/1.1", "postgresql"],
        })
    }
}

fn is_subdomain(text: &str) -> bool {
    text.len() <= MAX_SUBDOMAIN && text.split('.').all(is_label)
}

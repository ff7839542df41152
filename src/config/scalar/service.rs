//! How a Service and its port are named: Kubernetes' own rules (RFC 1123 labels, IANA service names).

use schemars::{Schema, json_schema};

use super::{Scalar, quoted};

/// The name of a namespace or of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) struct DnsLabel(pub(in crate::config) String);

/// A Service's port: its number, or its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) enum ServicePort {
    Number(u16),
    Name(String),
}

const MAX_LABEL: usize = 63;

impl Scalar for DnsLabel {
    const EXPECTED: &'static str = "a name in quotes";
    const NAME: &'static str = "DnsLabel";
    const UNQUOTED: bool = false;

    fn parse(text: &str) -> Result<Self, String> {
        if is_label(text) {
            return Ok(Self(text.to_owned()));
        }
        let hint = if text.contains('.') || text.contains('/') {
            "; the namespace and the name are two fields"
        } else {
            ""
        };
        Err(format!(
            "{} is no name that Kubernetes gives; write 1 to {MAX_LABEL} of a-z, 0-9 and -, with no - at either end{hint}",
            quoted(text)
        ))
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "maxLength": MAX_LABEL, "pattern": "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$" })
    }
}

impl Scalar for ServicePort {
    const EXPECTED: &'static str = "a port, by its number or its name";
    const NAME: &'static str = "ServicePort";

    fn parse(text: &str) -> Result<Self, String> {
        if text.bytes().all(|b| b.is_ascii_digit()) && !text.is_empty() {
            let number = text.parse().ok().filter(|number| *number > 0);
            return number
                .map(Self::Number)
                .ok_or_else(|| format!("{text} is not a port; write a number from 1 to 65535"));
        }
        if is_label(text) {
            return Ok(Self::Name(text.to_owned()));
        }
        Err(format!(
            "{} is not a port; write its number, like 5432, or its name in the Service, like postgres",
            quoted(text)
        ))
    }

    fn schema() -> Schema {
        json_schema!({
            "description": "A Service's port: its number, or its name.",
            "oneOf": [
                { "type": "integer", "minimum": 1, "maximum": 65535 },
                { "type": "string", "maxLength": MAX_LABEL, "pattern": "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$" },
            ],
        })
    }
}

pub(super) fn is_label(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=MAX_LABEL).contains(&text.len())
        && text.bytes().all(allowed)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

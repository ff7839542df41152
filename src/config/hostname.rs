//! The names that TLS clients ask for, as routes match them.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::errors::quoted;

/// A DNS name, or all names below one (`*.example.com`, at any depth), as in Gateway API. In lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hostname {
    /// Without `*.`.
    name: Arc<str>,
    is_wildcard: bool,
}

/// Of RFC 1035, as text.
const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;

impl Hostname {
    /// The name, or what all names below it end in, without `*.`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it stands for all names below `name`, of which `name` itself is none.
    pub fn is_wildcard(&self) -> bool {
        self.is_wildcard
    }

    /// Whether a client that asks for this name, in lower case, is meant.
    pub fn matches(&self, server_name: &str) -> bool {
        if !self.is_wildcard {
            return server_name == &*self.name;
        }
        let below = server_name.strip_suffix(&*self.name).and_then(|below| below.strip_suffix('.'));
        below.is_some_and(|below| !below.is_empty())
    }
}

impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_wildcard {
            f.write_str("*.")?;
        }
        f.write_str(&self.name)
    }
}

impl FromStr for Hostname {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Err("* alone is no hostname; remove hostnames for every name".to_owned());
        }
        let below = text.strip_prefix("*.");
        if below.unwrap_or(text).contains('*') {
            return Err(format!(
                "{} has a * elsewhere than in the place of its first labels; write one like *.example.com",
                quoted(text)
            ));
        }
        let name = dns_name(below.unwrap_or(text)).map_err(|help| format!("{} {help}", quoted(text)))?;
        Ok(Self { name: name.into(), is_wildcard: below.is_some() })
    }
}

/// A DNS name in lower case; an error says what is wrong with it, and what to write.
pub(super) fn dns_name(text: &str) -> Result<String, String> {
    const EXAMPLE: &str = "write a DNS name like db.example.com";
    if text.parse::<std::net::IpAddr>().is_ok() {
        return Err(format!("is an IP address, which no TLS client asks for by name; {EXAMPLE}"));
    }
    if !text.is_ascii() {
        return Err("has letters that DNS has no room for; write its form that begins with xn--".to_owned());
    }
    if let Some(host) = text.strip_suffix('.').filter(|host| !host.is_empty()) {
        return Err(format!("ends in a dot, which is never sent; write {}", quoted(host)));
    }
    if let Some((host, port)) = text.rsplit_once(':')
        && !host.is_empty()
        && port.bytes().all(|b| b.is_ascii_digit())
    {
        return Err(format!("has a port, which belongs to an address; write {}", quoted(host)));
    }
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    let is_label = |label: &str| {
        (1..=MAX_LABEL).contains(&label.len())
            && label.bytes().all(allowed)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if text.len() > MAX_NAME || !text.split('.').all(is_label) {
        return Err(format!("is no DNS name; {EXAMPLE}, of labels with a-z, 0-9 and -"));
    }
    Ok(text.to_ascii_lowercase())
}

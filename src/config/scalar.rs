//! The kinds of single values a configuration has: durations, addresses, networks, names.
//!
//! Each is parsed from its text once, and says what to write when it cannot be. None looks at another
//! field, at the network or at a clock.

mod address;
mod service;
mod spin;
mod tls;

pub(super) use address::{EndpointAddress, ListenAddress};
pub(super) use service::{DnsLabel, ServicePort};
pub(super) use spin::SpinTime;
pub(super) use tls::{AlpnName, FilePath};

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, Visitor};

use super::errors::quoted;
use super::{Hostname, ObjectRef, ServerNameText, SubjectAltName};

/// A value written as one word. An error is `what is wrong; what to write instead`.
pub(super) trait Scalar: Sized {
    const EXPECTED: &'static str;
    const NAME: &'static str;
    /// Whether YAML's numbers and booleans are taken by their text.
    const UNQUOTED: bool = true;

    fn parse(text: &str) -> Result<Self, String>;
    fn schema() -> Schema;
}

struct ScalarVisitor<T>(PhantomData<T>);

impl<T: Scalar> ScalarVisitor<T> {
    fn unquoted<E: de::Error>(self, text: String) -> Result<T, E> {
        if T::UNQUOTED {
            T::parse(&text).map_err(E::custom)
        } else {
            Err(E::custom(format!("{text} is not text; write \"{text}\" in quotes")))
        }
    }
}

impl<T: Scalar> Visitor<'_> for ScalarVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        T::parse(text).map_err(E::custom)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        self.unquoted(number.to_string())
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        self.unquoted(number.to_string())
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<T, E> {
        self.unquoted(number.to_string())
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<T, E> {
        self.unquoted(value.to_string())
    }
}

macro_rules! scalars {
    ($($type:ty),+ $(,)?) => {$(
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(ScalarVisitor(PhantomData))
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                <$type as Scalar>::NAME.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                <$type as Scalar>::schema()
            }
        }
    )+};
}

scalars!(
    GatewayDuration,
    SpinTime,
    ListenAddress,
    EndpointAddress,
    Network,
    ObjectName,
    DnsLabel,
    ServicePort,
    AutoCount,
    AutoBool,
    Hostname,
    ServerNameText,
    SubjectAltName,
    ObjectRef,
    FilePath,
    AlpnName
);

/// A Gateway API duration (GEP-2257): `250ms`, `1h30m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GatewayDuration(pub(super) Duration);

impl Scalar for GatewayDuration {
    const EXPECTED: &'static str = "a duration like 250ms, 30s or 1h30m";
    const NAME: &'static str = "Duration";

    fn parse(text: &str) -> Result<Self, String> {
        text.parse()
    }

    fn schema() -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^([0-9]{1,5}(h|m|s|ms)){1,4}$",
            "description": "A Gateway API duration (GEP-2257): one to four whole numbers, each with its unit h, m, s or ms, like 250ms or 1h30m.",
            "examples": ["250ms", "30s", "1h30m"],
        })
    }
}

impl FromStr for GatewayDuration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const MAX_PARTS: usize = 4;
        const MAX_DIGITS: usize = 5;
        let mut total = Duration::ZERO;
        let mut rest = text;
        for part in 0.. {
            if rest.is_empty() && part > 0 {
                return Ok(Self(total));
            }
            let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            let (number, after) = rest.split_at(digits);
            let letters = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
            let (unit, after) = after.split_at(letters);
            let unit_millis: u64 = match unit {
                "h" => 3_600_000,
                "m" => 60_000,
                "s" => 1_000,
                "ms" => 1,
                _ => return Err(duration_help(text)),
            };
            if part == MAX_PARTS || digits > MAX_DIGITS {
                return Err(duration_help(text));
            }
            let number: u64 = number.parse().map_err(|_| duration_help(text))?;
            total += Duration::from_millis(number * unit_millis);
            rest = after;
        }
        Err(duration_help(text))
    }
}

impl fmt::Display for GatewayDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        if millis == 0 {
            return f.write_str("0s");
        }
        let parts = [
            (millis / 3_600_000, "h"),
            (millis / 60_000 % 60, "m"),
            (millis / 1_000 % 60, "s"),
            (millis % 1_000, "ms"),
        ];
        for (number, unit) in parts {
            if number > 0 {
                write!(f, "{number}{unit}")?;
            }
        }
        Ok(())
    }
}

fn duration_help(text: &str) -> String {
    let all_digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if all_digits && text.len() <= 5 {
        return format!("{text} has no unit; write {text}s for seconds, or use ms, m or h");
    }
    let shown = quoted(text);
    if let Some(seconds) = text.strip_suffix('s').or(Some(text))
        && seconds.contains('.')
        && let Ok(seconds @ 0.001..=99.999) = seconds.parse::<f64>()
    {
        let millis = (seconds * 1000.0).round();
        return format!("{shown} has a fraction; write {millis}ms");
    }
    if let Some(days) = text.strip_suffix('d')
        && let Ok(days @ 1..=4000) = days.parse::<u32>()
    {
        return format!("{shown} is in days; write {}h", days * 24);
    }
    let squeezed = text.to_ascii_lowercase().replace(' ', "");
    if squeezed != text && squeezed.parse::<GatewayDuration>().is_ok() {
        return format!("{shown} is not a duration; write {squeezed}");
    }
    format!(
        "{shown} is not a duration; write one to four whole numbers with a unit each: 250ms, 30s or 1h30m"
    )
}

/// A network of clients, in CIDR notation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Network(pub(super) IpNet);

impl Scalar for Network {
    const EXPECTED: &'static str = "a network like 10.0.0.0/8";
    const NAME: &'static str = "Network";

    fn parse(text: &str) -> Result<Self, String> {
        if let Ok(ip) = text.parse::<IpAddr>() {
            let bits = if ip.is_ipv4() { 32 } else { 128 };
            return Err(format!("{ip} has no prefix length; write {ip}/{bits} for this one address"));
        }
        let net: IpNet = text.parse().map_err(|_| {
            format!(
                "{} is not a network; write an address and a prefix length, like 10.0.0.0/8 or fd00::/8",
                quoted(text)
            )
        })?;
        if let IpNet::V6(v6) = net
            && let Some(v4) = v6.addr().to_ipv4_mapped()
            && let Some(bits) = v6.prefix_len().checked_sub(96)
        {
            return Err(format!(
                "{net} is an IPv4 network in IPv6 clothes, which no client matches; write {v4}/{bits}"
            ));
        }
        if net != net.trunc() {
            return Err(format!(
                "{net} has bits set after its prefix; write {} for the network, or {}/{} for the one address",
                net.trunc(),
                net.addr(),
                net.max_prefix_len()
            ));
        }
        Ok(Self(net))
    }

    fn schema() -> Schema {
        json_schema!({
            "type": "string",
            "description": "A network in CIDR notation, without bits set after its prefix.",
            "examples": ["10.0.0.0/8", "fd00::/8"],
        })
    }
}

/// The name of a listener, route or upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ObjectName(pub(super) String);

const MAX_NAME: usize = 253;

impl Scalar for ObjectName {
    const EXPECTED: &'static str = "a name in quotes";
    const NAME: &'static str = "Name";
    const UNQUOTED: bool = false;

    fn parse(text: &str) -> Result<Self, String> {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-._/:".contains(c);
        if text.is_empty() {
            return Err("the name is empty; write 1 to 253 characters".to_owned());
        }
        if text.chars().count() > MAX_NAME {
            return Err(format!(
                "the name has {} characters; write at most {MAX_NAME}",
                text.chars().count()
            ));
        }
        if text.chars().all(allowed) {
            return Ok(Self(text.to_owned()));
        }
        let better: String = text.to_lowercase().chars().map(|c| if allowed(c) { c } else { '-' }).collect();
        Err(format!(
            "{} has characters a name may not have (only a-z, 0-9 and - . _ / :); write {}",
            quoted(text),
            quoted(&better)
        ))
    }

    fn schema() -> Schema {
        json_schema!({
            "type": "string",
            "minLength": 1,
            "maxLength": MAX_NAME,
            "pattern": "^[a-z0-9._/:-]+$",
        })
    }
}

/// `auto`, or a number of at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AutoCount(pub(super) Option<NonZeroUsize>);

impl Scalar for AutoCount {
    const EXPECTED: &'static str = "auto, or a whole number of at least 1";
    const NAME: &'static str = "AutoCount";

    fn parse(text: &str) -> Result<Self, String> {
        if text == "auto" {
            return Ok(Self(None));
        }
        let count =
            text.parse().map_err(|_| format!("{} is not a count; write {}", quoted(text), Self::EXPECTED))?;
        Ok(Self(Some(count)))
    }

    fn schema() -> Schema {
        json_schema!({ "oneOf": [{ "const": "auto" }, { "type": "integer", "minimum": 1 }] })
    }
}

/// `auto`, `true` or `false`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AutoBool(pub(super) Option<bool>);

impl Scalar for AutoBool {
    const EXPECTED: &'static str = "auto, true or false";
    const NAME: &'static str = "AutoBool";

    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self(None)),
            "true" => Ok(Self(Some(true))),
            "false" => Ok(Self(Some(false))),
            _ => Err(format!("{} is not a known value; write {}", quoted(text), Self::EXPECTED)),
        }
    }

    fn schema() -> Schema {
        json_schema!({ "enum": ["auto", true, false] })
    }
}

//! A time so short that a Gateway API duration, whose smallest unit is a millisecond, cannot say it.

use std::fmt;
use std::time::Duration;

use schemars::{Schema, json_schema};

use super::{GatewayDuration, Scalar};
use crate::config::errors::quoted;

/// How long to spin: `50us`, or a Gateway API duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) struct SpinTime(pub(in crate::config) Duration);

impl Scalar for SpinTime {
    const EXPECTED: &'static str = "a short time like 50us or 1ms";
    const NAME: &'static str = "SpinTime";

    fn parse(text: &str) -> Result<Self, String> {
        let time = match text.strip_suffix("us") {
            Some(number) => micros(number),
            None => text.parse::<GatewayDuration>().ok().map(|duration| duration.0),
        };
        let help = || format!("{} is not a time; write one like 50us or 1ms", quoted(text));
        time.map(Self).ok_or_else(help)
    }

    fn schema() -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^([0-9]{1,5}us|([0-9]{1,5}(h|m|s|ms)){1,4})$",
            "description": "Microseconds, or a Gateway API duration (GEP-2257), like 50us or 1ms.",
            "examples": ["0s", "50us", "1ms"],
        })
    }
}

impl fmt::Display for SpinTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.subsec_micros() % 1_000 {
            0 => GatewayDuration(self.0).fmt(f),
            _ => write!(f, "{}us", self.0.as_micros()),
        }
    }
}

/// As many digits as in a Gateway API duration.
fn micros(number: &str) -> Option<Duration> {
    let is_number = (1..=5).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit());
    number.parse().ok().filter(|_| is_number).map(Duration::from_micros)
}

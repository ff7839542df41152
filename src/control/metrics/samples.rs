//! What families put their samples into, whatever becomes of them.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::telemetry::Histogram;

use super::Family;

#[derive(Clone, Copy)]
pub(super) enum Number {
    Whole(u64),
    Real(f64),
}

/// What becomes of samples: a text, or requests of OTLP. Label values go with the family's labels by position.
pub(super) trait Output {
    /// What comes next is of this family.
    fn begin(&mut self, family: &'static Family) -> fmt::Result;

    fn number(&mut self, family: &'static Family, values: &[&str], number: Number) -> fmt::Result;

    fn histogram(&mut self, family: &'static Family, values: &[&str], histogram: &Histogram) -> fmt::Result;

    /// A sum, in seconds, and a count.
    fn summary(&mut self, family: &'static Family, values: &[&str], sum: f64, count: u64) -> fmt::Result;
}

/// Where a family puts its samples.
pub(super) struct Samples<'a> {
    family: &'static Family,
    output: &'a mut dyn Output,
}

impl<'a> Samples<'a> {
    /// Begins a family.
    pub(super) fn begin(family: &'static Family, output: &'a mut dyn Output) -> Result<Self, fmt::Error> {
        output.begin(family)?;
        Ok(Self { family, output })
    }

    pub(super) fn put(&mut self, values: &[&str], number: impl Into<Number>) -> fmt::Result {
        self.output.number(self.family, values, number.into())
    }

    pub(super) fn info(&mut self, values: &[&str]) -> fmt::Result {
        self.put(values, 1_u64)
    }

    pub(super) fn histogram(&mut self, values: &[&str], histogram: &Histogram) -> fmt::Result {
        self.output.histogram(self.family, values, histogram)
    }

    /// Only a sum, in seconds, and a count.
    pub(super) fn summary(&mut self, values: &[&str], sum: f64, count: u64) -> fmt::Result {
        self.output.summary(self.family, values, sum, count)
    }
}

impl From<u64> for Number {
    fn from(number: u64) -> Self {
        Self::Whole(number)
    }
}

impl From<usize> for Number {
    fn from(number: usize) -> Self {
        Self::Whole(number as u64)
    }
}

impl From<bool> for Number {
    fn from(yes: bool) -> Self {
        Self::Whole(yes.into())
    }
}

impl From<f64> for Number {
    fn from(number: f64) -> Self {
        Self::Real(number)
    }
}

impl From<Duration> for Number {
    fn from(duration: Duration) -> Self {
        Self::Real(duration.as_secs_f64())
    }
}

impl From<SystemTime> for Number {
    fn from(time: SystemTime) -> Self {
        time.duration_since(UNIX_EPOCH).unwrap_or_default().into()
    }
}

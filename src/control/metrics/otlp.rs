//! Samples as points of OTLP, under the names that they have in the exposition.

use std::fmt;

use crate::telemetry::Histogram;
use crate::telemetry::otlp::{Description, MetricKind, MetricValue, Requests};

use super::samples::{Number, Output};
use super::{Family, Kind, Unit};

pub(super) struct Points<'a>(pub(super) Requests<'a>);

impl Output for Points<'_> {
    fn begin(&mut self, family: &'static Family) -> fmt::Result {
        self.0.begin(family.description());
        Ok(())
    }

    fn number(&mut self, _: &'static Family, values: &[&str], number: Number) -> fmt::Result {
        self.0.number(
            values,
            match number {
                Number::Whole(number) => MetricValue::Whole(number),
                Number::Real(number) => MetricValue::Real(number),
            },
        );
        Ok(())
    }

    fn histogram(&mut self, _: &'static Family, values: &[&str], histogram: &Histogram) -> fmt::Result {
        self.0.histogram(values, histogram);
        Ok(())
    }

    fn summary(&mut self, _: &'static Family, values: &[&str], sum: f64, count: u64) -> fmt::Result {
        self.0.summary(values, sum, count);
        Ok(())
    }
}

impl Family {
    fn description(&self) -> Description {
        let (name, kind) = match self.kind {
            // Prometheus and the collector add `_total` to a sum that only grows.
            Kind::Counter => (self.exposed_name(), MetricKind::Counter),
            Kind::Gauge => (self.exposed_name(), MetricKind::Gauge),
            Kind::Histogram => (self.exposed_name(), MetricKind::Histogram),
            Kind::Info => (self.queried_name(), MetricKind::Info),
            Kind::Summary => (self.exposed_name(), MetricKind::Summary),
        };
        let unit = self.unit.map_or("", Unit::symbol);
        Description { name, help: self.help, unit, kind, labels: self.labels }
    }
}

//! The exposition as text, in either of two dialects.
//!
//! Written here and not by a crate: the numbers are the workers', merged at each scrape, and exemplars belong to them. (The one
//! crate there is has exemplars only for histograms that it keeps itself, behind a lock that workers would share.)

use std::fmt::{self, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::telemetry::{Exemplar, Histogram};

use super::{Family, Kind};

/// What clients understand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::control) enum Dialect {
    /// OpenMetrics 1.0, with exemplars.
    OpenMetrics,
    /// What Prometheus had before it (version 0.0.4), for programs that know nothing else.
    Prometheus,
}

impl Dialect {
    pub(in crate::control) fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// The end of everything.
    pub(super) fn end(self, to: &mut dyn Write) -> fmt::Result {
        match self {
            Self::OpenMetrics => to.write_str("# EOF\n"),
            Self::Prometheus => Ok(()),
        }
    }
}

#[derive(Clone, Copy)]
pub(super) enum Number {
    Whole(u64),
    Real(f64),
}

/// Where a family puts its samples; label values go with the family's labels by position.
pub(super) struct Samples<'a> {
    family: &'static Family,
    name: String,
    dialect: Dialect,
    to: &'a mut dyn Write,
}

impl<'a> Samples<'a> {
    /// Begins a family.
    pub(super) fn begin(
        family: &'static Family,
        dialect: Dialect,
        to: &'a mut dyn Write,
    ) -> Result<Self, fmt::Error> {
        let name = family.exposed_name();
        let kind = family.kind.label();
        match dialect {
            Dialect::OpenMetrics => {
                write!(to, "# HELP {name} ")?;
                escape(to, family.help)?;
                write!(to, "\n# TYPE {name} {kind}\n")?;
                if let Some(unit) = family.unit {
                    writeln!(to, "# UNIT {name} {}", unit.label())?;
                }
            }
            // There the suffixes are part of the name, and an info is a gauge.
            Dialect::Prometheus => {
                let (name, kind) =
                    (family.queried_name(), if family.kind == Kind::Info { "gauge" } else { kind });
                // Quotes stand for themselves there.
                writeln!(to, "# HELP {name} {}\n# TYPE {name} {kind}", family.help)?;
            }
        }
        Ok(Self { family, name, dialect, to })
    }

    pub(super) fn put(&mut self, values: &[&str], number: impl Into<Number>) -> fmt::Result {
        let suffix = self.family.kind.suffix();
        self.sample(suffix, values, None, number.into())?;
        self.to.write_str("\n")
    }

    pub(super) fn info(&mut self, values: &[&str]) -> fmt::Result {
        self.put(values, 1_u64)
    }

    pub(super) fn histogram(&mut self, values: &[&str], histogram: &Histogram) -> fmt::Result {
        let mut up_to = 0;
        for (index, (bound, count)) in histogram.buckets().into_iter().enumerate() {
            up_to += count;
            self.sample("_bucket", values, Some(bound), up_to.into())?;
            if let Some(exemplar) = histogram.exemplar(index) {
                self.exemplar(exemplar)?;
            }
            self.to.write_str("\n")?;
        }
        self.summary(values, histogram.sum(), histogram.count())
    }

    /// Only a sum, in seconds, and a count.
    pub(super) fn summary(&mut self, values: &[&str], sum: f64, count: u64) -> fmt::Result {
        self.sample("_sum", values, None, sum.into())?;
        self.to.write_str("\n")?;
        self.sample("_count", values, None, count.into())?;
        self.to.write_str("\n")
    }

    fn sample(&mut self, suffix: &str, values: &[&str], bound: Option<f64>, number: Number) -> fmt::Result {
        self.to.write_str(&self.name)?;
        self.to.write_str(suffix)?;
        let mut before = "{";
        if let Some(bound) = bound {
            write!(self.to, "{{le=\"{}\"", Number::Real(bound))?;
            before = ",";
        }
        for (name, value) in self.family.labels.iter().zip(values) {
            self.to.write_str(before)?;
            self.to.write_str(name)?;
            self.to.write_str("=\"")?;
            escape(self.to, value)?;
            self.to.write_str("\"")?;
            before = ",";
        }
        self.to.write_str(if before == "{" { " " } else { "} " })?;
        write!(self.to, "{number}")
    }

    fn exemplar(&mut self, exemplar: &Exemplar) -> fmt::Result {
        if self.dialect == Dialect::Prometheus {
            return Ok(());
        }
        let Exemplar { trace, seconds, at, .. } = exemplar;
        let at = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        write!(self.to, " # {{trace_id=\"{trace}\"}} {} ", Number::Real(*seconds))?;
        write!(self.to, "{}.{:03}", at.as_secs(), at.subsec_millis())
    }
}

impl fmt::Display for Number {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(number) => write!(formatter, "{number}"),
            Self::Real(f64::INFINITY) => formatter.write_str("+Inf"),
            // A point even in whole ones: bounds are compared as text.
            Self::Real(number) => write!(formatter, "{number:?}"),
        }
    }
}

/// What may not stand in a quoted value as it is.
fn escape(to: &mut dyn Write, value: &str) -> fmt::Result {
    let mut rest = value;
    while let Some(at) = rest.find(['\\', '"', '\n']) {
        let (before, from) = rest.split_at(at);
        to.write_str(before)?;
        to.write_str(match from.as_bytes()[0] {
            b'\n' => "\\n",
            b'"' => "\\\"",
            _ => "\\\\",
        })?;
        rest = &from[1..];
    }
    to.write_str(rest)
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

#[cfg(test)]
mod tests {
    use super::super::Unit;
    use super::*;
    use crate::telemetry::{Traced, trace_id};

    static SECONDS: Family = Family {
        name: "wait",
        kind: Kind::Histogram,
        unit: Some(Unit::Seconds),
        labels: &["name"],
        help: "How \"long\".",
        samples: |_, _| Ok(()),
    };
    static COUNT: Family = Family {
        name: "things",
        kind: Kind::Counter,
        unit: None,
        labels: &["name"],
        help: "How many.",
        samples: |_, _| Ok(()),
    };

    fn text(dialect: Dialect) -> String {
        let (mut text, mut histogram) = (String::new(), Histogram::default());
        let at = UNIX_EPOCH + Duration::from_millis(1_700_000_000_250);
        histogram.observe_traced(Duration::from_millis(2), Some(Traced { trace: trace_id(7), at }));
        histogram.observe_traced(Duration::from_millis(2), None);
        let mut samples = Samples::begin(&SECONDS, dialect, &mut text).unwrap();
        samples.histogram(&["a"], &histogram).unwrap();
        let mut samples = Samples::begin(&COUNT, dialect, &mut text).unwrap();
        samples.put(&["quote \" slash \\ line \n"], 3_u64).unwrap();
        dialect.end(&mut text).unwrap();
        text
    }

    #[test]
    fn openmetrics_has_units_exemplars_and_an_end() {
        let text = text(Dialect::OpenMetrics);
        let head = "# HELP sheave_wait_seconds How \\\"long\\\".\n# TYPE sheave_wait_seconds histogram\n\
                    # UNIT sheave_wait_seconds seconds\nsheave_wait_seconds_bucket{le=\"0.0001\",name=\"a\"} 0\n";
        assert!(text.starts_with(head), "{text}");
        let trace = trace_id(7);
        let bucket = format!(
            "\nsheave_wait_seconds_bucket{{le=\"0.0025\",name=\"a\"}} 2 # {{trace_id=\"{trace}\"}} 0.002 1700000000.250\n"
        );
        assert!(text.contains(&bucket), "{text}");
        assert!(text.contains("\nsheave_wait_seconds_bucket{le=\"+Inf\",name=\"a\"} 2\n"), "{text}");
        let tail = "sheave_wait_seconds_sum{name=\"a\"} 0.004\nsheave_wait_seconds_count{name=\"a\"} 2\n\
                    # HELP sheave_things How many.\n# TYPE sheave_things counter\n\
                    sheave_things_total{name=\"quote \\\" slash \\\\ line \\n\"} 3\n# EOF\n";
        assert!(text.ends_with(tail), "{text}");
    }

    #[test]
    fn the_older_dialect_has_none_of_that() {
        let text = text(Dialect::Prometheus);
        assert!(
            text.contains("# HELP sheave_wait_seconds How \"long\".\n# TYPE sheave_wait_seconds histogram\n")
        );
        assert!(text.contains("\n# TYPE sheave_things_total counter\n"), "{text}");
        assert!(!text.contains("trace_id") && !text.contains("# UNIT") && !text.contains("# EOF"), "{text}");
    }
}

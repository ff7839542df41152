//! The exposition as text, in either of two dialects.
//!
//! Written here and not by a crate: the numbers are the workers', merged at each scrape, and exemplars belong to them. (The one
//! crate there is has exemplars only for histograms that it keeps itself, behind a lock that workers would share.)

use std::fmt::{self, Write};
use std::time::UNIX_EPOCH;

use crate::telemetry::{Exemplar, Histogram};

use super::samples::{Number, Output};
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
}

/// The text that is written.
pub(super) struct Text<'a> {
    dialect: Dialect,
    to: &'a mut dyn Write,
    /// Of the family that is written.
    name: String,
}

impl<'a> Text<'a> {
    pub(super) fn new(dialect: Dialect, to: &'a mut dyn Write) -> Self {
        Self { dialect, to, name: String::new() }
    }

    /// The end of everything.
    pub(super) fn end(self) -> fmt::Result {
        match self.dialect {
            Dialect::OpenMetrics => self.to.write_str("# EOF\n"),
            Dialect::Prometheus => Ok(()),
        }
    }

    fn sample(
        &mut self,
        family: &Family,
        suffix: &str,
        values: &[&str],
        bound: Option<f64>,
        number: Number,
    ) -> fmt::Result {
        self.to.write_str(&self.name)?;
        self.to.write_str(suffix)?;
        let mut before = "{";
        if let Some(bound) = bound {
            write!(self.to, "{{le=\"{}\"", Number::Real(bound))?;
            before = ",";
        }
        for (name, value) in family.labels.iter().zip(values) {
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

impl Output for Text<'_> {
    fn begin(&mut self, family: &'static Family) -> fmt::Result {
        self.name = family.exposed_name();
        let (name, kind) = (&self.name, family.kind.label());
        match self.dialect {
            Dialect::OpenMetrics => {
                write!(self.to, "# HELP {name} ")?;
                escape(self.to, family.help)?;
                write!(self.to, "\n# TYPE {name} {kind}\n")?;
                match family.unit {
                    Some(unit) => writeln!(self.to, "# UNIT {name} {}", unit.label()),
                    None => Ok(()),
                }
            }
            // There the suffixes are part of the name, and an info is a gauge.
            Dialect::Prometheus => {
                let (name, kind) =
                    (family.queried_name(), if family.kind == Kind::Info { "gauge" } else { kind });
                // Quotes stand for themselves there.
                writeln!(self.to, "# HELP {name} {}\n# TYPE {name} {kind}", family.help)
            }
        }
    }

    fn number(&mut self, family: &'static Family, values: &[&str], number: Number) -> fmt::Result {
        self.sample(family, family.kind.suffix(), values, None, number)?;
        self.to.write_str("\n")
    }

    fn histogram(&mut self, family: &'static Family, values: &[&str], histogram: &Histogram) -> fmt::Result {
        let mut up_to = 0;
        for (index, (bound, count)) in histogram.buckets().into_iter().enumerate() {
            up_to += count;
            self.sample(family, "_bucket", values, Some(bound), up_to.into())?;
            if let Some(exemplar) = histogram.exemplar(index) {
                self.exemplar(exemplar)?;
            }
            self.to.write_str("\n")?;
        }
        self.summary(family, values, histogram.sum(), histogram.count())
    }

    fn summary(&mut self, family: &'static Family, values: &[&str], sum: f64, count: u64) -> fmt::Result {
        self.sample(family, "_sum", values, None, sum.into())?;
        self.to.write_str("\n")?;
        self.sample(family, "_count", values, None, count.into())?;
        self.to.write_str("\n")
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

#[cfg(test)]
mod tests {
    use super::super::Unit;
    use super::super::samples::Samples;
    use super::*;
    use crate::telemetry::{Traced, trace_id};
    use std::time::Duration;

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
        let mut output = Text::new(dialect, &mut text);
        Samples::begin(&SECONDS, &mut output).unwrap().histogram(&["a"], &histogram).unwrap();
        let mut samples = Samples::begin(&COUNT, &mut output).unwrap();
        samples.put(&["quote \" slash \\ line \n"], 3_u64).unwrap();
        output.end().unwrap();
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

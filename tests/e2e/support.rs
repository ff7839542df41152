//! What the scenarios stand on: a cluster, a namespace each, Sheave by its chart, the workload, and patience.

use std::io::Write;

mod admin;
mod beside;
pub(crate) mod cluster;
pub(crate) mod endpoints;
mod eventually;
mod jaeger;
mod load;
mod metrics;
mod namespace;
pub(crate) mod release;
mod settings;
pub(crate) mod silence;
pub(crate) mod slices;
mod stage;
mod tools;

pub(crate) use admin::Table;
pub(crate) use beside::Beside;
pub(crate) use endpoints::{Endpoints, Wish};
pub(crate) use eventually::{eventually, eventually_some, glimpse, within};
pub(crate) use jaeger::{Jaeger, Span};
pub(crate) use load::Load;
pub(crate) use metrics::{Metrics, names};
pub(crate) use namespace::Namespace;
pub(crate) use release::Release;
pub(crate) use settings::{is_full, is_own_cluster, is_skipped, skip_or_fail};
pub(crate) use stage::{PORT, Stage};
pub(crate) use tools::{get_json, get_text, run, try_run};

/// The load's report, as the load itself writes it.
#[path = "../workload/report.rs"]
pub(crate) mod report;

/// A line that shows whether or not the test passes: libtest keeps what `println!` says to itself.
pub(crate) fn print(line: std::fmt::Arguments<'_>) {
    let mut out = std::io::stdout();
    // Nobody listens to a test whose output is closed.
    writeln!(out, "e2e: {line}").ok();
}

macro_rules! say {
    ($($text:tt)+) => { $crate::support::print(format_args!($($text)+)) };
}
pub(crate) use say;

/// The line of a test's figures: `e2e: NAME key=value ...`.
macro_rules! figures {
    ($name:expr, $($key:ident = $value:expr),+ $(,)?) => {
        $crate::support::say!(concat!("{}" $(, " ", stringify!($key), "={:.3}")+), $name $(, $value)+)
    };
}
pub(crate) use figures;

//! The certificates of `/table`: what they are for and until when, and nothing of their keys.

use std::fmt::Write;
use std::time::SystemTime;

use serde::Serialize;

use crate::telemetry::logging::rfc3339;
use crate::tls;

use super::table::Problem;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Certificate {
    /// Where it comes from.
    source: String,
    kind: &'static str,
    /// Its subjectAltNames.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    names: Vec<String>,
    /// SHA-256, in hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    fingerprint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_before: Option<String>,
    /// Absent where nothing is loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_after: Option<String>,
    problem: Option<Problem>,
}

impl From<&tls::Report> for Certificate {
    fn from(report: &tls::Report) -> Self {
        let facts = report.facts.as_ref();
        let date = |time: SystemTime| rfc3339(time).to_string();
        Self {
            source: report.source.to_string(),
            kind: report.source.kind(),
            names: facts.iter().flat_map(|facts| &facts.names).map(ToString::to_string).collect(),
            fingerprint: facts.map(|facts| hexadecimal(&facts.fingerprint)),
            not_before: facts.map(|facts| date(facts.not_before)),
            not_after: report.not_after.map(date),
            problem: report.problem.as_ref().map(Problem::from),
        }
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}

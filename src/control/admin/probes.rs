//! The answers to kubelets and load balancers. They depend on this process alone, never on an endpoint, and on an API
//! server only until the first complete list; a reload that failed does not make a process unready that serves by its last table.

use std::fmt::Write;
use std::time::Instant;

use axum::extract::State;
use axum::http::StatusCode;

use crate::shutdown::Phase;
use crate::telemetry::logging::rfc3339;

use super::Admin;
use super::query::{BadRequest, Parameters};
use crate::control::shared::Shared;

type Answer = Result<(StatusCode, String), BadRequest>;

struct Check {
    name: &'static str,
    verdict: Verdict,
    detail: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Passed,
    Failed,
    /// Something is wrong that does not stop the process from serving.
    Noted,
}

/// `/livez`: a restart would help when this fails.
pub(super) async fn live(State(admin): State<Admin>, parameters: Parameters) -> Answer {
    answer("livez", parameters, &heartbeats(&admin.shared))
}

/// `/readyz`: as long as new connections are served, also while load balancers are told to leave.
pub(super) async fn ready(State(admin): State<Admin>, parameters: Parameters) -> Answer {
    let accepting = !matches!(admin.shared.drain.phase(), Phase::Draining { .. });
    answer("readyz", parameters, &readiness(&admin.shared, accepting))
}

/// `/healthz/lb`: for load balancers that probe the process itself.
pub(super) async fn load_balancer(State(admin): State<Admin>, parameters: Parameters) -> Answer {
    let staying = admin.shared.drain.phase() == Phase::Serving;
    answer("healthz/lb", parameters, &readiness(&admin.shared, staying))
}

/// `/startupz`: once passed, always passed.
pub(super) async fn started(State(admin): State<Admin>, parameters: Parameters) -> Answer {
    answer("startupz", parameters, &[table(&admin.shared)])
}

/// What is not as it should be, by name.
pub(super) fn troubles(shared: &Shared) -> Vec<(&'static str, String)> {
    let checks = readiness(shared, true).into_iter();
    checks.filter(|check| check.verdict != Verdict::Passed).map(|check| (check.name, check.detail)).collect()
}

fn readiness(shared: &Shared, phase_passes: bool) -> Vec<Check> {
    let phase = Check {
        name: "phase",
        verdict: if phase_passes { Verdict::Passed } else { Verdict::Failed },
        detail: shared.drain.phase().label().into(),
    };
    let mut checks = vec![table(shared), phase, reload(shared), restart(shared)];
    checks.extend(kubernetes(shared));
    checks.extend(certificates(shared));
    checks
}

/// Nothing, where nobody speaks TLS.
fn certificates(shared: &Shared) -> Option<Check> {
    let certificates = &shared.certificates;
    if certificates.reports().is_empty() {
        return None;
    }
    let not_ready = certificates.not_ready(&shared.publisher.current(), shared.started.elapsed());
    let troubles = certificates.troubles();
    let (verdict, detail) = match (not_ready, &*troubles) {
        (Some(why), troubles) => (Verdict::Failed, [&[why], troubles].concat().join("\n")),
        (None, []) => (Verdict::Passed, "all are loaded and valid".into()),
        (None, troubles) => {
            (Verdict::Noted, format!("{} are wrong\n{}", troubles.len(), troubles.join("\n")))
        }
    };
    Some(Check { name: "certificates", verdict, detail })
}

/// Nothing, where no upstream follows a Service.
fn kubernetes(shared: &Shared) -> Option<Check> {
    let watches = shared.watches.watches();
    if watches.is_empty() {
        return None;
    }
    let not_ready = shared.watches.not_ready(Instant::now());
    let troubles: Vec<&str> = watches.iter().filter_map(|watch| watch.trouble.as_deref()).collect();
    let (verdict, detail) = match (not_ready, &*troubles) {
        (Some(why), _) => (Verdict::Failed, why),
        (None, []) => (Verdict::Passed, "all watches are in step".into()),
        (None, troubles) => {
            (Verdict::Noted, format!("the endpoints known so far keep serving\n{}", troubles.join("\n")))
        }
    };
    Some(Check { name: "kubernetes", verdict, detail })
}

fn heartbeats(shared: &Shared) -> Vec<Check> {
    let after = shared.tuning.stalled_after;
    let ages = shared.heartbeat_ages().into_iter().enumerate();
    ages.map(|(worker, age)| Check {
        name: "worker",
        verdict: if age > after { Verdict::Failed } else { Verdict::Passed },
        detail: format!("{worker}: last heartbeat {:.1} s ago", age.as_secs_f64()),
    })
    .collect()
}

fn table(shared: &Shared) -> Check {
    let acknowledged = shared.publisher.acknowledged();
    let behind: Vec<String> = shared
        .publisher
        .acknowledged_by_worker()
        .iter()
        .enumerate()
        .filter(|(_, generation)| **generation == 0)
        .map(|(worker, _)| worker.to_string())
        .collect();
    Check {
        name: "table",
        verdict: if acknowledged > 0 { Verdict::Passed } else { Verdict::Failed },
        detail: if acknowledged > 0 {
            format!("all workers have generation {acknowledged} or a newer one")
        } else {
            format!("no table yet at worker {}", behind.join(", "))
        },
    }
}

fn reload(shared: &Shared) -> Check {
    let report = shared.status.report();
    let (verdict, detail) = match report.error {
        None => {
            let since = rfc3339(report.last_success_at);
            (Verdict::Passed, format!("configuration of {since}"))
        }
        Some(error) => {
            let at = rfc3339(report.last_at);
            let since = rfc3339(report.last_success_at);
            let detail = format!("failed at {at}; the table of {since} keeps serving\n{}", error.trim_end());
            (Verdict::Noted, detail)
        }
    };
    Check { name: "reload", verdict, detail }
}

fn restart(shared: &Shared) -> Check {
    let sections = shared.status.report().restart;
    let (verdict, detail) = if sections.is_empty() {
        (Verdict::Passed, "nothing needs one".into())
    } else {
        let sections = sections.join(", ");
        (Verdict::Noted, format!("needed for changes of: {sections}"))
    };
    Check { name: "restart", verdict, detail }
}

/// `ok`, or every check when asked for or when one failed.
fn answer(probe: &str, mut parameters: Parameters, checks: &[Check]) -> Answer {
    let verbose = parameters.take("verbose").is_some();
    parameters.finish("verbose")?;
    let passed = checks.iter().all(|c| c.verdict != Verdict::Failed);
    if passed && !verbose {
        return Ok((StatusCode::OK, "ok\n".into()));
    }
    let mut text = checks.iter().map(Check::line).collect::<String>();
    let (status, word) =
        if passed { (StatusCode::OK, "passed") } else { (StatusCode::SERVICE_UNAVAILABLE, "failed") };
    let _infallible = writeln!(text, "{probe} check {word}");
    Ok((status, text))
}

impl Check {
    /// The detail's further lines are indented, so that what begins with a bracket is a check.
    fn line(&self) -> String {
        let mark = match self.verdict {
            Verdict::Passed => "[+]",
            Verdict::Failed => "[-]",
            Verdict::Noted => "[-](does not fail the probe) ",
        };
        let detail = self.detail.replace('\n', "\n    ");
        format!("{mark}{}: {detail}\n", self.name)
    }
}

//! What somebody should look at, in sentences. Where all is well this is nothing.

use std::sync::atomic::Ordering;

use maud::{Markup, html};

use crate::control::admin::probes;
use crate::control::shared::Shared;
use crate::routing::RouteTable;

/// Upstreams whose problems are told by name.
const UPSTREAMS: usize = 5;

pub(super) fn show(shared: &Shared, table: &RouteTable) -> Markup {
    let upstreams = || table.upstreams.values().filter_map(|one| Some((one, one.problem.as_ref()?)));
    let more = upstreams().count().saturating_sub(UPSTREAMS);
    let late = shared.counters.iter().filter(|worker| worker.shown.runs_late.load(Ordering::Relaxed)).count();
    html! {
        @for (name, detail) in probes::troubles(shared) { (notice("warn", name, &detail)) }
        @if shared.limits.memory.is_short() {
            (notice("bad", "overload", "the process is short of memory: new connections are refused"))
        }
        @if late > 0 {
            (notice("bad", "overload", "a worker runs late and refuses new connections; the workers below say which"))
        }
        @for (upstream, problem) in upstreams().take(UPSTREAMS) {
            (notice("bad", &format!("upstream {}", upstream.name), &problem.text))
        }
        @if more > 0 { (notice("bad", "upstreams", &format!("{more} more have problems; /table has them"))) }
    }
}

fn notice(class: &str, name: &str, text: &str) -> Markup {
    html! { p class={ "notice " (class) } { strong { (name) } " " span class="lines" { (text.trim_end()) } } }
}

//! The process as a whole, in one row, and everything about it that a person should know of.

use crate::top::counts::{Counts, ListenerCounts, WorkerCounts};
use crate::top::sheet::{Cell, Column, Sheet, Tone, Unit, column};
use crate::top::text::Text;

use super::Since;

const PROCESS: &[Column] = &[
    column("sheave", Unit::Text, 0),
    column("phase", Unit::Text, 0),
    column("up", Unit::Seconds, 0),
    column("generation", Unit::Id, 0),
    column("cluster", Unit::Text, 0),
    column("live", Unit::Count, 0),
    column("places", Unit::Count, 0),
    column("new", Unit::PerSecond, 0),
    column("ended", Unit::PerSecond, 0),
    column("errors", Unit::PerSecond, 0),
    column("error share", Unit::Share, 0),
    column("received", Unit::BytesPerSecond, 0),
    column("sent", Unit::BytesPerSecond, 0),
    column("why", Unit::Text, 0),
];

/// One row; its last cell is what is wrong.
pub(in crate::top) fn process(since: &Since<'_>) -> Sheet {
    let counts = &since.now.counts;
    let workers =
        |count: fn(&WorkerCounts) -> f64| since.rate(|counts| Some(counts.workers.values().map(count).sum()));
    let listeners = |count: fn(&ListenerCounts) -> f64| {
        since.rate(|counts| Some(counts.listeners.values().map(count).sum()))
    };
    let (ended, errors) = (listeners(|listener| listener.ended), listeners(|listener| listener.errors));
    let share = errors.zip(ended).filter(|(_, ended)| *ended > 0.0).map(|(errors, ended)| errors / ended);
    let is_serving = counts.phase.as_str() == "serving";
    let live: f64 = counts.workers.values().map(|worker| worker.active).sum();
    let is_full = counts.places_max > 0.0 && counts.places_taken >= counts.places_max;
    let why = Text::from(wrong(since).join("; "));
    let row = vec![
        (&counts.version).into(),
        Cell::from(&counts.phase).tone(if is_serving { Tone::Good } else { Tone::Warn }),
        counts.uptime.into(),
        since.now.table.generation.into(),
        cluster(counts),
        Cell::from(live).tone(if is_full { Tone::Bad } else { Tone::Plain }),
        counts.places_max.into(),
        workers(|worker| worker.accepted).into(),
        ended.into(),
        Cell::from(errors).tone_if_any(Tone::Bad),
        Cell::from(share).tone_if_any(Tone::Bad),
        workers(|worker| worker.received).into(),
        workers(|worker| worker.sent).into(),
        Cell::from(&why).tone(Tone::Bad),
    ];
    Sheet { columns: PROCESS, rows: vec![row], note: None }
}

fn cluster(counts: &Counts) -> Cell {
    match (counts.followed, counts.unsynced.len()) {
        (0, _) => None::<&Text>.into(),
        (_, 0) => Cell::from("synced").tone(Tone::Good),
        _ => Cell::from("unsynced").tone(Tone::Bad),
    }
}

fn wrong(since: &Since<'_>) -> Vec<String> {
    let counts = &since.now.counts;
    let mut wrong = Vec::new();
    wrong.extend(
        counts.overload.iter().map(|reason| format!("overload: {reason}; new connections are refused")),
    );
    if counts.places_max > 0.0 && counts.places_taken >= counts.places_max {
        wrong.push("every place is taken; new connections wait".to_owned());
    }
    if counts.reload_failed {
        wrong.push("the last reload failed: /readyz?verbose says why".to_owned());
    }
    let sections: Vec<&str> = counts.restart_needed.iter().map(Text::as_str).collect();
    if !sections.is_empty() {
        wrong.push(format!("a restart is needed for {}", sections.join(", ")));
    }
    wrong.extend(counts.unsynced.iter().map(|what| format!("{what} are not up to date")));
    let table = &since.now.table;
    let behind = table.acknowledged_generations.iter().filter(|worker| **worker < table.generation).count();
    if behind > 0 {
        let all = table.acknowledged_generations.len();
        wrong.push(format!("{behind} of {all} workers have not taken the newest table"));
    }
    let certificates = &counts.certificates;
    wrong.extend(certificates.iter().map(|(name, reason)| format!("certificate of {name}: {reason}")));
    wrong
}

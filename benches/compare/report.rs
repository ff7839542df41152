//! The numbers for people (Markdown) and for programs (JSON).

use std::fs;
use std::path::Path;

use fastrand::Rng;
use serde_json::{Value, json};

use crate::cases::{Case, RATIO_TO_CONN, Work};
use crate::error::{Context, Result};
use crate::session::{Sample, Session};
use crate::stats;

/// With fewer rounds resampling would only repeat the rounds themselves.
const ROUNDS_FOR_INTERVAL: usize = 5;

pub(super) struct Report<'a> {
    session: &'a Session,
    rows: Vec<Row>,
}

struct Row {
    case: Case,
    metric: &'static str,
    peer: usize,
    rounds: Vec<f64>,
    /// Value by the baseline's value of the same round; none for the baseline itself.
    ratios: Vec<f64>,
    /// Of the median of these, or of the rounds where they are ratios themselves.
    interval: Option<(f64, f64)>,
}

impl<'a> Report<'a> {
    pub(super) fn new(session: &'a Session) -> Self {
        let mut rows: Vec<Row> = Vec::new();
        let mut keys: Vec<(Case, &str)> = Vec::new();
        for sample in &session.samples {
            if !keys.contains(&(sample.case, sample.metric)) {
                keys.push((sample.case, sample.metric));
            }
        }
        let mut rng = Rng::with_seed(1);
        for (case, metric) in keys {
            for peer in 0..session.recipes.len() {
                let of = |peer: usize| rounds_of(&session.samples, case, metric, peer);
                let ratios = if peer == session.baseline {
                    Vec::new()
                } else {
                    ratios(&of(peer), &of(session.baseline))
                };
                if of(peer).is_empty() {
                    continue;
                }
                let rounds: Vec<f64> = of(peer).into_iter().map(|(_, value)| value).collect();
                let spread = if metric == RATIO_TO_CONN { &rounds } else { &ratios };
                let interval = (spread.len() >= ROUNDS_FOR_INTERVAL)
                    .then(|| stats::bootstrap_interval(spread, &mut rng));
                rows.push(Row { case, metric, peer, rounds, ratios, interval });
            }
        }
        Self { session, rows }
    }

    pub(super) fn markdown(&self) -> String {
        let session = self.session;
        let baseline = &session.recipes[session.baseline].name;
        let mut text = format!("Machine: {}\n\n", session.machine);
        for (recipe, version) in session.recipes.iter().zip(&session.versions) {
            text.push_str(&format!("- {}: {version}\n", recipe.name));
        }
        for case in &session.options.cases {
            text.push_str(&format!("\n### {}: {}\n\n", case.name(), case.title()));
            if case.work == Work::Idle {
                text.push_str(&format!("{} connections.\n\n", session.idle.connections));
            }
            text.push_str(&format!(
                "| metric | peer | median | p25-p75 | ratio to {baseline} | 90 % interval |\n\
                 |---|---|---:|---:|---:|---:|\n"
            ));
            let of_case = self.rows.iter().filter(|row| row.case == *case);
            let (to_conn, plain): (Vec<&Row>, Vec<&Row>) =
                of_case.partition(|row| row.metric == RATIO_TO_CONN);
            text.extend(plain.into_iter().map(|row| self.markdown_row(row)));
            if !to_conn.is_empty() {
                text.push_str("\n| peer | ratio to conn within a round | p25-p75 | 90 % interval |\n|---|---:|---:|---:|\n");
                text.extend(to_conn.into_iter().map(|row| self.markdown_to_conn(row)));
            }
        }
        if !session.notes.is_empty() {
            text.push_str("\nNotes:\n\n");
            text.extend(session.notes.iter().map(|note| format!("- {note}\n")));
        }
        text
    }

    fn markdown_to_conn(&self, row: &Row) -> String {
        format!(
            "| {} | {:.3} | {:.3}-{:.3} | {} |\n",
            self.session.recipes[row.peer].name,
            stats::median(&row.rounds),
            stats::quantile(&row.rounds, 0.25),
            stats::quantile(&row.rounds, 0.75),
            interval(row),
        )
    }

    fn markdown_row(&self, row: &Row) -> String {
        let name = &self.session.recipes[row.peer].name;
        let ratio = match row.ratios.is_empty() {
            true => "-".to_owned(),
            false => format!("{:.3}", stats::median(&row.ratios)),
        };
        let interval = interval(row);
        format!(
            "| {} | {name} | {} | {}-{} | {ratio} | {interval} |\n",
            row.metric,
            figure(stats::median(&row.rounds)),
            figure(stats::quantile(&row.rounds, 0.25)),
            figure(stats::quantile(&row.rounds, 0.75)),
        )
    }

    pub(super) fn write_json(&self, file: &Path) -> Result<()> {
        let session = self.session;
        let names: Vec<&str> = session.recipes.iter().map(|recipe| recipe.name.as_str()).collect();
        let peers: Vec<Value> = names
            .iter()
            .zip(&session.versions)
            .map(|(name, version)| json!({"name": name, "version": version}))
            .collect();
        let results: Vec<Value> = self.rows.iter().map(|row| json_row(row, names[row.peer])).collect();
        let document = json!({
            "machine": session.machine,
            "rounds": session.options.rounds,
            "seconds": session.options.time.as_secs_f64(),
            "idleConnections": session.idle.connections,
            "baseline": names[session.baseline],
            "peers": peers,
            "results": results,
            "notes": session.notes,
        });
        fs::write(file, format!("{document:#}\n")).context(file.display())
    }
}

fn interval(row: &Row) -> String {
    row.interval.map_or_else(|| "-".to_owned(), |(low, high)| format!("{low:.3}-{high:.3}"))
}

fn json_row(row: &Row, name: &str) -> Value {
    let (low, high) = row.interval.unzip();
    let is_to_conn = row.metric == RATIO_TO_CONN;
    let ratio = (!row.ratios.is_empty() && !is_to_conn).then(|| {
        json!({
            "median": stats::median(&row.ratios),
            "low": low,
            "high": high,
            "rounds": row.ratios,
        })
    });
    json!({
        "case": row.case.name(),
        "metric": row.metric,
        "peer": name,
        "median": stats::median(&row.rounds),
        "p25": stats::quantile(&row.rounds, 0.25),
        "p75": stats::quantile(&row.rounds, 0.75),
        "rounds": row.rounds,
        "interval": is_to_conn.then_some([low, high]),
        "ratio": ratio,
    })
}

fn rounds_of(samples: &[Sample], case: Case, metric: &str, peer: usize) -> Vec<(usize, f64)> {
    let of =
        samples.iter().filter(|sample| sample.case == case && sample.metric == metric && sample.peer == peer);
    of.map(|sample| (sample.round, sample.value)).collect()
}

/// Within a round both saw the same state of the machine, which drifts between rounds.
fn ratios(values: &[(usize, f64)], baseline: &[(usize, f64)]) -> Vec<f64> {
    let pairs = values.iter().filter_map(|(round, value)| {
        let (_, base) = baseline.iter().find(|(other, _)| other == round)?;
        (*base > 0.0).then(|| value / base)
    });
    pairs.collect()
}

/// Three significant digits or whole numbers.
fn figure(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

//! Medians of the rounds, as a table for people.

use std::fmt::Write;

use crate::cases::{Case, Values, median};

pub(super) struct Table {
    case: Case,
    /// In the order in which they came, each with its rounds.
    rows: Vec<(&'static str, Vec<Values>)>,
}

impl Table {
    pub(super) fn new(case: Case) -> Self {
        Self { case, rows: Vec::new() }
    }

    pub(super) fn add(&mut self, peer: &'static str, values: Values) {
        match self.rows.iter_mut().find(|(name, _)| *name == peer) {
            Some((_, rounds)) => rounds.push(values),
            None => self.rows.push((peer, vec![values])),
        }
    }

    pub(super) fn markdown(&self) -> String {
        let Some((_, rounds)) = self.rows.first() else { return String::new() };
        let names: Vec<&str> = rounds.iter().take(1).flatten().map(|(name, _)| *name).collect();
        let mut text = format!(
            "| {} | {} |\n|---|{}\n",
            self.case.name(),
            names.join(" | "),
            "---:|".repeat(names.len())
        );
        for (peer, rounds) in &self.rows {
            let cells = (0..names.len()).map(|index| {
                let of_rounds = rounds.iter().filter_map(|values| values.get(index));
                let of_rounds: Vec<f64> = of_rounds.map(|(_, value)| *value).collect();
                number(median(of_rounds))
            });
            let cells: Vec<String> = cells.collect();
            // Into a string nothing fails.
            writeln!(text, "| `{peer}` | {} |", cells.join(" | ")).ok();
        }
        text
    }
}

fn number(value: f64) -> String {
    if value.fract() == 0.0 || value >= 100.0 { format!("{value:.0}") } else { format!("{value:.1}") }
}

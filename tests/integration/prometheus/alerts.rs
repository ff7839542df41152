//! The one scene: a Prometheus in front of Sheaves that are well and sick.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;

use crate::support::{Driver, eventually};

use super::panels;
use super::server::Prometheus;
use super::sick::{Packed, Sick};
use super::well::Well;

/// As they are, but for the patience of minutes that `promtool test rules` proves.
fn rules() -> String {
    let rules = include_str!("../../../charts/sheave/alerts.yaml").lines();
    let impatient = rules.map(|line| match line.trim_start().starts_with("for: ") {
        true => line.split_once("for: ").map(|(before, _)| format!("{before}for: 0s\n")).unwrap(),
        false => format!("{line}\n"),
    });
    impatient.collect()
}

/// Those there are, in Prometheus' own reading.
fn all(prometheus: &Prometheus) -> BTreeSet<String> {
    let groups = prometheus.get("rules", &[]);
    let groups = groups["groups"].as_array().unwrap().iter();
    let rules = groups.flat_map(|group| group["rules"].as_array().unwrap().clone());
    rules.map(|rule| name(&rule["name"])).collect()
}

/// Those that have fired since the start.
fn fired(prometheus: &Prometheus) -> BTreeSet<String> {
    let query = "max by (alertname) (max_over_time(ALERTS{alertstate=\"firing\"}[1h]))";
    let answer = prometheus.get("query", &[("query", query)]);
    answer["result"].as_array().unwrap().iter().map(|alert| name(&alert["metric"]["alertname"])).collect()
}

fn name(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

/// Waits for these, and says which are missing.
fn fire(prometheus: &Prometheus, expected: &BTreeSet<String>) {
    let missing = || expected.difference(&fired(prometheus)).cloned().collect::<Vec<_>>();
    eventually("alerts", missing, Vec::is_empty);
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn every_panel_shows_something_and_every_alert_fires() {
    let (well, sick) = (Arc::new(Well::start(Driver::IoUring)), Arc::new(Sick::start(Driver::Epoll)));
    let mut packed = Packed::start(Driver::IoUring);
    let targets = [well.admin(), sick.admin(), packed.admin()];
    let prometheus = Prometheus::start(&targets, &rules());
    eventually("all are scraped", || prometheus.series("sheave_build_info"), |series| *series == 3);
    let _held = sick.fill();
    let traffic = (well.traffic(), sick.traffic());
    well.reload();
    sick.break_files();

    let late = [
        "SheaveDown",
        "SheaveLoopLag",
        "SheaveNotSynced",
        "SheaveOverload",
        "SheavePropagationSlow",
        "SheaveTableNotTaken",
    ];
    let late = names(&late);
    let all = all(&prometheus);
    let soon: BTreeSet<String> = all.difference(&late).cloned().collect();
    assert!(soon.len() >= 12 && late.is_subset(&all), "{all:?}");
    fire(&prometheus, &soon);

    // With series of every family there is.
    [well.admin(), sick.admin()].into_iter().for_each(super::pleases_promtool);
    sick.stall();
    let slow = names(&["SheaveLoopLag", "SheaveOverload", "SheavePropagationSlow", "SheaveTableNotTaken"]);
    fire(&prometheus, &slow);
    sick.lose_the_cluster();
    packed.kill();
    fire(&prometheus, &late);

    for (panel, query) in panels::queries() {
        let what = format!("something to show of {panel}: {query}");
        eventually(&what, || prometheus.series(&query), |series| *series > 0);
    }
    drop(traffic);
}

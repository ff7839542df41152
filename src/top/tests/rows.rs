use crate::top::format::plain;
use crate::top::reading::Reading;
use crate::top::rows::{Since, View, process};
use crate::top::sheet::{Sheet, Unit, Value};

use super::reading;

/// The columns of a row that has this in its first one, as a script sees them.
fn fields(sheet: &Sheet, first: &str, columns: &[&str]) -> Vec<String> {
    let field = |row: &[crate::top::sheet::Cell], name: &str| {
        let at = sheet.columns.iter().position(|column| column.name == name).expect(name);
        plain(&row[at].value, sheet.columns[at].unit, true).into_owned()
    };
    let name = sheet.columns[0].name;
    let row = sheet.rows.iter().find(|row| field(row, name) == first).expect(first);
    columns.iter().map(|column| field(row, column)).collect()
}

fn sheet(view: View, now: &Reading, before: Option<&Reading>) -> Sheet {
    let sheet = view.sheet(&Since::new(now, before));
    assert!(sheet.rows.iter().all(|row| row.len() == sheet.columns.len()), "{view:?}");
    sheet
}

#[test]
fn rates_are_of_the_time_between_two_readings() {
    let (now, before) = (reading(12.0, 10.0), reading(10.0, 10.0));
    let before = Some(&before);
    let whole = process(&Since::new(&now, before));
    let columns = [
        "phase",
        "generation",
        "cluster",
        "live",
        "new",
        "ended",
        "errors",
        "error share",
        "received",
        "why",
    ];
    let expected = [
        "serving",
        "7",
        "synced",
        "5",
        "20.00",
        "40.00",
        "10.00",
        "25.0",
        "10240",
        "1 of 2 workers have not taken the newest table",
    ];
    assert_eq!(fields(&whole, "1.2.3", &columns), expected);

    let upstreams = sheet(View::Upstreams, &now, before);
    let columns =
        ["state", "usable", "endpoints", "live", "waiting", "conn", "errors", "failed", "connect p99", "why"];
    let expected = ["degraded", "1", "2", "5", "4", "10.00", "10.00", "10.00", "0.000990", "1 open"];
    assert_eq!(fields(&upstreams, "pg", &columns), expected);
    let columns = ["state", "usable", "conn", "connect p50", "why"];
    let expected = ["empty", "0", "-", "-", "service_missing: there is no Service db/pg"];
    assert_eq!(fields(&upstreams, "empty", &columns), expected);

    let endpoints = sheet(View::Endpoints, &now, before);
    let columns = ["upstream", "state", "live", "conn", "failed", "connect", "zone", "why"];
    let row = |endpoint| fields(&endpoints, endpoint, &columns);
    assert_eq!(row("10.0.0.1:1"), ["pg", "usable", "4", "10.00", "0.00", "0.001500", "-", "-"]);
    assert_eq!(row("10.0.0.2:1"), ["pg", "open", "0", "0.00", "10.00", "-", "a", "its breaker is open"]);
    assert_eq!(row("10.0.0.9:1")[..3], ["pg", "leaving", "1"]);

    let listeners = sheet(View::Listeners, &now, before);
    let columns = ["address", "routes", "live", "limit", "conn", "errors"];
    assert_eq!(fields(&listeners, "front", &columns), ["[::]:5432", "2", "5", "50", "40.00", "10.00"]);

    let workers = sheet(View::Workers, &now, before);
    let columns = ["live", "new", "busy", "lag p99", "driver", "rung", "generation", "why"];
    let expected = ["3", "10.00", "50.0", "0.199000", "io_uring", "defer", "7", "-"];
    assert_eq!(fields(&workers, "0", &columns), expected);
    let expected = ["2", "-", "6", "has not taken the newest table yet"];
    assert_eq!(fields(&workers, "1", &["live", "busy", "generation", "why"]), expected);

    let connections = sheet(View::Connections, &now, before);
    let columns = ["client", "upstream", "endpoint", "age", "received", "in", "server name"];
    let expected = ["192.0.2.1:999", "pg", "10.0.0.1:1", "12.000000", "120", "10", "db.example\\u{1b}[2J"];
    assert_eq!(fields(&connections, "123456", &columns), expected);
    let expected = ["192.0.2.2:999", "-", "-", "0.100000", "0", "0", "-"];
    assert_eq!(fields(&connections, "123457", &columns), expected);
}

#[test]
fn one_reading_and_one_of_another_process_give_no_rates() {
    let now = reading(12.0, 10.0);
    let mut other = reading(10.0, 10.0);
    other.counts.started_at += 1.0;
    for before in [None, Some(&other), Some(&now)] {
        for view in View::ALL {
            let sheet = sheet(view, &now, before);
            for row in &sheet.rows {
                let rates = row.iter().zip(sheet.columns);
                let rates = rates.filter(|(_, column)| {
                    matches!(column.unit, Unit::PerSecond | Unit::BytesPerSecond | Unit::Share)
                });
                assert!(rates.clone().all(|(cell, _)| cell.value == Value::Absent), "{view:?}: {row:?}");
            }
        }
    }
}

#[test]
fn a_counter_that_is_new_began_at_zero_and_one_that_fell_has_no_negative_rate() {
    let (now, mut before) = (reading(12.0, 10.0), reading(10.0, 10.0));
    before.counts.endpoints.clear();
    before.counts.upstreams.get_mut(&"pg".into()).unwrap().ended = 1e9;
    let endpoints = sheet(View::Endpoints, &now, Some(&before));
    assert_eq!(fields(&endpoints, "10.0.0.1:1", &["conn"]), ["60.00"]);
    let upstreams = sheet(View::Upstreams, &now, Some(&before));
    assert_eq!(fields(&upstreams, "pg", &["conn"]), ["0.00"]);
}

#[test]
fn everything_that_is_wrong_is_said() {
    let mut now = reading(12.0, 10.0);
    now.counts.overload.insert("memory".into());
    now.counts.reload_failed = true;
    now.counts.restart_needed.insert("limits".into());
    now.counts.unsynced.insert("endpointslices in db".into());
    now.counts.certificates.insert("file /a.crt".into(), "expired".into());
    now.counts.places_taken = now.counts.places_max;
    let whole = process(&Since::new(&now, None));
    let said = fields(&whole, "1.2.3", &["cluster", "why"]);
    assert_eq!(said[0], "unsynced");
    for part in [
        "overload: memory",
        "every place is taken",
        "the last reload failed",
        "restart is needed for limits",
        "endpointslices in db are not up to date",
        "certificate of file /a.crt: expired",
    ] {
        assert!(said[1].contains(part), "{part}: {}", said[1]);
    }
}

#[test]
fn a_list_that_is_not_whole_says_so() {
    let mut now = reading(12.0, 10.0);
    let note = |now: &Reading| sheet(View::Connections, now, None).note.map(|note| note.to_string());
    assert_eq!(note(&now), None);
    let mut connections = now.connections.take().unwrap();
    connections.connections = vec![connections.connections[0].clone(); 1_000];
    now.connections = Some(connections.clone());
    now.counts.workers.get_mut(&0).unwrap().active = 2_000.0;
    assert_eq!(note(&now).as_deref(), Some("the oldest 1000 of 2002"));
    connections.complete = false;
    now.connections = Some(connections);
    assert!(note(&now).unwrap().contains("did not answer"));
}

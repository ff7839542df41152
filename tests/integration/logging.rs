//! What is logged, changed while the process runs.

use std::io::Write;

use serde_json::Value;

use crate::support::{
    Driver, Endpoint, Process, Settings, admin_request, ask, closed_port, connect, eventually, metric,
    on_both_drivers,
};

on_both_drivers!(
    the_access_log_is_thinned_out_and_keeps_what_failed,
    the_level_is_changed_and_the_log_says_so
);

fn post(process: &Process, query: &str) -> Value {
    let (status, body) = admin_request(process.admin(), "POST", &format!("/log?{query}"));
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

fn the_access_log_is_thinned_out_and_keeps_what_failed(driver: Driver) {
    let echo = Endpoint::echo();
    let mut settings = Settings::new(driver, &[echo.address]).with_changes();
    settings.more_listeners.push("{name: broken, address: \"127.0.0.2:0\"}".to_owned());
    settings
        .more_routes
        .push("{name: broken, listener: broken, backendRefs: [{upstream: broken}]}".to_owned());
    settings
        .more_upstreams
        .push(format!("{{name: broken, endpoints: [{{address: \"{}\"}}]}}", closed_port()));
    let process = Process::start(&settings, |_| {});
    let (main, broken) = (process.listener("main"), process.listener("broken"));
    let mut ended = 0;
    // Ten ordinary connections and one that fails.
    let mut connections = || {
        (0..10).for_each(|_| assert_eq!(ask(main, "hello"), Ok("hello".to_owned())));
        ask(broken, "hello").unwrap_err();
        ended += 11;
        let all = || metric(process.admin(), "sheave_listener_connections_total", &[]);
        eventually("the end of all", all, |all| *all >= f64::from(ended));
    };
    connections();
    let state = post(&process, "accessLog.sample=0");
    assert_eq!(state["accessLog"]["sample"], 0.0);
    connections();
    post(&process, "accessLog.enabled=false");
    connections();
    post(&process, "accessLog.enabled=true&accessLog.sample=1");
    connections();
    // One thread writes them in their order, so that nothing comes after the last.
    let lines = eventually("all lines", || process.output.json(), |lines| lines.len() >= 23);
    let of: String = lines.iter().map(|line| if line["listener"] == "main" { '.' } else { 'x' }).collect();
    let (first, last) = of.split_at(12);
    assert_eq!((sorted(first), sorted(last)), ("..........xx".to_owned(), "..........x".to_owned()), "{of}");
}

/// Two workers, so that a connection may overtake another.
fn sorted(marks: &str) -> String {
    let mut marks: Vec<char> = marks.chars().collect();
    marks.sort_unstable();
    marks.into_iter().collect()
}

fn the_level_is_changed_and_the_log_says_so(driver: Driver) {
    let echo = Endpoint::echo();
    let settings = Settings::new(driver, &[echo.address])
        .listener("proxyProtocol: {mode: Require, trusted: [127.0.0.0/8]}")
        .with_changes();
    let process = Process::start(&settings, |_| {});
    let address = process.listener("main");
    let count = |level: &str| process.log.json().iter().filter(|line| line["level"] == level).count();
    let mut mistakes = 0;
    // Something that only `debug` tells of.
    let mut mistake = || {
        mistakes += 1;
        connect(address).write_all(b"no header\r\n").unwrap();
        let ended =
            || metric(process.admin(), "sheave_listener_connections_total", &["proxy_header_invalid"]);
        eventually("its end", ended, |ended| *ended >= f64::from(mistakes));
    };
    mistake();
    assert_eq!(count("DEBUG"), 0);
    assert_eq!(post(&process, "log.level=debug")["changed"][0], "log.level");
    mistake();
    eventually("a debug line", || count("DEBUG"), |lines| *lines > 0);
    assert_eq!(post(&process, "log.level=error")["log"]["level"], "error");
    let said =
        || process.log.json().into_iter().filter(|line| line["message"] == "logging was changed").collect();
    let said: Vec<Value> = eventually("both changes", said, |said: &Vec<Value>| said.len() == 2);
    assert_eq!([&said[0]["log_level"], &said[1]["log_level"]], ["debug", "error"], "{said:?}");
    assert!(said[1]["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{said:?}");
    let before = count("DEBUG");
    mistake();
    assert_eq!(count("DEBUG"), before);
}

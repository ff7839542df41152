//! In a pseudo terminal: what is seen, what keys do, and that the terminal is given back however it ends.

use rustix::process::Signal;

use crate::support::{Process, Terminal};

use super::*;

fn terminal(admin: SocketAddr, columns: u16, rows: u16) -> Terminal {
    start(admin, columns, rows, |_| {})
}

fn start(admin: SocketAddr, columns: u16, rows: u16, prepare: impl FnOnce(&mut Command)) -> Terminal {
    let arguments = ["top", "--interval", "100ms", "--admin", &admin.to_string()];
    Terminal::start(columns, rows, &arguments, prepare)
}

#[test]
fn keys_lead_through_what_is_there() {
    let echo = Endpoint::echo();
    let proxy = Proxy::start(&Settings::new(Driver::Epoll, &[echo.address]));
    let live: Vec<TcpStream> = (0..3).map(|_| connect(proxy.address)).collect();
    proxy.wait_for_live(3);
    let mut terminal = terminal(proxy.admin, 120, 30);
    let screen = terminal.shows("live 3");
    assert!(terminal.has_alternate_screen() && terminal.has_colours(), "{screen}");
    assert!(screen.contains("phase serving") && screen.contains("generation 1"), "{screen}");
    terminal.shows("2 endpoints");
    // Into the endpoints of the upstream, and into the connections of the endpoint.
    terminal.press("\r");
    terminal.shows(&format!("{}  main", echo.address));
    terminal.press("\r");
    terminal.shows("3 rows");
    let client = live[1].local_addr().unwrap().to_string();
    terminal.shows(&client);
    terminal.press("\x1b");
    terminal.shows("5 workers  3 rows");
    terminal.press(&format!("/{client}\r"));
    let screen = terminal.shows("1 rows");
    assert!(screen.contains(&client), "{screen}");
    // What goes is gone with the next reading.
    drop(live);
    terminal.shows("0 rows");
    terminal.press("?");
    terminal.shows("esc drops it");
    terminal.press("xp");
    terminal.shows("PAUSED");
    terminal.resize(50, 10);
    terminal.press("1");
    eventually(
        "a narrow screen",
        || terminal.text(),
        |text| text.contains("upstream") && !text.contains("2 endpoints"),
    );
    terminal.press("q");
    assert_eq!(terminal.ends_restored().code(), Some(0));
}

#[test]
fn without_colours_when_asked() {
    let echo = Endpoint::echo();
    let proxy = Proxy::start(&Settings::new(Driver::Epoll, &[echo.address]));
    let mut terminal = start(proxy.admin, 120, 30, |command| {
        command.env("NO_COLOR", "1");
    });
    terminal.shows("serving");
    assert!(!terminal.has_colours());
    terminal.press("\x03");
    assert_eq!(terminal.ends_restored().code(), Some(0));
}

#[test]
fn a_signal_ends_it_and_gives_the_terminal_back() {
    let echo = Endpoint::echo();
    let proxy = Proxy::start(&Settings::new(Driver::Epoll, &[echo.address]));
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let mut terminal = terminal(proxy.admin, 80, 24);
        terminal.shows("serving");
        terminal.signal(signal);
        assert_eq!(terminal.ends_restored().code(), Some(0), "{signal:?}");
    }
}

#[test]
fn a_process_that_goes_is_missed_and_one_that_is_not_there_is_an_error() {
    let echo = Endpoint::echo();
    let process = Process::start(&Settings::new(Driver::Epoll, &[echo.address]), |_| {});
    let admin = process.admin();
    let mut shown = terminal(admin, 120, 24);
    shown.shows("serving");
    drop(process);
    let screen = shown.shows("! no answer from the admin port");
    assert!(screen.contains("serving") && screen.contains("main"), "the last picture stays: {screen}");
    shown.press("q");
    assert_eq!(shown.ends_restored().code(), Some(0));
    let mut refused = terminal(admin, 120, 24);
    assert_eq!(refused.ends_restored().code(), Some(1));
    refused.shows("no answer from the admin port");
}

#[test]
fn hostile_texts_do_not_reach_the_terminal() {
    const TABLE: &str = r#"{"generation": 1, "acknowledgedGenerations": [1], "listeners": [], "upstreams": [
        {"name": "\u001b[2Jpg", "loadBalancer": "Random", "pending": 0, "panics": false, "leaving": [], "endpoints": [],
         "problem": {"reason": "evil", "text": "\u001b]0;owned\u0007\u009b31m\u202egnp"}}]}"#;
    let evil = pretend("sheave_process_uptime_seconds 1\n", TABLE, r#"{"complete":true,"connections":[]}"#);
    let mut terminal = terminal(evil.address, 160, 24);
    let screen = terminal.shows("\\u{1b}[2Jpg");
    assert!(screen.contains("\\u{1b}]0;owned\\u{7}\\u{9b}31m\\u{202e}gnp"), "{screen}");
    let bytes = terminal.bytes();
    assert!(!bytes.windows(2).any(|pair| pair == b"\x1b]"), "{}", String::from_utf8_lossy(&bytes));
    assert!(!bytes.contains(&7));
    terminal.press("q");
    assert_eq!(terminal.ends_restored().code(), Some(0));
    let once = top(evil.address, &["--once"]);
    assert!(
        once.status.success() && once.stdout.iter().all(|byte| *byte == b'\n' || !byte.is_ascii_control())
    );
}

#[cfg(feature = "faults")]
#[test]
fn a_panic_is_read_on_a_terminal_that_was_given_back() {
    let echo = Endpoint::echo();
    let proxy = Proxy::start(&Settings::new(Driver::Epoll, &[echo.address]));
    let mut terminal = start(proxy.admin, 120, 24, |command| {
        command.env("SHEAVE_FAULT", "top-panic=z").env("RUST_BACKTRACE", "0");
    });
    terminal.shows("serving");
    terminal.press("z");
    assert_eq!(terminal.ends_restored().code(), Some(101));
    terminal.shows("fault injected into a terminal");
}

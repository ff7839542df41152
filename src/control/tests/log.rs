use serde_json::{Value, json};

use super::*;
use crate::config::LogLevel;

fn changeable() -> Control {
    let config = config(&["127.0.0.1:1"]);
    let admin = config::Admin { allow_changes: true, ..config.admin };
    Builder { config: Config { admin, ..config }, ..builder() }.start()
}

fn shown(reply: &Reply) -> Value {
    assert_eq!(reply.status, 200, "{}", reply.body);
    serde_json::from_str(&reply.body).unwrap()
}

#[test]
fn what_is_logged_can_be_changed_and_is_shown() {
    let control = changeable();
    let (log, share) = (&control.handle.shared.log, &control.handle.shared.telemetry.sampling.log);
    let unchanged =
        json!({"log": {"level": "info"}, "accessLog": {"enabled": true, "sample": 1.0}, "changed": []});
    assert_eq!(shown(&control.get("/log")), unchanged);

    let changed = shown(&control.ask("POST", "/log?log.level=debug&accessLog.sample=0.25"));
    let expected = json!({
        "log": {"level": "debug"}, "accessLog": {"enabled": true, "sample": 0.25},
        "changed": ["log.level", "accessLog.sample"],
    });
    assert_eq!(changed, expected);
    assert_eq!(shown(&control.get("/log")), expected);
    assert_eq!((log.get(), share.get(), share.is_on()), (LogLevel::Debug, 0.25, true));

    shown(&control.ask("POST", "/log?accessLog.enabled=false"));
    assert_eq!((log.get(), share.get(), share.is_on()), (LogLevel::Debug, 0.25, false));
    let back = "/log?log.level=info&accessLog.enabled=true&accessLog.sample=1";
    assert_eq!(shown(&control.ask("POST", back)), unchanged);
}

#[test]
fn a_mistake_says_what_would_be_right_and_changes_nothing() {
    let control = changeable();
    let before = shown(&control.get("/log"));
    for (query, hint) in [
        ("", "nothing to change; there is log.level, accessLog.enabled and accessLog.sample"),
        ("?level=debug", "unknown parameter \"level\"; there is log.level"),
        (
            "?log.level=loud",
            "log.level: \"loud\" is not a level; write one of error, warn, info, debug, trace",
        ),
        ("?accessLog.enabled=yes", "accessLog.enabled: \"yes\" is neither true nor false"),
        (
            "?accessLog.sample=1.5",
            "accessLog.sample: \"1.5\" is not a share; write a number from 0 (none) to 1",
        ),
        ("?accessLog.sample=NaN", "accessLog.sample: \"NaN\" is not a share"),
        ("?accessLog.sample=-0", "accessLog.sample: \"-0\" is not a share"),
        ("?log.level=debug&accessLog.sample=x", "accessLog.sample: \"x\""),
    ] {
        let reply = control.ask("POST", &format!("/log{query}"));
        assert_eq!(reply.status, 400, "{query}");
        assert!(reply.body.contains(hint), "{query}: {}", reply.body);
    }
    let put = control.ask("PUT", "/log");
    assert!(put.status == 405 && put.head.contains("allow: get, head, post"), "{}", put.head);
    assert_eq!(control.get("/log?log.level=debug").status, 400, "a GET changes nothing");
    assert_eq!(shown(&control.get("/log")), before);
}

#[test]
fn it_takes_a_permission_and_no_web_page_has_it() {
    let closed = builder().start();
    let reply = closed.ask("POST", "/log?log.level=debug");
    assert_eq!(reply.status, 403);
    assert!(reply.body.contains("admin.allowChanges: true"), "{}", reply.body);
    assert_eq!(shown(&closed.get("/log"))["changed"], json!([]));

    let open = changeable();
    let address = open.handle.admin_address();
    for header in ["Origin: http://evil.example", "Sec-Fetch-Site: cross-site"] {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        write!(stream, "POST /log?log.level=debug HTTP/1.0\r\nHost: sheave\r\n{header}\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.0 403"), "{header}: {answer}");
    }
    assert_eq!(shown(&open.get("/log"))["changed"], json!([]));
}

//! The text of the access log, as other programs read it.

use std::process::{Command, Stdio};

use crate::support::{Driver, Endpoint, Process, Settings, ask, closed_port, eventually, on_both_drivers};

on_both_drivers!(text_is_split_by_awk);

/// One retried connection, split by the rule that docs/access-log.md gives.
fn text_is_split_by_awk(driver: Driver) {
    let (echo, refused) = (Endpoint::echo(), closed_port());
    let settings = Settings::new(driver, &[refused, echo.address])
        .upstream("loadBalancer: {type: RoundRobin}")
        .top("accessLog: {format: text}");
    let settings = Settings { workers: 1, ..settings };
    let process = Process::start(&settings, |_| {});
    // At least one of two begins at the endpoint that refuses.
    for _ in 0..2 {
        assert_eq!(ask(process.listener("main"), "hello"), Ok("hello".to_owned()));
    }
    let lines = eventually("two lines", || process.output.get(), |text| text.lines().count() == 2);
    assert!(lines.lines().all(|line| line.split(' ').count() == 17), "{lines}");
    let retried = format!("{refused}@");
    let line = lines.lines().find(|line| line.contains(&retried)).expect("a retried connection");
    let program = "{split($8, t, \"/\"); split($11, a, \",\"); print NF, $2, $4, $5, $6, $7, $9, $10, $12, $17; \
                   print (t[1] >= 0 && t[2] > 0 && t[3] >= 0 && t[4] >= t[2]); print a[1]; print a[2]}";
    let mut awk =
        Command::new("awk").arg(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut awk.stdin.take().unwrap(), line.as_bytes()).unwrap();
    let output = String::from_utf8(awk.wait_with_output().unwrap().stdout).unwrap();
    let said: Vec<&str> = output.lines().collect();
    assert_eq!(said[0], format!("17 main main {} downstream_closed downstream 5 5 main -", echo.address));
    assert_eq!(said[1], "1", "{line}");
    assert!(said[2].starts_with(&retried) && said[2].contains("=connect_refused"), "{line}");
    assert!(said[3].starts_with(&format!("{}@", echo.address)) && said[3].ends_with("=connected"), "{line}");
}

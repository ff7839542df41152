//! The page in a real browser: tests/page/check.mjs looks at it, with the tools that scripts/install-page-tools has.

use std::path::Path;
use std::process::Command;

use crate::support::{
    Driver, Endpoint, Process, Settings, admin_get, ask, closed_port, eventually, on_both_drivers,
};

on_both_drivers!(a_person_sees_and_does_what_there_is);

fn run(program: &Path, prepare: impl FnOnce(&mut Command)) -> String {
    let mut command = Command::new(program);
    prepare(&mut command);
    let output = command.output().unwrap_or_else(|error| {
        panic!("{}: {error}; scripts/setup installs what the tests need", program.display());
    });
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

fn a_person_sees_and_does_what_there_is(driver: Driver) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tools = run(&root.join("scripts/install-page-tools"), |_| ());
    let (echo, nobody) = (Endpoint::echo(), closed_port());
    let mut settings = Settings::new(driver, &[echo.address]).with_changes();
    // The breaker of an endpoint where nobody listens opens, and stays so.
    settings.more_upstreams.push(format!(
        "{{name: broken, endpoints: [{{address: \"{nobody}\"}}], retry: {{numRetries: 0}}, \
         circuitBreaker: {{perEndpoint: {{consecutiveFailures: 1, openFor: {{baseInterval: 5m, maxInterval: 5m}}}}}}}}"
    ));
    settings.more_listeners.push("{name: broken, address: \"127.0.0.2:0\"}".to_owned());
    settings
        .more_routes
        .push("{name: broken, listener: broken, backendRefs: [{upstream: broken}]}".to_owned());
    let process = Process::start(&settings, |_| ());
    let admin = process.admin();
    let _refused = ask(process.listener("broken"), "hello");
    eventually(
        "the breaker's state in the table",
        || admin_get(admin, "/table"),
        |table| table.contains("\"breaker\":\"open\""),
    );
    let said = run(Path::new("node"), |command| {
        let arguments = [format!("http://{admin}/"), process.listener("main").to_string()];
        command.arg(root.join("tests/page/check.mjs")).args(arguments).arg(tools.trim());
    });
    assert_eq!(said.trim(), "the page is as it should be");
}

//! The commands, what they print and their exit codes.

mod demo;
mod schema;

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::support::{Authority, Certificate, Driver, Endpoint, Settings};

const GOOD: &str = "\
listeners:
  - {name: web, address: \"127.0.0.1:8080\"}
routes:
  - {name: web, listener: web, backendRefs: [{upstream: web}]}
upstreams:
  - {name: web, endpoints: [{address: \"10.0.0.1:80\"}]}
";

fn sheave(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sheave"));
    command.args(arguments).stdin(Stdio::null()).env_remove("SHEAVE_CONFIG");
    command.output().unwrap()
}

fn check(file: &Path) -> Output {
    sheave(&["check", file.to_str().unwrap()])
}

/// Exit code, standard output, standard error.
fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn help_and_version_go_to_standard_output() {
    for (arguments, expected) in [
        (&["--help"][..], "Exit codes: 0 done"),
        (&["-h"], "Usage: sheave <COMMAND>"),
        (&["run", "--help"], "--config <FILE>"),
        (&["check", "--help"], "Usage: sheave check [OPTIONS] <FILE>"),
        (&["demo", "--help"], "--seconds <SECONDS>"),
        (&["top", "--help"], "--admin <ADDRESS>"),
        (&["schema", "--help"], "JSON Schema"),
        (&["--version"], concat!("sheave ", env!("CARGO_PKG_VERSION"), "\n")),
    ] {
        let (code, stdout, stderr) = said(&sheave(arguments));
        assert_eq!((code, stderr.as_str()), (Some(0), ""), "{arguments:?}: {stdout}");
        assert!(stdout.contains(expected), "{arguments:?}: {stdout}");
        assert!(!stdout.contains("port-zero"), "not for users: {stdout}");
    }
}

#[test]
fn bad_usage_exits_with_2_and_says_what_would_be_right() {
    for (arguments, expected) in [
        (&[][..], "Usage: sheave <COMMAND>"),
        (&["walk"], "unrecognized subcommand 'walk'"),
        (&["chekc", "file"], "'check'"),
        (&["check"], "<FILE>"),
        (&["run"], "--config <FILE>"),
        (&["demo", "--seconds", "ten"], "--seconds <SECONDS>"),
        (&["schema", "--yaml"], "--yaml"),
    ] {
        let (code, stdout, stderr) = said(&sheave(arguments));
        assert_eq!((code, stdout.as_str()), (Some(2), ""), "{arguments:?}: {stderr}");
        assert!(stderr.contains(expected), "{arguments:?}: {stderr}");
    }
}

#[test]
fn a_good_file_is_called_good() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("good.yaml");
    std::fs::write(&file, GOOD).unwrap();
    let expected = format!("{}: good: 1 listeners, 1 routes, 1 upstreams\n", file.display());
    assert_eq!(said(&check(&file)), (Some(0), expected, String::new()));
    let (code, stdout, _) = said(&check(Path::new("config/local.yaml")));
    assert_eq!(code, Some(0), "{stdout}");
}

#[test]
fn certificates_in_files_are_loaded() {
    let authority = Authority::new();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tls.yaml");
    let write = |certificate: &Certificate| {
        let tls = format!("protocol: TLS, tls: {{certificateRefs: [{}]}}", certificate.reference());
        std::fs::write(&file, GOOD.replace("name: web, address", &format!("{tls}, name: web, address")))
            .unwrap();
    };
    let mut one = authority.certify(&["one.example"]);
    write(&one);
    let good = format!("{}: good: 1 listeners, 1 routes, 1 upstreams\n", file.display());
    assert_eq!(said(&check(&file)), (Some(0), good.clone(), String::new()));

    write(&authority.certify_until(&["old.example"], 2021));
    let (code, stdout, stderr) = said(&check(&file));
    assert_eq!((code, &stdout), (Some(0), &good));
    assert!(
        stderr.contains("tls.yaml: warning: file ") && stderr.contains("expired at 2021-01-01"),
        "{stderr}"
    );

    let nameless = authority.certify_nameless("nameless.example");
    write(&nameless);
    let (code, stdout, stderr) = said(&check(&file));
    assert_eq!((code, &stdout), (Some(0), &good));
    assert!(stderr.contains("warning: file ") && stderr.contains("has no subjectAltName"), "{stderr}");

    let chain = std::fs::read_to_string(&one.certificate).unwrap();
    let garbage = "-----BEGIN CERTIFICATE-----\nAAECAwQ=\n-----END CERTIFICATE-----\n";
    std::fs::write(&one.certificate, chain.clone() + garbage).unwrap();
    write(&one);
    let (code, _, stderr) = said(&check(&file));
    assert!(code == Some(2) && stderr.contains("certificate 2 of the chain cannot be read"), "{stderr}");
    std::fs::write(&one.certificate, chain).unwrap();

    one.key = authority.certify(&["two.example"]).key;
    write(&one);
    let (code, _, stderr) = said(&check(&file));
    let wrong = "tls.yaml: listeners[0].tls.certificateRefs[0].file: file ";
    assert!(code == Some(2) && stderr.contains(wrong), "{stderr}");
    assert!(stderr.contains("the key does not belong to the certificate"), "{stderr}");
    let ran = said(&sheave(&["run", "--config", file.to_str().unwrap()]));
    assert!(ran.0 == Some(2) && ran.2.contains("listeners[0].tls.certificateRefs[0].file"), "{ran:?}");
    let without = sheave(&["check", "--without-certificates", file.to_str().unwrap()]);
    assert_eq!(said(&without), (Some(0), good, String::new()));
}

/// What is replaced in the good file, by what; and the whole error, without the file's name.
const BROKEN: [(&str, &str, &str); 12] = [
    ("name: web, address", "nam: web, address", "2: listeners[0].nam: there is no such field; write name"),
    (
        "127.0.0.1:8080",
        "127.0.0.1:80800",
        "2: listeners[0].address: \"80800\" is not a port; write a number from 1 to 65535 after the last \
         colon (listener \"web\")",
    ),
    (
        "127.0.0.1:8080",
        "localhost:8080",
        "2: listeners[0].address: \"localhost\" is a host name, and listening takes an IP address; write \
         127.0.0.1 for this machine alone, or \"[::]\" for every address (listener \"web\")",
    ),
    (
        "127.0.0.1:8080",
        "127.0.0.1:0",
        "2: listeners[0].address: port 0 is a different port at every start; write the port clients connect \
         to (listener \"web\")",
    ),
    (
        "listener: web",
        "listener: wbe",
        "4: routes[0].listener: there is no listener \"wbe\"; write web (route \"web\")",
    ),
    (
        "{upstream: web}",
        "{upstream: db}",
        "4: routes[0].backendRefs[0].upstream: there is no upstream \"db\"; write web, or add it under \
         upstreams (route \"web\")",
    ),
    (
        "{upstream: web}",
        "{upstream: web, weight: 0}",
        "4: routes[0].backendRefs: every weight is 0, so no connection could go anywhere; write a weight of \
         at least 1 (route \"web\")",
    ),
    (
        "[{address: \"10.0.0.1:80\"}]",
        "[]",
        "6: upstreams[0]: it has no endpoints; write at least one, like endpoints: [{address: \
         10.0.0.7:5432}], or the Service to follow, like service: {namespace: db, name: pg, port: 5432} (upstream \
         \"web\")",
    ),
    (
        "upstreams:",
        "drain: {timeout: 5}\nupstreams:",
        "5: drain.timeout: 5 has no unit; write 5s for seconds, or use ms, m or h",
    ),
    (
        "upstreams:",
        "workers: {count: 0}\nupstreams:",
        "5: workers.count: \"0\" is not a count; write auto, or a whole number of at least 1",
    ),
    (
        "upstreams:",
        "tracing: {endpoint: jaeger}\nupstreams:",
        "5: tracing.endpoint: \"jaeger\" is not the URL of a receiver; write one like http://localhost:4317, or \
         with https://",
    ),
    (
        "routes:",
        "routes: [",
        "4: not valid YAML: \"-\" is only valid inside a block (column 3); check the indentation, quotes \
         and brackets here and just above",
    ),
];

#[test]
fn every_mistake_has_its_line_and_what_to_write_instead() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("sheave.yaml");
    let name = format!("{}:", file.display());
    for (before, after, expected) in BROKEN {
        std::fs::write(&file, GOOD.replace(before, after)).unwrap();
        let (code, stdout, stderr) = said(&check(&file));
        assert_eq!((code, stdout.as_str()), (Some(2), ""), "{after}: {stderr}");
        assert_eq!(stderr.replace(&name, ""), format!("{expected}\n"), "{after}");
    }
}

#[test]
fn all_mistakes_are_found_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("sheave.yaml");
    let broken =
        GOOD.replace("8080", "80800").replace("listener: web", "listener: wbe").replace("10.0.0.1", "ten");
    std::fs::write(&file, broken).unwrap();
    let (code, _, stderr) = said(&check(&file));
    assert_eq!(code, Some(2));
    let lines: Vec<&str> = stderr.lines().collect();
    assert_eq!(lines.len(), 3, "{stderr}");
    for (line, number) in lines.iter().zip([2, 4, 6]) {
        assert!(line.starts_with(&format!("{}:{number}: ", file.display())), "{line}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    for command in [&["check"][..], &["run", "--config"]] {
        let arguments = [command, &["/nonexistent/sheave.yaml"]].concat();
        let expected = "/nonexistent/sheave.yaml: there is no such file; write the path of one\n".to_owned();
        assert_eq!(said(&sheave(&arguments)), (Some(2), String::new(), expected), "{arguments:?}");
    }
    let directory = tempfile::tempdir().unwrap();
    let (code, _, stderr) = said(&check(directory.path()));
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains(&directory.path().display().to_string()), "{stderr}");
}

#[test]
fn run_with_a_bad_file_exits_with_2_and_says_what_check_says() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("sheave.yaml");
    std::fs::write(&file, GOOD.replace("listener: web", "listener: wbe")).unwrap();
    let ran = said(&sheave(&["run", "--config", file.to_str().unwrap()]));
    assert_eq!(ran.0, Some(2));
    assert_eq!(ran, said(&check(&file)));
}

#[test]
fn run_on_a_port_in_use_exits_with_1_and_names_it() {
    let (echo, taken) = (Endpoint::echo(), TcpListener::bind("127.0.0.1:0").unwrap());
    let address = taken.local_addr().unwrap();
    let settings = Settings::new(Driver::Epoll, &[echo.address]);
    let listening = Settings { listen: address.to_string(), ..settings.clone() }.yaml();
    let admin = settings
        .yaml()
        .replace("admin: {address: \"127.0.0.1:0\"}", &format!("admin: {{address: \"{address}\"}}"));
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("sheave.yaml");
    for (yaml, expected) in [
        (listening, format!("sheave: listener main cannot listen on {address}: Address already in use")),
        (admin, format!("sheave: admin.address: cannot listen on {address}: Address already in use")),
    ] {
        std::fs::write(&file, yaml).unwrap();
        let arguments = ["run", "--allow-port-zero", "--config", file.to_str().unwrap()];
        let (code, stdout, stderr) = said(&sheave(&arguments));
        assert_eq!((code, stdout.as_str()), (Some(1), ""), "{stderr}");
        assert!(stderr.contains(&expected), "{stderr}");
    }
}

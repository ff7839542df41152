//! `sheave demo` on its fixed ports, in a network of its own, so that nobody else has them.

use std::io::{BufRead, BufReader};
use std::process::Child;

use rustix::process::{Pid, Signal, kill_process};

use super::*;
use crate::support::in_namespace;

fn demo(seconds: &str) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sheave"));
    command.args(["demo", "--seconds", seconds]).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Five seconds, because the second endpoint stops in the fourth.
#[test]
fn it_runs_to_its_end_and_none_fail() {
    in_namespace(|| {
        let output = said(&demo("5").wait_with_output().unwrap());
        let (code, stdout, stderr) = &output;
        assert_eq!(*code, Some(0), "{stdout}{stderr}");
        let is_expected =
            |line: &str| line.contains("the breaker is open") && line.contains("127.0.0.1:7102");
        assert!(stderr.lines().all(is_expected), "{stderr}");
        assert!(stdout.contains("endpoint 127.0.0.1:7102 is stopped") && stdout.contains("down"), "{stdout}");
        let last = stdout.lines().last().unwrap();
        assert!(last.ends_with(" connections carried, 0 failed."), "{stdout}");
        let carried: u32 = last.split(' ').next().unwrap().parse().unwrap();
        assert!(carried > 20, "{stdout}");
    });
}

#[test]
fn an_interrupt_ends_it_and_none_fail() {
    in_namespace(|| {
        let mut child = demo("0");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let carrying = lines.find(|line| line.trim_start().starts_with("1 s")).unwrap();
        assert!(carrying.ends_with("failed 0"), "{carrying}");
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        let rest: Vec<String> = lines.collect();
        assert!(rest.last().unwrap().ends_with(" connections carried, 0 failed."), "{rest:?}");
        let (code, _, stderr) = said(&child.wait_with_output().unwrap());
        assert_eq!(code, Some(0), "{stderr}");
    });
}

/// Its listener, an endpoint, its admin port.
#[test]
fn a_port_in_use_is_named() {
    in_namespace(|| {
        for port in [7000, 7102, 9901] {
            let _taken = TcpListener::bind(("127.0.0.1", port)).unwrap();
            let (code, stdout, stderr) = said(&demo("1").wait_with_output().unwrap());
            assert_eq!((code, stdout.as_str()), (Some(1), ""), "{port}: {stderr}");
            assert!(stderr.starts_with("sheave demo: "), "{stderr}");
            assert!(
                stderr.contains(&format!("listen on 127.0.0.1:{port}: Address already in use")),
                "{stderr}"
            );
        }
    });
}

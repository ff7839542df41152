//! `sheave demo` on its fixed ports, in a network namespace of its own (which needs root), so that nobody has them.

use std::io::{BufRead, BufReader};
use std::process::Child;

use rustix::process::{Pid, Signal, kill_process};

use super::*;

/// The process is `sheave demo` itself: unshare and the shell become it.
fn demo(arguments: &str) -> Child {
    in_namespace("exec ", &format!("demo {arguments}"))
}

fn in_namespace(before: &str, arguments: &str) -> Child {
    let script = format!("ip link set lo up && {before} \"$0\" {arguments}");
    let mut command = Command::new("unshare");
    command.args(["--net", "--", "sh", "-c", &script, env!("CARGO_BIN_EXE_sheave")]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Five seconds, because the second endpoint stops in the fourth.
#[test]
fn it_runs_to_its_end_and_none_fail() {
    let output = said(&demo("--seconds 5").wait_with_output().unwrap());
    let (code, stdout, stderr) = &output;
    assert_eq!(*code, Some(0), "{output:?}");
    assert!(stdout.contains("endpoint 127.0.0.1:7102 is stopped") && stdout.contains("down"), "{stdout}");
    let last = stdout.lines().last().unwrap();
    assert!(last.ends_with(" connections carried, 0 failed."), "{stdout}");
    let carried: u32 = last.split(' ').next().unwrap().parse().unwrap();
    assert!(carried > 20, "{stdout}");
    assert_eq!(stderr, "", "{stdout}");
}

#[test]
fn an_interrupt_ends_it_and_none_fail() {
    let mut child = demo("");
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let carrying = lines.find(|line| line.trim_start().starts_with("1 s")).unwrap();
    assert!(carrying.ends_with("failed 0"), "{carrying}");
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let rest: Vec<String> = lines.collect();
    assert!(rest.last().unwrap().ends_with(" connections carried, 0 failed."), "{rest:?}");
    let (code, _, stderr) = said(&child.wait_with_output().unwrap());
    assert_eq!(code, Some(0), "{stderr}");
}

/// One of its ports is the admin port of another Sheave.
#[test]
fn a_port_in_use_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("sheave.yaml");
    for port in [7000, 7102, 9901] {
        let yaml = format!("admin: {{address: \"127.0.0.1:{port}\"}}\n{GOOD}");
        std::fs::write(&config, yaml).unwrap();
        let log = directory.path().join(format!("log{port}"));
        let (config, log) = (config.display(), log.display());
        let other = format!(
            "\"$0\" run --config {config} 2>{log} & other=$!; trap 'kill -KILL $other' EXIT; \
             until grep -qs '\"serving\"' {log}; do kill -0 $other || exit 9; done; "
        );
        let output = in_namespace(&other, "demo --seconds 1").wait_with_output().unwrap();
        let (code, stdout, stderr) = said(&output);
        assert_eq!((code, stdout.as_str()), (Some(1), ""), "{port}: {stderr}");
        assert!(stderr.starts_with("sheave demo: "), "{stderr}");
        assert!(stderr.contains(&format!("listen on 127.0.0.1:{port}: Address already in use")), "{stderr}");
    }
}

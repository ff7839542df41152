//! Nobody reads standard output or standard error: neither traffic nor the exit waits for them.

use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::process::Command;

use super::*;

on_both_drivers!(an_access_log_that_nobody_reads_holds_nothing_up, a_log_that_nobody_reads_holds_nothing_up);

/// The exit waits a second for each of the two at most.
const BOUNDED: Duration = Duration::from_secs(12);

/// The reading and the writing end of a pipe that is soon full.
fn small_pipe() -> (OwnedFd, OwnedFd) {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    rustix::pipe::fcntl_setpipe_size(&writer, 4096).unwrap();
    (reader, writer)
}

/// Whether a writer would have to wait.
fn is_full(writer: &OwnedFd) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut polled = [PollFd::new(writer, PollFlags::OUT)];
    poll(&mut polled, Some(&Timespec::default())).unwrap() == 0
}

/// Traffic until the pipe is full, and more traffic then; the end.
fn carry_on_and_end(process: &mut Process, address: SocketAddr, pipe: &OwnedFd, echo: &Endpoint) {
    let loads: Vec<Load> = (0..3).map(|_| Load::short(address)).collect();
    eventually("a full pipe", || is_full(pipe), |full| *full);
    let before = echo.accepted();
    eventually("traffic nevertheless", || echo.accepted(), |accepted| *accepted > before + 500);
    for load in loads {
        load.stop().unwrap();
    }
    let asked = Instant::now();
    process.signal(Signal::TERM);
    assert_done(process);
    assert!(asked.elapsed() < BOUNDED, "{:?}", asked.elapsed());
}

fn an_access_log_that_nobody_reads_holds_nothing_up(driver: Driver) {
    let echo = Endpoint::polite();
    let (_reader, writer) = small_pipe();
    let settings = Settings::new(driver, &[echo.address]).top("drain: {delay: 0s, timeout: 60s}");
    let stdout = writer.try_clone().unwrap();
    let mut process = Process::start(&settings, |command: &mut Command| {
        command.stdout(stdout);
    });
    let address = process.listener("main");
    carry_on_and_end(&mut process, address, &writer, &echo);
}

fn a_log_that_nobody_reads_holds_nothing_up(driver: Driver) {
    let echo = Endpoint::polite();
    let (reader, writer) = small_pipe();
    let settings = Settings::new(driver, &[echo.address]).top("drain: {delay: 0s, timeout: 60s}");
    let stderr = writer.try_clone().unwrap();
    let mut process = Process::start(&settings, |command: &mut Command| {
        command.stderr(stderr);
    });
    let mut lines = BufReader::new(std::fs::File::from(reader)).lines();
    let listening = lines.find(|line| line.as_ref().unwrap().contains("\"listening\"")).unwrap().unwrap();
    let serving = lines.find(|line| line.as_ref().unwrap().contains("\"serving\"")).unwrap().unwrap();
    let line: Value = serde_json::from_str(&listening).unwrap();
    let address: SocketAddr = line["address"].as_str().unwrap().parse().unwrap();
    // One line for each of these, which is longer than the pipe.
    let mistakes: String = (0..100).map(|number| format!("mistake{number}: 1\n")).collect();
    std::fs::write(&process.config, mistakes).unwrap();
    for _ in 0..20 {
        process.signal(Signal::HUP);
    }
    carry_on_and_end(&mut process, address, &writer, &echo);
    drop((lines, serving));
}

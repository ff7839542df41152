//! What single steps of a connection take: finding a route, choosing an endpoint, asking its breaker, entering and writing
//! the record.
//!
//! `cargo bench --bench pick` tells times: CPU time of this thread, so that a busy machine does not show. `make guard` counts
//! instructions under callgrind instead, which hardly differ from run to run, and holds them against `counts.txt` (counts.rs).
//! With `-- --shared`: what of a connection two workers share, and what that costs (shared.rs).

mod counts;
mod records;
mod shared;
mod steps;
mod tables;

use std::error::Error;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use steps::{Step, TYPES};

/// How often a step is done for one time.
const TIMES: usize = 1_000_000;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        [] => tell_times(),
        ["--shared"] => tell_shared(),
        ["--counts"] => counts::compare(),
        ["--counts", "--bless"] => counts::bless(),
        // Under callgrind.
        ["--step", name, times] => Step::named(name)?.prepare()?(times.parse()?),
        _ => Err("usage: cargo bench --bench pick [-- --shared | --counts [--bless]]".into()),
    }
}

fn tell_times() -> Result<(), Box<dyn Error>> {
    println!("{:<17} {:>10} {:>12}", "matched by", "routes", "ns/route");
    for routes in [1, 100, 5_000] {
        for by in ["hostname", "wildcard", "source", "protocol"] {
            println!("{by:<17} {routes:>10} {:>12.0}", nanos(Step::Find { by, routes })?);
        }
    }
    println!("{:<17} {:>10} {:>12}", "type", "endpoints", "ns/choice");
    for endpoints in [10, 1_000, 10_000] {
        for kind in TYPES {
            println!("{kind:<17} {endpoints:>10} {:>12.0}", nanos(Step::Pick { kind, endpoints })?);
        }
    }
    println!("{:<28} {:>12}", "step", "ns");
    for step in Step::SMALL.into_iter().chain(Step::TIMED) {
        println!("{:<28} {:>12.0}", step.name(), nanos(step)?);
    }
    Ok(())
}

fn tell_shared() -> Result<(), Box<dyn Error>> {
    println!(
        "{:<17} {:>10} {:>12} {:>12} {:>12}   ns/connection",
        "type", "endpoints", "one worker", "two, apart", "two, shared"
    );
    for endpoints in [2, 100, 1_000] {
        for kind in TYPES {
            let [alone, apart, shared] = shared::nanos(kind, endpoints)?;
            println!("{kind:<17} {endpoints:>10} {alone:>12.0} {apart:>12.0} {shared:>12.0}");
        }
    }
    Ok(())
}

/// Of one step. What is made before, and what is done in between to be able to do it again, is not part of a choice, and only
/// there is enough of it to matter.
fn nanos(step: Step) -> Result<f64, Box<dyn Error>> {
    if let Step::Pick { kind, endpoints } = step {
        return steps::pick_nanos(&tables::of_endpoints(kind, endpoints)?, TIMES, cpu_nanos);
    }
    let mut run = step.prepare()?;
    let started = cpu_nanos()?;
    run(TIMES)?;
    Ok((cpu_nanos()? - started) / TIMES as f64)
}

/// CPU time of this thread.
fn cpu_nanos() -> Result<f64, Box<dyn Error>> {
    let spent: Duration = clock_gettime(ClockId::ThreadCPUTime).try_into()?;
    Ok(spent.as_secs_f64() * 1e9)
}

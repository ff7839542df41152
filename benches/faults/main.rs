//! Sheave beside HAProxy and Envoy while endpoints fail: what new connections of clients come to, and what endpoints bear.
//!
//! `make bench-faults`, or `cargo bench --bench faults -- --help`. As root: it makes a network namespace, in which nft drops and
//! refuses what is sent to endpoints. docs/resilience.md says what came of it.

#![expect(
    clippy::disallowed_methods,
    reason = "no worker runs here: sleeping is how a load is timed, exiting how a hung run ends"
)]

mod args;
mod cases;
mod configs;
mod endpoints;
#[path = "../compare/error.rs"]
mod error;
#[path = "../compare/guard.rs"]
mod guard;
mod load;
mod network;
mod peer;
mod table;

use std::process::ExitCode;
use std::time::Duration;

use args::Command;
use cases::Case;
use error::Result;
use table::Table;

fn main() -> ExitCode {
    let outcome = match args::parse(std::env::args().skip(1)) {
        Ok(Command::Run(options)) => run(&options),
        Ok(Command::Help) => {
            print!("{}", args::HELP);
            Ok(())
        }
        Ok(Command::Nothing) => {
            eprintln!("faults: measures only under `cargo bench --bench faults`");
            Ok(())
        }
        Err(error) => Err(error),
    };
    guard::clean_up();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("faults: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &args::Options) -> Result<()> {
    // First of all: threads and processes that are started later are in it too.
    network::enter()?;
    guard::start(Duration::from_secs(120) * options.rounds as u32 * 10)?;
    let mut versions = Vec::new();
    for peer in options.cases.iter().flat_map(|case| options.peers_of(*case)) {
        let version = peer.version(options)?;
        if !versions.contains(&version) {
            println!("{version}");
            versions.push(version);
        }
    }
    for case in &options.cases {
        let mut table = Table::new(*case);
        for round in 0..options.rounds {
            for peer in options.peers_of(*case) {
                eprintln!("faults: {} {}/{} {}", case.name(), round + 1, options.rounds, peer.name());
                let values = match case {
                    Case::Blackhole => cases::blackhole(peer, options),
                    Case::Outage => cases::outage(peer, options),
                    Case::SlowAnswer | Case::LostSyns => cases::slow(*case, peer, options),
                }?;
                table.add(peer.name(), values);
            }
        }
        print!("\n{}", table.markdown());
    }
    Ok(())
}

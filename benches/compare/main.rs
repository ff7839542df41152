//! Sheave beside other TCP proxies: CPU time, latency and memory for the same work on the same core.
//!
//! `cargo bench --bench compare -- --help` lists the options; docs/performance.md says how the numbers
//! are made and what they can and cannot tell.

#![expect(
    clippy::disallowed_methods,
    reason = "no worker runs here: sleeping is how a load is timed, exiting how a hung run ends"
)]

mod args;
mod backend;
mod bulk;
mod cases;
mod churn;
mod connections;
mod error;
mod guard;
mod idle;
mod link;
mod machine;
mod peer;
mod poller;
mod process;
mod profile;
mod receiver;
mod report;
mod round_trips;
mod secure;
mod session;
mod stats;
mod storm;
mod wire;

use std::process::ExitCode;

use args::{Command, Options};
use error::Result;
use report::Report;
use session::Session;

fn main() -> ExitCode {
    let outcome = match args::parse(std::env::args().skip(1)) {
        Ok(Command::Run(options)) => run(*options),
        Ok(Command::Help) => {
            print!("{}", args::HELP);
            Ok(())
        }
        Ok(Command::Nothing) => {
            eprintln!("compare: measures only under `cargo bench --bench compare`");
            Ok(())
        }
        Err(error) => Err(error),
    };
    // Children may still be alive when a start-up step failed half way.
    guard::clean_up();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("compare: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> Result<()> {
    machine::check(&options)?;
    guard::start(options.time_limit())?;
    let mut session = Session::start(options)?;
    session.run()?;
    let report = Report::new(&session);
    print!("{}", report.markdown());
    if let Some(file) = &session.options.json {
        report.write_json(file)?;
    }
    session.stop()
}

//! The workload of the end-to-end tests: the endpoints that Sheave stands in front of, and the clients that say what
//! they saw of it. One program, so that one image is both sides. It is no benchmark: it tells failures apart.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a program for tests ends by panicking, and its own tests do too"
)]

mod conversation;
mod endpoint;
mod held;
mod http;
mod load;
mod pace;
mod report;
mod secure;
mod tally;
#[cfg(test)]
mod tests;

use std::io;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

#[derive(Parser)]
#[command(about = "Endpoints and clients for Sheave's end-to-end tests")]
enum Workload {
    /// Answer each line with the pod's name and the line
    Serve(endpoint::Serve),
    /// Open connections at a steady rate, hold others, and report how each went
    Load(load::Load),
}

fn main() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut signals = signal(SignalKind::terminate())?;
        let terminated = async {
            signals.recv().await;
        };
        match Workload::parse() {
            Workload::Serve(serve) => endpoint::serve(serve, terminated).await,
            Workload::Load(load) => load::run(load, terminated).await,
        }
    })
}

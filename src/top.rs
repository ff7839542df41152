//! `sheave top`: a running process in a terminal, or as tables for scripts, from what its admin port tells.
//!
//! A reading ([`reading`]) becomes rows ([`rows`]), which [`screen`] keeps and [`view`] draws; only [`client`] and
//! [`terminal`] do anything that can wait. It asks, and changes nothing.

mod client;
mod counts;
mod exposition;
mod format;
mod histogram;
mod plain;
mod reading;
mod rows;
mod screen;
mod sheet;
mod terminal;
#[cfg(test)]
mod tests;
mod text;
mod view;

use std::io;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

pub use client::AskError;
pub use rows::View;

use client::Client;
use reading::{Reading, Who};
use rows::{Since, process};

/// What to show, and of which process.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its admin port.
    pub admin: SocketAddr,
    /// Between two readings.
    pub interval: Duration,
    /// What to begin with; for [`once`] all there is to show, and `None` is everything.
    pub view: Option<View>,
    pub colours: bool,
}

/// Why it ended before it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum TopError {
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error("the terminal cannot be used: {0}; --once prints tables and needs none")]
    Terminal(#[from] io::Error),
}

/// Shows the process until it is told to end.
pub fn watch(options: &Options) -> Result<(), TopError> {
    let client = Client::new(options.admin);
    let view = options.view.unwrap_or(View::Upstreams);
    let who = if view == View::Connections { Who::Oldest } else { Who::Nobody };
    // Before the terminal is taken, so that an error is where a person looks for it.
    let first = Reading::take(&client, who)?;
    Ok(terminal::watch(client, options.interval, view, options.colours, first)?)
}

/// Tables of what there is, with the rates of one interval.
pub fn once(options: &Options) -> Result<String, TopError> {
    let client = Client::new(options.admin);
    let shows_connections = options.view.is_none_or(|view| view == View::Connections);
    let who = if shows_connections { Who::All } else { Who::Nobody };
    let before = Reading::take(&client, who)?;
    wait(options.interval);
    let now = Reading::take(&client, who)?;
    let since = Since::new(&now, Some(&before));
    let mut text = String::new();
    match options.view {
        Some(view) => plain::table(&view.sheet(&since), &mut text),
        None => {
            plain::table(&process(&since), &mut text);
            for view in View::ALL {
                text.push('\n');
                plain::table(&view.sheet(&since), &mut text);
            }
        }
    }
    Ok(text)
}

#[expect(clippy::disallowed_methods, reason = "this process does nothing else")]
fn wait(interval: Duration) {
    thread::sleep(interval);
}

//! The command line.

use std::path::PathBuf;

use crate::cases::Case;
use crate::error::{Context, Error, Result};
use crate::peer::Kind;

pub(super) const HELP: &str = "\
What clients see of a proxy while endpoints fail, and what the endpoints bear meanwhile. As root.

Usage: cargo bench --bench faults -- [options]

  --cases LIST     blackhole, outage, slow-answer, lost-syns     [default: all]
  --peers LIST     sheave, sheave-hedged, sheave-tuned, haproxy, envoy (for blackhole and outage), and
                   round-robin, least-connections, random, peak-ewma, consistent-hash, which are of Sheave
                   (for slow-answer and lost-syns)               [default: all]
  --rounds N       how often; medians are printed                [default: 3]
  --sheave PATH    the sheave binary    [default: the one cargo built for this benchmark]
  --help           this text

blackhole    one of five endpoints drops what it is sent; 300 connections a second
outage       all five refuse for ten seconds; 1 000 connections a second; then one is back, and 3 s later a second
slow-answer  one of five answers 100 ms late; 500 connections a second
lost-syns    half of the SYNs to one of five are lost, so that connecting takes a second; 500 connections a second
";

pub(super) struct Options {
    pub(super) cases: Vec<Case>,
    pub(super) peers: Vec<Kind>,
    pub(super) rounds: usize,
    pub(super) sheave: PathBuf,
}

pub(super) enum Command {
    Run(Options),
    Help,
    Nothing,
}

pub(super) fn parse(arguments: impl Iterator<Item = String>) -> Result<Command> {
    let mut arguments = arguments.peekable();
    // `cargo test --all-targets` runs benchmarks too, without the `--bench` that `cargo bench` adds.
    if arguments.peek().is_none() {
        return Ok(Command::Nothing);
    }
    let mut options = Options {
        cases: Case::ALL.to_vec(),
        peers: Kind::ALL.to_vec(),
        rounds: 3,
        sheave: PathBuf::from(env!("CARGO_BIN_EXE_sheave")),
    };
    while let Some(flag) = arguments.next() {
        let (flag, given) = match flag.split_once('=') {
            Some((flag, value)) => (flag.to_owned(), Some(value.to_owned())),
            None => (flag, None),
        };
        match flag.as_str() {
            "--bench" => {}
            "--help" | "-h" => return Ok(Command::Help),
            // Test runners ask every test binary for its tests; there are none.
            "--list" => return Ok(Command::Nothing),
            _ => {
                let value = given.or_else(|| arguments.next());
                let missing = || Error::new(format!("{flag} needs a value, or is unknown: --help"));
                set(&mut options, &flag, &value.ok_or_else(missing)?)?;
            }
        }
    }
    Ok(Command::Run(options))
}

fn set(options: &mut Options, flag: &str, value: &str) -> Result<()> {
    match flag {
        "--cases" => options.cases = named(value, &Case::ALL, Case::name)?,
        "--peers" => options.peers = named(value, &Kind::ALL, Kind::name)?,
        "--rounds" => options.rounds = value.parse().context(flag)?,
        "--sheave" => options.sheave = value.into(),
        _ => return Err(Error::new(format!("{flag} is unknown: --help lists the options"))),
    }
    if (1..=100).contains(&options.rounds) { Ok(()) } else { Err(Error::new("from 1 to 100 rounds")) }
}

fn named<T: Copy>(list: &str, all: &[T], name: impl Fn(T) -> &'static str) -> Result<Vec<T>> {
    let find = |wanted: &str| {
        let found = all.iter().copied().find(|one| name(*one) == wanted);
        let names = || all.iter().map(|one| name(*one)).collect::<Vec<_>>().join(", ");
        found.ok_or_else(|| Error::new(format!("there is no {wanted:?}, only {}", names())))
    };
    list.split(',').map(find).collect()
}

impl Options {
    pub(super) fn peers_of(&self, case: Case) -> impl Iterator<Item = Kind> {
        self.peers.iter().copied().filter(move |peer| peer.is_of(case))
    }
}

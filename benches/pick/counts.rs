//! Counts the instructions of each step under callgrind, and holds them against those of `counts.txt`.
//!
//! Each step is done often and then twice as often, each in a process of its own: the difference is what it takes by itself,
//! without what is made before. Valgrind shows the same processor to programs on every machine of today (AVX2, no AVX-512,
//! whoever made it), so that glibc and others choose the same code; what is left comes from another version of glibc and from
//! the compiler. Times would differ by more from one minute to the next.

use std::collections::BTreeMap;
use std::error::Error;
use std::process::{Command, Stdio};
use std::{env, fs};

use super::steps::Step;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/pick/counts.txt");
/// What a count may be above the one that is written down. The same code gives the same counts to 1 %, whatever the directory (one
/// code generation unit, see Cargo.toml); a change elsewhere makes the compiler inline other things, which was seen to move the
/// counts of what had not changed by 11 %, either way.
const TOLERANCE: f64 = 0.25;
/// Callgrind takes some fifty times as long.
const TIMES: u64 = 10_000;

type Counts = BTreeMap<String, u64>;

/// Fails when a step takes more than it may.
pub(super) fn compare() -> Result<(), Box<dyn Error>> {
    let known = read(&fs::read_to_string(FILE)?)?;
    let counted = count_all()?;
    let (mut worse, mut better) = (Vec::new(), Vec::new());
    println!("{:<28} {:>10} {:>10} {:>8}", "instructions of", "known", "now", "change");
    for (name, now) in &counted {
        let Some(known) = known.get(name) else {
            println!("{name:<28} {:>10} {now:>10}", "-");
            worse.push(name.as_str());
            continue;
        };
        let change = *now as f64 / *known as f64 - 1.0;
        println!("{name:<28} {known:>10} {now:>10} {:>+7.1}%", change * 100.0);
        if change > TOLERANCE {
            worse.push(name);
        } else if change < -TOLERANCE {
            better.push(name.as_str());
        }
    }
    let gone: Vec<&str> =
        known.keys().filter(|name| !counted.contains_key(*name)).map(String::as_str).collect();
    if !better.is_empty() {
        println!(
            "better by more than 25 %, so hold it there: make guard ARGS=--bless ({})",
            better.join(", ")
        );
    }
    if worse.is_empty() && gone.is_empty() {
        return Ok(());
    }
    let what = [worse, gone].concat().join(", ");
    Err(format!(
        "{what}: more than 25 % above what {FILE} has, or not in it, or no longer there. If it is to be so, write it \
         down with `make guard ARGS=--bless`, and say in the commit why"
    )
    .into())
}

/// Writes down what is counted now.
pub(super) fn bless() -> Result<(), Box<dyn Error>> {
    let counted = count_all()?;
    let lines: String = counted.iter().map(|(name, count)| format!("{name} {count}\n")).collect();
    fs::write(
        FILE,
        format!(
            "# Instructions of a step, by callgrind. `make guard` fails at 25 % more; `make guard ARGS=--bless` writes this anew.\n\
             {lines}"
        ),
    )?;
    print!("{lines}");
    Ok(())
}

fn read(text: &str) -> Result<Counts, Box<dyn Error>> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let counts = lines.map(|line| {
        let (name, count) = line.split_once(' ').ok_or_else(|| format!("{FILE}: {line:?} is no count"))?;
        Ok((name.to_owned(), count.parse()?))
    });
    counts.collect()
}

fn count_all() -> Result<Counts, Box<dyn Error>> {
    let counts = Step::counted().into_iter().map(|step| {
        let name = step.name();
        let (once, twice) = (instructions(&name, TIMES)?, instructions(&name, 2 * TIMES)?);
        Ok((name, twice.saturating_sub(once) / TIMES))
    });
    counts.collect()
}

/// Of a process that does the step so often.
fn instructions(name: &str, times: u64) -> Result<u64, Box<dyn Error>> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--"])
        .arg(env::current_exe()?)
        .args(["--step", name, &times.to_string()])
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("valgrind: {error}; `make guard` installs it"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let line = said.lines().find_map(|line| line.split_once("Collected :"));
    let counted = line.and_then(|(_, count)| count.trim().parse().ok());
    match counted.filter(|_| output.status.success()) {
        Some(counted) => Ok(counted),
        None => Err(format!("{name} under valgrind ({}): {said}", output.status).into()),
    }
}

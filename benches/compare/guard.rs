//! Nothing outlives the benchmark: children and files go at the end, at a signal and at the time limit.

use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use tokio::signal::unix::{SignalKind, signal};

use crate::error::{Context, Result};

/// Of the benchmark that this is compiled into.
const NAME: &str = env!("CARGO_CRATE_NAME");

static LEFT: Mutex<Left> = Mutex::new(Left { children: Vec::new(), directory: None });

struct Left {
    children: Vec<u32>,
    directory: Option<PathBuf>,
}

fn left() -> MutexGuard<'static, Left> {
    LEFT.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn add_child(pid: u32) {
    left().children.push(pid);
}

/// To be called only once the child has been waited for: until then its pid cannot be another process's.
pub(super) fn remove_child(pid: u32) {
    left().children.retain(|child| *child != pid);
}

/// A directory for configurations and logs, of this process alone.
pub(super) fn directory() -> Result<PathBuf> {
    let mut left = left();
    if let Some(directory) = &left.directory {
        return Ok(directory.clone());
    }
    let directory = std::env::temp_dir().join(format!("sheave-{NAME}-{}", std::process::id()));
    fs::create_dir(&directory).context(directory.display())?;
    left.directory = Some(directory.clone());
    Ok(directory)
}

pub(super) fn clean_up() {
    let mut left = left();
    for pid in left.children.drain(..) {
        if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
            // Already gone is what is wanted. Waiting leaves no zombie behind where nobody reaps orphans.
            kill_process(pid, Signal::KILL).ok();
            waitpid(Some(pid), WaitOptions::empty()).ok();
        }
    }
    if let Some(directory) = left.directory.take()
        && let Err(error) = fs::remove_dir_all(&directory)
    {
        eprintln!("{NAME}: {}: {error}", directory.display());
    }
}

/// Ends the benchmark at a signal, and after `limit` should it hang.
pub(super) fn start(limit: Duration) -> Result<()> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the guard")?;
    let watch = move || {
        let reason = runtime.block_on(async {
            let mut interrupt = signal(SignalKind::interrupt())?;
            let mut terminate = signal(SignalKind::terminate())?;
            Ok::<_, std::io::Error>(tokio::select! {
                _ = interrupt.recv() => "interrupted".to_owned(),
                _ = terminate.recv() => "terminated".to_owned(),
                () = tokio::time::sleep(limit) => format!("still not done after {limit:?}"),
            })
        });
        match reason {
            Ok(reason) => eprintln!("{NAME}: {reason}"),
            Err(error) => eprintln!("{NAME}: watch for signals: {error}"),
        }
        clean_up();
        std::process::exit(2);
    };
    thread::Builder::new().name("guard".into()).spawn(watch).context("start the guard")?;
    Ok(())
}

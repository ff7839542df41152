//! Where a proxy's time goes: perf records it while it is measured, and a flame graph is made of that.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::error::{Context, Error, Result};
use crate::guard;

/// Not a round number, so as not to fall into step with timers.
const SAMPLES_PER_SECOND: &str = "997";
/// Of the stack, kept with every sample: the program has no frame pointers.
const STACKS: &str = "dwarf,16384";

pub(super) struct Profile {
    perf: Child,
    data: PathBuf,
    picture: PathBuf,
}

impl Profile {
    /// Records the process `pid` for `FOLDER/NAME.svg`.
    pub(super) fn start(pid: u32, folder: &Path, name: &str) -> Result<Self> {
        fs::create_dir_all(folder).context(folder.display())?;
        let data = folder.join(format!("{name}.data"));
        let log = folder.join(format!("{name}.log"));
        let output = File::create(&log).context(log.display())?;
        let perf = Command::new("perf")
            .args(["record", "--freq", SAMPLES_PER_SECOND, "--call-graph", STACKS, "--pid", &pid.to_string()])
            .arg("--output")
            .arg(&data)
            .stdin(Stdio::null())
            .stderr(output.try_clone().context("log")?)
            .stdout(output)
            .spawn();
        let perf = perf.context("start perf (Debian's linux-perf; `make profile` installs it)")?;
        guard::add_child(perf.id());
        Ok(Self { perf, data, picture: folder.join(format!("{name}.svg")) })
    }

    /// Ends the recording; the path of the picture.
    pub(super) fn finish(mut self) -> Result<PathBuf> {
        let pid = i32::try_from(self.perf.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.ok_or_else(|| Error::new("impossible pid"))?, Signal::INT).context("end perf")?;
        self.perf.wait().context("end perf")?;
        guard::remove_child(self.perf.id());
        let made = Command::new("flamegraph")
            .arg("--perfdata")
            .arg(&self.data)
            .arg("--output")
            .arg(&self.picture)
            .stdin(Stdio::null())
            .output()
            .context("start flamegraph (`make profile` installs it)")?;
        if !made.status.success() {
            return Err(Error::new(format!(
                "flamegraph made nothing of {}: {}",
                self.data.display(),
                String::from_utf8_lossy(&made.stderr).trim()
            )));
        }
        Ok(self.picture)
    }
}

//! Reads once a second how much of its memory the cgroup has left, and tells the workers when it is too little.
//!
//! Version 2 only, which all current distributions have; elsewhere, and without a limit, nothing is ever short. What
//! cannot be read is no reason to refuse anybody.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use crate::resilience::{MemoryReading, Watermark};

use super::shared::Shared;

const INTERVAL: Duration = Duration::from_secs(1);

/// Watches for ever.
pub(super) async fn watch(shared: &Shared) {
    let percent = shared.started_with.limits.overload.memory_percent;
    let (Some(percent), Some(group)) = (percent, Group::own()) else {
        return std::future::pending().await;
    };
    let memory = &shared.limits.memory;
    let mut watermark = Watermark::of_memory(percent);
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let reading = group.read();
        memory.set_last(reading);
        let Some(is_short) = watermark.enter_memory(reading) else { continue };
        memory.set_short(is_short);
        let MemoryReading { used, limit } = reading.unwrap_or(MemoryReading { used: 0, limit: 0 });
        if is_short {
            tracing::warn!(
                used,
                limit,
                percent,
                "overload: the cgroup's memory is nearly used up; new connections are refused until there is more"
            );
        } else {
            tracing::info!(used, limit, percent, "overload is over: there is memory for new connections");
        }
    }
}

/// A directory of the cgroup file system.
#[derive(Debug, PartialEq, Eq)]
struct Group(PathBuf);

impl Group {
    fn own() -> Option<Self> {
        #[cfg(feature = "faults")]
        if let Some(directory) = crate::faults::cgroup() {
            return Some(Self(directory));
        }
        Self::find(Path::new("/"))
    }

    /// The one that this process is in. `root` is `/` but in tests. `None`: it has no memory to account for.
    fn find(root: &Path) -> Option<Self> {
        let membership = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
        let path = membership.lines().find_map(|line| line.strip_prefix("0::"))?;
        let mount = root.join("sys/fs/cgroup");
        // Inside a container the path may be the host's, which is not there; then the mount point is this process's.
        let candidates = [mount.join(path.trim_start_matches('/')), mount];
        candidates.into_iter().find(|directory| directory.join("memory.max").exists()).map(Self)
    }

    /// `None`: there is no limit, or it cannot be read.
    fn read(&self) -> Option<MemoryReading> {
        let text = |file: &str| fs::read_to_string(self.0.join(file)).ok();
        let limit = text("memory.max")?.trim().parse().ok()?;
        let current: u64 = text("memory.current")?.trim().parse().ok()?;
        // Pages of files that nobody has used lately: the kernel takes them back before it is short of anything.
        let inactive = text("memory.stat").as_deref().and_then(inactive_file);
        Some(MemoryReading { used: current.saturating_sub(inactive.unwrap_or(0)), limit })
    }
}

fn inactive_file(stat: &str) -> Option<u64> {
    stat.lines().find_map(|line| line.strip_prefix("inactive_file "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    fn reading(files: &[(&str, &str)]) -> Option<MemoryReading> {
        Group::find(host(files).path())?.read()
    }

    #[test]
    fn what_is_used_is_more_than_files_at_rest() {
        let files = [
            ("proc/self/cgroup", "0::/pods/a\n"),
            ("sys/fs/cgroup/pods/a/memory.max", "1000\n"),
            ("sys/fs/cgroup/pods/a/memory.current", "900\n"),
            ("sys/fs/cgroup/pods/a/memory.stat", "anon 500\nfile 400\ninactive_anon 1\ninactive_file 300\n"),
        ];
        let host = host(&files);
        let read = || Group::find(host.path()).unwrap().read();
        assert_eq!(read(), Some(MemoryReading { used: 600, limit: 1_000 }));
        fs::write(host.path().join(files[3].0), "").unwrap();
        assert_eq!(read(), Some(MemoryReading { used: 900, limit: 1_000 }));
        fs::write(host.path().join(files[1].0), "max\n").unwrap();
        assert_eq!(read(), None, "no limit");
    }

    #[test]
    fn inside_a_container_the_mount_point_is_its_own() {
        let files = [
            ("proc/self/cgroup", "0::/kubepods/not/visible/here\n"),
            ("sys/fs/cgroup/memory.max", "1000\n"),
            ("sys/fs/cgroup/memory.current", "10\n"),
            ("sys/fs/cgroup/memory.stat", "inactive_file 20\n"),
        ];
        assert_eq!(reading(&files), Some(MemoryReading { used: 0, limit: 1_000 }));
    }

    #[test]
    fn without_version_2_there_is_nothing_to_read() {
        assert_eq!(reading(&[("proc/self/cgroup", "4:memory:/x\n0::/\n")]), None);
        assert_eq!(reading(&[("proc/self/cgroup", "4:memory:/x\n")]), None);
        assert_eq!(Group::find(Path::new("/nonexistent")), None);
    }
}

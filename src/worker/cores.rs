//! How many workers, and on which cores: the affinity mask and the CPU quota of the cgroup (v1 and v2).

use std::fs;
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// One entry per worker: the core it is to stay on, if any.
pub fn plan(count: Option<NonZeroUsize>, pin: bool) -> io::Result<Vec<Option<usize>>> {
    let allowed = allowed_cores()?;
    Ok(assign(&allowed, count.map(NonZeroUsize::get), quota(Path::new("/")), pin))
}

/// Keeps this thread on `core`.
pub(super) fn pin(core: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    Ok(sched_setaffinity(None, &set)?)
}

fn allowed_cores() -> io::Result<Vec<usize>> {
    let mask = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|core| mask.is_set(*core)).collect())
}

/// `quota` in cores. Workers beyond the number of cores share them and are not pinned.
fn assign(allowed: &[usize], count: Option<usize>, quota: Option<f64>, pin: bool) -> Vec<Option<usize>> {
    let by_quota = |quota: f64| {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded by the cores")]
        let cores = quota.ceil().clamp(1.0, allowed.len() as f64) as usize;
        cores
    };
    let auto = quota.map_or(allowed.len(), by_quota).max(1);
    let count = count.unwrap_or(auto);
    // A quota is time on any core: pinned to a few, workers would wait for these while others are idle. With fewer
    // workers than cores because of a quota the kernel places them.
    let pinned = pin && count <= allowed.len() && !(count < allowed.len() && quota.is_some());
    (0..count).map(|worker| allowed.get(worker).copied().filter(|_| pinned)).collect()
}

/// The tightest CPU quota of this process's cgroup and those above it, in cores. `root` is `/` but in tests.
fn quota(root: &Path) -> Option<f64> {
    let membership = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let quotas = membership.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        if controllers.is_empty() {
            return tightest(&root.join("sys/fs/cgroup"), path, quota_v2);
        }
        let has_cpu = controllers.split(',').any(|controller| controller == "cpu");
        has_cpu.then(|| tightest(&root.join("sys/fs/cgroup").join(controllers), path, quota_v1)).flatten()
    });
    quotas.reduce(f64::min)
}

/// The tightest quota from `path` up to the mount point. Inside a container the path may be the host's, which is not
/// there; then the mount point itself is this process's cgroup.
fn tightest(mount: &Path, path: &str, read: fn(&Path) -> Option<f64>) -> Option<f64> {
    let group: PathBuf = mount.join(path.trim_start_matches('/'));
    group.ancestors().take_while(|directory| directory.starts_with(mount)).filter_map(read).reduce(f64::min)
}

/// `cpu.max`: quota and period in microseconds, or `max`.
fn quota_v2(directory: &Path) -> Option<f64> {
    let text = fs::read_to_string(directory.join("cpu.max")).ok()?;
    let (quota, period) = text.trim().split_once(' ')?;
    ratio(quota, period)
}

/// -1 is no quota.
fn quota_v1(directory: &Path) -> Option<f64> {
    let quota = fs::read_to_string(directory.join("cpu.cfs_quota_us")).ok()?;
    let period = fs::read_to_string(directory.join("cpu.cfs_period_us")).ok()?;
    ratio(quota.trim(), period.trim())
}

fn ratio(quota: &str, period: &str) -> Option<f64> {
    let (quota, period): (f64, f64) = (quota.parse().ok()?, period.parse().ok()?);
    (quota > 0.0 && period > 0.0).then(|| quota / period)
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

    #[test]
    fn a_v2_quota_is_the_tightest_on_the_way_up() {
        let host = host(&[
            ("proc/self/cgroup", "0::/pods/a\n"),
            ("sys/fs/cgroup/pods/a/cpu.max", "250000 100000\n"),
            ("sys/fs/cgroup/pods/cpu.max", "150000 100000\n"),
            ("sys/fs/cgroup/cpu.max", "max 100000\n"),
        ]);
        assert_eq!(quota(host.path()), Some(1.5));
    }

    #[test]
    fn a_v2_path_of_the_host_falls_back_on_the_mount_point() {
        let host = host(&[
            ("proc/self/cgroup", "0::/kubepods/not/visible/here\n"),
            ("sys/fs/cgroup/cpu.max", "50000 100000\n"),
        ]);
        assert_eq!(quota(host.path()), Some(0.5));
    }

    #[test]
    fn a_v1_quota_is_read_beside_other_controllers() {
        let host = host(&[
            ("proc/self/cgroup", "4:memory:/x\n3:cpu,cpuacct:/x\n"),
            ("sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_quota_us", "300000\n"),
            ("sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_period_us", "100000\n"),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n"),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
        ]);
        assert_eq!(quota(host.path()), Some(3.0));
    }

    #[test]
    fn no_quota_is_no_limit() {
        assert_eq!(quota(host(&[("proc/self/cgroup", "0::/\n")]).path()), None);
        assert_eq!(quota(Path::new("/nonexistent")), None);
    }

    #[test]
    fn workers_follow_mask_quota_and_count() {
        let cores = [2, 3, 6, 7];
        assert_eq!(assign(&cores, None, None, true), [Some(2), Some(3), Some(6), Some(7)]);
        assert_eq!(assign(&cores, None, None, false), [None; 4]);
        assert_eq!(assign(&cores, None, Some(1.2), true), [None; 2], "a quota rounds up, and is not pinned");
        assert_eq!(assign(&cores, None, Some(0.1), true), [None; 1]);
        assert_eq!(assign(&cores, Some(2), None, true), [Some(2), Some(3)]);
        assert_eq!(assign(&cores, Some(6), None, true), [None; 6]);
    }
}

//! Says when the configuration file may have changed.
//!
//! It watches the file's directory, because editors and ConfigMaps do not write the file but put another one
//! (or another `..data` symlink) in its place, and the directories of all links on the way there. It never reads the file,
//! and lives without notification.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};

use super::shared::Tuning;

/// As many as the kernel follows.
const LINKS_MAX: usize = 40;

pub(super) struct FileWatch {
    file: PathBuf,
    tuning: Tuning,
    events: flume::Receiver<()>,
    /// Also keeps `events` open when there is no watcher.
    notify: flume::Sender<()>,
    way: Way,
    _watcher: Option<RecommendedWatcher>,
    seen: Option<Fingerprint>,
}

/// What of a file changes when it is another one or has another content.
pub(super) type Fingerprint = (PathBuf, u64, u64, i64, i64, u64);

impl FileWatch {
    pub(super) fn start(file: PathBuf, tuning: Tuning) -> Self {
        let (notify, events) = flume::bounded(1);
        let way = Way::to(&file);
        let watcher = watch(&way, &file, &tuning, notify.clone());
        Self { seen: fingerprint(&file), file, tuning, events, notify, way, _watcher: watcher }
    }

    /// Waits until the file may have changed, and then until its change is likely to be over.
    pub(super) async fn changed(&mut self) {
        loop {
            let event = tokio::time::timeout(self.tuning.poll, self.events.recv_async()).await;
            let is_told = event.is_ok();
            if is_told {
                tokio::time::sleep(self.tuning.debounce).await;
                self.events.drain();
            }
            if !is_told && fingerprint(&self.file) == self.seen {
                continue;
            }
            let way = Way::to(&self.file);
            if way != self.way {
                // Before it is read: what changes from now on is told.
                self._watcher = watch(&way, &self.file, &self.tuning, self.notify.clone());
                self.way = way;
            }
            self.seen = fingerprint(&self.file);
            return;
        }
    }
}

/// Each directory by itself: one that cannot be watched takes nothing away from the others.
fn watch(way: &Way, file: &Path, tuning: &Tuning, notify: flume::Sender<()>) -> Option<RecommendedWatcher> {
    let without = |directory: &Path, error: &notify::Error| {
        tracing::warn!(
            %error,
            file = %file.display(),
            directory = %directory.display(),
            every_seconds = tuning.poll.as_secs(),
            "no notification of changes of the configuration file, so it is looked at now and then; \
             raise fs.inotify.max_user_instances if that is the limit that was hit",
        );
    };
    let names = way.names.clone();
    let told = move |event: notify::Result<Event>| {
        if event.map_or(true, |event| concerns(&event, &names)) {
            // Full means that a look is due already, and it has not begun.
            let _already_told = notify.try_send(());
        }
    };
    let watcher = notify::recommended_watcher(told).inspect_err(|error| without(Path::new(""), error));
    let mut watcher = watcher.ok()?;
    for directory in &way.directories {
        let watched = watcher.watch(directory, RecursiveMode::NonRecursive);
        let _warned = watched.inspect_err(|error| without(directory, error));
    }
    Some(watcher)
}

/// How a file is found: whoever puts another link or file in the place of one of these changes what is found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Way {
    /// Those of the links, and the file's own in the end.
    pub(super) directories: BTreeSet<PathBuf>,
    /// Of the links, and of the file in the end.
    names: BTreeSet<OsString>,
}

impl Way {
    pub(super) fn to(file: &Path) -> Self {
        let mut way = Self::default();
        let mut at = PathBuf::from(".");
        let mut rest: VecDeque<OsString> = parts(file).collect();
        let mut links = 0;
        while let Some(part) = rest.pop_front() {
            let path = at.join(&part);
            let target = if links < LINKS_MAX { std::fs::read_link(&path).ok() } else { None };
            if target.is_some() || rest.is_empty() {
                // It goes on in the directory where the link is.
                way.directories.insert(at.clone());
                way.names.insert(part);
            }
            match target {
                None => at = path,
                Some(target) => {
                    links += 1;
                    parts(&target).rev().for_each(|part| rest.push_front(part));
                }
            }
        }
        way
    }
}

/// Of a path; one from the root on begins with that.
fn parts(path: &Path) -> impl DoubleEndedIterator<Item = OsString> {
    let parts = path.components().filter(|part| *part != Component::CurDir);
    parts.map(|part| part.as_os_str().to_owned())
}

/// Whether the file may have another content after this. Reading it is an event too, and must not count.
fn concerns(event: &Event, names: &BTreeSet<OsString>) -> bool {
    if event.need_rescan() {
        return true;
    }
    let named = |path: &PathBuf| path.file_name().is_some_and(|name| names.contains(name));
    may_change_contents(event) && event.paths.iter().any(named)
}

/// Whether some file may have another content after this.
pub(super) fn may_change_contents(event: &Event) -> bool {
    match event.kind {
        EventKind::Access(access) => access == AccessKind::Close(AccessMode::Write),
        EventKind::Any
        | EventKind::Create(_)
        | EventKind::Modify(_)
        | EventKind::Remove(_)
        | EventKind::Other => true,
    }
}

pub(super) fn fingerprint(file: &Path) -> Option<Fingerprint> {
    let target = std::fs::canonicalize(file).ok()?;
    let metadata = std::fs::metadata(&target).ok()?;
    Some((target, metadata.dev(), metadata.ino(), metadata.mtime(), metadata.mtime_nsec(), metadata.len()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use notify::event::{ModifyKind, RenameMode};

    #[test]
    fn reading_the_file_and_writing_others_is_no_change() {
        let event = |kind, path: &str| Event::new(kind).add_path(path.into());
        let file = "/etc/sheave/sheave.yaml";
        let renamed = EventKind::Modify(ModifyKind::Name(RenameMode::To));
        let written = EventKind::Access(AccessKind::Close(AccessMode::Write));
        for (event, expected) in [
            (event(EventKind::Access(AccessKind::Open(AccessMode::Any)), file), false),
            (event(EventKind::Access(AccessKind::Close(AccessMode::Read)), file), false),
            (event(written, file), true),
            (event(renamed, file), true),
            (event(renamed, "/etc/sheave/..data"), true),
            (event(renamed, "/etc/sheave/..data_tmp"), false),
            (event(written, "/etc/sheave/other.yaml"), false),
        ] {
            let concerns = concerns(&event, &["sheave.yaml".into(), "..data".into()].into());
            assert_eq!(concerns, expected, "{event:?}");
        }
    }

    #[test]
    fn every_link_on_the_way_is_watched() {
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path().canonicalize().unwrap();
        let at = |name: &str| base.join(name);
        for folder in ["lnk", "now", "real/deep"] {
            std::fs::create_dir_all(at(folder)).unwrap();
        }
        symlink("../now/link.yaml", at("lnk/sheave.yaml")).unwrap();
        symlink(at("also/deep/file.yaml"), at("now/link.yaml")).unwrap();
        symlink("real", at("also")).unwrap();
        let way = Way::to(&at("lnk/sheave.yaml"));
        let directories = [base.clone(), at("lnk"), at("lnk/../now"), at("real/deep")];
        assert_eq!(way.directories, directories.into());
        let names = ["sheave.yaml", "link.yaml", "also", "file.yaml"];
        assert_eq!(way.names, names.map(OsString::from).into());
        // For ever round.
        symlink("round", at("round")).unwrap();
        assert_eq!(Way::to(&at("round")).directories, [base].into());
        assert_eq!(Way::to(Path::new("sheave.yaml")).directories, [PathBuf::from(".")].into());
    }

    #[test]
    fn what_is_not_told_is_found_by_looking() {
        let directory = tempfile::tempdir().unwrap();
        let folder = directory.path().join("later");
        let tuning = Tuning { poll: std::time::Duration::from_millis(10), ..Tuning::default() };
        // There is no directory to watch.
        let mut watch = FileWatch::start(folder.join("sheave.yaml"), tuning);
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("sheave.yaml"), "x").unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let deadline = std::time::Duration::from_secs(30);
        runtime.block_on(async { tokio::time::timeout(deadline, watch.changed()).await }).unwrap();
    }
}

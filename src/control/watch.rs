//! Says when the configuration file may have changed.
//!
//! It watches the file's directory, because editors and ConfigMaps do not write the file but put another one
//! (or another `..data` symlink) in its place. It never reads the file, and lives without notification.

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};

use super::shared::Tuning;

/// What the kubelet swaps when a mounted ConfigMap changes.
const CONFIG_MAP_LINK: &str = "..data";

pub(super) struct FileWatch {
    file: PathBuf,
    tuning: Tuning,
    events: flume::Receiver<()>,
    /// Keeps `events` open when there is no watcher.
    _notify: flume::Sender<()>,
    _watcher: Option<RecommendedWatcher>,
    seen: Option<Fingerprint>,
}

/// What of a file changes when it is another one or has another content.
pub(super) type Fingerprint = (PathBuf, u64, u64, i64, i64, u64);

impl FileWatch {
    pub(super) fn start(file: PathBuf, tuning: Tuning) -> Self {
        let (notify, events) = flume::bounded(1);
        let watcher = watch(&file, notify.clone())
            .inspect_err(|error| {
                tracing::warn!(
                    %error,
                    file = %file.display(),
                    every_seconds = tuning.poll.as_secs(),
                    "no notification of changes of the configuration file, so it is looked at now and then; \
                     raise fs.inotify.max_user_instances if that is the limit that was hit",
                );
            })
            .ok();
        Self { seen: fingerprint(&file), file, tuning, events, _notify: notify, _watcher: watcher }
    }

    /// Waits until the file may have changed, and then until its change is likely to be over.
    pub(super) async fn changed(&mut self) {
        loop {
            let event = tokio::time::timeout(self.tuning.poll, self.events.recv_async()).await;
            if event.is_ok() {
                tokio::time::sleep(self.tuning.debounce).await;
                self.events.drain();
                self.seen = fingerprint(&self.file);
                return;
            }
            let now = fingerprint(&self.file);
            if now != self.seen {
                self.seen = now;
                return;
            }
        }
    }
}

fn watch(file: &Path, notify: flume::Sender<()>) -> notify::Result<RecommendedWatcher> {
    let name: OsString = file.file_name().unwrap_or_default().into();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        if event.map_or(true, |event| concerns(&event, &name)) {
            // Full means that a look is due already, and it has not begun.
            let _already_told = notify.try_send(());
        }
    })?;
    let directory =
        file.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    watcher.watch(directory, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

/// Whether the file may have another content after this. Reading it is an event too, and must not count.
fn concerns(event: &Event, file: &OsStr) -> bool {
    if event.need_rescan() {
        return true;
    }
    let named = |path: &PathBuf| path.file_name().is_some_and(|name| name == file || name == CONFIG_MAP_LINK);
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
            let concerns = concerns(&event, OsStr::new("sheave.yaml"));
            assert_eq!(concerns, expected, "{event:?}");
        }
    }
}

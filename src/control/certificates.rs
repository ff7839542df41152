//! Certificates in files: says what they hold whenever that changes.
//!
//! A certificate and its key are two files, and nobody can replace both in one instant: what does not fit together is read
//! again for a second before it is called wrong. Whoever makes tables decides what becomes of what is read.

mod status;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::watch;

use crate::config::Config;
use crate::tls::{Credentials, Material, News, Problem, Source, Taken};

use super::shared::Tuning;
use super::watch::{Fingerprint, Way, fingerprint, may_change_contents};

pub(super) use status::Certificates;

/// Between two looks at what did not fit together, and how many.
const RETRY_EVERY: Duration = Duration::from_millis(200);
const RETRIES: u8 = 5;

/// What was found of something that the configuration refers to.
#[derive(Debug)]
pub(super) enum Delivery {
    Found {
        source: Source,
        found: Result<Material, Problem>,
        received: Instant,
    },
    /// What is valid may not be so any more, and the other way round.
    TimePassed,
}

/// Directories with their devices, inodes and births: another one in a watched one's place goes unseen. `None`: there is none.
type Directories = BTreeMap<PathBuf, Option<(u64, u64, Option<SystemTime>)>>;

/// Follows the files of the newest configuration.
pub(super) struct Files {
    configs: watch::Receiver<Arc<Config>>,
    deliveries: flume::Sender<Delivery>,
    tuning: Tuning,
    followed: HashMap<Source, Followed>,
}

#[derive(Default)]
struct Followed {
    seen: Option<Vec<Option<Fingerprint>>>,
    /// Looks that are left before what is wrong is said.
    retries: u8,
    /// What was said.
    failed: Option<Problem>,
}

impl Files {
    pub(super) fn new(
        configs: watch::Receiver<Arc<Config>>,
        deliveries: flume::Sender<Delivery>,
        tuning: Tuning,
    ) -> Self {
        Self { configs, deliveries, tuning, followed: HashMap::new() }
    }

    /// Runs until it is dropped.
    pub(super) async fn run(mut self) {
        let (notify, events) = flume::bounded(1);
        loop {
            self.follow();
            let watched = self.directories();
            let watcher = self.watch(&watched, &notify);
            let is_over = self.until_others(&watched, &events).await;
            drop(watcher);
            if is_over {
                return std::future::pending().await;
            }
        }
    }

    /// Looks at the files until the configuration names others, or they are in other directories than those watched. Whether
    /// neither will ever be.
    async fn until_others(&mut self, watched: &Directories, events: &flume::Receiver<()>) -> bool {
        // Other files in the directories may change all the time, and must not put it off.
        let mut time_passes = Instant::now() + self.tuning.poll;
        loop {
            self.look().await;
            if self.directories() != *watched {
                return false;
            }
            let is_retrying = self.followed.values().any(|followed| followed.retries > 0);
            let retry = is_retrying.then(|| Instant::now() + RETRY_EVERY);
            let next = retry.map_or(time_passes, |retry| retry.min(time_passes));
            tokio::select! {
                changed = self.configs.changed() => {
                    if changed.is_err() {
                        return true;
                    }
                    if self.sources() != self.followed.keys().cloned().collect() {
                        return false;
                    }
                }
                event = events.recv_async() => {
                    if event.is_ok() {
                        tokio::time::sleep(self.tuning.debounce).await;
                        events.drain();
                    }
                }
                () = tokio::time::sleep_until(next.into()) => {}
            }
            if Instant::now() >= time_passes {
                time_passes = Instant::now() + self.tuning.poll;
                let _control_ends = self.deliveries.send_async(Delivery::TimePassed).await;
            }
        }
    }

    fn sources(&mut self) -> BTreeSet<Source> {
        let mut sources = Credentials::wanted(&self.configs.borrow_and_update());
        sources.retain(|source| !source.files().is_empty());
        sources
    }

    fn follow(&mut self) {
        let sources = self.sources();
        self.followed.retain(|source, _| sources.contains(source));
        for source in sources {
            self.followed.entry(source).or_default();
        }
    }

    /// Reads what may have changed. What was read by others before this one looks is read once more.
    async fn look(&mut self) {
        let mut deliveries = Vec::new();
        for (source, followed) in &mut self.followed {
            deliveries.extend(followed.look(source));
        }
        for delivery in deliveries {
            // The one who takes them is gone only when the whole control side ends.
            let _control_ends = self.deliveries.send_async(delivery).await;
        }
    }

    /// Where the files are and the links to them, and which directories that is now.
    fn directories(&self) -> Directories {
        let files = self.followed.keys().flat_map(Source::files);
        let directories: BTreeSet<PathBuf> = files.flat_map(|file| Way::to(file).directories).collect();
        let is_now = |directory: &Path| {
            let metadata = std::fs::metadata(directory).ok()?;
            // Inodes are used again, in most filesystems at once.
            Some((metadata.dev(), metadata.ino(), metadata.created().ok()))
        };
        directories.into_iter().map(|directory| (directory.clone(), is_now(&directory))).collect()
    }

    /// Each by itself: one that cannot be watched takes nothing away from the others.
    fn watch(&self, directories: &Directories, notify: &flume::Sender<()>) -> Option<RecommendedWatcher> {
        if directories.is_empty() {
            return None;
        }
        let notify = notify.clone();
        let told = move |event: notify::Result<notify::Event>| {
            if event.map_or(true, |event| may_change_contents(&event)) {
                let _already_told = notify.try_send(());
            }
        };
        let without = |directory: &Path, error: &notify::Error| {
            tracing::warn!(
                %error,
                directory = %directory.display(),
                every_seconds = self.tuning.poll.as_secs(),
                "no notification of changes of certificates, so their files are looked at now and then; raise \
                 fs.inotify.max_user_instances or max_user_watches if that is the limit that was hit",
            );
        };
        let watcher = notify::recommended_watcher(told).inspect_err(|error| without(Path::new(""), error));
        let mut watcher = watcher.ok()?;
        for directory in directories.keys() {
            let watched = watcher.watch(directory, RecursiveMode::NonRecursive);
            let _warned = watched.inspect_err(|error| without(directory, error));
        }
        Some(watcher)
    }
}

impl Followed {
    fn look(&mut self, source: &Source) -> Option<Delivery> {
        let now: Vec<Option<Fingerprint>> =
            source.files().into_iter().map(|file| fingerprint(file)).collect();
        let has_changed = self.seen.as_ref() != Some(&now);
        if !has_changed && self.retries == 0 && self.failed.is_none() {
            return None;
        }
        let received = Instant::now();
        self.seen = Some(now);
        let found = Material::read(source);
        match &found {
            Ok(_) => {
                self.retries = 0;
                self.failed = None;
            }
            Err(problem) => {
                if self.failed.as_ref() == Some(problem) {
                    self.retries = 0;
                    return None;
                }
                self.retries = if has_changed { RETRIES } else { self.retries.saturating_sub(1) };
                if self.retries > 0 {
                    return None;
                }
                self.failed = Some(problem.clone());
            }
        }
        Some(Delivery::Found { source: source.clone(), found, received })
    }
}

/// Says once what is wrong, and once that it no longer is.
pub(super) fn announce(source: &Source, taken: &Taken) {
    match &taken.news {
        Some(News::Wrong(Problem { reason, text })) => {
            tracing::error!(certificate = %source, reason, "{text}")
        }
        Some(News::WellAgain) => tracing::info!(certificate = %source, "good again"),
        None if taken.is_new => tracing::info!(certificate = %source, "loaded"),
        None => {}
    }
}

/// Says what is wrong with what was read when a configuration was, and was not wrong `before`.
pub(super) fn announce_problems(credentials: &Credentials, before: &Credentials) {
    for (source, problem) in credentials.problems_since(before) {
        announce(&source, &Taken { is_new: false, news: Some(News::Wrong(problem)) });
    }
}

/// Says once of each certificate that clients will accept it for no name. Those that are `known` were told of.
pub(super) fn announce_nameless(credentials: &Credentials, config: &Config, known: &mut BTreeSet<Source>) {
    let nameless = credentials.nameless(config);
    for (source, text) in nameless.iter().filter(|(source, _)| !known.contains(source)) {
        tracing::warn!(certificate = %source, "{text}");
    }
    *known = nameless.into_keys().collect();
}

#[cfg(test)]
mod tests;

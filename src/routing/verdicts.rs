//! Says of which upstreams an endpoint is not what it was: well, ejected, or neither any more.
//!
//! A table's selection is made from such verdicts, and only the control side makes tables. Probes change the state that
//! endpoints share, then tell; workers only suspect, and the control side comes to a verdict. Many tellings until somebody
//! listens are one.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use crate::config::Name;

#[derive(Debug, Default)]
pub struct Verdicts {
    changed: Heap,
    suspected: Heap,
}

/// Upstreams that somebody has to look at.
#[derive(Debug)]
struct Heap {
    upstreams: Mutex<BTreeSet<Name>>,
    tell: flume::Sender<()>,
    told: flume::Receiver<()>,
}

impl Verdicts {
    /// An endpoint of this upstream is not what it was. To be called after its state has changed.
    pub fn tell(&self, upstream: &Name) {
        self.changed.add(upstream);
    }

    /// Waits until somebody tells; the upstreams since the last time.
    pub async fn told(&self) -> BTreeSet<Name> {
        self.changed.take().await
    }

    /// An endpoint of this upstream has failed as often as its policy allows.
    pub fn suspect(&self, upstream: &Name) {
        self.suspected.add(upstream);
    }

    /// Waits until somebody suspects; the upstreams since the last time.
    pub async fn suspected(&self) -> BTreeSet<Name> {
        self.suspected.take().await
    }
}

impl Default for Heap {
    fn default() -> Self {
        let (tell, told) = flume::bounded(1);
        Self { upstreams: Mutex::default(), tell, told }
    }
}

impl Heap {
    fn add(&self, upstream: &Name) {
        self.upstreams.lock().unwrap_or_else(PoisonError::into_inner).insert(Name::clone(upstream));
        let _already_told = self.tell.try_send(());
    }

    async fn take(&self) -> BTreeSet<Name> {
        let _never_disconnected = self.told.recv_async().await;
        std::mem::take(&mut self.upstreams.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[test]
    fn many_changes_are_told_once() {
        let verdicts = Verdicts::default();
        for name in ["b", "a", "b"] {
            verdicts.tell(&name.into());
        }
        let told = verdicts.told().now_or_never().unwrap();
        assert_eq!(told.iter().map(|name| &**name).collect::<Vec<_>>(), ["a", "b"]);
        assert!(verdicts.told().now_or_never().is_none());
    }

    #[test]
    fn suspicions_are_no_verdicts() {
        let verdicts = Verdicts::default();
        verdicts.suspect(&"a".into());
        assert!(verdicts.told().now_or_never().is_none());
        assert_eq!(verdicts.suspected().now_or_never().map(|suspected| suspected.len()), Some(1));
        assert!(verdicts.suspected().now_or_never().is_none());
    }
}

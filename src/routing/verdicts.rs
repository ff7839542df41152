//! Says of which upstreams an endpoint is not what it was: well, ejected, or neither any more.
//!
//! A table's selection is made from such verdicts, and only the control side makes tables. Workers and probes change the
//! state that endpoints share, then tell; many changes until somebody listens are one.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use crate::config::Name;

#[derive(Debug)]
pub struct Verdicts {
    changed: Mutex<BTreeSet<Name>>,
    tell: flume::Sender<()>,
    told: flume::Receiver<()>,
}

impl Default for Verdicts {
    fn default() -> Self {
        let (tell, told) = flume::bounded(1);
        Self { changed: Mutex::default(), tell, told }
    }
}

impl Verdicts {
    /// An endpoint of this upstream is not what it was. To be called after its state has changed.
    pub fn tell(&self, upstream: &Name) {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner).insert(Name::clone(upstream));
        let _already_told = self.tell.try_send(());
    }

    /// Waits until somebody tells; the upstreams since the last time.
    pub async fn told(&self) -> BTreeSet<Name> {
        let _never_disconnected = self.told.recv_async().await;
        std::mem::take(&mut self.changed.lock().unwrap_or_else(PoisonError::into_inner))
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
}

//! What the dispatcher keeps alive between workers, shown to whoever keeps it alive beyond this process.

use tokio::sync::watch;

use super::handles::{Handover, PoolHandle, WeightsHandle};

/// The present handles. It starts with those that an earlier supervisor left, if there are any. Clones
/// share it.
#[derive(Debug, Clone, Default)]
pub struct Retained {
    present: watch::Sender<Handover>,
}

impl Retained {
    /// To begin with `handles`.
    #[must_use]
    pub fn starting_with(handles: Handover) -> Self {
        Self {
            present: watch::Sender::new(handles),
        }
    }

    /// What is held now.
    #[must_use]
    pub fn present(&self) -> Handover {
        self.present.borrow().clone()
    }

    /// Shows which weights are held now; cheap when they are what was shown before.
    pub fn show_weights(&self, now: Option<&WeightsHandle>) {
        self.present.send_if_modified(|shown| {
            let is_same = match (&shown.weights, now) {
                (Some(shown), Some(now)) => shown.is_same(now),
                (None, None) => true,
                _ => false,
            };
            if !is_same {
                shown.weights = now.cloned();
            }
            !is_same
        });
    }

    /// The same with the pool.
    pub fn show_pool(&self, now: Option<&PoolHandle>) {
        self.present.send_if_modified(|shown| {
            let is_same = match (&shown.pool, now) {
                (Some(shown), Some(now)) => shown.is_same(now),
                (None, None) => true,
                _ => false,
            };
            if !is_same {
                shown.pool = now.cloned();
            }
            !is_same
        });
    }

    /// Sees every change. It ends when the dispatcher and all others that show have gone.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Handover> {
        self.present.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use orcd_shared::kv::PoolManifest;
    use orcd_shared::weights::{ContentHash, ModelIdentity, WeightsManifest};

    use super::*;

    fn weights() -> WeightsHandle {
        let manifest = WeightsManifest {
            model: ModelIdentity {
                hash: ContentHash([3; 32]),
                stamps: vec![],
            },
            layout_version: 1,
            backend: "cpu".into(),
            image_bytes: 4,
            sample_checksum: 5,
        };
        WeightsHandle::new(manifest, tempfile::tempfile().unwrap().into())
    }

    fn pool() -> PoolHandle {
        let manifest = PoolManifest {
            id: [1; 16],
            backend: "cpu".into(),
            pages: 3,
            bytes: 4,
            fingerprint: [5; 32],
        };
        let file = || tempfile::tempfile().unwrap().into();
        PoolHandle::new(manifest, file(), file())
    }

    #[test]
    fn only_another_descriptor_is_a_change() {
        let one = weights();
        let held = Retained::starting_with(Handover {
            weights: Some(one.clone()),
            pool: None,
        });
        let mut watch = held.watch();
        held.show_weights(Some(&one));
        assert!(!watch.has_changed().unwrap());
        // The same manifest in front of another image.
        held.show_weights(Some(&weights()));
        assert!(watch.has_changed().unwrap());
        watch.mark_unchanged();
        let pool = self::pool();
        held.show_pool(Some(&pool));
        assert!(watch.has_changed().unwrap());
        watch.mark_unchanged();
        held.show_pool(Some(&pool));
        assert!(!watch.has_changed().unwrap());
        held.show_pool(Some(&self::pool()));
        assert!(watch.has_changed().unwrap());
        assert!(!held.present().pool.unwrap().is_same(&pool));
        held.show_weights(None);
        held.show_pool(None);
        assert!(held.present().is_nothing());
        drop(held);
        assert!(watch.has_changed().is_err());
    }
}

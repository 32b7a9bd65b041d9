//! The weights that the dispatcher keeps alive between workers, shown to whoever keeps them alive
//! beyond this process.

use tokio::sync::watch;

use super::handles::WeightsHandle;

/// The present handle. It starts with one that an earlier supervisor left, if there is any. Clones
/// share it.
#[derive(Debug, Clone, Default)]
pub struct RetainedWeights {
    present: watch::Sender<Option<WeightsHandle>>,
}

impl RetainedWeights {
    /// To begin with `weights`.
    #[must_use]
    pub fn starting_with(weights: Option<WeightsHandle>) -> Self {
        Self {
            present: watch::Sender::new(weights),
        }
    }

    /// What is held now.
    #[must_use]
    pub fn present(&self) -> Option<WeightsHandle> {
        self.present.borrow().clone()
    }

    /// Shows what is held now; cheap when it is what was shown before.
    pub fn show(&self, now: Option<&WeightsHandle>) {
        self.present.send_if_modified(|shown| {
            let same = match (shown.as_ref(), now) {
                (Some(shown), Some(now)) => shown.is_same(now),
                (None, None) => true,
                _ => false,
            };
            if !same {
                *shown = now.cloned();
            }
            !same
        });
    }

    /// Sees every change. It ends when the dispatcher and all others that show have gone.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Option<WeightsHandle>> {
        self.present.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use orcd_shared::weights::{ContentHash, ModelIdentity, WeightsManifest};

    use super::*;

    fn handle() -> WeightsHandle {
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

    #[test]
    fn only_another_descriptor_is_a_change() {
        let one = handle();
        let held = RetainedWeights::starting_with(Some(one.clone()));
        let mut watch = held.watch();
        held.show(Some(&one));
        assert!(!watch.has_changed().unwrap());
        // The same manifest in front of another image.
        held.show(Some(&handle()));
        assert!(watch.has_changed().unwrap());
        watch.mark_unchanged();
        held.show(None);
        assert!(watch.has_changed().unwrap() && held.present().is_none());
        drop(held);
        assert!(watch.has_changed().is_err());
    }
}

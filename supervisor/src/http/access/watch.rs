//! Reading the files of keys again when they change, without a restart: keys are taken back and given out while jobs run.

use std::sync::Arc;
use std::time::Duration;

use super::Guard;
use super::source::Stamp;

/// How soon a change is noticed.
const EVERY: Duration = Duration::from_secs(1);

/// What was seen of the files last.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    pub(super) stamp: Stamp,
    /// Why they could not be read, if they could not: they are read again until they can.
    fault: Option<String>,
}

/// Looks after the files for as long as the service runs. A file that can't be read, or has no key, changes nothing: the
/// keys of before stay, and the log says why. Jobs go on whatever becomes of their key.
pub(in super::super) async fn watch(guard: Arc<Guard>) {
    if !guard.access.source.has_files() {
        return;
    }
    let mut seen = Seen::default();
    loop {
        let (own, before) = (Arc::clone(&guard), seen.clone());
        // Files may lie where reading takes long.
        if let Ok(now) = tokio::task::spawn_blocking(move || look(&own, before)).await {
            seen = now;
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Reads the files if they are no longer what they were, or could not be read; what is seen of them.
pub(super) fn look(guard: &Guard, before: Seen) -> Seen {
    let source = &guard.access.source;
    let stamp = source.stamp();
    if stamp == before.stamp && before.fault.is_none() {
        return before;
    }
    let fault = match source.read() {
        Ok((keys, warnings)) => {
            let count = keys.len();
            if guard.replace_keys(keys) {
                tracing::info!("the keys were read again: {count} by now");
                warnings
                    .iter()
                    .for_each(|warning| tracing::warn!("{warning}"));
            }
            None
        }
        Err(fault) => {
            if before.fault.as_ref() != Some(&fault) {
                tracing::warn!("{fault}; the keys of before stay");
            }
            Some(fault)
        }
    };
    Seen { stamp, fault }
}

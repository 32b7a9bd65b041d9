//! Reading the files of keys again when they change, without a restart: keys are taken back and given out while jobs run.

use std::sync::Arc;
use std::time::Duration;

use super::Guard;
use super::source::Stamp;

/// How soon a change is noticed.
const EVERY: Duration = Duration::from_secs(1);

/// Looks after the files for as long as the service runs. A file that can't be read, or has no key, changes nothing: the
/// keys of before stay, and the log says why. Jobs go on whatever becomes of their key.
pub(in super::super) async fn watch(guard: Arc<Guard>) {
    if !guard.access.source.has_files() {
        return;
    }
    let mut seen = Stamp::new();
    loop {
        let (own, before) = (Arc::clone(&guard), seen.clone());
        // Files may lie where reading takes long.
        if let Ok(now) = tokio::task::spawn_blocking(move || look(&own, before)).await {
            seen = now;
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Reads the files if they are no longer what they were; what they are.
pub(super) fn look(guard: &Guard, before: Stamp) -> Stamp {
    let source = &guard.access.source;
    let now = source.stamp();
    if now == before {
        return before;
    }
    match source.read() {
        Ok((keys, warnings)) => {
            let count = keys.len();
            if guard.replace_keys(keys) {
                tracing::info!("the keys were read again: {count} by now");
                warnings
                    .iter()
                    .for_each(|warning| tracing::warn!("{warning}"));
            }
        }
        Err(fault) => tracing::warn!("{fault}; the keys of before stay"),
    }
    now
}

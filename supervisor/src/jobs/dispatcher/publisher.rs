//! The one place where the picture of the service is put together.

use std::sync::Arc;

use tokio::sync::watch;

use super::super::table::JobTable;
use crate::snapshot::{ServiceState, Snapshot};
use crate::worker::WorkerHost;
use crate::worker::fleet::Fleet;

/// Shows everybody the service as it is: health, metrics and systemd read nothing else.
#[derive(Debug)]
pub(super) struct Publisher {
    shown: watch::Sender<Arc<Snapshot>>,
    cache_usage: f64,
}

impl Publisher {
    pub(super) fn new(shown: watch::Sender<Arc<Snapshot>>) -> Self {
        Self {
            shown,
            cache_usage: 0.0,
        }
    }

    /// Looks how full the caches of the running sequences are, to a hundredth: each change is a new
    /// snapshot, which wakes those who wait for one.
    pub(super) fn measure_cache<H: WorkerHost>(&mut self, table: &JobTable, fleet: &Fleet<H>) {
        let capacity = (fleet.info()).map_or(0.0, |info| {
            f64::from(info.context) * f64::from(info.parallel)
        });
        #[expect(clippy::cast_precision_loss, reason = "a share, for people")]
        let used = table.running_positions() as f64;
        self.cache_usage = (100.0 * used / capacity.max(1.0)).round() / 100.0;
    }

    /// Shows the service as it is now, if anything is new.
    pub(super) fn publish<H: WorkerHost>(
        &self,
        state: ServiceState,
        table: &JobTable,
        fleet: &Fleet<H>,
    ) {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let now = Snapshot {
            state,
            running: count(table.begun()),
            awaiting_replay: count(table.awaiting_replay()),
            queued: count(table.waiting()),
            free_slots: count(free_slots(table, fleet)),
            cache_usage: self.cache_usage,
            ..fleet.snapshot()
        };
        self.shown.send_if_modified(|shown| {
            let is_news = **shown != now;
            if is_news {
                *shown = Arc::new(now);
            }
            is_news
        });
    }
}

/// Sequences that the worker could begin at once for jobs to come: slots that jobs which await their
/// replay will take are theirs.
pub(super) fn free_slots<H: WorkerHost>(table: &JobTable, fleet: &Fleet<H>) -> usize {
    fleet.free_slots().saturating_sub(table.awaiting_replay())
}

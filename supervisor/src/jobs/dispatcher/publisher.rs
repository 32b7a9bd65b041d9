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
}

impl Publisher {
    pub(super) fn new(shown: watch::Sender<Arc<Snapshot>>) -> Self {
        Self { shown }
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
            preemptions: table.preemptions(),
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

/// Sequences that the worker could begin at once for jobs to come: slots that jobs which have begun and are with no worker
/// will take are theirs, and while one waits for KV memory none begins.
pub(super) fn free_slots<H: WorkerHost>(table: &JobTable, fleet: &Fleet<H>) -> usize {
    let free = fleet.free_slots().saturating_sub(table.held());
    if free > 0 && table.is_short_of_pages(fleet.kv_pages()) {
        return 0;
    }
    free
}

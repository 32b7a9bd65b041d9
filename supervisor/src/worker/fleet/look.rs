//! A look at the model file before a worker loads it. A file system may take its time to answer, a
//! network's for ever: so the look happens on a thread of its own, and what it found comes back as a
//! message. Meanwhile the worker waits; jobs, cancellations and health don't.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::awake;
use crate::worker::model_file::ModelFile;
use crate::worker::{EventSender, WorkerEvent, WorkerReport};

/// Looks at the one model file of the service.
#[derive(Debug, Clone)]
pub(super) struct Looker {
    path: String,
    limit: Duration,
    /// Set by the first look.
    file: Arc<OnceLock<ModelFile>>,
    /// One look at a time: those that hang must not pile up.
    turn: Arc<Semaphore>,
    events: EventSender,
}

impl Looker {
    /// Begins to open the file `path`. Each look has its answer in `events` within about `limit`. To
    /// be called within a runtime.
    pub(super) fn begin(path: String, limit: Duration, events: EventSender) -> Self {
        let looker = Self {
            path,
            limit,
            file: Arc::default(),
            turn: Arc::new(Semaphore::new(1)),
            events,
        };
        // The file that the service begins with is the one that stands there now.
        tokio::spawn(looker.clone().look());
        looker
    }

    /// Looks for worker number `generation`.
    pub(super) fn look_for(&self, generation: u64) {
        let looker = self.clone();
        tokio::spawn(async move {
            let looked = awake::timeout(looker.limit, looker.clone().look()).await;
            let location = looked.unwrap_or_else(|_| {
                Err(format!(
                    "{} did not answer for {} s; see whether its file system hangs",
                    looker.path,
                    looker.limit.as_secs_f32()
                ))
            });
            let event = WorkerEvent::Looked(location);
            // Without a dispatcher nobody waits for it.
            let _ = looker.events.send(WorkerReport { generation, event }).await;
        });
    }

    async fn look(self) -> Result<String, String> {
        let Ok(turn) = self.turn.acquire_owned().await else {
            return Err("the service is stopping".into());
        };
        let looking = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let file = self.file.get_or_init(|| ModelFile::hold(self.path));
            file.check()?;
            Ok(file.location())
        });
        looking
            .await
            .unwrap_or_else(|error| Err(format!("the model file was not checked: {error}")))
    }
}

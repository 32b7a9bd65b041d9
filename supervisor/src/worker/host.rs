//! Workers as real processes.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use orcd_shared::protocol::message::ToWorker;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::task::JoinHandle;

use super::handles::Handover;
use super::link::{self, Outgoing};
use super::runtime_dir::{RuntimeDir, RuntimeDirError};
use super::worker_task::{Controls, WorkerTask};
use super::{EventSender, LinkClogged, WorkerHost};

/// Starts `cuda-worker` processes.
#[derive(Debug)]
pub struct ProcessHost {
    binary: PathBuf,
    dir: Arc<RuntimeDir>,
    events: EventSender,
    live: HashMap<u64, Live>,
}

#[derive(Debug)]
struct Live {
    outgoing: mpsc::Sender<Outgoing>,
    controls: Controls,
    /// Over when the process was reaped. Its link may end before, and it has to be killed even then.
    task: JoinHandle<()>,
}

impl ProcessHost {
    /// A host that starts `binary` and keeps its sockets in a new private directory under
    /// `runtime_base`. To be called within a runtime.
    ///
    /// # Errors
    /// The directory can't be made.
    pub fn new(
        binary: PathBuf,
        runtime_base: Option<PathBuf>,
        events: EventSender,
    ) -> Result<Self, RuntimeDirError> {
        let dir = Arc::new(RuntimeDir::create(runtime_base.as_deref())?);
        Ok(Self {
            binary,
            dir,
            events,
            live: HashMap::new(),
        })
    }
}

impl WorkerHost for ProcessHost {
    fn spawn(&mut self, generation: u64) {
        let (outgoing, queue) = mpsc::channel(link::OUTGOING_CAPACITY);
        let controls = Controls::default();
        let worker_task = WorkerTask {
            generation,
            events: self.events.clone(),
            binary: self.binary.clone(),
            dir: Arc::clone(&self.dir),
            controls: controls.clone(),
        };
        let live = Live {
            outgoing,
            controls,
            task: tokio::spawn(worker_task.run(queue)),
        };
        self.live.retain(|_, live| !live.task.is_finished());
        self.live.insert(generation, live);
    }

    fn send(
        &mut self,
        generation: u64,
        message: ToWorker,
        handover: Handover,
    ) -> Result<(), LinkClogged> {
        let Some(live) = self.live.get(&generation) else {
            return Ok(());
        };
        if !handover.is_nothing() {
            // A worker gets one load request; should there be two, the first handles stand.
            let _ = live.controls.handed_over.set(handover.clone());
        }
        match live.outgoing.try_send(Outgoing { message, handover }) {
            Err(TrySendError::Full(_)) => Err(LinkClogged),
            // The report of the link's end is on its way.
            Ok(()) | Err(TrySendError::Closed(_)) => Ok(()),
        }
    }

    fn interrupt(&mut self, generation: u64) {
        if let Some(live) = self.live.get(&generation) {
            live.controls.interrupt.notify_one();
        }
    }

    fn kill(&mut self, generation: u64) {
        if let Some(live) = self.live.get(&generation) {
            live.controls.kill();
        }
    }
}

impl Drop for ProcessHost {
    fn drop(&mut self) {
        for live in self.live.values() {
            live.controls.kill();
        }
    }
}

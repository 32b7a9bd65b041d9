//! The picture of the service that the dispatcher publishes and everybody else reads: health,
//! metrics, systemd.

use std::sync::Arc;

use orcd_shared::kv::PageCounts;
use orcd_shared::protocol::message::WorkerInfo;

/// The service as health endpoints report it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceState {
    /// The first worker is being started or loads the model.
    Starting {
        /// Loading progress.
        percent: u8,
    },
    /// A worker is ready.
    Ready,
    /// The worker died or hung; jobs are accepted and held.
    Recovering,
    /// Stopping: no new jobs.
    Draining,
    /// The worker can't be kept alive at present.
    Unhealthy,
}

impl Default for ServiceState {
    fn default() -> Self {
        Self::Starting { percent: 0 }
    }
}

/// A consistent picture of the service, published by the dispatcher after every change. The
/// default is that before anything has happened.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Snapshot {
    /// What state the service is in.
    pub state: ServiceState,
    /// The present (or last) ready worker's account of itself.
    pub worker: Option<Arc<WorkerInfo>>,
    /// Process id of the present worker.
    pub worker_pid: Option<u32>,
    /// Counts workers spawned, from 1.
    pub generation: u64,
    /// Workers lost so far.
    pub restarts: u64,
    /// How the last lost worker ended: "signal 9 (SIGKILL)", "exit 12".
    pub last_exit: Option<Arc<str>>,
    /// Jobs given to the worker.
    pub running: u32,
    /// Those of them that were with a lost worker, and that no other has been given yet.
    pub awaiting_replay: u32,
    /// Jobs waiting.
    pub queued: u32,
    /// Sequences that the worker could begin at once for jobs to come.
    pub free_slots: u32,
    /// What the pages of the worker's KV memory are in use for.
    pub kv: PageCounts,
    /// How often a job gave its KV pages to older ones.
    pub preemptions: u64,
    /// A worker that holds running jobs has made no step for longer than its deadline.
    pub stalled: bool,
    /// The worker that waits to follow the present one, or is on its way there.
    pub standby: Option<Standby>,
}

/// The pages of KV memory: each is used, cached or free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KvPages {
    /// How many there are.
    pub all: u32,
    /// Those that running jobs hold.
    pub used: u32,
    /// Those that nobody holds, kept because a prompt may begin with what is in them. Whoever needs one takes it.
    pub cached: u32,
    /// Those that hold nothing.
    pub free: u32,
}

impl Snapshot {
    /// The pages of KV memory. What a worker says can't make them more than there are.
    #[must_use]
    pub fn kv_pages(&self) -> KvPages {
        let all = self.worker.as_ref().map_or(0, |worker| worker.kv_pages);
        let used = self.kv.used.min(all);
        let cached = self.kv.cached.min(all - used);
        KvPages {
            all,
            used,
            cached,
            free: all - used - cached,
        }
    }

    /// The share of KV memory that running jobs hold, 0..1.
    #[must_use]
    pub fn cache_usage(&self) -> f64 {
        let pages = self.kv_pages();
        f64::from(pages.used) / f64::from(pages.all.max(1))
    }
}

/// A worker that waits to take over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standby {
    /// Its process id, once there is a process.
    pub pid: Option<u32>,
    /// It could take over at once.
    pub ready: bool,
    /// Memory that it takes beside the shared weights, bytes; 0 before it is ready.
    pub memory_bytes: u64,
}

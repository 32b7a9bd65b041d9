//! The messages. A golden test holds the bytes of each variant.

use serde::{Deserialize, Serialize};

use crate::error::ErrorCode;
use crate::job::{Finish, JobKey, JobSpec};
use crate::kv::{PageCounts, PoolManifest};
use crate::weights::{ContentHash, WeightsManifest};

/// Supervisor → worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ToWorker {
    /// First message; answered by [`ToSupervisor::Hello`].
    Hello {
        /// [`super::version::PROTOCOL`] of the sender.
        protocol: u32,
        /// [`super::version::BUILD`] of the sender.
        build: String,
    },
    /// Second message: everything the worker is to know. Answered by progress, then
    /// [`ToSupervisor::Ready`] or [`ToSupervisor::LoadFailed`].
    Load(Box<LoadRequest>),
    /// Start a job, or go on with one after a crash or a preemption. Answered by its tokens in
    /// [`ToSupervisor::Step`] and last of them with `finish` set, by [`ToSupervisor::JobFailed`],
    /// or by [`ToSupervisor::Preempted`]. The worker has no queue: a job beyond
    /// [`WorkerInfo::parallel`] fails with `INTERNAL`.
    Submit(Box<JobSpec>),
    /// Abandon a job. Answered by [`ToSupervisor::Cancelled`], also when the job is unknown.
    Cancel(JobKey),
    /// Exit with code 0 at once; running jobs are dropped.
    Shutdown,
    /// The worker is the one that serves, and the pool is its own from now on. Sent once, after [`ToSupervisor::Ready`] and
    /// before any job: until then it touches no page.
    Serve(Serve),
    /// Nothing is left of the workers that had the pool before: what they may have been writing to can be used again.
    Settled,
}

/// How a worker gets its pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Serve {
    /// Rises with each worker that serves. Whoever finds another one in the ledger has lost the pool.
    pub epoch: u64,
    /// What is in the pages may be believed where the ledger says so. Otherwise all of it is forgotten.
    pub keep: bool,
    /// As with [`ToWorker::Settled`]. Otherwise a worker that was killed may still be writing to pages of its last steps.
    pub settled: bool,
    /// So many jobs of its predecessor are likely to follow at once.
    pub replays: u32,
}

/// Most sequences at once that can be asked for.
pub const MAX_PARALLEL: u32 = 1024;

/// What to load and where.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoadRequest {
    /// Model file, absolute.
    pub model_path: String,
    /// The device to run on. There is never another.
    pub device: Device,
    /// Tokens per sequence; `None` is the model's own.
    pub context: Option<u32>,
    /// Sequences at once, at most [`MAX_PARALLEL`]; `None` is the backend's default.
    pub parallel: Option<u32>,
    /// CPU threads; `None` is one per core.
    pub threads: Option<u32>,
    /// Milliseconds that a step with prompt tokens is to take at most; `None` is the backend's default.
    pub max_gap_ms: Option<u32>,
    /// Size of the pool of KV pages; `None` is the backend's default share.
    pub kv: Option<KvSize>,
    /// Ids that end generation.
    pub end_tokens: Vec<u32>,
    /// Engines of this size that have to find room beside each other on the device, on one copy of
    /// the weights and one pool: 2 when a standby is to follow.
    pub engines: u32,
    /// Set when the weights of an earlier worker are still held: their descriptor follows on the
    /// descriptor channel.
    pub weights: Option<WeightsManifest>,
    /// Set when the KV memory of an earlier worker is still held: the descriptors of its memory and of its ledger
    /// follow on the descriptor channel, behind that of the weights.
    pub pool: Option<PoolManifest>,
    /// What the service began with. A file that holds anything else is not loaded.
    pub model_hash: Option<ContentHash>,
    /// Of the supervisor's run. Keys of jobs begin anew with each, and KV memory may outlive it: what is one job's alone
    /// in there is named after both.
    pub run: u64,
}

impl LoadRequest {
    /// One engine for the model file on the device, from the file, with the defaults of both.
    #[must_use]
    pub fn new(model_path: String, device: Device) -> Self {
        Self {
            model_path,
            device,
            context: None,
            parallel: None,
            threads: None,
            max_gap_ms: None,
            kv: None,
            end_tokens: Vec::new(),
            engines: 1,
            weights: None,
            pool: None,
            model_hash: None,
            run: 0,
        }
    }
}

/// How large a pool of KV pages is made.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum KvSize {
    /// So many bytes, or as many as whole pages fit there.
    Bytes(u64),
    /// A share, 0..1, of what weights and all else leave, but no more than
    /// [`LoadRequest::parallel`] sequences could ever use.
    Share(f32),
    /// So many pages: what an earlier worker had.
    Pages(u32),
}

/// A device by name: `cpu` or `cuda:N`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Device {
    /// The CPU backend.
    Cpu,
    /// A CUDA device by its ordinal.
    Cuda(u32),
}

impl Device {
    /// The backend that runs on it: `cpu` or `cuda`.
    #[must_use]
    pub fn backend(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda(_) => "cuda",
        }
    }
}

impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(n) => write!(f, "cuda:{n}"),
        }
    }
}

impl std::str::FromStr for Device {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        if s == "cpu" {
            return Ok(Self::Cpu);
        }
        s.strip_prefix("cuda:")
            .filter(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
            .and_then(|n| n.parse().ok())
            .map(Self::Cuda)
            .ok_or_else(|| format!("invalid device `{s}`; give cpu or cuda:N, such as cuda:0"))
    }
}

/// Worker → supervisor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ToSupervisor {
    /// Answer to [`ToWorker::Hello`].
    Hello {
        /// [`super::version::PROTOCOL`] of the sender.
        protocol: u32,
        /// [`super::version::BUILD`] of the sender.
        build: String,
    },
    /// Loading goes on.
    LoadProgress {
        /// 0–100, rising; at least 0, 25, 50, 75 and 100 are sent.
        percent: u8,
    },
    /// Jobs are accepted. When `weights` is set, and it is not what the load request came with, the image's descriptor
    /// was sent on the descriptor channel just before; likewise those of `pool`, of its memory and of its ledger.
    Ready(Box<WorkerInfo>),
    /// Loading failed; the process ends with [`crate::exit::worker::LOAD_FAILED`].
    LoadFailed {
        /// `MODEL_LOAD_FAILED`, `INSUFFICIENT_VRAM`, `INSUFFICIENT_MEMORY` or `CUDA_ERROR`.
        code: ErrorCode,
        /// What failed, with which value, and what to do.
        message: String,
    },
    /// One engine step: the tokens of all jobs that drew one.
    Step(StepReport),
    /// A job can't go on; others are not touched.
    JobFailed {
        /// Which.
        key: JobKey,
        /// Why, as the client sees it.
        code: ErrorCode,
        /// What failed, with which value, and what to do.
        message: String,
    },
    /// The job is gone from the worker, or never was there.
    Cancelled(JobKey),
    /// Sent at least every [`HEARTBEAT_MS`], by a thread of its own: shows that the process runs,
    /// and in `steps` whether the engine does.
    Heartbeat {
        /// Engine steps finished since start.
        steps: u64,
        /// Sequences that the engine holds: all jobs of the worker.
        running: u32,
        /// Of the pages of [`WorkerInfo::kv_pages`].
        kv: PageCounts,
    },
    /// The process is about to end because of the device or a bug.
    Fatal {
        /// As the client sees it.
        code: ErrorCode,
        /// What failed.
        message: String,
    },
    /// [`WorkerInfo::resident`] changed since Ready, or since the last of these.
    Residency {
        /// Every buffer was checked to be device memory.
        resident: bool,
    },
    /// The job gave its KV pages to older ones, and the worker has nothing of it any more. Its tokens so
    /// far were reported before this; submitted again with them, it goes on as if nothing had happened.
    Preempted(JobKey),
    /// A job has its slot. So many of its tokens need not be computed, because they are in pages that were kept.
    Begun {
        /// Which.
        key: JobKey,
        /// Tokens, of its prompt and its output by then.
        cached: u32,
    },
}

/// Longest pause between heartbeats in a healthy worker, milliseconds.
pub const HEARTBEAT_MS: u64 = 250;

/// What one engine step brought.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepReport {
    /// Engine steps finished since start, this one included.
    pub step: u64,
    /// Time of the step in the engine, microseconds.
    pub step_us: u32,
    /// One entry per job that drew a token.
    pub tokens: Vec<StepToken>,
    /// Of those tokens whose jobs want them, in their order.
    pub logprobs: Vec<TokenLogprobs>,
}

/// Logprobs that come with a drawn token: natural logarithms of probabilities by the model's own logits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TokenLogprobs {
    /// The job whose token it is.
    pub key: JobKey,
    /// The drawn token's.
    pub logprob: f32,
    /// The most likely tokens' ids and logprobs, best first; at most
    /// [`MAX_TOP_LOGPROBS`](crate::job::MAX_TOP_LOGPROBS).
    pub top: Vec<(u32, f32)>,
}

/// One drawn token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepToken {
    /// The job.
    pub key: JobKey,
    /// Index among the job's generated tokens, from 0.
    pub index: u32,
    /// The token.
    pub id: u32,
    /// Set on the job's last token.
    pub finish: Option<Finish>,
}

/// What a ready worker says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerInfo {
    /// Device name for people: "NVIDIA H100 80GB HBM3".
    pub device_name: String,
    /// CUDA compute capability, "9.0"; `None` on the CPU.
    pub compute_capability: Option<String>,
    /// CUDA runtime version, "13.0"; `None` on the CPU.
    pub runtime_version: Option<String>,
    /// Memory taken by weights, KV cache and scratch, bytes.
    pub memory_used: u64,
    /// Memory of the device, bytes.
    pub memory_total: u64,
    /// Every buffer was checked to be device memory.
    pub resident: bool,
    /// Tokens per sequence.
    pub context: u32,
    /// Sequences at once.
    pub parallel: u32,
    /// Pages of KV memory that they share, of [`PAGE_TOKENS`](crate::kv::PAGE_TOKENS) positions each.
    pub kv_pages: u32,
    /// Memory that a page takes, bytes.
    pub kv_page_bytes: u64,
    /// "`Q4_K_M`", from the file.
    pub quant_kind: String,
    /// How the weights came.
    pub load_source: LoadSource,
    /// Time from the load request to ready, milliseconds.
    pub load_ms: u32,
    /// Content of the model file.
    pub model_hash: ContentHash,
    /// All that decides the bits of tokens beside model and request, by its versions: workers with the same model and the
    /// same of these draw the same tokens, on whatever device.
    pub arithmetic: String,
    /// Identity of the weights image, when it can outlive this process.
    pub weights: Option<WeightsManifest>,
    /// Identity of the KV memory, when it can.
    pub pool: Option<PoolManifest>,
}

/// Where the weights came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LoadSource {
    /// Read from the model file.
    File,
    /// Mapped from the image that an earlier worker left.
    Handle,
}

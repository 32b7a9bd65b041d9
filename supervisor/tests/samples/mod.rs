//! What played jobs and workers are in all tests, those beside the code among them.
#![allow(unreachable_pub)] // a module of test binaries

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use orcd_shared::job::JobOptions;
use orcd_shared::protocol::message::{LoadSource, WorkerInfo};
use orcd_shared::sampling::SamplingParams;
use orcd_shared::weights::ContentHash;
use orcd_supervisor::jobs::{Identity, NewJob, Owner};
use orcd_supervisor::text::Tokenizer;

mod vocabulary;

pub use vocabulary::{END, metadata};

/// Tokens that a sequence holds.
pub const CONTEXT: u32 = 600;
/// Sequences at once.
pub const PARALLEL: u32 = 2;

/// Pages of KV memory: enough for a whole context each.
pub const KV_PAGES: u32 = 20;

/// A job with a prompt of three tokens.
pub fn job(name: &str) -> NewJob {
    NewJob {
        job_id: name.into(),
        owner: Owner::default(),
        request: name.into(),
        model: "m".into(),
        prompt: vec![1, 2, 3],
        tokenizer: tokenizer(),
        max_tokens: None,
        sampling: SamplingParams {
            seed: 7,
            ..SamplingParams::GREEDY
        },
        options: JobOptions::default(),
        stop: vec![],
        deadline: Instant::now() + Duration::from_secs(600),
        continue_on_disconnect: false,
        correlation_id: "c".into(),
        identity: Identity::default(),
        resumption: None,
    }
}

/// A vocabulary of all bytes and an end token.
pub fn tokenizer() -> Arc<Tokenizer> {
    static TOKENIZER: LazyLock<Arc<Tokenizer>> =
        LazyLock::new(|| Arc::new(Tokenizer::from_metadata(&metadata()).unwrap()));
    Arc::clone(&TOKENIZER)
}

/// What a played worker says of itself.
pub fn info() -> WorkerInfo {
    WorkerInfo {
        device_name: "played".into(),
        compute_capability: None,
        runtime_version: None,
        memory_used: 1,
        memory_total: 2,
        resident: false,
        context: CONTEXT,
        parallel: PARALLEL,
        kv_pages: KV_PAGES,
        kv_page_bytes: 1000,
        quant_kind: "Q4_K_M".into(),
        load_source: LoadSource::File,
        load_ms: 3,
        model_hash: ContentHash([6; 32]),
        arithmetic: "a-1".into(),
        weights: None,
        pool: None,
    }
}

//! What played jobs and workers are in all tests, those beside the code among them.
#![allow(unreachable_pub)] // a module of test binaries

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use orcd_shared::gguf::{Array, Metadata, Value};
use orcd_shared::protocol::message::{LoadSource, WorkerInfo};
use orcd_shared::sampling::SamplingParams;
use orcd_shared::weights::ContentHash;
use orcd_supervisor::jobs::NewJob;
use orcd_supervisor::text::Tokenizer;

/// The token that ends generation; all below it stand for the byte of their number.
pub const END: u32 = 256;
/// Tokens that a sequence holds.
pub const CONTEXT: u32 = 600;
/// Sequences at once.
pub const PARALLEL: u32 = 2;

/// A job with a prompt of three tokens.
pub fn job(name: &str) -> NewJob {
    NewJob {
        job_id: name.into(),
        model: "m".into(),
        prompt: vec![1, 2, 3],
        tokenizer: tokenizer(),
        max_tokens: None,
        sampling: SamplingParams {
            seed: 7,
            ..SamplingParams::GREEDY
        },
        stop: vec![],
        deadline: Instant::now() + Duration::from_secs(600),
        continue_on_disconnect: false,
        correlation_id: "c".into(),
    }
}

/// A vocabulary of all bytes and an end token.
pub fn tokenizer() -> Arc<Tokenizer> {
    static TOKENIZER: LazyLock<Arc<Tokenizer>> =
        LazyLock::new(|| Arc::new(Tokenizer::from_metadata(&metadata()).unwrap()));
    Arc::clone(&TOKENIZER)
}

/// What a model file says of that vocabulary.
pub fn metadata() -> Metadata {
    let mut next = 255;
    let spelled = |byte: u8| match byte {
        b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => char::from(byte),
        _ => {
            next += 1;
            char::from_u32(next).unwrap()
        }
    };
    let mut tokens: Vec<String> = (0..=255).map(spelled).map(String::from).collect();
    tokens.push("<|im_end|>".into());
    let mut types = vec![1; 256];
    types.push(3);
    let mut metadata = Metadata::new();
    for (key, value) in [
        ("tokenizer.ggml.model", Value::String("gpt2".into())),
        ("tokenizer.ggml.pre", Value::String("qwen2".into())),
        ("tokenizer.ggml.tokens", Value::Array(Array::String(tokens))),
        ("tokenizer.ggml.token_type", Value::Array(Array::I32(types))),
        ("tokenizer.ggml.merges", Value::Array(Array::String(vec![]))),
        ("tokenizer.ggml.eos_token_id", Value::U32(END)),
    ] {
        metadata.insert(key, value).unwrap();
    }
    metadata
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
        quant_kind: "Q4_K_M".into(),
        load_source: LoadSource::File,
        load_ms: 3,
        model_hash: ContentHash([6; 32]),
        weights: None,
    }
}

//! Model files and engines for tests.

use std::path::Path;

use cuda_worker::engine::{Backend, Engine, EngineOptions};
use cuda_worker::loader::{self, Source};
use cuda_worker::scheduler::step_engine::{EngineError, StepBatch, StepEngine as _};
use cuda_worker::weights_plan::{ModelPlan, plan};
use orcd_shared::gguf::{GgufFile, TensorType};
use orcd_shared::sampling::SamplingParams;
use synth_model::{Options, Shape, write};

/// A file of random weights and its plan.
pub struct Model {
    _dir: tempfile::TempDir,
    pub file: GgufFile,
    pub plan: ModelPlan,
}

impl Model {
    pub fn named(name: &str) -> Self {
        Self::of(&Shape::named(name).unwrap())
    }

    pub fn with_type(name: &str, ty: TensorType) -> Self {
        Self::of(&Shape::named(name).unwrap().with_type(ty))
    }

    pub fn of(shape: &Shape) -> Self {
        Self::seeded(shape, 1)
    }

    /// With weights that follow from `seed`.
    pub fn seeded(shape: &Shape, seed: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.gguf");
        write(
            shape,
            &Options {
                seed,
                threads: 1,
                ..Options::default()
            },
            &path,
        )
        .unwrap();
        Self::open(dir, &path)
    }

    /// The same model from a file with a tensor for each expert.
    pub fn with_separate_experts(&self) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.gguf");
        synth_model::separate_experts(self.file.path(), &path).unwrap();
        Self::open(dir, &path)
    }

    fn open(dir: tempfile::TempDir, path: &Path) -> Self {
        let file = GgufFile::open(path).unwrap();
        let plan = plan(file.header()).unwrap();
        Self {
            _dir: dir,
            file,
            plan,
        }
    }

    /// The file as it is now.
    pub fn source(&self) -> Source<'_> {
        Source::of(&self.file, &self.plan).unwrap()
    }

    pub fn engine(&self, options: &EngineOptions) -> Engine {
        engine_of(&self.file, &self.plan, options)
    }
}

/// An engine on the processor.
pub fn engine_of(file: &GgufFile, plan: &ModelPlan, options: &EngineOptions) -> Engine {
    let backend = Backend::cpu().unwrap();
    let (weights, _) = loader::load(&backend, &Source::of(file, plan).unwrap(), |_| ()).unwrap();
    backend.engine(plan, weights, options).unwrap()
}

/// `tiny-qwen2` with so many tokens that its embedding alone is of many chunks.
pub fn of_many_chunks(ty: TensorType) -> Shape {
    let shape = Shape {
        vocab_size: 60_011,
        ..Shape::named("tiny-qwen2").unwrap()
    };
    shape.with_type(ty)
}

/// Four slots of 256 tokens.
pub fn options() -> EngineOptions {
    EngineOptions {
        slots: 4,
        context: 256,
        max_batch_tokens: 256,
        threads: 2,
        kv_pages: 0,
        poison: true,
        float_activations: false,
    }
}

/// Tokens of any vocabulary.
pub fn prompt(n: usize, seed: u32) -> Vec<u32> {
    (0..n as u32)
        .map(|i| (i * 37 + seed * 101 + i * i * 7) % 251)
        .collect()
}

pub const GREEDY: Option<SamplingParams> = Some(SamplingParams::GREEDY);

/// A run of one sequence, and how the token after it is sampled, if it is.
#[derive(Clone, Copy)]
pub struct Chunk<'a> {
    pub slot: u32,
    pub start: u32,
    pub tokens: &'a [u32],
    pub sample: Option<SamplingParams>,
}

/// All chunks as one step; the tokens sampled.
pub fn run(engine: &mut Engine, chunks: &[Chunk<'_>]) -> Result<Vec<u32>, EngineError> {
    let mut batch = StepBatch::default();
    let mut rows = 0;
    for chunk in chunks {
        batch.add_run(chunk.slot, chunk.start, chunk.tokens)?;
        rows += chunk.tokens.len();
        if let Some(sampling) = chunk.sample {
            batch.add_sample(rows.saturating_sub(1), sampling)?;
        }
    }
    Ok(engine.run(&batch)?.iter().map(|s| s.token).collect())
}

/// One chunk of one slot; the logits after it.
pub fn step(engine: &mut Engine, slot: u32, start: u32, tokens: &[u32]) -> Vec<f32> {
    let chunk = Chunk {
        slot,
        start,
        tokens,
        sample: GREEDY,
    };
    run(engine, &[chunk]).unwrap();
    engine.logits(0).unwrap()
}

/// Logits after the last token of a prompt cut into chunks of `size`, in a slot opened for it.
pub fn in_chunks(engine: &mut Engine, slot: u32, tokens: &[u32], size: usize) -> Vec<f32> {
    engine.open(slot, tokens.len() as u32).unwrap();
    let mut logits = Vec::new();
    let mut start = 0;
    for chunk in tokens.chunks(size) {
        logits = step(engine, slot, start, chunk);
        start += chunk.len() as u32;
    }
    engine.close(slot).unwrap();
    logits
}

/// Logits after every token, one token at a time.
pub fn one_by_one(engine: &mut Engine, slot: u32, tokens: &[u32]) -> Vec<Vec<f32>> {
    engine.open(slot, tokens.len() as u32).unwrap();
    let rows = tokens
        .iter()
        .zip(0..)
        .map(|(token, p)| step(engine, slot, p, &[*token]))
        .collect();
    engine.close(slot).unwrap();
    rows
}

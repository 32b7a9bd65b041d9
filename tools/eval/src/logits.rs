//! Logits and greedy tokens by the engine.

use cuda_worker::engine::{Backend, Engine, EngineOptions};
use cuda_worker::loader::{self, Source as WeightsSource};
use cuda_worker::scheduler::step_engine::{BROKEN_LOGITS, StepBatch, StepEngine as _};
use cuda_worker::weights_plan;
use orcd_shared::gguf::GgufFile;
use orcd_shared::protocol::message::Device;
use orcd_shared::sampling::SamplingParams;

use crate::Failure;
use crate::source::{Rows, Source};

/// Rows whose logits a step keeps, and sequences that are generated together.
const KEPT: usize = 16;

/// How the engine computes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting {
    /// Where.
    pub(crate) device: Device,
    /// CPU backend: threads, 0 for one per core.
    pub(crate) threads: u32,
    /// Without quantized activations: what the weights themselves say. CPU only.
    pub(crate) float_activations: bool,
}

/// An engine that reads windows of a text.
pub(crate) struct Reader {
    engine: Engine,
    /// Logits of a row.
    vocab: usize,
    /// Slots from 0 on that have a sequence.
    open: usize,
}

impl Reader {
    /// Loads the model for sequences of so many tokens.
    ///
    /// # Errors
    /// The file is none, or the device has no room.
    pub(crate) fn open(file: &GgufFile, setting: Setting, context: u32) -> Result<Self, Failure> {
        let plan = weights_plan::plan(file.header())?;
        let backend = match setting.device {
            Device::Cpu => Backend::cpu(),
            Device::Cuda(ordinal) => Backend::cuda(ordinal),
        }?;
        let (weights, _) = loader::load(&backend, &WeightsSource::of(file, &plan)?, |_| ())?;
        let slots = u32::try_from(KEPT)?;
        let options = EngineOptions {
            slots,
            context: context.min(plan.context_length),
            max_batch_tokens: context.max(slots),
            threads: setting.threads,
            poison: false,
            kv_pages: 0,
            float_activations: setting.float_activations,
        };
        let engine = backend.engine(&plan, weights, &options)?;
        Ok(Self {
            engine,
            vocab: plan.shape.vocab as usize,
            open: 0,
        })
    }

    /// Logits of a row.
    pub(crate) fn vocab(&self) -> usize {
        self.vocab
    }

    /// The `count` tokens that are the most likely after each prompt, one after the other. Where the text would end it
    /// goes on.
    ///
    /// # Errors
    /// What the engine says; logits that are not finite.
    pub(crate) fn generate(
        &mut self,
        prompts: &[Vec<u32>],
        count: usize,
    ) -> Result<Vec<Vec<u32>>, Failure> {
        let mut generated = Vec::with_capacity(prompts.len());
        for group in prompts.chunks(KEPT) {
            generated.extend(self.generate_together(group, count)?);
        }
        Ok(generated)
    }

    fn generate_together(
        &mut self,
        prompts: &[Vec<u32>],
        count: usize,
    ) -> Result<Vec<Vec<u32>>, Failure> {
        self.start(prompts.iter().map(|prompt| prompt.len() + count))?;
        let mut generated = Vec::with_capacity(prompts.len());
        for (slot, prompt) in prompts.iter().enumerate() {
            generated.push(self.step(&[(slot, 0, prompt.as_slice())])?);
        }
        for i in 1..count {
            let runs = prompts.iter().zip(&generated).enumerate();
            let runs: Vec<_> = runs
                .map(|(slot, (prompt, ids))| (slot, prompt.len() + i - 1, &ids[i - 1..]))
                .collect();
            let sampled = self.step(&runs)?;
            for (ids, id) in generated.iter_mut().zip(sampled) {
                ids.push(id);
            }
        }
        Ok(generated)
    }

    /// Moves sequences on, each by its slot, the tokens before and the tokens now; the most likely tokens after them.
    fn step(&mut self, runs: &[(usize, usize, &[u32])]) -> Result<Vec<u32>, Failure> {
        let mut batch = StepBatch::default();
        for (slot, start, tokens) in runs {
            batch.add_run(u32::try_from(*slot)?, u32::try_from(*start)?, tokens)?;
            batch.sample_last(SamplingParams::GREEDY)?;
        }
        let sampled = self.engine.run(&batch)?;
        let ids: Vec<u32> = sampled.iter().map(|sampled| sampled.token).collect();
        if ids.contains(&BROKEN_LOGITS) {
            return Err("logits are not finite: the file's weights are damaged".into());
        }
        Ok(ids)
    }

    /// Opens fresh sequences of so many tokens, in slots from 0 on, in place of those before.
    fn start(&mut self, lengths: impl Iterator<Item = usize>) -> Result<(), Failure> {
        while self.open > 0 {
            self.open -= 1;
            self.engine.close(u32::try_from(self.open)?)?;
        }
        for length in lengths {
            self.engine
                .open(u32::try_from(self.open)?, u32::try_from(length)?)?;
            self.open += 1;
        }
        Ok(())
    }
}

impl Source for Reader {
    fn rows<'a>(&'a mut self, window: &'a [u32]) -> Result<Rows<'a>, Failure> {
        self.start([window.len()].into_iter())?;
        let engine = &mut self.engine;
        let steps = window.chunks(KEPT).enumerate();
        Ok(Box::new(steps.flat_map(|(i, tokens)| {
            match rows_of(engine, i * KEPT, tokens) {
                Ok(rows) => rows.into_iter().map(Ok).collect(),
                Err(e) => vec![Err(e)],
            }
        })))
    }
}

/// The logits after each of up to [`KEPT`] tokens of slot 0, which has `start` before them.
fn rows_of(engine: &mut Engine, start: usize, tokens: &[u32]) -> Result<Vec<Vec<f32>>, Failure> {
    let mut batch = StepBatch::default();
    batch.add_run(0, u32::try_from(start)?, tokens)?;
    for row in 0..tokens.len() {
        batch.add_sample(row, SamplingParams::GREEDY)?;
    }
    engine.run(&batch)?;
    let rows = (0..tokens.len()).map(|row| Ok(engine.logits(row)?));
    rows.collect()
}

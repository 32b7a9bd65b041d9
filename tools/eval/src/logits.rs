//! Logits of every position of a text, by the engine.

use cuda_worker::engine::{Backend, Engine, EngineOptions};
use cuda_worker::loader::{self, Source};
use cuda_worker::scheduler::step_engine::{StepBatch, StepEngine as _};
use cuda_worker::weights_plan;
use orcd_shared::gguf::GgufFile;
use orcd_shared::protocol::message::Device;
use orcd_shared::sampling::SamplingParams;

use crate::Failure;

/// Rows whose logits a step keeps.
const KEPT: u32 = 16;

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
}

impl Reader {
    /// Loads the model for windows of so many tokens.
    ///
    /// # Errors
    /// The file is none, or the device has no room.
    pub(crate) fn open(file: &GgufFile, setting: Setting, window: u32) -> Result<Self, Failure> {
        let plan = weights_plan::plan(file.header())?;
        let backend = match setting.device {
            Device::Cpu => Backend::cpu(),
            Device::Cuda(ordinal) => Backend::cuda(ordinal),
        }?;
        let (weights, _) = loader::load(&backend, &Source::of(file, &plan)?, |_| ())?;
        let options = EngineOptions {
            slots: KEPT,
            context: window.min(plan.context_length),
            max_batch_tokens: window.max(KEPT),
            threads: setting.threads,
            kv_pages: 0,
            float_activations: setting.float_activations,
        };
        let engine = backend.engine(&plan, weights, &options)?;
        Ok(Self { engine })
    }

    /// Calls `see(position, logits)` for every position of a window, ascending.
    ///
    /// # Errors
    /// What the engine or `see` say.
    pub(crate) fn read(
        &mut self,
        window: &[u32],
        mut see: impl FnMut(usize, Vec<f32>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        self.engine.open(0, u32::try_from(window.len())?)?;
        let mut batch = StepBatch::default();
        for (i, tokens) in window.chunks(KEPT as usize).enumerate() {
            let start = i * KEPT as usize;
            batch.clear();
            batch.add_run(0, u32::try_from(start)?, tokens)?;
            for row in 0..tokens.len() {
                batch.add_sample(row, SamplingParams::GREEDY)?;
            }
            self.engine.run(&batch)?;
            for row in 0..tokens.len() {
                see(start + row, self.engine.logits(row)?)?;
            }
        }
        self.engine.close(0)?;
        Ok(())
    }
}

//! A plain loop over an engine: some jobs at once, prompts in chunks, a new job as soon as one ends.

use cuda_worker::engine::Engine;
use cuda_worker::scheduler::step_engine::{StepBatch, StepEngine as _, Wanted};
use orcd_shared::sampling::SamplingParams;

/// One sequence to generate.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) prompt: Vec<u32>,
    pub(crate) sampling: SamplingParams,
    /// Ids ascending.
    pub(crate) biases: Vec<(u32, f32)>,
    pub(crate) tokens: u32,
    /// So many of these, the first ones, are drawn under a mask, another each time.
    pub(crate) masked: u32,
    /// Tokens in the vocabulary.
    pub(crate) vocab: u32,
}

impl Job {
    /// The mask of draw number `draw`, if it has one: about half of the vocabulary.
    fn mask(&self, draw: usize) -> Option<Vec<u32>> {
        let draw = u32::try_from(draw).unwrap();
        let word = |word: u32| (word * 31 + draw + self.prompt[0]).wrapping_mul(0x9e37_79b9);
        (draw < self.masked).then(|| (0..self.vocab.div_ceil(32)).map(word).collect())
    }
}

/// How jobs share the engine.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) at_once: usize,
    pub(crate) chunk: usize,
}

/// A sampled token and a hash of all the logits it was sampled from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Drawn {
    pub(crate) id: u32,
    pub(crate) logits: u64,
}

struct Running {
    job: usize,
    slot: u32,
    tokens: Vec<u32>,
    done: usize,
}

/// Tokens of each job, in the order of `jobs`.
pub(crate) fn generate(engine: &mut Engine, jobs: &[Job], plan: Plan) -> Vec<Vec<Drawn>> {
    let mut results = vec![Vec::new(); jobs.len()];
    let mut waiting = (0..jobs.len()).collect::<std::collections::VecDeque<_>>();
    let mut running: Vec<Running> = Vec::new();
    let mut batch = StepBatch::default();
    loop {
        while running.len() < plan.at_once {
            let Some(job) = waiting.pop_front() else {
                break;
            };
            let slot = (0..)
                .find(|s| running.iter().all(|r| r.slot != *s))
                .unwrap();
            let positions = jobs[job].prompt.len() as u32 + jobs[job].tokens;
            engine.open(slot, positions).unwrap();
            running.push(Running {
                job,
                slot,
                tokens: jobs[job].prompt.clone(),
                done: 0,
            });
        }
        if running.is_empty() {
            return results;
        }
        let mut room = 512 - running.len();
        let ends: Vec<usize> = running
            .iter()
            .map(|r| {
                let n = plan.chunk.min(r.tokens.len() - r.done).min(room + 1);
                room -= n - 1;
                r.done + n
            })
            .collect();
        batch.clear();
        for (r, &end) in running.iter().zip(&ends) {
            let tokens = &r.tokens[r.done..end];
            batch.add_run(r.slot, r.done as u32, tokens).unwrap();
            batch.begin_output(jobs[r.job].prompt.len() as u32);
            if end == r.tokens.len() {
                let mask = jobs[r.job].mask(results[r.job].len());
                let wanted = Wanted {
                    mask: mask.map(|mask| batch.add_mask(&mask)),
                    biases: batch.add_biases(&jobs[r.job].biases),
                    ..jobs[r.job].sampling.into()
                };
                batch.sample_last(wanted).unwrap();
            }
        }
        let sampled: Vec<u32> = (engine.run(&batch).unwrap().iter())
            .map(|sampled| sampled.token)
            .collect();
        let mut samples = 0..;
        for (r, end) in running.iter_mut().zip(ends) {
            r.done = end;
            if end < r.tokens.len() {
                continue;
            }
            let i = samples.next().unwrap();
            let logits = engine.logits(i).unwrap();
            let bytes: Vec<u8> = logits
                .iter()
                .flat_map(|l| l.to_bits().to_le_bytes())
                .collect();
            results[r.job].push(Drawn {
                id: sampled[i],
                logits: xxhash_rust::xxh3::xxh3_64(&bytes),
            });
            r.tokens.push(sampled[i]);
        }
        let finished = |r: &Running| results[r.job].len() as u32 == jobs[r.job].tokens;
        for r in running.iter().filter(|r| finished(r)) {
            engine.close(r.slot).unwrap();
        }
        running.retain(|r| !finished(r));
    }
}

//! A scheduler with a fake engine, and short ways to say what a test is about.

use std::collections::BTreeMap;
use std::time::Duration;

use cuda_worker::scheduler::{Fatal, Limits, Scheduler};
use orcd_shared::error::ErrorCode;
use orcd_shared::job::{Finish, JobKey, JobOptions, JobSpec};
use orcd_shared::protocol::message::{StepToken, ToSupervisor};
use orcd_shared::sampling::SamplingParams;

use crate::fake::{Fake, VOCAB};

/// Ends generation; no fake draw below comes near it by chance in these tests' seeds.
pub const EOS: u32 = 999;

pub const LIMITS: Limits = Limits {
    slots: 4,
    context: 256,
    vocab_size: VOCAB,
    max_batch_tokens: 16,
    max_gap: Duration::from_millis(100),
};

pub struct Rig {
    pub scheduler: Scheduler,
    pub engine: Fake,
    slots: usize,
    /// Every message sent so far.
    pub received: Vec<ToSupervisor>,
}

impl Rig {
    pub fn new(limits: Limits) -> Self {
        let scheduler = Scheduler::new(limits, vec![EOS]);
        Self {
            scheduler,
            engine: Fake::default(),
            slots: limits.slots as usize,
            received: Vec::new(),
        }
    }

    pub fn submit(&mut self, job: JobSpec) {
        self.scheduler
            .submit(job, &mut self.engine, &mut self.received)
            .unwrap();
    }

    pub fn cancel(&mut self, key: u64) {
        self.scheduler
            .cancel(JobKey(key), &mut self.engine, &mut self.received)
            .unwrap();
    }

    /// One step, as the engine thread makes it.
    pub fn turn(&mut self) -> Result<(), Fatal> {
        let plan = self.scheduler.plan();
        self.scheduler
            .step(&plan, &mut self.engine, &mut self.received)
    }

    /// Turns until all `jobs` are over, each submitted when there is a slot for it, as a supervisor
    /// does.
    pub fn run(&mut self, jobs: impl IntoIterator<Item = JobSpec>) {
        for job in jobs {
            while self.scheduler.running() == self.slots {
                self.turn().unwrap();
            }
            self.submit(job);
        }
        self.finish();
    }

    /// Turns until nothing is left.
    pub fn finish(&mut self) {
        for _ in 0..100_000 {
            if self.scheduler.idle() {
                return;
            }
            self.turn().unwrap();
        }
        panic!("jobs never end");
    }

    /// All tokens reported, by job, each checked to follow the one before.
    pub fn tokens(&self) -> BTreeMap<u64, Vec<StepToken>> {
        let mut jobs: BTreeMap<u64, Vec<StepToken>> = BTreeMap::new();
        for message in &self.received {
            let ToSupervisor::Step(report) = message else {
                continue;
            };
            for token in &report.tokens {
                let tokens = jobs.entry(token.key.0).or_default();
                if let Some(last) = tokens.last() {
                    assert_eq!(token.index, last.index + 1, "gap in job {}", token.key);
                    assert_eq!(last.finish, None, "job {} went on after its end", token.key);
                }
                tokens.push(*token);
            }
        }
        jobs
    }

    pub fn ids(&self, key: u64) -> Vec<u32> {
        self.tokens()
            .get(&key)
            .map_or(Vec::new(), |t| t.iter().map(|t| t.id).collect())
    }

    /// How a job ended by itself, with the index of its last token.
    pub fn ending(&self, key: u64) -> Option<(u32, Finish)> {
        let last = *self.tokens().get(&key)?.last()?;
        last.finish.map(|finish| (last.index, finish))
    }

    pub fn failures(&self) -> Vec<(u64, ErrorCode)> {
        let failed = self.received.iter().filter_map(|m| match m {
            ToSupervisor::JobFailed { key, code, .. } => Some((key.0, *code)),
            _ => None,
        });
        failed.collect()
    }

    pub fn cancelled(&self) -> Vec<u64> {
        let keys = self.received.iter().filter_map(|m| match m {
            ToSupervisor::Cancelled(key) => Some(key.0),
            _ => None,
        });
        keys.collect()
    }
}

/// A job with a prompt of `prompt` tokens that differ from key to key.
pub fn job(key: u64, prompt: usize, max_tokens: u32) -> JobSpec {
    let first = (key as u32 * 31) % VOCAB;
    JobSpec {
        key: JobKey(key),
        prompt: (0..prompt as u32)
            .map(|i| (first + i) % (VOCAB - 1))
            .collect(),
        emitted: Vec::new(),
        max_tokens,
        sampling: SamplingParams {
            temperature: 1.0,
            seed: key,
            ..SamplingParams::GREEDY
        },
        options: JobOptions::default(),
    }
}

/// The ids of a job that runs alone.
pub fn alone(job: &JobSpec) -> Vec<u32> {
    let mut rig = Rig::new(LIMITS);
    rig.submit(job.clone());
    rig.finish();
    rig.ids(job.key.0)
}

//! A scheduler with a fake engine, and short ways to say what a test is about.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use cuda_worker::scheduler::step_engine::StepEngine as _;
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
    kv_pages: 16,
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
        let mut engine = Fake::default();
        engine.kv_pages = limits.kv_pages as usize;
        Self {
            scheduler,
            engine,
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
        let plan = self.scheduler.plan(&mut self.engine, &mut self.received)?;
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

    /// Turns until all `jobs` are over, as [`Self::run`], and whoever is preempted comes again with its tokens: at once
    /// if `eagerly`, else when there is room for it.
    pub fn run_preempted(&mut self, jobs: &[JobSpec], pages: u32, eagerly: bool) {
        let mut queue: VecDeque<JobSpec> = jobs.iter().cloned().collect();
        let mut waiting: BTreeMap<JobKey, JobSpec> = BTreeMap::new();
        let mut seen = 0;
        for _ in 0..200_000 {
            for message in &self.received[seen..] {
                if let ToSupervisor::Preempted(key) = message {
                    let job = jobs.iter().find(|job| job.key == *key).unwrap();
                    let emitted = self.ids(key.0);
                    waiting.insert(
                        *key,
                        JobSpec {
                            emitted,
                            ..job.clone()
                        },
                    );
                }
            }
            seen = self.received.len();
            while self.scheduler.running() < self.slots {
                let free = pages - self.engine.counts().used;
                let has_room = |job: &JobSpec| {
                    let tokens = job.prompt.len() + job.emitted.len();
                    tokens.div_ceil(64) <= free as usize
                };
                let next = match waiting.first_key_value() {
                    Some((_, job)) if eagerly || has_room(job) || self.scheduler.idle() => {
                        waiting.pop_first().map(|(_, job)| job)
                    }
                    Some(_) => None,
                    None => queue.pop_front(),
                };
                let Some(job) = next else { break };
                self.submit(job);
            }
            if self.scheduler.idle() && waiting.is_empty() && queue.is_empty() {
                return;
            }
            self.turn().unwrap();
        }
        panic!("jobs never end");
    }

    pub fn preempted(&self) -> Vec<u64> {
        let keys = self.received.iter().filter_map(|m| match m {
            ToSupervisor::Preempted(key) => Some(key.0),
            _ => None,
        });
        keys.collect()
    }

    /// All tokens reported, by job, each checked to follow the one before.
    pub fn tokens(&self) -> BTreeMap<u64, Vec<StepToken>> {
        let mut jobs: BTreeMap<u64, Vec<StepToken>> = BTreeMap::new();
        let mut gone = BTreeSet::new();
        for message in &self.received {
            if let ToSupervisor::Preempted(key) = message {
                gone.insert(*key);
            }
            let ToSupervisor::Step(report) = message else {
                continue;
            };
            for token in &report.tokens {
                let tokens = jobs.entry(token.key.0).or_default();
                if let Some(last) = tokens.last() {
                    assert_eq!(last.finish, None, "job {} went on after its end", token.key);
                    // The first after a preemption is the last before it, once more.
                    let again = *last == *token && gone.remove(&token.key);
                    if again {
                        continue;
                    }
                    assert_eq!(token.index, last.index + 1, "gap in job {}", token.key);
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

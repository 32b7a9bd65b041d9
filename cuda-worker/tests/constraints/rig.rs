//! The worker's parts below the socket: scheduler, engine on the CPU with random weights, and the thread that compiles.

use std::collections::BTreeMap;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use cuda_worker::constraint::{Compiled, Grammars, Vocabulary};
use cuda_worker::engine::{Engine, EngineOptions};
use cuda_worker::scheduler::{Limits, Scheduler};
use orcd_shared::constraint::Constraint;
use orcd_shared::error::ErrorCode;
use orcd_shared::job::{Finish, JobKey, JobOptions, JobSpec};
use orcd_shared::kv::PAGE_TOKENS;
use orcd_shared::protocol::message::ToSupervisor;
use orcd_shared::sampling::SamplingParams;
use orcd_shared::vocab::{TokenBytes, end_tokens};

use crate::engine_support::model::{Model, options};

const SLOTS: u32 = 8;
const CONTEXT: u32 = 2048;

/// What came of a job.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Output {
    pub tokens: Vec<u32>,
    /// Without the end token's.
    pub bytes: Vec<u8>,
    pub finish: Option<Finish>,
    pub failure: Option<(ErrorCode, String)>,
}

pub struct Rig {
    pub scheduler: Scheduler,
    engine: Engine,
    compiled: Receiver<(JobKey, Compiled)>,
    received: Vec<ToSupervisor>,
    bytes: TokenBytes,
}

impl Rig {
    pub fn new() -> Self {
        let model = Model::named("tiny-qwen2");
        let metadata = &model.file.header().metadata;
        let engine = model.engine(&EngineOptions {
            slots: SLOTS,
            context: CONTEXT,
            ..options()
        });
        let limits = Limits {
            slots: SLOTS,
            context: CONTEXT,
            kv_pages: SLOTS * CONTEXT.div_ceil(PAGE_TOKENS),
            vocab_size: model.plan.shape.vocab,
            max_batch_tokens: 64,
            max_gap: Duration::from_secs(1),
        };
        let ends = end_tokens(metadata).unwrap();
        let bytes = TokenBytes::of(metadata).unwrap();
        let (sender, compiled) = mpsc::channel();
        let vocabulary = Vocabulary::of(&bytes, &ends, limits.vocab_size);
        let grammars = Grammars::start(
            || vocabulary,
            move |key, result| {
                let _ = sender.send((key, result));
            },
        );
        let mut scheduler = Scheduler::new(limits, ends);
        scheduler.compile_with(grammars.unwrap());
        Self {
            scheduler,
            engine,
            compiled,
            received: Vec::new(),
            bytes,
        }
    }

    pub fn submit(&mut self, job: JobSpec) {
        let (scheduler, engine) = (&mut self.scheduler, &mut self.engine);
        scheduler.submit(job, engine, &mut self.received).unwrap();
    }

    pub fn cancel(&mut self, key: u64) {
        let (scheduler, engine) = (&mut self.scheduler, &mut self.engine);
        scheduler
            .cancel(JobKey(key), engine, &mut self.received)
            .unwrap();
    }

    /// Passes on what was compiled, as the engine's thread does; waits for it if there is nothing else to do.
    pub fn receive(&mut self) {
        loop {
            let next = match self.scheduler.is_waiting() {
                true => self.compiled.recv().ok(),
                false => self.compiled.try_recv().ok(),
            };
            let Some((key, result)) = next else { return };
            let (scheduler, engine) = (&mut self.scheduler, &mut self.engine);
            scheduler
                .constrain(key, result, engine, &mut self.received)
                .unwrap();
        }
    }

    /// One step, with what was compiled by now.
    pub fn turn(&mut self) {
        self.receive();
        self.step();
    }

    /// One step.
    pub fn step(&mut self) {
        let (scheduler, engine) = (&mut self.scheduler, &mut self.engine);
        let plan = scheduler.plan(engine, &mut self.received).unwrap();
        scheduler.step(&plan, engine, &mut self.received).unwrap();
    }

    /// Runs all `jobs`, each as soon as there is a slot for it.
    pub fn run(&mut self, jobs: impl IntoIterator<Item = JobSpec>) {
        for job in jobs {
            while self.scheduler.running() == SLOTS as usize {
                self.turn();
            }
            self.submit(job);
        }
        while !self.scheduler.idle() {
            self.turn();
        }
    }

    pub fn output(&self, key: u64) -> Output {
        self.outputs().remove(&key).unwrap_or_default()
    }

    fn outputs(&self) -> BTreeMap<u64, Output> {
        let mut outputs: BTreeMap<u64, Output> = BTreeMap::new();
        for message in &self.received {
            match message {
                ToSupervisor::Step(report) => {
                    for token in &report.tokens {
                        let output = outputs.entry(token.key.0).or_default();
                        assert_eq!(
                            output.finish, None,
                            "job {} went on after its end",
                            token.key
                        );
                        output.tokens.push(token.id);
                        output.finish = token.finish;
                        output.bytes.extend(self.bytes.get(token.id));
                    }
                }
                ToSupervisor::JobFailed { key, code, message } => {
                    outputs.entry(key.0).or_default().failure = Some((*code, message.clone()));
                }
                _ => {}
            }
        }
        outputs
    }

    /// Messages of any kind so far.
    pub fn received(&self) -> &[ToSupervisor] {
        &self.received
    }
}

/// A job without a constraint.
pub fn free(key: u64, max_tokens: u32) -> JobSpec {
    JobSpec {
        key: JobKey(key),
        prompt: (0..5 + key as u32 % 90)
            .map(|i| (7 * i + key as u32) % 256)
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

pub fn constrained(key: u64, constraint: Constraint, max_tokens: u32) -> JobSpec {
    let mut job = free(key, max_tokens);
    job.options.constraint = Some(constraint);
    job
}

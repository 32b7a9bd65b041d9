//! Which jobs run and what each step holds. It decides between steps and never waits: the engine
//! is called through [`StepEngine`], everything it has to say is appended to a list of messages.
//!
//! **Invariant.** Nothing here may change a job's tokens: batch, slot, chunk sizes and the order of
//! jobs decide only when a token is drawn.

mod guided;
pub mod pace;
pub mod pages;
pub mod plan;
pub mod rules;
mod sequence;
mod step_batch;
pub mod step_engine;

use std::time::{Duration, Instant};

use orcd_shared::error::ErrorCode;
use orcd_shared::exit;
use orcd_shared::job::{JobKey, JobSpec};
use orcd_shared::kv;
use orcd_shared::protocol::message::{StepReport, ToSupervisor, TokenLogprobs};

use pace::Pace;
use pages::Fit;
use rules::Rejection;
use sequence::Sequence;
use step_batch::MaskNumber;
use step_engine::{BROKEN_LOGITS, Coming, EngineError, Owner, Sampled, StepBatch, StepEngine};

use crate::constraint::Grammars;
use crate::failpoints::{self, Failpoint};

/// What the loaded model and engine allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Sequences at once, at least 1.
    pub slots: u32,
    /// Tokens per sequence, prompt and output.
    pub context: u32,
    /// Pages of KV memory for all sequences, at least 1.
    pub kv_pages: u32,
    /// Tokens in the vocabulary.
    pub vocab_size: u32,
    /// Most tokens in one step, at least `slots`.
    pub max_batch_tokens: u32,
    /// Running streams are to wait no longer than this for a step that also reads prompts.
    pub max_gap: Duration,
}

impl Limits {
    /// Tokens that a sequence may have, alone in the pool if it must.
    #[must_use]
    pub fn positions(&self) -> u32 {
        kv::positions(self.kv_pages, self.context)
    }
}

/// The process has to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fatal {
    /// As the client sees it.
    pub code: ErrorCode,
    /// What failed.
    pub message: String,
    /// Exit code, one of [`exit::worker`].
    pub exit: u8,
}

impl Fatal {
    /// An error that no single job can be blamed for. A broken precondition or missing memory
    /// inside a step are bugs of this process: jobs were checked and room was made before.
    pub(crate) fn of(call: &str, error: &EngineError) -> Self {
        let (code, exit) = match error {
            EngineError::Device(_) => (ErrorCode::CudaError, exit::worker::DEVICE_LOST),
            EngineError::Invalid(_) | EngineError::OutOfMemory(_) | EngineError::Abandoned => {
                (ErrorCode::Internal, exit::worker::INTERNAL)
            }
        };
        Self {
            code,
            message: format!("{call}: {error}"),
            exit,
        }
    }
}

/// What a step holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StepPlan {
    /// Tokens that each running job takes, in their order.
    takes: Vec<usize>,
    /// A job of it was in the step before, which was given up half-way: this one is made to its end.
    pub binding: bool,
}

/// A step that was begun and has to be finished.
#[derive(Debug)]
#[must_use = "a step that was begun has to be finished"]
pub struct Underway {
    began: Instant,
    /// The engine's call had returned.
    begun: Instant,
}

/// All jobs of this worker.
#[derive(Debug)]
pub struct Scheduler {
    limits: Limits,
    /// Ids that end generation.
    end_tokens: Vec<u32>,
    /// Jobs in slots, oldest first: by their keys. There are no others: the supervisor has the queue.
    running: Vec<Sequence>,
    /// Prompt tokens per step.
    pace: Pace,
    /// Steps finished.
    steps: u64,
    /// Jobs of the last step, if it was given up half-way.
    held_up: Vec<JobKey>,
    /// The last step, kept for its allocations.
    batch: StepBatch,
    /// Masks of the step, each with the place of its job in `running`.
    masks: Vec<(usize, MaskNumber)>,
    /// Compiles constraints, if there is something that does.
    grammars: Option<Grammars>,
    /// The only job has to wait for pages that can't be used at present.
    starved: bool,
}

/// Jobs that a step was the last one of, without a token.
#[derive(Debug, Default)]
struct Lost {
    /// Their constraint has become too much, and why.
    unguided: Vec<(JobKey, String)>,
    /// Their logits are unusable, and the position of the token that can't be drawn.
    without_logits: Vec<(JobKey, usize)>,
}

impl Lost {
    fn keys(&self) -> impl Iterator<Item = JobKey> {
        let unguided = self.unguided.iter().map(|job| job.0);
        unguided.chain(self.without_logits.iter().map(|job| job.0))
    }

    /// What is to be said of them: one thing of each.
    fn messages(&self) -> impl Iterator<Item = ToSupervisor> {
        let is_guided = |key: JobKey| self.unguided.iter().all(|job| job.0 != key);
        let unguided = (self.unguided.iter()).map(|(key, why)| guided::unusable(*key, why));
        let others = self.without_logits.iter();
        let others = others.filter(move |job| is_guided(job.0));
        unguided.chain(others.map(|&(key, at)| without_logits(key, at)))
    }
}

impl Scheduler {
    /// A scheduler without jobs. `max_batch_tokens` below `slots` is raised to it: each running
    /// job moves on in each step.
    #[must_use]
    pub fn new(mut limits: Limits, end_tokens: Vec<u32>) -> Self {
        limits.max_batch_tokens = limits.max_batch_tokens.max(limits.slots);
        Self {
            limits,
            end_tokens,
            running: Vec::new(),
            pace: Pace::new(limits.max_batch_tokens as usize, limits.max_gap),
            steps: 0,
            held_up: Vec::new(),
            batch: StepBatch::default(),
            masks: Vec::new(),
            grammars: None,
            starved: false,
        }
    }

    /// From now on there may be jobs with constraints, which `grammars` compiles: what becomes of them is to be passed to
    /// [`constrain`](Self::constrain).
    pub fn compile_with(&mut self, grammars: Grammars) {
        self.grammars = Some(grammars);
    }

    /// Jobs in slots.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Steps finished since start.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Whether there is nothing to do until a command comes.
    #[must_use]
    pub fn idle(&self) -> bool {
        self.running.is_empty()
    }

    /// Gives each of these jobs a free slot, or reports why it gets none.
    ///
    /// # Errors
    /// As [`Scheduler::submit`].
    pub fn submit_all<E: StepEngine>(
        &mut self,
        jobs: impl Iterator<Item = JobSpec>,
        engine: &mut E,
        out: &mut Vec<ToSupervisor>,
    ) -> Result<(), Fatal> {
        let jobs: Vec<JobSpec> = jobs.collect();
        if jobs.len() > 1 {
            let coming: Vec<Coming<'_>> = jobs.iter().map(coming).collect();
            let expected = engine.expect(&coming);
            expected.map_err(|error| Fatal::of("looking for pages of sequences", &error))?;
        }
        for job in jobs {
            failpoints::pass(Failpoint::Submit {
                seed: job.sampling.seed,
            });
            self.submit(job, engine, out)?;
        }
        Ok(())
    }

    /// Gives a job a free slot, or reports why it gets none. It is the next plan that finds out whether it has room.
    ///
    /// # Errors
    /// The engine failed.
    pub fn submit<E: StepEngine>(
        &mut self,
        job: JobSpec,
        engine: &mut E,
        out: &mut Vec<ToSupervisor>,
    ) -> Result<(), Fatal> {
        let slot = match self.slot_for(&job) {
            Ok(slot) => slot,
            Err(rejection) => {
                out.push(failed(job.key, rejection.code, rejection.message));
                return Ok(());
            }
        };
        let Coming {
            max_tokens, owner, ..
        } = coming(&job);
        let mut sequence = Sequence::new(job, slot);
        let cached = engine
            .open_for(slot, max_tokens, owner, sequence.tokens())
            .map_err(|error| Fatal::of("opening a sequence", &error))?;
        sequence.skip(cached as usize);
        out.push(ToSupervisor::Begun {
            key: owner.key,
            cached,
        });
        self.order_constraint(&sequence);
        let younger = self.running.partition_point(|s| s.key < sequence.key);
        self.running.insert(younger, sequence);
        Ok(())
    }

    fn slot_for(&self, job: &JobSpec) -> Result<u32, Rejection> {
        rules::check(job, &self.limits)?;
        self.check_constraint(job)?;
        if self.running.iter().any(|s| s.key == job.key) {
            let key = job.key;
            return Err(Rejection::of_supervisor(format!(
                "job key {key} is in use: the supervisor gave it out twice"
            )));
        }
        let slots = self.limits.slots;
        let mut free = (0..slots).filter(|slot| self.running.iter().all(|s| s.slot != *slot));
        free.next().ok_or_else(|| {
            Rejection::of_supervisor(format!(
                "all {slots} slots are taken: the supervisor has to wait until a job is over"
            ))
        })
    }

    /// Abandons a job and says so, also when there is no such job (any more): the supervisor waits for
    /// the answer.
    ///
    /// # Errors
    /// The engine could not give the slot back.
    pub fn cancel<E: StepEngine>(
        &mut self,
        key: JobKey,
        engine: &mut E,
        out: &mut Vec<ToSupervisor>,
    ) -> Result<(), Fatal> {
        if let Some(at) = self.running.iter().position(|s| s.key == key) {
            let sequence = self.running.remove(at);
            close(engine, sequence.slot)?;
        }
        out.push(ToSupervisor::Cancelled(key));
        Ok(())
    }

    /// What the next step holds: the next token of the jobs that are generating, the next part of
    /// the prompt of the others. It holds until a job comes or goes. Where the KV pages of all are not
    /// enough the youngest jobs leave first, and that is said: [`pages::fit`].
    ///
    /// # Errors
    /// The engine could not give a slot back.
    pub fn plan<E: StepEngine>(
        &mut self,
        engine: &mut E,
        out: &mut Vec<ToSupervisor>,
    ) -> Result<StepPlan, Fatal> {
        let mut waiting: Vec<JobKey> = Vec::new();
        loop {
            let capacity = engine.capacity();
            let claims = self.running.iter().map(|s| match waiting.contains(&s.key) {
                true => s.held(),
                false => s.claim(),
            });
            let some_are_barred = capacity < self.limits.kv_pages;
            match pages::fit(capacity, claims) {
                Fit::Fits => break,
                // Pages that can't be used at present are no reason to send a job away that would come back at once.
                Fit::Without(key)
                    if some_are_barred && self.is_untouched(key) && !waiting.contains(&key) =>
                {
                    waiting.push(key);
                }
                // What it leaves depends on what it shared.
                Fit::Without(key) => {
                    failpoints::pass(Failpoint::Preempt);
                    out.push(ToSupervisor::Preempted(key));
                    self.retire(&[key], engine)?;
                }
                Fit::Later => {
                    self.starved = true;
                    return Ok(StepPlan::default());
                }
            }
        }
        self.starved = false;
        Ok(self.next_step(&waiting))
    }

    /// Whether no step has moved a job on yet.
    fn is_untouched(&self, key: JobKey) -> bool {
        let job = self.running.iter().find(|s| s.key == key);
        job.is_some_and(Sequence::is_untouched)
    }

    fn next_step(&self, waiting: &[JobKey]) -> StepPlan {
        let pending = self.running.iter().map(|s| match waiting.contains(&s.key) {
            true => 0,
            false => s.ready(),
        });
        let pending: Vec<usize> = pending.collect();
        let most = self.limits.max_batch_tokens as usize;
        StepPlan {
            takes: plan::share(&pending, most, self.pace.tokens()),
            binding: self.running.iter().any(|s| self.held_up.contains(&s.key)),
        }
    }

    /// The jobs that the planned step moves on.
    pub fn jobs_in(&self, plan: &StepPlan) -> impl Iterator<Item = JobKey> {
        let takes = self.running.iter().zip(&plan.takes);
        takes.filter(|&(_, &take)| take > 0).map(|(s, _)| s.key)
    }

    /// One batched step as planned, both halves of it.
    ///
    /// # Errors
    /// As [`Scheduler::begin`] and [`Scheduler::finish`].
    pub fn step<E: StepEngine>(
        &mut self,
        plan: &StepPlan,
        engine: &mut E,
        out: &mut Vec<ToSupervisor>,
    ) -> Result<(), Fatal> {
        match self.begin(plan, engine)? {
            Some(underway) => self.finish(plan, underway, engine, out),
            None => Ok(()),
        }
    }

    /// Has the engine begin one batched step as planned; `None` if there is nothing to finish, because no
    /// job can go on or the step was given up as asked.
    ///
    /// # Errors
    /// The step failed, and the process has to end.
    pub fn begin<E: StepEngine>(
        &mut self,
        plan: &StepPlan,
        engine: &mut E,
    ) -> Result<Option<Underway>, Fatal> {
        if plan.takes.iter().all(|&take| take == 0) {
            return Ok(None);
        }
        self.fill_batch(&plan.takes)
            .map_err(|error| Fatal::of("engine step", &error))?;
        let began = Instant::now();
        match engine.begin(&self.batch) {
            Ok(()) => Ok(Some(Underway {
                began,
                begun: Instant::now(),
            })),
            Err(EngineError::Abandoned) => {
                self.hold_up(plan);
                Ok(None)
            }
            Err(error) => Err(Fatal::of("engine step", &error)),
        }
    }

    /// A step was given up half-way: nothing happened. The next one does the same for the jobs that are
    /// left by then, and does it to its end: whatever is cancelled meanwhile, they come further.
    fn hold_up(&mut self, plan: &StepPlan) {
        self.held_up = self.jobs_in(plan).collect();
    }

    /// Takes the results of the step. Jobs that are done leave their slots.
    ///
    /// # Errors
    /// The step failed. None of its tokens are in `out`, and the process has to end.
    pub fn finish<E: StepEngine>(
        &mut self,
        plan: &StepPlan,
        underway: Underway,
        engine: &mut E,
        out: &mut Vec<ToSupervisor>,
    ) -> Result<(), Fatal> {
        let takes = &plan.takes;
        let unguided = self.fill_masks();
        let meanwhile = underway.begun.elapsed();
        let result = engine.finish(&self.batch);
        let took = underway.began.elapsed();
        self.held_up.clear();
        let sampled = match result {
            Ok(sampled) => sampled,
            Err(EngineError::Abandoned) => {
                self.hold_up(plan);
                return Ok(());
            }
            Err(error) => return Err(Fatal::of("engine step", &error)),
        };
        let wanted = self.batch.samples().len();
        if sampled.len() != wanted {
            let message = format!("{} results for {wanted} samples", sampled.len());
            return Err(Fatal::of("engine step", &EngineError::Invalid(message)));
        }

        self.steps += 1;
        let mut report = StepReport {
            step: self.steps,
            step_us: u32::try_from(took.as_micros()).unwrap_or(u32::MAX),
            tokens: Vec::with_capacity(takes.len()),
            logprobs: Vec::new(),
        };
        let mut lost = Lost {
            unguided,
            ..Lost::default()
        };
        let prefill = self.take_results(takes, sampled, &mut report, &mut lost);
        // Of a step in which the host had more to do than the device it is not known how long it would have taken.
        if meanwhile < took / 2 {
            self.pace.learn(prefill, took);
        }
        let done = report
            .tokens
            .iter()
            .filter(|t| t.finish.is_some())
            .map(|t| t.key);
        let done: Vec<JobKey> = done.chain(lost.keys()).collect();
        out.push(ToSupervisor::Step(report));
        out.extend(lost.messages());
        self.retire(&done, engine)
    }

    /// The planned step as the engine takes it.
    fn fill_batch(&mut self, takes: &[usize]) -> Result<(), EngineError> {
        self.batch.clear();
        self.masks.clear();
        let moving = self.running.iter().zip(takes).enumerate();
        for (at, (sequence, &take)) in moving.filter(|&(_, (_, &take))| take > 0) {
            let mask = sequence.add_to(&mut self.batch, take)?;
            self.masks.extend(mask.map(|mask| (at, mask)));
        }
        Ok(())
    }

    /// Moves the sequences on by what the step brought, but for those that are `lost`, to which those without
    /// usable logits come; returns the prompt tokens in it.
    fn take_results(
        &mut self,
        takes: &[usize],
        sampled: &[Sampled],
        report: &mut StepReport,
        lost: &mut Lost,
    ) -> usize {
        let moving = self
            .running
            .iter_mut()
            .zip(takes)
            .filter(|&(_, &take)| take > 0);
        let mut prefill = 0;
        let mut sampled = sampled.iter();
        for (sequence, &take) in moving {
            let samples = take == sequence.pending();
            let sampled = samples.then(|| sampled.next()).flatten();
            let token = sampled.map(|s| s.token);
            if token == Some(BROKEN_LOGITS) {
                lost.without_logits
                    .push((sequence.key, sequence.draws_at()));
            }
            if lost.keys().any(|key| key == sequence.key) {
                continue;
            }
            let (given, token) =
                sequence.advance(take, token, &self.end_tokens, self.limits.positions());
            prefill += given;
            report.tokens.extend(token);
            let logprobs = sampled.zip(sequence.top_logprobs());
            let key = sequence.key;
            report
                .logprobs
                .extend(logprobs.map(|(s, n)| logprobs_of(key, s, n)));
        }
        prefill
    }

    fn retire<E: StepEngine>(&mut self, done: &[JobKey], engine: &mut E) -> Result<(), Fatal> {
        for key in done {
            if let Some(at) = self.running.iter().position(|s| s.key == *key) {
                close(engine, self.running.remove(at).slot)?;
            }
        }
        Ok(())
    }
}

/// A job as the engine gets it.
fn coming(job: &JobSpec) -> Coming<'_> {
    Coming {
        // As the job has it, also beyond the context: rotations may depend on it.
        max_tokens: u32::try_from(job.max_positions()).unwrap_or(u32::MAX),
        owner: Owner {
            key: job.key,
            scope: job.options.cache,
        },
        tokens: [&job.prompt, sequence::replayed(job)],
    }
}

fn close<E: StepEngine>(engine: &mut E, slot: u32) -> Result<(), Fatal> {
    engine
        .close(slot)
        .map_err(|error| Fatal::of("closing a sequence", &error))
}

/// The logprobs of what was sampled for the job `key`, and those of the `n` most likely tokens.
fn logprobs_of(key: JobKey, sampled: &Sampled, n: u32) -> TokenLogprobs {
    // No more than a `Sampled` has room for: `rules` refused such a job.
    let top = sampled.top.iter().take(n as usize);
    TokenLogprobs {
        key,
        logprob: sampled.logprob,
        top: top.map(|t| (t.token, t.logprob)).collect(),
    }
}

/// A job whose next token can't be drawn.
fn without_logits(key: JobKey, position: usize) -> ToSupervisor {
    let message = format!(
        "the model's logits are not finite at position {position}, or all zero, which is what \
         activations that are not finite end as: the model's weights are damaged, or too large for \
         this prompt"
    );
    failed(key, ErrorCode::Internal, message)
}

fn failed(key: JobKey, code: ErrorCode, message: String) -> ToSupervisor {
    ToSupervisor::JobFailed { key, code, message }
}

//! Jobs that are cancelled faster than a step is made, on and on: the others come further.

use orcd_shared::kv::PageCounts;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cuda_worker::abandon::Abandon;
use cuda_worker::engine_thread::{self, Command, LoopContext};
use cuda_worker::outbox::Status;
use cuda_worker::residency::Residency;
use cuda_worker::scheduler::step_engine::{EngineError, Sampled, StepBatch, StepEngine};
use cuda_worker::scheduler::{Limits, Scheduler};
use orcd_shared::job::JobKey;
use orcd_shared::protocol::message::ToSupervisor;

use crate::fake::Fake;
use crate::rig::{LIMITS, Rig, alone, job};

/// The job that is to come through, and how many of its tokens are wanted.
const BYSTANDER: u64 = 1;
const TOKENS: usize = 20;

/// The fake, with a storm: in the middle of each step the newest job is cancelled, asked for by the
/// signal, and another one comes.
struct Stormy {
    fake: Fake,
    abandon: Abandon,
    commands: Arc<Mutex<Option<Sender<Command>>>>,
    newest: u64,
    steps: Arc<Mutex<usize>>,
    /// The half of a step in which all this happens.
    at: Half,
}

#[derive(Clone, Copy, PartialEq)]
enum Half {
    Begin,
    Finish,
}

impl Stormy {
    fn rage(&mut self, half: Half) -> Result<(), EngineError> {
        if half != self.at {
            return Ok(());
        }
        *self.steps.lock().unwrap() += 1;
        if *self.steps.lock().unwrap() > 1000 {
            return Err(EngineError::Device("the bystander starves".into()));
        }
        if let Some(commands) = &*self.commands.lock().unwrap() {
            if self.newest > BYSTANDER {
                self.abandon.cancelled(JobKey(self.newest));
                let cancel = Command::Cancel(JobKey(self.newest));
                commands.send(cancel).unwrap();
                self.abandon.signal().store(true, Ordering::Relaxed);
            }
            self.newest += 1;
            let another = Command::Submit(Box::new(job(self.newest, 100, 2)));
            commands.send(another).unwrap();
        }
        if self.abandon.is_due() {
            self.fake.stepping = false;
            return Err(EngineError::Abandoned);
        }
        Ok(())
    }
}

impl StepEngine for Stormy {
    fn open(&mut self, slot: u32, max_tokens: u32) -> Result<(), EngineError> {
        self.fake.open(slot, max_tokens)
    }

    fn close(&mut self, slot: u32) -> Result<(), EngineError> {
        self.fake.close(slot)
    }

    fn begin(&mut self, batch: &StepBatch) -> Result<(), EngineError> {
        self.rage(Half::Begin)?;
        self.fake.begin(batch)
    }

    fn finish(&mut self, batch: &StepBatch) -> Result<&[Sampled], EngineError> {
        self.rage(Half::Finish)?;
        self.fake.finish(batch)
    }

    fn capacity(&self) -> u32 {
        self.fake.capacity()
    }

    fn counts(&self) -> PageCounts {
        self.fake.counts()
    }

    fn resident(&self) -> bool {
        false
    }
}

/// The bystander's ids and the steps that were begun until it was over.
fn through_the_storm(limits: Limits, at: Half) -> (Vec<u32>, usize) {
    let (commands, inbox) = mpsc::channel();
    let bystander = Command::Submit(Box::new(job(BYSTANDER, 40, TOKENS as u32)));
    commands.send(bystander).unwrap();
    let commands = Arc::new(Mutex::new(Some(commands)));
    let steps = Arc::new(Mutex::new(0));
    let abandon = Abandon::default();
    let mut engine = Stormy {
        fake: Fake::default(),
        abandon: abandon.clone(),
        commands: Arc::clone(&commands),
        newest: BYSTANDER,
        steps: Arc::clone(&steps),
        at,
    };
    let status = Status::default();
    let context = LoopContext {
        status: &status,
        abandon: &abandon,
        residency: Residency::new(false, Duration::from_secs(60), Instant::now()),
    };
    let mut rig = Rig::new(limits);
    let mut needed = 0;
    let scheduler = Scheduler::new(limits, Vec::new());
    let served = engine_thread::serve(&mut engine, scheduler, &inbox, context, |message| {
        if let ToSupervisor::Step(report) = &message
            && report
                .tokens
                .iter()
                .any(|t| t.key == JobKey(BYSTANDER) && t.finish.is_some())
        {
            needed = *steps.lock().unwrap();
            *commands.lock().unwrap() = None; // and the storm is over
        }
        rig.received.push(message);
    });
    served.unwrap();
    (rig.ids(BYSTANDER), needed)
}

/// Steps of the bystander alone, on this machine of these limits.
fn steps_alone(limits: Limits) -> usize {
    let mut rig = Rig::new(limits);
    rig.submit(job(BYSTANDER, 40, TOKENS as u32));
    rig.finish();
    rig.engine.batches.len()
}

#[test]
fn bystander_of_cancelled_steps_comes_further_with_every_other_step() {
    for at in [Half::Begin, Half::Finish] {
        let (ids, steps) = through_the_storm(LIMITS, at);
        assert_eq!(ids, alone(&job(BYSTANDER, 40, TOKENS as u32)));
        // The newcomers' prompts take their part of its steps.
        let alone = steps_alone(LIMITS);
        assert!(steps <= 4 * alone + 2, "{steps} steps, {alone} alone");
        assert!(steps > alone + 1, "nothing was given up");
    }
}

#[test]
fn no_step_is_given_up_for_a_job_that_is_not_in_it() {
    let one = Limits { slots: 1, ..LIMITS };
    let (ids, steps) = through_the_storm(one, Half::Finish);
    assert_eq!(ids, alone(&job(BYSTANDER, 40, TOKENS as u32)));
    assert_eq!(steps, steps_alone(one));
}

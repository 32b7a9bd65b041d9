//! The thread that owns the engine and the scheduler: commands in, steps, messages out. Nothing
//! else touches the device.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use orcd_shared::job::{JobKey, JobSpec};
use orcd_shared::protocol::message::{Serve, ToSupervisor};

use crate::abandon::Abandon;
use crate::constraint::Compiled;
use crate::failpoints::{self, Failpoint};
use crate::heard::Heard;
use crate::log;
use crate::outbox::Status;
use crate::residency::Residency;
use crate::scheduler::step_engine::StepEngine;
use crate::scheduler::{Fatal, Scheduler, StepPlan, Underway};

/// What the reader passes on.
#[derive(Debug)]
pub enum Command {
    /// Start a job.
    Submit(Box<JobSpec>),
    /// Abandon a job.
    Cancel(JobKey),
    /// What became of a job's constraint.
    Compiled(JobKey, Compiled),
    /// The pool is this worker's.
    Serve(Serve),
    /// Nobody else writes to it any more.
    Settled,
}

/// What the loop keeps an eye on beside its commands.
#[derive(Debug)]
pub struct LoopContext<'a> {
    /// What the heartbeat tells.
    pub status: &'a Status,
    /// When a step is given up half-way.
    pub abandon: &'a Abandon,
    /// Whether the engine is still where it was loaded to.
    pub residency: Residency,
}

/// How long it waits for a constraint at a time, if no job can go on without one.
const TURN: Duration = Duration::from_millis(100);

/// Serves until the commands end: hears everything that has come, then makes one step, and again.
/// Without jobs it waits for a command; with jobs it never waits for one.
///
/// A step's tokens and the answers to commands are said when the next step was begun and before anything
/// waits for it, so that a GPU computes meanwhile and nobody waits for more than one step. Tokens are said
/// only after their own step's errors were checked.
///
/// # Errors
/// The process has to end. Everything that was true before has been said.
pub fn serve<E: StepEngine>(
    engine: &mut E,
    mut scheduler: Scheduler,
    commands: &Receiver<Command>,
    context: LoopContext<'_>,
    mut say: impl FnMut(ToSupervisor),
) -> Result<(), Fatal> {
    let LoopContext {
        status,
        abandon,
        mut residency,
    } = context;
    let mut out = Vec::new();
    loop {
        let first = if scheduler.idle() {
            out.drain(..).for_each(&mut say);
            engine.rest().map_err(|e| Fatal::of("resting", &e))?;
            match wait(commands, &residency) {
                Ok(command) => Some(command),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        } else if scheduler.is_waiting() {
            out.drain(..).for_each(&mut say);
            let next = commands.recv_timeout(TURN);
            if next.is_err() {
                // Commands don't end while the thread that compiles is there.
                scheduler.pass_turn();
            }
            next.ok()
        } else {
            None
        };
        let change = residency.look(Instant::now(), || engine.resident());
        change.into_iter().for_each(&mut say);
        let heard = Heard::new(first, commands);
        let begun = prepare(engine, &mut scheduler, heard, abandon, &mut out)
            .and_then(|()| begin(engine, &mut scheduler, abandon, &mut out));
        status.set(scheduler.steps(), scheduler.running(), engine.counts());
        out.drain(..).for_each(&mut say);
        let Some((plan, underway)) = begun? else {
            continue;
        };
        failpoints::pass(Failpoint::Step);
        let stepped = scheduler.finish(&plan, underway, engine, &mut out);
        if !out.is_empty() {
            failpoints::pass(Failpoint::Sampled);
        }
        status.set(scheduler.steps(), scheduler.running(), engine.counts());
        if stepped.is_err() {
            out.drain(..).for_each(&mut say);
        }
        stepped?;
    }
}

/// Begins the next step, if there is one to finish then.
fn begin<E: StepEngine>(
    engine: &mut E,
    scheduler: &mut Scheduler,
    abandon: &Abandon,
    out: &mut Vec<ToSupervisor>,
) -> Result<Option<(StepPlan, Underway)>, Fatal> {
    let plan = scheduler.plan(engine, out)?;
    abandon.begin(scheduler.jobs_in(&plan), plan.binding);
    let underway = scheduler.begin(&plan, engine)?;
    Ok(underway.map(|underway| (plan, underway)))
}

/// The next command, or the time for the next look.
fn wait(commands: &Receiver<Command>, residency: &Residency) -> Result<Command, RecvTimeoutError> {
    match residency.due_in(Instant::now()) {
        Some(limit) => commands.recv_timeout(limit),
        None => commands.recv().map_err(|_| RecvTimeoutError::Disconnected),
    }
}

/// Everything between two steps.
fn prepare<E: StepEngine>(
    engine: &mut E,
    scheduler: &mut Scheduler,
    heard: impl Iterator<Item = Command>,
    abandon: &Abandon,
    out: &mut Vec<ToSupervisor>,
) -> Result<(), Fatal> {
    let mut cancelled = 0;
    let mut submitted = Vec::new();
    for command in heard {
        if !matches!(command, Command::Submit(_)) {
            scheduler.submit_all(submitted.drain(..), engine, out)?;
        }
        match command {
            // Those that come one after the other are begun together.
            Command::Submit(job) => submitted.push(*job),
            Command::Cancel(key) => {
                cancelled += 1;
                scheduler.cancel(key, engine, out)?;
                abandon.answered(key);
            }
            Command::Serve(serve) => engine
                .take_over(serve)
                .map_err(|e| Fatal::of("taking the pool over", &e))?,
            Command::Settled => engine
                .settled()
                .map_err(|e| Fatal::of("taking pages back", &e))?,
            Command::Compiled(key, compiled) => {
                scheduler.constrain(key, compiled, engine, out)?;
            }
        }
    }
    scheduler.submit_all(submitted.drain(..), engine, out)?;
    if abandon.take() {
        let running = scheduler.running();
        log::line(format_args!(
            "asked to abandon: {cancelled} cancelled, {running} go on"
        ));
    }
    Ok(())
}

//! The loop around the scheduler: when commands are received and answers are sent.

use orcd_shared::kv::PageCounts;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cuda_worker::abandon::Abandon;
use cuda_worker::constraint::Grammars;
use cuda_worker::engine_thread::{self, Command, LoopContext};
use cuda_worker::outbox::Status;
use cuda_worker::residency::Residency;
use cuda_worker::scheduler::step_engine::{EngineError, Sampled, StepBatch, StepEngine};
use cuda_worker::scheduler::{Fatal, Limits, Scheduler};
use orcd_shared::constraint::Constraint;
use orcd_shared::error::ErrorCode;
use orcd_shared::job::JobKey;
use orcd_shared::protocol::message::{StepReport, ToSupervisor};

use crate::fake::Fake;
use crate::rig::{LIMITS, alone, job};

/// The fake, with steps that take a while or wait for leave, and can be made to fail from outside.
struct Slow {
    fake: Fake,
    step: Duration,
    /// One for each step.
    leave: Option<Receiver<()>>,
    errors: Receiver<EngineError>,
}

impl StepEngine for Slow {
    fn open(&mut self, slot: u32, max_tokens: u32) -> Result<(), EngineError> {
        self.fake.open(slot, max_tokens)
    }

    fn close(&mut self, slot: u32) -> Result<(), EngineError> {
        self.fake.close(slot)
    }

    fn begin(&mut self, batch: &StepBatch) -> Result<(), EngineError> {
        self.fake.begin(batch)
    }

    fn finish(&mut self, batch: &StepBatch) -> Result<&[Sampled], EngineError> {
        std::thread::sleep(self.step);
        if let Some(leave) = &self.leave {
            leave.recv().unwrap();
        }
        self.fake.fail_next = self.errors.try_recv().ok();
        self.fake.finish(batch)
    }

    fn capacity(&self) -> u32 {
        self.fake.capacity()
    }

    fn counts(&self) -> PageCounts {
        self.fake.counts()
    }

    /// Was at first, and is no longer.
    fn resident(&self) -> bool {
        false
    }
}

struct Served {
    commands: Option<Sender<Command>>,
    errors: Sender<EngineError>,
    received: Receiver<ToSupervisor>,
    thread: JoinHandle<Result<(), Fatal>>,
}

impl Served {
    fn start(limits: Limits, step: Duration) -> Self {
        Self::watching(limits, step, Duration::from_secs(60))
    }

    /// Each step waits for a word over the channel.
    fn stepping(limits: Limits) -> (Self, Sender<()>) {
        let (give, leave) = mpsc::channel();
        let minute = Duration::from_secs(60);
        (
            Self::built(limits, Duration::ZERO, minute, Some(leave)),
            give,
        )
    }

    /// Looks every `interval` whether the engine is still resident.
    fn watching(limits: Limits, step: Duration, interval: Duration) -> Self {
        Self::built(limits, step, interval, None)
    }

    fn built(
        limits: Limits,
        step: Duration,
        interval: Duration,
        leave: Option<Receiver<()>>,
    ) -> Self {
        let (commands, inbox) = mpsc::channel();
        let (sender, received) = mpsc::channel();
        let (fail, errors) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mut engine = Slow {
                fake: Fake::default(),
                step,
                leave,
                errors,
            };
            let mut scheduler = Scheduler::new(limits, Vec::new());
            // It makes nothing of what it is given.
            let grammars = Grammars::start(|| Err(String::new()), |_, _| {});
            scheduler.compile_with(grammars.unwrap());
            let (status, abandon) = (Status::default(), Abandon::default());
            let context = LoopContext {
                status: &status,
                abandon: &abandon,
                residency: Residency::new(true, interval, Instant::now()),
            };
            engine_thread::serve(&mut engine, scheduler, &inbox, context, |m| {
                // Said of each job, and of no use here.
                if !matches!(m, ToSupervisor::Begun { .. }) {
                    sender.send(m).unwrap();
                }
            })
        });
        Self {
            commands: Some(commands),
            errors: fail,
            received,
            thread,
        }
    }

    fn send(&self, command: Command) {
        self.commands.as_ref().unwrap().send(command).unwrap();
    }

    fn receive(&self) -> ToSupervisor {
        self.received.recv_timeout(Duration::from_secs(60)).unwrap()
    }

    fn hear_step(&self) -> StepReport {
        match self.receive() {
            ToSupervisor::Step(report) => report,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn idle_loop_waits_for_commands_and_ends_with_them() {
    let mut served = Served::start(LIMITS, Duration::ZERO);
    for key in 1..=3 {
        served.send(Command::Submit(Box::new(job(key, 5, 3))));
        let ids: Vec<u32> = (0..3).map(|_| served.hear_step().tokens[0].id).collect();
        assert_eq!(ids, alone(&job(key, 5, 3)));
        std::thread::sleep(Duration::from_millis(5));
    }
    served.commands = None;
    served.thread.join().unwrap().unwrap();
    assert!(served.received.try_recv().is_err(), "steps without jobs");
}

#[test]
fn lost_residency_is_told_once_without_a_command_and_beside_steps() {
    let lost = ToSupervisor::Residency { resident: false };
    let idle = Served::watching(LIMITS, Duration::ZERO, Duration::from_millis(5));
    assert_eq!(idle.receive(), lost);
    std::thread::sleep(Duration::from_millis(50));
    assert!(idle.received.try_recv().is_err(), "reported twice");

    let step = Duration::from_millis(5);
    let busy = Served::watching(LIMITS, step, 4 * step);
    busy.send(Command::Submit(Box::new(job(1, 1, 1000))));
    let received: Vec<ToSupervisor> = (0..12).map(|_| busy.receive()).collect();
    assert_eq!(
        received.iter().filter(|m| **m == lost).count(),
        1,
        "{received:?}"
    );
}

#[test]
fn commands_are_heard_between_steps_and_answered_before_the_next() {
    let (served, leave) = Served::stepping(LIMITS);
    served.send(Command::Submit(Box::new(job(1, 1, 1000))));
    leave.send(()).unwrap();
    served.hear_step();
    // Before the second step, or while it waits.
    served.send(Command::Cancel(JobKey(9)));
    leave.send(()).unwrap();
    let mut received = [served.receive(), served.receive()];
    received.sort_by_key(|m| matches!(m, ToSupervisor::Step(_)));
    let answered = matches!(
        received,
        [ToSupervisor::Cancelled(JobKey(9)), ToSupervisor::Step(_)]
    );
    assert!(answered, "the answer waited for a third step: {received:?}");
}

/// The fake, which notes when each half of a step came.
struct Noting {
    fake: Fake,
    notes: Arc<Mutex<Vec<&'static str>>>,
}

impl StepEngine for Noting {
    fn open(&mut self, slot: u32, max_tokens: u32) -> Result<(), EngineError> {
        self.fake.open(slot, max_tokens)
    }

    fn close(&mut self, slot: u32) -> Result<(), EngineError> {
        self.fake.close(slot)
    }

    fn begin(&mut self, batch: &StepBatch) -> Result<(), EngineError> {
        self.notes.lock().unwrap().push("begin");
        self.fake.begin(batch)
    }

    fn finish(&mut self, batch: &StepBatch) -> Result<&[Sampled], EngineError> {
        self.notes.lock().unwrap().push("finish");
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

#[test]
fn tokens_of_a_step_are_told_while_the_next_one_runs() {
    let notes = Arc::new(Mutex::new(Vec::new()));
    let mut engine = Noting {
        fake: Fake::default(),
        notes: Arc::clone(&notes),
    };
    let (commands, inbox) = mpsc::channel();
    commands
        .send(Command::Submit(Box::new(job(1, 1, 3))))
        .unwrap();
    drop(commands);
    let context = LoopContext {
        status: &Status::default(),
        abandon: &Abandon::default(),
        residency: Residency::new(false, Duration::from_secs(60), Instant::now()),
    };
    let scheduler = Scheduler::new(LIMITS, Vec::new());
    engine_thread::serve(
        &mut engine,
        scheduler,
        &inbox,
        context,
        |message| match message {
            ToSupervisor::Begun { .. } => {}
            ToSupervisor::Step(_) => notes.lock().unwrap().push("told"),
            other => panic!("{other:?}"),
        },
    )
    .unwrap();
    let notes = notes.lock().unwrap().join(" ");
    // The last step's are told at once: there is nothing else to do.
    assert_eq!(
        notes,
        "begin finish begin told finish begin told finish told"
    );
}

/// As long as it waits its steps are counted on, which is how a supervisor tells it from one that hangs.
#[test]
fn a_loop_that_waits_for_a_constraint_counts_on_and_hears_commands() {
    let served = Served::start(LIMITS, Duration::ZERO);
    let mut waiting = job(1, 1, 10);
    waiting.options.constraint = Some(Constraint::Regex("a".into()));
    served.send(Command::Submit(Box::new(waiting)));
    std::thread::sleep(Duration::from_secs(1));
    served.send(Command::Submit(Box::new(job(2, 1, 1))));
    let report = served.hear_step();
    assert_eq!(report.tokens[0].id, alone(&job(2, 1, 1))[0]);
    assert!(report.step > 2, "step {}", report.step);
    served.send(Command::Cancel(JobKey(1)));
    assert_eq!(served.receive(), ToSupervisor::Cancelled(JobKey(1)));
}

#[test]
fn failing_step_ends_the_loop_after_everything_before_it_was_said() {
    let served = Served::start(LIMITS, Duration::from_millis(5));
    served
        .errors
        .send(EngineError::Device("gone".into()))
        .unwrap();
    served.send(Command::Submit(Box::new(job(2, 0, 1))));
    served.send(Command::Submit(Box::new(job(1, 1, 1000))));
    let fatal = served.thread.join().unwrap().unwrap_err();
    assert_eq!(fatal.code, ErrorCode::CudaError);
    let received: Vec<ToSupervisor> = served.received.try_iter().collect();
    let refused = matches!(
        received[..],
        [ToSupervisor::JobFailed { key: JobKey(2), .. }]
    );
    assert!(refused, "{received:?}");
}

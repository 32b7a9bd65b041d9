//! The path of a token, from the worker's message into the job's log. This is the one place that
//! runs for every token, so the token's text moves into the log; readers copy it, each in its own
//! task.

use std::sync::Arc;
use std::time::{Duration, Instant};

use orcd_shared::error::ErrorCode;
use orcd_shared::job::JobKey;
use orcd_shared::protocol::message::{StepReport, StepToken, ToSupervisor};

use super::super::journal::Then;
use super::roster::Place;
use super::state::{AtWorker, Dispatcher, Ending};
use crate::worker::WorkerHost;
use crate::worker::lifecycle::{Event, News};

impl<H: WorkerHost> Dispatcher<H> {
    /// A message of worker number `generation`.
    pub(super) fn message(&mut self, generation: u64, message: ToSupervisor, now: Instant) {
        let given = self.roster.running();
        let Some(member) = self.crew.get_mut(generation) else {
            return;
        };
        member.pulse.heard(now);
        let is_present = generation == self.life.generation;
        let news = match message {
            ToSupervisor::Heartbeat {
                steps,
                running,
                waiting,
            } => {
                member.pulse.steps(steps, now);
                if is_present {
                    let holds = running as usize + waiting as usize;
                    member.pulse.holds(holds, given, now);
                }
                return;
            }
            ToSupervisor::Residency { resident } => return self.residency(generation, resident),
            ToSupervisor::LoadProgress { percent } => {
                member.pulse.moved(now);
                News::Progress(percent)
            }
            ToSupervisor::LoadFailed { code, message } => {
                let what = format_args!("the worker can't load the model: {code}: {message}");
                self.warn_of_cause(generation, what);
                News::LoadFailed(code, message)
            }
            ToSupervisor::Fatal { code, message } => {
                let what = format_args!("the worker is about to end: {code}: {message}");
                self.warn_of_cause(generation, what);
                News::Fatal(code, message)
            }
            // What a worker that was given up still says of jobs is the business of its successor.
            _ if !is_present => return,
            ToSupervisor::Step(report) => return self.step(&report, now),
            ToSupervisor::JobFailed { key, code, message } => {
                return self.end_job(key, Ending::Error(code, message), AtWorker::Done);
            }
            ToSupervisor::Cancelled(key) => return self.job_gone(key),
            // The host answers these itself.
            ToSupervisor::Hello { .. } | ToSupervisor::Ready(_) => return,
        };
        self.life_event(Event::Worker { generation, news }, now);
    }

    /// A worker looked where its buffers are. Nothing follows from it but what `/health` shows.
    fn residency(&mut self, generation: u64, resident: bool) {
        let Some(member) = self.crew.get_mut(generation) else {
            return;
        };
        if let Some(info) = &mut member.info {
            Arc::make_mut(info).resident = resident;
        }
        if generation == self.life.generation {
            self.worker.info.clone_from(&member.info);
        }
        if resident {
            tracing::info!(
                generation,
                "the worker's buffers are all in device memory again"
            );
        } else {
            tracing::error!(
                generation,
                "a buffer of the worker is no longer in device memory"
            );
        }
    }

    /// The worker no longer has a job.
    fn job_gone(&mut self, key: JobKey) {
        if self.roster.leaving.remove(&key).is_some() {
            return;
        }
        let is_running = self
            .roster
            .get(key)
            .is_some_and(|job| job.place == Place::Running);
        if is_running {
            // Nobody asked for that, and nothing more would ever come.
            let message = "the worker dropped the job; send it again";
            self.end_job(
                key,
                Ending::Error(ErrorCode::Internal, message.into()),
                AtWorker::Done,
            );
        }
    }

    fn step(&mut self, report: &StepReport, now: Instant) {
        if let Some(member) = self.crew.get_mut(self.life.generation) {
            member.pulse.steps(report.step, now);
            let took = Duration::from_micros(report.step_us.into());
            member.pulse.step_took(took);
        }
        for token in &report.tokens {
            self.token(*token, report.step_us, now);
        }
    }

    fn token(&mut self, token: StepToken, step_us: u32, now: Instant) {
        let Some(job) = self.roster.get_mut(token.key) else {
            return;
        };
        if job.place != Place::Running {
            // Cancelled meanwhile; its stream had its last event.
            return;
        }
        let before = job.journal.last_token();
        let taken = job.journal.take(token, step_us, now);
        if let Some(event) = taken.event {
            self.metrics.tokens(1);
            match before {
                None => self
                    .metrics
                    .first_token(now.saturating_duration_since(job.submitted)),
                Some(before) => self
                    .metrics
                    .inter_token(now.saturating_duration_since(before)),
            }
            job.log.push(event);
            let replayed = job.journal.replays() > 0;
            self.roster.proved(token.key);
            if replayed {
                self.failed_over(now);
            }
        }
        let at_worker = if token.finish.is_some() {
            AtWorker::Done
        } else {
            AtWorker::Abandon
        };
        match taken.then {
            Then::End(reason) => self.finish_job(token.key, Ending::Stop(reason), at_worker, now),
            Then::Fail(code, message) => {
                self.end_job(token.key, Ending::Error(code, message), at_worker);
            }
            Then::GoOn => {}
        }
    }

    fn finish_job(&mut self, key: JobKey, ending: Ending, at_worker: AtWorker, now: Instant) {
        self.end_job(key, ending, at_worker);
        self.life_event(Event::JobFinished, now);
    }
}

//! Jobs whose outputs have constraints. A mask is needed only at a draw: until it is there a job reads its prompt and
//! others go on.

use orcd_shared::error::ErrorCode;
use orcd_shared::job::{JobKey, JobSpec};
use orcd_shared::protocol::message::ToSupervisor;

use super::rules::Rejection;
use super::sequence::{Guide, Sequence};
use super::step_engine::StepEngine;
use super::{Fatal, Scheduler, failed};
use crate::constraint::{Compiled, Order};

impl Scheduler {
    pub(super) fn check_constraint(&self, job: &JobSpec) -> Result<(), Rejection> {
        if job.options.constraint.is_none() {
            return Ok(());
        }
        if job.options.ignore_end {
            let message = "end tokens are ignored and the output is constrained; it could not end";
            return Err(Rejection::new(ErrorCode::InvalidRequest, message));
        }
        if self.grammars.is_none() {
            let message = "this worker can't compile constraints".to_owned();
            return Err(Rejection::of_supervisor(message));
        }
        Ok(())
    }

    pub(super) fn order_constraint(&self, sequence: &Sequence) {
        if let (Some(grammars), Some((constraint, tokens))) =
            (&self.grammars, sequence.constraint())
        {
            grammars.order(Order {
                key: sequence.key,
                constraint: constraint.clone(),
                tokens: tokens.to_vec(),
                wanted: sequence.wait(),
            });
        }
    }

    /// Gives a job its matcher, or reports why there is none. The job may be gone by now; or it was preempted and is
    /// here again, and has the matcher that was ordered for it before: it drew nothing meanwhile, so that both are the
    /// same, but the one that it has may have gone on.
    ///
    /// # Errors
    /// The engine could not give the slot back.
    pub fn constrain<E: StepEngine>(
        &mut self,
        key: JobKey,
        compiled: Compiled,
        engine: &mut E,
        out: &mut Vec<ToSupervisor>,
    ) -> Result<(), Fatal> {
        let waits = |s: &&mut Sequence| s.key == key && s.waits();
        let Some(sequence) = self.running.iter_mut().find(waits) else {
            return Ok(());
        };
        match compiled {
            Ok(matcher) => *sequence.guide() = Guide::Matcher(matcher),
            Err(reason) => {
                out.push(unusable(key, &reason));
                self.retire(&[key], engine)?;
            }
        }
        Ok(())
    }

    /// Fills the masks of the step that was begun: which tokens may be drawn is found out while a GPU computes. Jobs
    /// whose constraint has become too much, and why; what is drawn for them does not count.
    pub(super) fn fill_masks(&mut self) -> Vec<(JobKey, String)> {
        let mut failures = Vec::new();
        for &(at, number) in &self.masks {
            let Some(sequence) = self.running.get_mut(at) else {
                continue;
            };
            let key = sequence.key;
            let Guide::Matcher(matcher) = sequence.guide() else {
                continue;
            };
            let words = matcher.mask_words();
            match matcher.mask() {
                Ok(mask) => self.batch.fill_mask(number, mask),
                Err(reason) => {
                    self.batch.fill_mask(number, &vec![u32::MAX; words]);
                    failures.push((key, reason));
                }
            }
        }
        failures
    }

    /// Whether there are jobs and none can go on before its constraint is compiled, or its pages can be used.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        !self.idle() && (self.starved || self.running.iter().all(|s| s.ready() == 0))
    }

    /// Counts a turn in which all jobs waited as a step: the engine stands still for a reason.
    pub fn pass_turn(&mut self) {
        self.steps += 1;
    }
}

/// A job whose constraint can't be used, or not any further.
pub(super) fn unusable(key: JobKey, reason: &str) -> ToSupervisor {
    let message = format!("the constraint on the output can't be used: {reason}");
    failed(key, ErrorCode::InvalidRequest, message)
}

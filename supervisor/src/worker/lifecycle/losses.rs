//! What a lost worker means: how soon the next one, whether the service is still healthy, and when
//! to give up.

use orcd_shared::error::ErrorCode;

use super::{Actions, CRASH_WINDOW, CRASHES_TO_UNHEALTHY, Context, Outcome, Phase, State};
use crate::worker::backoff;

impl State {
    /// The present worker is lost. What is left of it dies beside its successor.
    pub(super) fn lose(&mut self, cx: Context<'_>, how: &str, kill: bool) -> Actions {
        let mut actions = self.leave_dying(cx, self.generation, kill);
        actions.extend(self.gone(cx, how));
        actions
    }

    /// There is no present worker any more.
    pub(super) fn gone(&mut self, cx: Context<'_>, how: &str) -> Actions {
        if !self.served {
            let message = format!("the worker was not ready yet when it was lost: {how}");
            return self.fail_start(ErrorCode::WorkerUnavailable, message);
        }
        self.restarts += 1;
        self.in_a_row = self.in_a_row.saturating_add(1);
        self.restarts_since_success = self.restarts_since_success.saturating_add(1);
        self.note_crash(cx);
        match cx.policy.max_restarts {
            Some(max) if self.restarts_since_success > max => {
                let message = format!(
                    "the worker was lost {} times without finishing a job, last: {how}; \
                     {max} restarts are allowed",
                    self.restarts_since_success
                );
                self.finish(Outcome::WorkerLost { message })
            }
            _ => self.start_successor(cx),
        }
    }

    /// Chooses the successor of a lost worker. A standby needs no pause: it runs already. A service
    /// that was found unhealthy goes on trying, but seldom.
    fn start_successor(&mut self, cx: Context<'_>) -> Actions {
        if let Some(actions) = self.promote(cx) {
            return actions;
        }
        let in_a_row = if self.unhealthy {
            u32::MAX
        } else {
            self.in_a_row
        };
        let pause = backoff::pause(in_a_row, cx.jitter);
        if pause.is_zero() {
            return self.spawn_next();
        }
        self.phase = Phase::Backoff {
            until: cx.now + pause,
        };
        vec![]
    }

    /// Remembers a crash and judges the service by the latest ones.
    fn note_crash(&mut self, cx: Context<'_>) {
        self.crashes
            .retain(|&at| cx.now.duration_since(at) < CRASH_WINDOW);
        if self.crashes.len() == CRASHES_TO_UNHEALTHY {
            self.crashes.remove(0);
        }
        self.crashes.push(cx.now);
        self.unhealthy |= self.crashes.len() == CRASHES_TO_UNHEALTHY;
    }

    pub(super) fn reset_crash_count(&mut self) {
        self.in_a_row = 0;
        self.unhealthy = false;
        self.crashes.clear();
    }
}

//! The transitions. Each phase has one function; what a phase does not mention changes nothing,
//! because a process may always say something that no longer matters.

use orcd_shared::error::ErrorCode;
use orcd_shared::protocol::message::ToSupervisor;

use super::{Action, Actions, Context, Event, Outcome, Phase, State};
use crate::worker::WorkerEvent;

impl State {
    /// The next state and what is to be done, in this order.
    #[must_use]
    pub fn step(mut self, cx: Context<'_>, event: Event<'_>) -> (Self, Actions) {
        let actions = match event {
            Event::JobFinished => {
                self.reset_crash_count();
                self.restarts_since_success = 0;
                vec![]
            }
            Event::Start => match self.phase {
                Phase::Idle => self.spawn_next(),
                _ => vec![],
            },
            Event::Stop => self.stop_all(cx),
            Event::Tick => {
                let mut actions = self.tick(cx);
                actions.extend(self.standby_tick(cx));
                actions.extend(self.dying_tick(cx));
                actions
            }
            Event::Worker(report) if report.generation == self.generation => {
                self.present_event(cx, &report.event)
            }
            Event::Worker(report)
                if report.generation == self.standby.generation && self.standby.is_alive() =>
            {
                self.standby_event(cx, &report.event)
            }
            Event::Worker(report) => {
                self.dying_event(report.generation, &report.event);
                vec![]
            }
        };
        (self, actions)
    }

    /// Something happened to the present worker.
    fn present_event(&mut self, cx: Context<'_>, event: &WorkerEvent) -> Actions {
        match self.phase.clone() {
            Phase::Spawning => self.spawning(cx, event),
            Phase::Handshaking { .. } => self.handshaking(cx, event),
            Phase::Loading { percent } => self.loading(cx, event, percent),
            Phase::Ready { .. } => self.ready(cx, event),
            Phase::Ending { .. } => match event {
                WorkerEvent::Exited(exit) => self.gone(cx, &exit.to_string()),
                _ => vec![],
            },
            Phase::Stopping { .. } => match event {
                WorkerEvent::Exited(_) | WorkerEvent::SpawnFailed { .. } => {
                    self.finish(Outcome::Stopped)
                }
                _ => vec![],
            },
            Phase::Backoff { .. } | Phase::Idle | Phase::Over => {
                self.dying_event(self.generation, event);
                vec![]
            }
        }
    }

    fn spawning(&mut self, cx: Context<'_>, event: &WorkerEvent) -> Actions {
        match event {
            WorkerEvent::Spawned { .. } => {
                self.phase = Phase::Handshaking {
                    until: cx.now + cx.policy.handshake_limit,
                };
                vec![]
            }
            WorkerEvent::SpawnFailed { message } if !self.served => {
                self.fail_start(ErrorCode::WorkerUnavailable, message.clone())
            }
            WorkerEvent::SpawnFailed { message } => self.gone(cx, message),
            _ => vec![],
        }
    }

    fn handshaking(&mut self, cx: Context<'_>, event: &WorkerEvent) -> Actions {
        match event {
            WorkerEvent::Connected => {
                self.phase = Phase::Loading { percent: 0 };
                vec![Action::Load(self.generation)]
            }
            WorkerEvent::HandshakeFailed { message } | WorkerEvent::Hung { message } => {
                self.give_up(cx, message)
            }
            WorkerEvent::LinkLost { message } => self.link_lost(cx, message),
            WorkerEvent::Exited(exit) => self.gone(cx, &exit.to_string()),
            _ => vec![],
        }
    }

    fn loading(&mut self, cx: Context<'_>, event: &WorkerEvent, percent: u8) -> Actions {
        match event {
            WorkerEvent::Message(ToSupervisor::LoadProgress { percent: now }) => {
                self.phase = Phase::Loading {
                    percent: (*now).clamp(percent, 100),
                };
                vec![]
            }
            WorkerEvent::Ready { .. } => {
                self.served = true;
                self.phase = Phase::Ready { since: cx.now };
                vec![Action::Serve]
            }
            WorkerEvent::Looked(Err(why)) if !self.served => {
                self.fail_start(ErrorCode::ModelLoadFailed, why.clone())
            }
            WorkerEvent::Message(
                ToSupervisor::LoadFailed { code, message } | ToSupervisor::Fatal { code, message },
            ) if !self.served => self.fail_start(*code, message.clone()),
            WorkerEvent::Looked(Err(message))
            | WorkerEvent::Message(
                ToSupervisor::LoadFailed { message, .. } | ToSupervisor::Fatal { message, .. },
            ) => self.lose(cx, message, false),
            WorkerEvent::LinkLost { message } => self.link_lost(cx, message),
            WorkerEvent::Hung { message } => self.give_up(cx, message),
            WorkerEvent::Exited(exit) => self.gone(cx, &exit.to_string()),
            _ => vec![],
        }
    }

    fn ready(&mut self, cx: Context<'_>, event: &WorkerEvent) -> Actions {
        let mut actions = vec![Action::SuspendJobs(self.generation)];
        actions.extend(match event {
            WorkerEvent::Message(ToSupervisor::Fatal { message, .. }) => {
                self.lose(cx, message, false)
            }
            WorkerEvent::LinkLost { message } | WorkerEvent::Hung { message } => {
                self.lose(cx, message, true)
            }
            WorkerEvent::Exited(exit) => self.gone(cx, &exit.to_string()),
            _ => return vec![],
        });
        actions
    }

    /// What the present worker's clocks say.
    fn tick(&mut self, cx: Context<'_>) -> Actions {
        let later = cx.now + cx.policy.abandon_after;
        match self.phase.clone() {
            Phase::Handshaking { until } if cx.now >= until => {
                self.give_up(cx, "the worker did not connect in time")
            }
            Phase::Ready { since } if cx.now - since >= cx.policy.stable_after => {
                self.reset_crash_count();
                vec![]
            }
            Phase::Ending { abandon_at, .. } if cx.now >= abandon_at => {
                self.gone(cx, "not reaped after SIGKILL")
            }
            Phase::Ending {
                kill_at: Some(at), ..
            } if cx.now >= at => {
                self.phase = Phase::Ending {
                    kill_at: None,
                    abandon_at: later,
                };
                vec![Action::Kill(self.generation)]
            }
            Phase::Backoff { until } if cx.now >= until => self.spawn_next(),
            Phase::Stopping { abandon_at, .. } if cx.now >= abandon_at => {
                self.finish(Outcome::Stopped)
            }
            Phase::Stopping {
                kill_at: Some(at), ..
            } if cx.now >= at => {
                self.phase = Phase::Stopping {
                    kill_at: None,
                    abandon_at: later,
                };
                vec![Action::Kill(self.generation)]
            }
            _ => vec![],
        }
    }

    /// Ends everything: the present worker in its own way if it can be spoken to, the others by
    /// force, for they have nothing to finish.
    fn stop_all(&mut self, cx: Context<'_>) -> Actions {
        let mut actions = match self.phase {
            Phase::Idle | Phase::Backoff { .. } => return self.stop_now(),
            Phase::Loading { .. } | Phase::Ready { .. } => self.stop(cx),
            Phase::Spawning | Phase::Handshaking { .. } | Phase::Ending { .. } => {
                self.stop_by_force(cx)
            }
            Phase::Stopping { .. } | Phase::Over => return vec![],
        };
        actions.extend(self.dismiss_standby());
        actions
    }

    fn stop_now(&mut self) -> Actions {
        let mut actions = self.dismiss_standby();
        actions.extend(self.finish(Outcome::Stopped));
        actions
    }

    pub(super) fn spawn_next(&mut self) -> Actions {
        self.spawned += 1;
        self.generation = self.spawned;
        self.phase = Phase::Spawning;
        vec![Action::Spawn(self.generation)]
    }

    /// Nothing more is heard of a worker before it was ready. How it ends is waited for only while a
    /// failed start is to be explained by it.
    fn link_lost(&mut self, cx: Context<'_>, why: &str) -> Actions {
        if self.served {
            return self.lose(cx, why, true);
        }
        let kill_at = cx.now + cx.policy.exit_grace;
        self.phase = Phase::Ending {
            kill_at: Some(kill_at),
            abandon_at: kill_at + cx.policy.abandon_after,
        };
        vec![]
    }

    /// Ends a worker that will not become ready.
    fn give_up(&mut self, cx: Context<'_>, why: &str) -> Actions {
        if self.served {
            self.lose(cx, why, true)
        } else {
            self.fail_start(ErrorCode::WorkerUnavailable, why.into())
        }
    }

    pub(super) fn fail_start(&mut self, code: ErrorCode, message: String) -> Actions {
        let mut actions = vec![Action::Kill(self.generation)];
        actions.extend(self.finish(Outcome::StartupFailed { code, message }));
        actions
    }

    fn stop(&mut self, cx: Context<'_>) -> Actions {
        let kill_at = cx.now + cx.policy.shutdown_grace;
        let abandon_at = kill_at + cx.policy.abandon_after;
        self.phase = Phase::Stopping {
            kill_at: Some(kill_at),
            abandon_at,
        };
        vec![Action::Shutdown(self.generation)]
    }

    /// Ends a worker that can't be spoken to.
    fn stop_by_force(&mut self, cx: Context<'_>) -> Actions {
        self.phase = Phase::Stopping {
            kill_at: None,
            abandon_at: cx.now + cx.policy.abandon_after,
        };
        vec![Action::Kill(self.generation)]
    }

    pub(super) fn finish(&mut self, outcome: Outcome) -> Actions {
        self.phase = Phase::Over;
        vec![Action::Finish(outcome)]
    }
}

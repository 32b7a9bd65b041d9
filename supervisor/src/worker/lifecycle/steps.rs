//! The transitions. Each phase has one function; what a phase does not mention changes nothing,
//! because a process may always say something that no longer matters.

use orcd_shared::error::ErrorCode;

use super::{Action, Actions, Context, Event, Outcome, Phase, State};

impl State {
    /// The next state and what is to be done, in this order.
    #[must_use]
    pub fn step(mut self, cx: Context<'_>, event: Event) -> (Self, Actions) {
        if event == Event::JobFinished {
            self.forgive();
            self.spent = 0;
            return (self, vec![]);
        }
        let actions = match self.phase.clone() {
            Phase::Idle => self.idle(event),
            Phase::Spawning => self.spawning(cx, event),
            Phase::Handshaking { until } => self.handshaking(cx, event, cx.now >= until),
            Phase::Loading { percent } => self.loading(cx, event, percent),
            Phase::Ready { since } => self.ready(cx, event, cx.now - since),
            Phase::Ending {
                kill_at,
                abandon_at,
            } => {
                let kill = kill_at.is_some_and(|at| cx.now >= at);
                self.ending(cx, event, kill, cx.now >= abandon_at)
            }
            Phase::Backoff { until } => self.backoff(event, cx.now >= until),
            Phase::Stopping {
                kill_at,
                abandon_at,
            } => {
                let kill = kill_at.is_some_and(|at| cx.now >= at);
                self.stopping(cx, event, kill, cx.now >= abandon_at)
            }
            Phase::Over => vec![],
        };
        (self, actions)
    }

    fn idle(&mut self, event: Event) -> Actions {
        match event {
            Event::Start => self.spawn_next(),
            Event::Stop => self.finish(Outcome::Stopped),
            _ => vec![],
        }
    }

    fn spawning(&mut self, cx: Context<'_>, event: Event) -> Actions {
        match event {
            Event::Spawned => {
                self.phase = Phase::Handshaking {
                    until: cx.now + cx.policy.handshake_limit,
                };
                vec![]
            }
            Event::SpawnFailed(why) if !self.served => {
                self.fail_start(ErrorCode::WorkerUnavailable, why)
            }
            Event::SpawnFailed(why) => self.gone(cx, &why),
            Event::Stop => self.stop_by_force(cx),
            _ => vec![],
        }
    }

    fn handshaking(&mut self, cx: Context<'_>, event: Event, late: bool) -> Actions {
        match event {
            Event::Connected => {
                self.phase = Phase::Loading { percent: 0 };
                vec![Action::Load]
            }
            Event::HandshakeFailed(why) | Event::Hung(why) => {
                self.give_up(cx, ErrorCode::WorkerUnavailable, why)
            }
            Event::Tick if late => {
                let why = "the worker did not connect in time".into();
                self.give_up(cx, ErrorCode::WorkerUnavailable, why)
            }
            Event::LinkLost(_) => self.await_exit(cx),
            Event::Exited(how) => self.gone(cx, &how),
            Event::Stop => self.stop_by_force(cx),
            _ => vec![],
        }
    }

    fn loading(&mut self, cx: Context<'_>, event: Event, percent: u8) -> Actions {
        match event {
            Event::Progress(now) => {
                self.phase = Phase::Loading {
                    percent: now.clamp(percent, 100),
                };
                vec![]
            }
            Event::Ready => {
                self.served = true;
                self.phase = Phase::Ready { since: cx.now };
                vec![Action::Serve]
            }
            Event::LoadFailed(code, why) | Event::Fatal(code, why) if !self.served => {
                self.fail_start(code, why)
            }
            Event::LoadFailed(..) | Event::Fatal(..) | Event::LinkLost(_) => self.await_exit(cx),
            Event::Hung(why) => self.give_up(cx, ErrorCode::WorkerUnavailable, why),
            Event::Exited(how) => self.gone(cx, &how),
            Event::Stop => self.stop(cx),
            _ => vec![],
        }
    }

    fn ready(&mut self, cx: Context<'_>, event: Event, age: std::time::Duration) -> Actions {
        match event {
            Event::Fatal(..) | Event::LinkLost(_) => {
                let mut actions = vec![Action::HoldJobs];
                actions.extend(self.await_exit(cx));
                actions
            }
            Event::Hung(_) => {
                self.phase = Phase::Ending {
                    kill_at: None,
                    abandon_at: abandon(cx),
                };
                vec![Action::HoldJobs, Action::Kill]
            }
            Event::Exited(how) => {
                let mut actions = vec![Action::HoldJobs];
                actions.extend(self.gone(cx, &how));
                actions
            }
            Event::Tick if age >= cx.policy.probation => {
                self.forgive();
                vec![]
            }
            Event::Stop => self.stop(cx),
            _ => vec![],
        }
    }

    fn ending(&mut self, cx: Context<'_>, event: Event, kill: bool, abandon: bool) -> Actions {
        match event {
            Event::Exited(how) => self.gone(cx, &how),
            Event::Tick if abandon => self.gone(cx, "not reaped after SIGKILL"),
            Event::Tick if kill => {
                self.phase = Phase::Ending {
                    kill_at: None,
                    abandon_at: self::abandon(cx),
                };
                vec![Action::Kill]
            }
            Event::Stop => self.stop_by_force(cx),
            _ => vec![],
        }
    }

    fn backoff(&mut self, event: Event, due: bool) -> Actions {
        match event {
            Event::Tick if due => self.spawn_next(),
            Event::Stop => self.finish(Outcome::Stopped),
            _ => vec![],
        }
    }

    fn stopping(&mut self, cx: Context<'_>, event: Event, kill: bool, abandon: bool) -> Actions {
        match event {
            Event::Exited(_) | Event::SpawnFailed(_) => self.finish(Outcome::Stopped),
            Event::Tick if abandon => self.finish(Outcome::Stopped),
            Event::Tick if kill => {
                self.phase = Phase::Stopping {
                    kill_at: None,
                    abandon_at: self::abandon(cx),
                };
                vec![Action::Kill]
            }
            _ => vec![],
        }
    }

    pub(super) fn spawn_next(&mut self) -> Actions {
        self.generation += 1;
        self.phase = Phase::Spawning;
        vec![Action::Spawn]
    }

    /// Waits for a worker that is about to end by itself.
    fn await_exit(&mut self, cx: Context<'_>) -> Actions {
        let kill_at = cx.now + cx.policy.exit_grace;
        self.phase = Phase::Ending {
            kill_at: Some(kill_at),
            abandon_at: kill_at + cx.policy.abandon_after,
        };
        vec![]
    }

    /// Ends a worker that will not become ready.
    fn give_up(&mut self, cx: Context<'_>, code: ErrorCode, why: String) -> Actions {
        if !self.served {
            return self.fail_start(code, why);
        }
        self.phase = Phase::Ending {
            kill_at: None,
            abandon_at: abandon(cx),
        };
        vec![Action::Kill]
    }

    pub(super) fn fail_start(&mut self, code: ErrorCode, message: String) -> Actions {
        let mut actions = vec![Action::Kill];
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
        vec![Action::Shutdown]
    }

    /// Ends a worker that can't be spoken to.
    fn stop_by_force(&mut self, cx: Context<'_>) -> Actions {
        self.phase = Phase::Stopping {
            kill_at: None,
            abandon_at: abandon(cx),
        };
        vec![Action::Kill]
    }

    pub(super) fn finish(&mut self, outcome: Outcome) -> Actions {
        self.phase = Phase::Over;
        vec![Action::Finish(outcome)]
    }
}

fn abandon(cx: Context<'_>) -> std::time::Instant {
    cx.now + cx.policy.abandon_after
}

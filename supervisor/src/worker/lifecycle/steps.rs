//! The transitions. Each phase has one function; what a phase does not mention changes nothing,
//! because a process may always say something that no longer matters.

use orcd_shared::error::ErrorCode;

use super::{Action, Actions, Context, Event, News, Outcome, Phase, State};

impl State {
    /// The next state and what is to be done, in this order.
    #[must_use]
    pub fn step(mut self, cx: Context<'_>, event: Event) -> (Self, Actions) {
        let actions = match event {
            Event::JobFinished => {
                self.forgive();
                self.spent = 0;
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
            Event::Worker { generation, news } if generation == self.generation => {
                self.news(cx, news)
            }
            Event::Worker { generation, news }
                if generation == self.standby.generation && self.standby.is_alive() =>
            {
                self.standby_news(cx, news)
            }
            Event::Worker { generation, news } => {
                self.dying_news(generation, &news);
                vec![]
            }
        };
        (self, actions)
    }

    /// Something happened to the present worker.
    fn news(&mut self, cx: Context<'_>, news: News) -> Actions {
        match self.phase.clone() {
            Phase::Spawning => self.spawning(cx, news),
            Phase::Handshaking { .. } => self.handshaking(cx, news),
            Phase::Loading { percent } => self.loading(cx, news, percent),
            Phase::Ready { .. } => self.ready(cx, news),
            Phase::Ending { .. } => match news {
                News::Exited(how) => self.gone(cx, &how),
                _ => vec![],
            },
            Phase::Stopping { .. } => match news {
                News::Exited(_) | News::SpawnFailed(_) => self.finish(Outcome::Stopped),
                _ => vec![],
            },
            Phase::Backoff { .. } | Phase::Idle | Phase::Over => {
                self.dying_news(self.generation, &news);
                vec![]
            }
        }
    }

    fn spawning(&mut self, cx: Context<'_>, news: News) -> Actions {
        match news {
            News::Spawned => {
                self.phase = Phase::Handshaking {
                    until: cx.now + cx.policy.handshake_limit,
                };
                vec![]
            }
            News::SpawnFailed(why) if !self.served => {
                self.fail_start(ErrorCode::WorkerUnavailable, why)
            }
            News::SpawnFailed(why) => self.gone(cx, &why),
            _ => vec![],
        }
    }

    fn handshaking(&mut self, cx: Context<'_>, news: News) -> Actions {
        match news {
            News::Connected => {
                self.phase = Phase::Loading { percent: 0 };
                vec![Action::Load(self.generation)]
            }
            News::HandshakeFailed(why) | News::Hung(why) => {
                self.give_up(cx, ErrorCode::WorkerUnavailable, why)
            }
            News::LinkLost(why) => self.await_exit(cx, &why),
            News::Exited(how) => self.gone(cx, &how),
            _ => vec![],
        }
    }

    fn loading(&mut self, cx: Context<'_>, news: News, percent: u8) -> Actions {
        match news {
            News::Progress(now) => {
                self.phase = Phase::Loading {
                    percent: now.clamp(percent, 100),
                };
                vec![]
            }
            News::Ready => {
                self.served = true;
                self.phase = Phase::Ready { since: cx.now };
                vec![Action::Serve]
            }
            News::LoadFailed(code, why) | News::Fatal(code, why) if !self.served => {
                self.fail_start(code, why)
            }
            News::LoadFailed(_, why) | News::Fatal(_, why) | News::LinkLost(why) => {
                self.await_exit(cx, &why)
            }
            News::Hung(why) => self.give_up(cx, ErrorCode::WorkerUnavailable, why),
            News::Exited(how) => self.gone(cx, &how),
            _ => vec![],
        }
    }

    fn ready(&mut self, cx: Context<'_>, news: News) -> Actions {
        let mut actions = vec![Action::HoldJobs(self.generation)];
        actions.extend(match news {
            News::Fatal(_, why) | News::LinkLost(why) => self.lose(cx, &why, false),
            News::Hung(why) => self.lose(cx, &why, true),
            News::Exited(how) => self.gone(cx, &how),
            _ => return vec![],
        });
        actions
    }

    /// What the present worker's clocks say.
    fn tick(&mut self, cx: Context<'_>) -> Actions {
        let later = cx.now + cx.policy.abandon_after;
        match self.phase.clone() {
            Phase::Handshaking { until } if cx.now >= until => {
                let why = "the worker did not connect in time".into();
                self.give_up(cx, ErrorCode::WorkerUnavailable, why)
            }
            Phase::Ready { since } if cx.now - since >= cx.policy.probation => {
                self.forgive();
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

    /// A worker that is about to end by itself. How it ends matters only while a failed start is to
    /// be explained by it.
    fn await_exit(&mut self, cx: Context<'_>, why: &str) -> Actions {
        if self.served {
            return self.lose(cx, why, false);
        }
        let kill_at = cx.now + cx.policy.exit_grace;
        self.phase = Phase::Ending {
            kill_at: Some(kill_at),
            abandon_at: kill_at + cx.policy.abandon_after,
        };
        vec![]
    }

    /// Ends a worker that will not become ready.
    fn give_up(&mut self, cx: Context<'_>, code: ErrorCode, why: String) -> Actions {
        if self.served {
            self.lose(cx, &why, true)
        } else {
            self.fail_start(code, why)
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

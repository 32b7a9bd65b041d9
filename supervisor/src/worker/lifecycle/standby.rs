//! The worker that waits to follow the present one, and lost workers on their way out.

use orcd_shared::protocol::message::ToSupervisor;

use super::{Action, Actions, Context, Dying, Phase, State};
use crate::worker::{WorkerEvent, backoff};

impl State {
    /// Something happened to the standby.
    pub(super) fn standby_event(&mut self, cx: Context<'_>, event: &WorkerEvent) -> Actions {
        let generation = self.standby.generation;
        match (&self.standby.phase, event) {
            (Phase::Spawning, WorkerEvent::Spawned { .. }) => {
                self.standby.phase = Phase::Handshaking {
                    until: cx.now + cx.policy.handshake_limit,
                };
                vec![]
            }
            (Phase::Handshaking { .. }, WorkerEvent::Connected) => {
                self.standby.phase = Phase::Loading { percent: 0 };
                vec![Action::Load(generation)]
            }
            (
                &Phase::Loading { percent },
                WorkerEvent::Message(ToSupervisor::LoadProgress { percent: now }),
            ) => {
                self.standby.phase = Phase::Loading {
                    percent: (*now).clamp(percent, 100),
                };
                vec![]
            }
            (Phase::Loading { .. }, WorkerEvent::Ready { .. }) => {
                self.standby.phase = Phase::Ready { since: cx.now };
                self.standby.failures = 0;
                vec![]
            }
            (_, WorkerEvent::SpawnFailed { .. } | WorkerEvent::Exited(_)) => self.standby_gone(cx),
            (
                _,
                WorkerEvent::HandshakeFailed { .. }
                | WorkerEvent::Hung { .. }
                | WorkerEvent::LinkLost { .. },
            ) => self.standby_lost(cx, true),
            (_, WorkerEvent::Message(ToSupervisor::Fatal { .. })) => self.standby_lost(cx, false),
            // One that has loaded can't fail to any more.
            (Phase::Ready { .. }, _) => vec![],
            (
                _,
                WorkerEvent::Looked(Err(_)) | WorkerEvent::Message(ToSupervisor::LoadFailed { .. }),
            ) => self.standby_lost(cx, false),
            _ => vec![],
        }
    }

    /// Starts a standby when one is wanted and there is none: after a worker serves, so that
    /// it never delays one.
    pub(super) fn standby_tick(&mut self, cx: Context<'_>) -> Actions {
        let wanted = match self.phase {
            Phase::Ready { since } => {
                cx.policy.standby && cx.now >= since + cx.policy.standby_delay
            }
            _ => false,
        };
        match self.standby.phase {
            Phase::Idle if wanted => self.spawn_standby(),
            Phase::Backoff { until } if cx.now >= until => {
                self.standby.phase = Phase::Idle;
                self.standby_tick(cx)
            }
            Phase::Handshaking { until } if cx.now >= until => self.standby_lost(cx, true),
            _ => vec![],
        }
    }

    /// Makes the standby the present worker, wherever it is in its life; `None` if there is none.
    pub(super) fn promote(&mut self, cx: Context<'_>) -> Option<Actions> {
        if !self.standby.is_alive() {
            return None;
        }
        let standby = std::mem::take(&mut self.standby);
        self.generation = standby.generation;
        self.phase = standby.phase;
        if let Phase::Ready { since } = &mut self.phase {
            *since = cx.now;
            return Some(vec![Action::Serve]);
        }
        Some(vec![])
    }

    /// Ends a standby that nobody waits for any more.
    pub(super) fn dismiss_standby(&mut self) -> Actions {
        let standby = std::mem::take(&mut self.standby);
        if standby.is_alive() {
            vec![Action::Kill(standby.generation)]
        } else {
            vec![]
        }
    }

    fn spawn_standby(&mut self) -> Actions {
        self.spawned += 1;
        self.standby.generation = self.spawned;
        self.standby.phase = Phase::Spawning;
        vec![Action::Spawn(self.spawned)]
    }

    fn standby_lost(&mut self, cx: Context<'_>, kill: bool) -> Actions {
        let actions = self.leave_dying(cx, self.standby.generation, kill);
        self.standby_gone(cx);
        actions
    }

    fn standby_gone(&mut self, cx: Context<'_>) -> Actions {
        self.standby.failures = self.standby.failures.saturating_add(1);
        // One more than the count: a standby is not so urgent that its first restart comes at once.
        let pause = backoff::pause(self.standby.failures.saturating_add(1), cx.jitter);
        self.standby.phase = Phase::Backoff {
            until: cx.now + pause,
        };
        vec![]
    }

    /// Sees to it that a lost worker goes, without waiting for it.
    pub(super) fn leave_dying(&mut self, cx: Context<'_>, generation: u64, kill: bool) -> Actions {
        let kill_at = (!kill).then(|| cx.now + cx.policy.exit_grace);
        self.dying.push(Dying {
            generation,
            kill_at,
            abandon_at: kill_at.unwrap_or(cx.now) + cx.policy.abandon_after,
        });
        if kill {
            vec![Action::Kill(generation)]
        } else {
            vec![]
        }
    }

    /// Something happened to a worker that was given up.
    pub(super) fn dying_event(&mut self, generation: u64, event: &WorkerEvent) {
        if matches!(
            event,
            WorkerEvent::Exited(_) | WorkerEvent::SpawnFailed { .. }
        ) {
            self.dying.retain(|dying| dying.generation != generation);
        }
    }

    pub(super) fn dying_tick(&mut self, cx: Context<'_>) -> Actions {
        let mut actions = vec![];
        self.dying.retain_mut(|dying| {
            if dying.kill_at.is_some_and(|at| cx.now >= at) {
                dying.kill_at = None;
                actions.push(Action::Kill(dying.generation));
            }
            let stays = cx.now < dying.abandon_at;
            if !stays {
                actions.push(Action::Abandon(dying.generation));
            }
            stays
        });
        actions
    }
}

impl super::Standby {
    /// There is a process, or one is being created.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        !matches!(self.phase, Phase::Idle | Phase::Backoff { .. })
    }
}

//! Reports to systemd the state of the service as the dispatcher publishes it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{Message, Notifier, status};
use crate::jobs::{JobsHandle, ServiceState, Snapshot};

/// Time asked for at once while the model is loaded. The dispatcher judges a silent worker in this
/// time, so that a load that hangs ends with its message and not with systemd's.
const EXTENSION: Duration = Duration::from_secs(60);
/// How often it is asked for.
const BEAT: Duration = Duration::from_secs(5);
/// Between two messages once ready: jobs come and go faster than anybody reads.
const PACE: Duration = Duration::from_millis(100);
/// What stopping takes beside the jobs: the worker's end, and answers under way.
const STOP_RESERVE: Duration = Duration::from_secs(15);

/// Reports until the dispatcher ends.
#[derive(Debug)]
pub struct Report {
    /// Where to.
    pub notifier: Notifier,
    /// Whose state.
    pub jobs: JobsHandle,
    /// Cancelled when the service is asked to stop.
    pub drain: CancellationToken,
    /// The model file's name.
    pub model: String,
    /// How long running jobs may take then.
    pub drain_timeout: Duration,
}

impl Report {
    /// The first message, before there is a model: its header is read then, and its tokenizer built. A file system
    /// that hangs is not waited for longer than this once.
    #[must_use]
    pub fn opening(model: &str) -> Message {
        Message::default()
            .with("STATUS", format_args!("Loading {model}: tokenizer"))
            .with_usec("EXTEND_TIMEOUT_USEC", EXTENSION)
    }

    /// The last message; `failure` is why the service ends, unless it was asked to.
    #[must_use]
    pub fn closing(failure: Option<&str>) -> Message {
        Message::default()
            .with("STOPPING", 1)
            .with("STATUS", failure.unwrap_or("Stopped"))
    }

    /// Reports until the dispatcher ends.
    pub async fn run(self) {
        let mut snapshots = self.jobs.watch();
        let mut last_reported = LastReported::default();
        let mut moving = true;
        loop {
            let snapshot = Arc::clone(&snapshots.borrow_and_update());
            let message = self.message(&mut last_reported, &snapshot, moving);
            if !message.is_empty() {
                self.notifier.notify(&message, &[]).await;
            }
            if last_reported.ready {
                sleep(PACE).await;
            }
            moving = match self.next(&mut snapshots, &last_reported).await {
                Some(moving) => moving,
                None => return,
            };
        }
    }

    fn message(
        &self,
        last_reported: &mut LastReported,
        snapshot: &Snapshot,
        moving: bool,
    ) -> Message {
        let stopping = self.drain.is_cancelled();
        let begins_stop = stopping && !last_reported.stopping;
        let message = last_reported.changes(snapshot, &self.model, stopping);
        let time = if begins_stop {
            self.drain_timeout + STOP_RESERVE
        } else if moving && matches!(snapshot.state, ServiceState::Starting { .. }) {
            EXTENSION
        } else {
            return message;
        };
        message.with_usec("EXTEND_TIMEOUT_USEC", time)
    }

    /// Waits for something to report: another state, the wish to stop, or that loading still goes on,
    /// which the dispatcher has to confirm (`false`: it did not). `None` at its end.
    async fn next(
        &self,
        snapshots: &mut watch::Receiver<Arc<Snapshot>>,
        last_reported: &LastReported,
    ) -> Option<bool> {
        tokio::select! {
            changed = snapshots.changed() => changed.ok().map(|()| true),
            () = self.drain.cancelled(), if !last_reported.stopping => Some(true),
            () = sleep(BEAT), if !last_reported.ready => {
                Some(timeout(BEAT, self.jobs.ping()).await.unwrap_or(false))
            }
        }
    }
}

/// What was last reported to systemd.
#[derive(Debug, Default)]
struct LastReported {
    ready: bool,
    stopping: bool,
    status: String,
}

impl LastReported {
    /// What has changed since.
    fn changes(&mut self, snapshot: &Snapshot, model: &str, stopping: bool) -> Message {
        let mut message = Message::default();
        if !self.ready && snapshot.state == ServiceState::Ready {
            self.ready = true;
            message = message.with("READY", 1);
        }
        if stopping && !self.stopping {
            self.stopping = true;
            message = message.with("STOPPING", 1);
        }
        let status = status::line(snapshot, model);
        if status != self.status {
            message = message.with("STATUS", &status);
            self.status = status;
        }
        message
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(state: ServiceState) -> Snapshot {
        Snapshot {
            state,
            worker_pid: Some(1),
            generation: 1,
            last_exit: Some("signal 9 (SIGKILL)".into()),
            running: 1,
            queued: 2,
            ..Snapshot::default()
        }
    }

    /// What is sent for each of these states, the second of a pair saying whether a stop was asked
    /// for.
    fn sent(states: &[(ServiceState, bool)]) -> Vec<String> {
        let mut last_reported = LastReported::default();
        let mut changes = |&(state, stopping): &(ServiceState, bool)| {
            let message = last_reported.changes(&snapshot(state), "m.gguf", stopping);
            message.to_string()
        };
        states.iter().map(&mut changes).collect()
    }

    #[test]
    fn each_state_is_reported_once_and_readiness_for_good() {
        use ServiceState::{Draining, Ready, Recovering, Starting, Unhealthy};
        let states = [
            (Starting { percent: 0 }, false),
            (Starting { percent: 25 }, false),
            (Starting { percent: 25 }, false),
            (Ready, false),
            (Recovering, false),
            (Ready, false),
            (Unhealthy, false),
            (Ready, true),
            (Draining, true),
        ];
        assert_eq!(
            sent(&states),
            [
                "STATUS=Loading m.gguf: 0 %",
                "STATUS=Loading m.gguf: 25 %",
                "",
                "READY=1 STATUS=Ready: serving m.gguf",
                "STATUS=Recovering: the worker is replaced, jobs are held (last end: signal 9 \
                 (SIGKILL))",
                "STATUS=Ready: serving m.gguf",
                "STATUS=Unhealthy: the worker can't be kept alive (last end: signal 9 (SIGKILL))",
                "STOPPING=1 STATUS=Ready: serving m.gguf",
                "STATUS=Draining: 1 running, 2 queued",
            ]
        );
    }

    #[test]
    fn an_engine_that_stands_still_is_not_called_ready() {
        let mut stalled = snapshot(ServiceState::Ready);
        stalled.stalled = true;
        assert!(status::line(&stalled, "m.gguf").starts_with("Unhealthy"));
    }
}

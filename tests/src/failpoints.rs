//! Failpoints of a worker: `cuda-worker/examples/cuda-worker-failpoints.rs` has the
//! points and actions. Services for that are started with [`Starter::failpoints`](crate::Starter::failpoints).
//! They trigger at a step, not at a time, so that no test depends on who is faster.

use std::path::PathBuf;
use std::time::Duration;

use crate::harness::WorkerHarness;
use crate::job::Job;
use crate::proc::wait_until;
use crate::start::FAILPOINTS;
use crate::stream::Stream;

/// Every failpoint has triggered by then, on any machine.
const SOON: Duration = Duration::from_secs(60);

impl WorkerHarness {
    /// Lets a worker, the first that comes to `point`, do `action` to itself; with a number after
    /// the action, when it comes there for the so-many-th time.
    #[track_caller]
    pub fn set_failpoint(&self, point: &str, action: &str) {
        // Whole at once: a worker may be looking.
        let draft = self.folder().join("failpoint");
        std::fs::write(&draft, action).unwrap();
        std::fs::rename(draft, self.failpoint_file(point)).unwrap();
    }

    /// Whether the failpoint at `point` is set and has not triggered yet.
    pub fn is_failpoint_set(&self, point: &str) -> bool {
        self.failpoint_file(point).exists()
    }

    /// Clears a failpoint; false when it has triggered already.
    pub fn clear_failpoint(&self, point: &str) -> bool {
        std::fs::remove_file(self.failpoint_file(point)).is_ok()
    }

    /// Waits until the failpoint at `point` has triggered.
    #[track_caller]
    pub fn wait_for_trigger(&self, point: &str) {
        let triggered = wait_until(SOON, || !self.is_failpoint_set(point));
        assert!(triggered, "no worker came to {point:?}:\n{}", self.stderr());
    }

    /// Lets the worker wait before its `step`-th step from now on, until [`Self::release`]. The
    /// service takes that for a hang after `--hang-timeout-ms`; [`Starter::without_hang_timeout`] is for this.
    ///
    /// [`Starter::without_hang_timeout`]: crate::Starter::without_hang_timeout
    pub fn hold_before_step(&self, step: u32) {
        std::fs::write(self.failpoint_file("gate"), "").unwrap();
        self.set_failpoint("step", &format!("wait {step}"));
    }

    /// Lets a worker that waits go on.
    pub fn release(&self) {
        std::fs::remove_file(self.failpoint_file("gate")).unwrap();
    }

    /// Starts the jobs together and waits until the worker has done `action` to itself before its
    /// `step`-th step of them: each of them runs, and none with more than `step` tokens is over.
    #[track_caller]
    pub fn execute_and_trigger(&self, jobs: &[Job], action: &str, step: u32) -> Vec<Stream> {
        let action = format!("{action} {step}");
        let execute = || jobs.iter().map(|job| self.execute(job)).collect();
        let streams: Vec<Stream> = if jobs.len() == 1 {
            self.set_failpoint("step", &action);
            execute()
        } else {
            // No step is made before all are there.
            self.hold_before_step(1);
            let streams = execute();
            let all = |h: &serde_json::Value| h["jobs"]["running"] == jobs.len();
            self.wait_for_health(SOON, all);
            self.wait_for_trigger("step");
            self.set_failpoint("step", &action);
            self.release();
            streams
        };
        self.wait_for_trigger("step");
        streams
    }

    #[track_caller]
    fn failpoint_file(&self, point: &str) -> PathBuf {
        assert!(self.failpoints, "started without Starter::failpoints()");
        self.folder().join(FAILPOINTS).join(point)
    }
}

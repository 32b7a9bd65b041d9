//! Faults that a worker commits on itself: `cuda-worker/examples/cuda-worker-failpoints.rs` has the
//! points and actions. Services for that are started with [`Starter::failpoints`](crate::Starter::failpoints).
//! They strike at a step, not at a time, so that no test depends on who is faster.

use std::path::PathBuf;
use std::time::Duration;

use crate::harness::WorkerHarness;
use crate::job::Job;
use crate::proc::wait_until;
use crate::start::FAILPOINTS;
use crate::stream::Stream;

/// Whatever a fault waits for is there by then, on any machine.
const SOON: Duration = Duration::from_secs(60);

impl WorkerHarness {
    /// Lets a worker, the first that comes to `point`, do `action` to itself; with a number behind
    /// the action, when it comes there for the so-many-th time.
    #[track_caller]
    pub fn fault(&self, point: &str, action: &str) {
        // Whole at once: a worker may be looking.
        let draft = self.folder().join("fault");
        std::fs::write(&draft, action).unwrap();
        std::fs::rename(draft, self.fault_file(point)).unwrap();
    }

    /// Whether a fault still waits.
    pub fn waits(&self, point: &str) -> bool {
        self.fault_file(point).exists()
    }

    /// Takes a fault back; false when it has struck already.
    pub fn withdraw(&self, point: &str) -> bool {
        std::fs::remove_file(self.fault_file(point)).is_ok()
    }

    /// Waits until the fault at `point` has struck.
    #[track_caller]
    pub fn wait_for_trigger(&self, point: &str) {
        let struck = wait_until(SOON, || !self.waits(point));
        assert!(struck, "no worker came to {point:?}:\n{}", self.stderr());
    }

    /// Lets the worker wait before its `step`-th step from now on, until [`Self::release`]. The
    /// service takes that for a hang after `--hang-timeout-ms`; [`Starter::without_hang_timeout`] is for this.
    ///
    /// [`Starter::without_hang_timeout`]: crate::Starter::without_hang_timeout
    pub fn hold_before_step(&self, step: u32) {
        std::fs::write(self.fault_file("gate"), "").unwrap();
        self.fault("step", &format!("wait {step}"));
    }

    /// Lets a worker that waits go on.
    pub fn release(&self) {
        std::fs::remove_file(self.fault_file("gate")).unwrap();
    }

    /// Starts the jobs together and waits until the worker has done `action` to itself before its
    /// `step`-th step of them: each of them runs, and none with more than `step` tokens is over.
    #[track_caller]
    pub fn execute_struck(&self, jobs: &[Job], action: &str, step: u32) -> Vec<Stream> {
        let action = format!("{action} {step}");
        let execute = || jobs.iter().map(|job| self.execute(job)).collect();
        let streams: Vec<Stream> = if jobs.len() == 1 {
            self.fault("step", &action);
            execute()
        } else {
            // No step is made before all are there.
            self.hold_before_step(1);
            let streams = execute();
            let all = |h: &serde_json::Value| h["jobs"]["running"] == jobs.len();
            self.wait_for_health(SOON, all);
            self.wait_for_trigger("step");
            self.fault("step", &action);
            self.release();
            streams
        };
        self.wait_for_trigger("step");
        streams
    }

    #[track_caller]
    fn fault_file(&self, point: &str) -> PathBuf {
        assert!(self.failpoints, "started without Starter::failpoints()");
        self.folder().join(FAILPOINTS).join(point)
    }
}

//! Starts the two real processes, and leaves none behind.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::http::{Connection, Reply, request_bytes};
use crate::job::{Job, Transcript};
use crate::lock::MachineLock;
use crate::model::Model;
use crate::output::{Exit, Output, wait};
use crate::proc::{Process, wait_until};
use crate::sse::Parser;
use crate::start::Starter;
use crate::stream::Stream;

/// A service that accepts requests. Killed on drop, with its workers.
#[derive(Debug)]
pub struct WorkerHarness {
    pub(crate) address: SocketAddr,
    pub(crate) worker_id: String,
    pub(crate) model: PathBuf,
    pub(crate) supervisor: Child,
    pub(crate) output: Output,
    pub(crate) folder: TempDir,
    /// Its worker has failpoints.
    pub(crate) failpoints: bool,
    /// Held as long as the service runs.
    #[expect(dead_code, reason = "it is its drop that matters")]
    pub(crate) machine: Arc<MachineLock>,
}

impl WorkerHarness {
    /// A service for `model` with default flags.
    #[track_caller]
    pub fn start(model: Model) -> Self {
        Starter::new(model).start()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The id in the READY line.
    pub fn worker_id(&self) -> &str {
        &self.worker_id
    }

    /// The model's file.
    pub fn model(&self) -> &Path {
        &self.model
    }

    /// The service's own temporary folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// All that it wrote to stdout.
    pub fn stdout(&self) -> String {
        self.output.stdout()
    }

    /// All that it wrote to stderr.
    pub fn stderr(&self) -> String {
        self.output.stderr()
    }

    /// Waits until it has written `text` to stderr: what is written reaches the harness a little
    /// later than answers do.
    #[track_caller]
    pub fn wait_for_log(&self, text: &str) {
        let said = || self.stderr().contains(text);
        let limit = Duration::from_secs(60);
        assert!(wait_until(limit, said), "no {text:?}:\n{}", self.stderr());
    }

    /// A new connection.
    pub fn connect(&self) -> Connection {
        Connection::open(self.address)
    }

    /// A request with headers on a new connection.
    #[track_caller]
    pub fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Reply {
        let begin = Instant::now();
        let mut reply = self.connect().request(method, path, headers, body);
        reply.elapsed = begin.elapsed();
        reply
    }

    /// GET.
    #[track_caller]
    pub fn get(&self, path: &str) -> Reply {
        self.request("GET", path, &[], b"")
    }

    /// POST of JSON.
    #[track_caller]
    pub fn post(&self, path: &str, body: &Value) -> Reply {
        self.request("POST", path, &[], body.to_string().as_bytes())
    }

    /// Cancels a job and gives the status in the answer.
    #[track_caller]
    pub fn cancel(&self, job_id: &str) -> String {
        let reply = self.post("/cancel", &json!({"job_id": job_id}));
        assert_eq!(reply.status(), 202, "{}", reply.text());
        let answer = reply.json();
        assert_eq!(answer["job_id"], job_id);
        assert_eq!(answer.as_object().unwrap().len(), 2, "{answer}");
        answer["status"].as_str().unwrap().to_owned()
    }

    /// The health report, whatever its status code.
    #[track_caller]
    pub fn health(&self) -> Value {
        self.get("/health").json()
    }

    /// Waits until the health report is as wanted.
    #[track_caller]
    pub fn wait_for_health(
        &self,
        limit: Duration,
        mut wanted: impl FnMut(&Value) -> bool,
    ) -> Value {
        let mut health = Value::Null;
        let as_wanted = wait_until(limit, || {
            health = self.health();
            wanted(&health)
        });
        assert!(as_wanted, "not within {limit:?}; at last {health:#}");
        health
    }

    /// Sends a job; a refusal comes back as a reply.
    pub fn try_execute(&self, job: &Job, headers: &[(&str, &str)]) -> Result<Stream, Reply> {
        let begin = Instant::now();
        let mut connection = self.connect();
        connection
            .send(&request_bytes("POST", "/execute", headers, &job.body()))
            .unwrap();
        Stream::open(connection, begin, Parser::default())
    }

    /// Sends a job that goes on with what another service began, after so many tokens.
    pub fn try_go_on(&self, job: &Job, tokens: usize) -> Result<Stream, Reply> {
        let begin = Instant::now();
        let mut connection = self.connect();
        connection
            .send(&request_bytes("POST", "/execute", &[], &job.body()))
            .unwrap();
        Stream::open(connection, begin, Parser::resumed(tokens as u64))
    }

    /// Sends a job that must be accepted.
    #[track_caller]
    pub fn execute(&self, job: &Job) -> Stream {
        self.try_execute(job, &[])
            .unwrap_or_else(|r| panic!("{}: {}", r.status(), r.text()))
    }

    /// Sends a job and reads its stream to the end.
    #[track_caller]
    pub fn run(&self, job: &Job) -> Transcript {
        self.execute(job).finish()
    }

    /// Sends a job that must be refused.
    #[track_caller]
    pub fn refusal(&self, job: &Job) -> Reply {
        match self.try_execute(job, &[]) {
            Err(reply) => reply,
            Ok(stream) => panic!("accepted: {:?}", stream.finish().events.last()),
        }
    }

    /// Sends jobs at the same time and reads all streams to the end.
    #[track_caller]
    pub fn run_together(&self, jobs: &[Job]) -> Vec<Transcript> {
        std::thread::scope(|scope| {
            let running: Vec<_> = jobs
                .iter()
                .map(|job| scope.spawn(|| self.run(job)))
                .collect();
            running
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        })
    }

    /// Resumes a stream after an event, or from its start.
    pub fn resume(&self, job_id: &str, after: Option<u64>) -> Result<Stream, Reply> {
        let begin = Instant::now();
        let mut connection = self.connect();
        let last = after.map(|id| id.to_string());
        let headers: Vec<_> = last
            .iter()
            .map(|id| ("Last-Event-ID", id.as_str()))
            .collect();
        let path = format!("/jobs/{job_id}/events");
        connection
            .send(&request_bytes("GET", &path, &headers, b""))
            .unwrap();
        Stream::open(
            connection,
            begin,
            after.map_or_else(Parser::default, Parser::after),
        )
    }

    /// The supervisor's process.
    pub fn supervisor(&self) -> Process {
        Process::find(self.supervisor.id()).expect("a supervisor that was not waited for")
    }

    /// The worker that `/health` names, once it is a live child of the supervisor.
    #[track_caller]
    pub fn worker(&self) -> Process {
        let mut found = None;
        wait_until(Duration::from_secs(60), || {
            let pid = self.health()["worker"]["pid"].as_u64();
            let process = pid.and_then(|pid| Process::find(u32::try_from(pid).unwrap()));
            found = process.filter(|worker| self.supervisor().children().contains(worker));
            found.is_some()
        });
        found.expect("a live worker")
    }

    /// Kills the worker without warning.
    #[track_caller]
    pub fn kill_worker(&self) -> Process {
        let worker = self.worker();
        worker.signal(Signal::SIGKILL);
        worker
    }

    /// Sends the supervisor a signal.
    pub fn signal(&self, signal: Signal) {
        self.supervisor().signal(signal);
    }

    /// Waits until the service has ended by itself, and checks that its workers are gone too.
    #[track_caller]
    pub fn wait_for_exit(mut self, limit: Duration) -> Exit {
        // None when it ended before this call.
        let supervisor = Process::find(self.supervisor.id());
        let workers = supervisor.map(Process::children).unwrap_or_default();
        let begin = Instant::now();
        let status = wait(&mut self.supervisor, limit);
        let status = status.unwrap_or_else(|| panic!("runs after {limit:?}"));
        for worker in workers {
            assert!(
                worker.is_gone_within(Duration::from_secs(10)),
                "{worker:?} outlived it"
            );
        }
        self.output.exit(status, begin.elapsed())
    }

    /// Kills supervisor and workers; the workers that did not go with the supervisor.
    fn end(&mut self) -> Vec<Process> {
        if self.supervisor.try_wait().unwrap().is_some() {
            return Vec::new();
        }
        let workers = self.supervisor().children();
        self.supervisor.kill().unwrap();
        self.supervisor.wait().unwrap();
        let outlived = |w: &Process| !w.is_gone_within(Duration::from_secs(10));
        let outlived: Vec<_> = workers.into_iter().filter(outlived).collect();
        outlived
            .iter()
            .for_each(|worker| worker.signal(Signal::SIGKILL));
        outlived
    }
}

impl Drop for WorkerHarness {
    fn drop(&mut self) {
        let outlived = self.end();
        if std::thread::panicking() {
            eprintln!("--- stderr of the service:\n{}---", self.stderr());
            return;
        }
        assert!(
            outlived.is_empty(),
            "workers outlived the supervisor: {outlived:?}"
        );
        let stdout = self.stdout();
        assert_eq!(
            stdout.lines().count(),
            1,
            "more than the READY line on stdout: {stdout:?}"
        );
    }
}

//! A supervisor in a few lines: starts the binary, speaks to it, and leaves none behind.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use cuda_worker::descriptors::DescriptorChannel;
use cuda_worker::link::FrameReader;
use interprocess::local_socket::traits::Listener as _;
use interprocess::local_socket::{
    GenericFilePath, Listener, ListenerOptions, Stream, ToFsName as _,
};
use orcd_shared::job::{Finish, JobKey, JobOptions, JobSpec};
use orcd_shared::protocol::frame;
use orcd_shared::protocol::message::{
    Device, LoadRequest, Serve, ToSupervisor, ToWorker, WorkerInfo,
};
use orcd_shared::protocol::version::{BUILD, PROTOCOL};
use orcd_shared::sampling::SamplingParams;
use tempfile::TempDir;

/// Longest wait for anything: the machine may be busy with other tests.
pub const TEST_TIMEOUT: Duration = Duration::from_secs(60);

pub const BINARY: &str = env!("CARGO_BIN_EXE_cuda-worker");

pub struct Worker {
    child: Child,
    stream: Option<Arc<Stream>>,
    received: Receiver<ToSupervisor>,
    /// Jobs that it takes at once, once it is ready.
    places: usize,
    /// That of its pool; of a worker that takes another one's over it has to be set to a later one.
    pub epoch: u64,
    /// Our end of its standard input.
    pub descriptors: DescriptorChannel,
    _folder: TempDir,
}

pub fn listen(folder: &TempDir) -> (Listener, PathBuf) {
    let path = folder.path().join("worker.sock");
    let name = path.as_path().to_fs_name::<GenericFilePath>().unwrap();
    (
        ListenerOptions::new().name(name).create_sync().unwrap(),
        path,
    )
}

pub fn command(socket: &Path) -> Command {
    let mut command = Command::new(BINARY);
    command.arg("--socket").arg(socket);
    command.args(["--supervisor-pid", &std::process::id().to_string()]);
    command
}

impl Worker {
    /// A worker that has connected and heard nothing yet.
    pub fn start() -> Self {
        Self::started(command)
    }

    /// A worker after the handshake, started by a shell that runs `limit` before it.
    pub fn greeted_under(limit: &str) -> Self {
        let script = format!("{limit} || exit 99; exec \"$0\" \"$@\"");
        let mut worker = Self::started(|socket| {
            let plain = command(socket);
            let mut shell = Command::new("sh");
            shell.args(["-c", &script]).arg(plain.get_program());
            shell.args(plain.get_args());
            shell
        });
        worker.greet();
        worker
    }

    fn started(command: impl FnOnce(&Path) -> Command) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (listener, path) = listen(&folder);
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut command = command(&path);
        let child = command
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .spawn()
            .unwrap();
        let stream = Arc::new(listener.accept().unwrap());
        let (sender, received) = mpsc::channel();
        let source = Arc::clone(&stream);
        std::thread::spawn(move || {
            let mut reader = FrameReader::new(&*source);
            while let Ok(Some(message)) = reader.message() {
                if sender.send(message).is_err() {
                    return;
                }
            }
        });
        let descriptors = DescriptorChannel::over(ours).unwrap();
        Self {
            child,
            stream: Some(stream),
            received,
            places: 0,
            epoch: 0,
            descriptors,
            _folder: folder,
        }
    }

    /// A worker after the handshake.
    pub fn greeted() -> Self {
        let mut worker = Self::start();
        worker.greet();
        worker
    }

    fn greet(&mut self) {
        self.send(&ToWorker::Hello {
            protocol: PROTOCOL,
            build: BUILD.into(),
        });
        let hello = self.receive().expect("no answer to Hello");
        assert_eq!(
            hello,
            ToSupervisor::Hello {
                protocol: PROTOCOL,
                build: BUILD.into()
            }
        );
    }

    /// A worker that serves what `request` asks for.
    pub fn ready(request: LoadRequest) -> (Self, WorkerInfo) {
        let mut worker = Self::greeted();
        worker.send(&ToWorker::Load(Box::new(request)));
        let (info, _) = worker.await_ready();
        (worker, info)
    }

    /// What it says of itself, and the percentages on the way there.
    pub fn await_ready(&mut self) -> (WorkerInfo, Vec<u8>) {
        let mut percents = Vec::new();
        loop {
            match self.receive().expect("it ended while it loaded") {
                ToSupervisor::LoadProgress { percent } => percents.push(percent),
                ToSupervisor::Ready(info) => return (*info, percents),
                other => panic!("{other:?}"),
            }
        }
    }

    /// SIGKILL. What it sent before can be received still.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn send(&mut self, message: &ToWorker) {
        let mut bytes = Vec::new();
        frame::encode(message, &mut bytes).unwrap();
        self.say_bytes(&bytes);
    }

    pub fn say_bytes(&mut self, bytes: &[u8]) {
        let stream = self.stream.as_deref().expect("hung up");
        (&mut &*stream).write_all(bytes).unwrap();
    }

    pub fn submit(&mut self, job: JobSpec) {
        self.send(&ToWorker::Submit(Box::new(job)));
    }

    /// The next message, heartbeats too; `None` when the worker has closed its socket. A worker that is ready serves from
    /// then on, and has the pool to itself.
    pub fn hear_any(&mut self) -> Option<ToSupervisor> {
        match self.received.recv_timeout(TEST_TIMEOUT) {
            Ok(message) => {
                if let ToSupervisor::Ready(info) = &message {
                    self.places = info.parallel as usize;
                    self.epoch += 1;
                    self.send(&ToWorker::Serve(Serve {
                        epoch: self.epoch,
                        keep: true,
                        settled: true,
                        replays: 0,
                    }));
                }
                Some(message)
            }
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("the worker is silent"),
        }
    }

    /// The next message that is no heartbeat, nor says that a job has begun with nothing.
    pub fn receive(&mut self) -> Option<ToSupervisor> {
        let asked = Instant::now();
        loop {
            match self.hear_any() {
                Some(ToSupervisor::Heartbeat { .. } | ToSupervisor::Begun { cached: 0, .. }) => {
                    assert!(asked.elapsed() < TEST_TIMEOUT, "nothing but heartbeats");
                }
                other => return other,
            }
        }
    }

    /// Runs jobs to their end, each as soon as there is a place; the ids of each and how it ended.
    pub fn run(&mut self, jobs: &[JobSpec]) -> BTreeMap<u64, (Vec<u32>, Finish)> {
        let mut queue = jobs.iter();
        let first = queue.by_ref().take(self.places);
        first.for_each(|job| self.submit(job.clone()));
        let mut ids: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
        let mut ended = BTreeMap::new();
        while ended.len() < jobs.len() {
            let report = match self.receive().expect("it ended in the middle of jobs") {
                ToSupervisor::Step(report) => report,
                other => panic!("{other:?}"),
            };
            for token in report.tokens {
                let key = token.key.0;
                ids.entry(key).or_default().push(token.id);
                if let Some(finish) = token.finish {
                    ended.insert(key, (ids.remove(&key).unwrap(), finish));
                    queue
                        .by_ref()
                        .take(1)
                        .for_each(|job| self.submit(job.clone()));
                }
            }
        }
        ended
    }

    /// Closes the socket from this side.
    pub fn hang_up(&mut self) {
        let stream = self.stream.take().expect("hung up twice");
        // The reader's clone keeps the descriptor open: end both directions on the wire.
        use std::os::fd::{AsFd as _, AsRawFd as _};
        let Stream::UdSocket(socket) = &*stream;
        let fd = socket.as_fd().as_raw_fd();
        nix::sys::socket::shutdown(fd, nix::sys::socket::Shutdown::Both).unwrap();
    }

    /// Waits for the end; the exit code, or the signal below zero.
    pub fn exit(&mut self) -> i32 {
        exit_of(&mut self.child)
    }
}

/// Waits for the end of a process; the exit code, or the signal below zero.
pub fn exit_of(child: &mut Child) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code().unwrap_or_else(|| -status.signal().unwrap());
        }
        assert!(
            began.elapsed() < TEST_TIMEOUT,
            "process {} does not end",
            child.id()
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Both fail only for a process that has ended and was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Loads `model` on the CPU with the model's own limits.
pub fn load(model: &Path) -> LoadRequest {
    LoadRequest {
        parallel: Some(3),
        threads: Some(1),
        ..LoadRequest::new(model.to_str().unwrap().into(), Device::Cpu)
    }
}

/// A job that differs in every way from those of other keys.
pub fn job(key: u64, prompt: u32, max_tokens: u32) -> JobSpec {
    JobSpec {
        key: JobKey(key),
        prompt: (0..prompt)
            .map(|i| (key as u32 * 37 + i * i) % 250)
            .collect(),
        emitted: Vec::new(),
        max_tokens,
        sampling: SamplingParams {
            temperature: 1.0,
            seed: key,
            ..SamplingParams::GREEDY
        },
        options: JobOptions::default(),
    }
}

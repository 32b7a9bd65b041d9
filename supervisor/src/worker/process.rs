//! The worker as an operating-system process: starting, killing and reaping it.

use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, mpsc};
use std::{fmt, io, thread};

use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use tokio::sync::oneshot;

/// Variables of a service manager that are for the supervisor alone. A worker that had them could
/// report in the supervisor's name, or take its own descriptors for passed ones.
const FROM_THE_SERVICE_MANAGER: [&str; 8] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "LISTEN_PID",
    "LISTEN_PIDFDID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "FDSTORE",
];

/// What opens the service's HTTP side, or a hub of models: a worker has nothing to do with either.
const SECRETS: [&str; 5] = [
    "HF_TOKEN",
    "ORCD_API_KEY",
    "ORCD_API_KEY_FILE",
    "ORCD_ADMIN_KEY",
    "ORCD_ADMIN_KEY_FILE",
];

/// When CUDA puts kernels onto the device.
const MODULE_LOADING: &str = "CUDA_MODULE_LOADING";

/// How a worker ended. Shown as "exit 12" or "signal 9 (SIGKILL)".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerExit {
    /// It called exit.
    Code(i32),
    /// A signal ended it.
    Signal(i32),
    /// It could not be waited for.
    Unknown,
}

impl WorkerExit {
    /// A word for metrics.
    #[must_use]
    pub fn cause(self) -> &'static str {
        match self {
            Self::Code(_) => "exit",
            Self::Signal(_) => "signal",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for WorkerExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Code(code) => write!(f, "exit {code}"),
            Self::Signal(n) => match Signal::try_from(n) {
                Ok(signal) => write!(f, "signal {n} ({signal})"),
                Err(_) => write!(f, "signal {n}"),
            },
            Self::Unknown => f.write_str("unknown end"),
        }
    }
}

impl From<ExitStatus> for WorkerExit {
    fn from(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Code(code),
            (None, Some(signal)) => Self::Signal(signal),
            (None, None) => Self::Unknown,
        }
    }
}

/// A running worker. Dropping it kills it.
#[derive(Debug)]
pub struct WorkerProcess {
    /// Its process id.
    pub pid: u32,
    /// Resolves once it has ended and was reaped.
    pub exited: oneshot::Receiver<WorkerExit>,
    /// What it writes for people.
    pub stderr: Option<std::process::ChildStderr>,
    child: Arc<Mutex<Child>>,
}

/// Ends a worker process, from wherever it is held. It keeps no process alive.
#[derive(Debug, Clone)]
pub struct Killer {
    pid: u32,
    child: Arc<Mutex<Child>>,
}

impl Killer {
    /// SIGKILL. The lock keeps the process from being reaped meanwhile, and a child that was
    /// reaped is left alone, so that the signal can't reach another process with its id.
    pub fn kill(&self) {
        if let Err(error) = lock(&self.child).kill() {
            tracing::warn!(pid = self.pid, %error, "worker can't be killed");
        }
    }
}

impl WorkerProcess {
    /// Starts `binary` with the worker's command line; `stdin` is its end of the descriptor
    /// channel.
    ///
    /// # Errors
    /// The binary can't be started.
    pub async fn start(binary: &Path, socket: &Path, stdin: OwnedFd) -> io::Result<Self> {
        let mut command = Command::new(binary);
        command
            .arg("--socket")
            .arg(socket)
            .arg("--supervisor-pid")
            .arg(std::process::id().to_string())
            .stdin(Stdio::from(stdin))
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        // All kernels at once: the first job after a failover does not wait for them, and nothing
        // takes device memory after loading but graphs, some megabytes. Whoever set it otherwise has a reason.
        if std::env::var_os(MODULE_LOADING).is_none() {
            command.env(MODULE_LOADING, "EAGER");
        }
        keep_to_itself(&mut command);
        let (reply, started) = oneshot::channel();
        let spawner = SPAWNER.get_or_init(start_spawner);
        spawner
            .send(Order { command, reply })
            .map_err(|_| lost_spawner())?;
        let child = started.await.map_err(|_| lost_spawner())??;
        Self::adopt(child)
    }

    /// What kills it, for whoever can't wait for this to be at hand.
    #[must_use]
    pub fn killer(&self) -> Killer {
        Killer {
            pid: self.pid,
            child: Arc::clone(&self.child),
        }
    }

    /// SIGKILL; see [`Killer::kill`].
    pub fn kill(&self) {
        self.killer().kill();
    }

    /// SIGUSR1, under the same lock.
    pub fn interrupt(&self) {
        let mut child = lock(&self.child);
        let pid = i32::try_from(self.pid).map(Pid::from_raw);
        // One that was reaped is left alone here too: its id may be another's by now.
        if let (Ok(None), Ok(pid)) = (child.try_wait(), pid) {
            // It may have ended meanwhile; that is reported by itself.
            let _ = nix::sys::signal::kill(pid, Signal::SIGUSR1);
        }
    }

    fn adopt(mut child: Child) -> io::Result<Self> {
        let pid = child.id();
        let stderr = child.stderr.take();
        let child = Arc::new(Mutex::new(child));
        let (report, exited) = oneshot::channel();
        let reaped = Arc::clone(&child);
        thread::Builder::new()
            .name(format!("reap-{pid}"))
            .spawn(move || {
                // Nobody is left to tell when the supervisor itself is ending.
                let _ = report.send(reap(pid, &reaped));
            })?;
        Ok(Self {
            pid,
            exited,
            stderr,
            child,
        })
    }
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Keeps from a process that `command` starts what is for the supervisor alone: Ctrl-C in a terminal, which reaches the
/// whole foreground group and which draining answers, and variables.
pub(crate) fn keep_to_itself(command: &mut Command) {
    command.process_group(0);
    for variable in FROM_THE_SERVICE_MANAGER.iter().chain(&SECRETS) {
        command.env_remove(variable);
    }
}

/// Waits without the lock until the process has ended, then reaps it under the lock.
fn reap(pid: u32, child: &Mutex<Child>) -> WorkerExit {
    let Ok(raw) = i32::try_from(pid) else {
        return WorkerExit::Unknown;
    };
    let ended = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
    while waitid(Id::Pid(Pid::from_raw(raw)), ended) == Err(nix::errno::Errno::EINTR) {}
    lock(child)
        .wait()
        .map_or(WorkerExit::Unknown, WorkerExit::from)
}

fn lock(child: &Mutex<Child>) -> MutexGuard<'_, Child> {
    child.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Order {
    command: Command,
    reply: oneshot::Sender<io::Result<Child>>,
}

/// The thread that starts all workers. A worker asks to die with its parent (PR_SET_PDEATHSIG),
/// and for that its parent is the *thread* that started it: a thread of the runtime may end early,
/// this one never does.
static SPAWNER: OnceLock<mpsc::Sender<Order>> = OnceLock::new();

fn start_spawner() -> mpsc::Sender<Order> {
    let (orders, inbox) = mpsc::channel::<Order>();
    let spawner = thread::Builder::new()
        .name("spawn-workers".into())
        .spawn(move || {
            for mut order in inbox {
                if let Err(Ok(mut orphan)) = order.reply.send(order.command.spawn()) {
                    // Whoever ordered it is gone: nobody would ever reap it.
                    let _ = orphan.kill();
                    let _ = orphan.wait();
                }
            }
        });
    if let Err(error) = spawner {
        // Orders then fail with an error of their own.
        tracing::error!(%error, "the thread that starts workers can't be started");
    }
    orders
}

fn lost_spawner() -> io::Error {
    io::Error::other("the thread that starts workers is gone")
}

/// The worker binary: as configured, else `cuda-worker` beside this executable.
#[must_use]
pub fn worker_binary(configured: Option<&Path>) -> PathBuf {
    if let Some(path) = configured {
        return path.to_path_buf();
    }
    std::env::current_exe()
        .ok()
        .and_then(|exe| exe.parent().map(|dir| dir.join("cuda-worker")))
        .unwrap_or_else(|| "cuda-worker".into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::worker::handles::DescriptorChannel;

    async fn script(body: &str) -> (tempfile::TempDir, io::Result<WorkerProcess>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("worker");
        std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let (_ours, stdin) = DescriptorChannel::pair().unwrap();
        let worker = WorkerProcess::start(&path, Path::new("/nowhere"), stdin).await;
        (dir, worker)
    }

    #[tokio::test]
    async fn exit_code_and_signal_are_told_apart() {
        let (_dir, worker) = script("exit 12").await;
        let mut worker = worker.unwrap();
        assert_eq!((&mut worker.exited).await.unwrap().to_string(), "exit 12");

        let (_dir, worker) = script("exec sleep 60").await;
        let mut worker = worker.unwrap();
        worker.kill();
        assert_eq!(
            (&mut worker.exited).await.unwrap().to_string(),
            "signal 9 (SIGKILL)"
        );
        worker.kill();
    }

    #[tokio::test]
    async fn missing_binary_is_an_error() {
        let (_ours, stdin) = DescriptorChannel::pair().unwrap();
        let started = WorkerProcess::start(Path::new("/no/worker"), Path::new("/s"), stdin).await;
        assert_eq!(started.unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn dropped_worker_is_killed_and_reaped() {
        let (_dir, worker) = script("exec sleep 60").await;
        let worker = worker.unwrap();
        let proc = format!("/proc/{}", worker.pid);
        assert!(Path::new(&proc).exists());
        drop(worker);
        for _ in 0..100 {
            if !Path::new(&proc).exists() {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("{proc} is still there: a zombie or alive");
    }
}

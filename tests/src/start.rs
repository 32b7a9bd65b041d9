//! How a service is started.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use command_fds::{CommandFdExt as _, FdMapping};
use tempfile::TempDir;

use crate::harness::WorkerHarness;
use crate::lock;
use crate::model::Model;
use crate::output::{Exit, Output, wait};
use crate::paths;
use crate::proc::wait_until;

/// Longest time to the READY line.
pub const READY_WITHIN: Duration = Duration::from_secs(60);

/// Where faults wait for a worker, in the service's folder.
pub(crate) const FAILPOINTS: &str = "failpoints";

/// How a service is to be started.
#[derive(Debug)]
pub struct Starter {
    model: Option<Model>,
    device: String,
    action: Option<&'static str>,
    flags: Vec<String>,
    env: BTreeMap<String, String>,
    passed: Vec<(String, OwnedFd)>,
    activated_at: Option<SocketAddr>,
    alone: bool,
    worker: Option<PathBuf>,
    failpoints: bool,
    small_disk: Option<PathBuf>,
    open_files: Option<u32>,
}

impl Starter {
    /// A service for `model` on the device under test, with the defaults otherwise.
    pub fn new(model: Model) -> Self {
        Self {
            model: Some(model),
            ..Self::bare()
        }
    }

    /// No flag but those given.
    pub fn bare() -> Self {
        Self {
            model: None,
            device: paths::device(),
            action: None,
            flags: Vec::new(),
            env: BTreeMap::new(),
            passed: Vec::new(),
            activated_at: None,
            alone: false,
            worker: None,
            failpoints: false,
            small_disk: None,
            open_files: None,
        }
    }

    /// Looks what would keep the service from starting, instead of starting it.
    pub fn checked(mut self) -> Self {
        self.action = Some("check");
        self
    }

    /// Adds a flag with a value.
    pub fn flag(mut self, name: &str, value: impl ToString) -> Self {
        self.flags.extend([name.to_owned(), value.to_string()]);
        self
    }

    /// Adds an argument as it is.
    pub fn arg(mut self, argument: &str) -> Self {
        self.flags.push(argument.to_owned());
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Passes a descriptor as systemd does, under this name.
    pub fn pass(mut self, name: &str, fd: impl Into<OwnedFd>) -> Self {
        self.passed.push((name.to_owned(), fd.into()));
        self
    }

    /// Started by `systemd-socket-activate`, at the first connection to this address.
    pub fn activated_at(mut self, address: SocketAddr) -> Self {
        self.activated_at = Some(address);
        self
    }

    /// Another device than the one under test.
    pub fn device(mut self, device: &str) -> Self {
        self.device = device.to_owned();
        self
    }

    /// Another worker program.
    pub fn worker(mut self, program: &Path) -> Self {
        self.worker = Some(program.to_owned());
        self
    }

    /// The worker program that has failpoints: [`WorkerHarness::set_failpoint`] needs it. It is made of the
    /// same library as the one that ships, which has none.
    pub fn failpoints(mut self) -> Self {
        self.worker = Some(paths::worker_with_failpoints());
        self.failpoints = true;
        self
    }

    /// This folder is a file system of 64 KiB, for the service alone; possible
    /// where [`small_disk_refused`] has nothing against it.
    pub fn small_disk(mut self, folder: &Path) -> Self {
        self.small_disk = Some(folder.to_owned());
        self
    }

    /// It may have so many files open and no more, as after `ulimit -n`.
    pub fn open_files(mut self, limit: u32) -> Self {
        self.open_files = Some(limit);
        self
    }

    /// The service takes nothing for a hang: a test stops its worker and goes on when it likes.
    pub fn without_hang_timeout(self) -> Self {
        self.flag("--hang-timeout-ms", 600_000)
    }

    /// No other test runs beside this one: it measures time.
    pub fn alone(mut self) -> Self {
        self.alone = true;
        self
    }

    /// Starts the service and waits until it accepts requests.
    #[track_caller]
    pub fn start(self) -> WorkerHarness {
        let machine = lock::take(self.alone);
        let folder = folder();
        let model = self.model_file(&folder);
        let mut supervisor = self.command(&folder, &model).spawn().unwrap();
        let output = Output::default();
        let lines = output.follow(&mut supervisor);
        if let Some(address) = self.activated_at {
            wait_until(READY_WITHIN, || TcpStream::connect(address).is_ok());
        }
        let ready = lines.recv_timeout(READY_WITHIN);
        // From here on a panic kills the processes: the harness exists.
        let mut harness = WorkerHarness {
            address: ([127, 0, 0, 1], 0).into(),
            worker_id: String::new(),
            model,
            supervisor,
            output,
            folder,
            failpoints: self.failpoints,
            machine,
        };
        let line = ready.unwrap_or_else(|e| panic!("no READY line within {READY_WITHIN:?}: {e}"));
        (harness.address, harness.worker_id) =
            parse_ready(&line).unwrap_or_else(|| panic!("no READY line but {line:?}"));
        harness
    }

    /// Starts the service and waits until it ends by itself.
    #[track_caller]
    pub fn run_to_exit(self, limit: Duration) -> Exit {
        let _machine = lock::take(self.alone);
        let folder = folder();
        let model = self.model_file(&folder);
        let begin = Instant::now();
        let mut child = self.command(&folder, &model).spawn().unwrap();
        let output = Output::default();
        let _lines = output.follow(&mut child);
        let status = wait(&mut child, limit);
        if status.is_none() {
            child.kill().unwrap();
        }
        let status = status.unwrap_or_else(|| panic!("runs after {limit:?}: {output:#?}"));
        output.exit(status, begin.elapsed())
    }

    /// The model's file, written if it is a random one.
    fn model_file(&self, folder: &TempDir) -> PathBuf {
        let file = |model: &Model| model.file(folder.path());
        self.model.as_ref().map(file).unwrap_or_default()
    }

    /// The program; under a shell, which alone can say the right LISTEN_PID, if it gets descriptors.
    fn launcher(&self) -> Command {
        if let Some(address) = self.activated_at {
            let mut command = Command::new("systemd-socket-activate");
            command.args(["--fdname", "http", "--listen", &address.to_string()]);
            command.arg(paths::supervisor());
            return command;
        }
        if let Some(folder) = &self.small_disk {
            let mut command = with_own_mounts();
            let script = r#"mount -t tmpfs -o size=64k tmpfs "$0" && exec "$@""#;
            command.args(["sh", "-c", script]).arg(folder);
            command.arg(paths::supervisor());
            return command;
        }
        if let Some(limit) = self.open_files {
            let mut command = Command::new("sh");
            let script = format!(r#"ulimit -n {limit} && exec "$0" "$@""#);
            command.args(["-c", &script]).arg(paths::supervisor());
            return command;
        }
        if self.passed.is_empty() {
            return Command::new(paths::supervisor());
        }
        let mut command = Command::new("sh");
        let script = r#"export LISTEN_PID=$$; exec "$0" "$@""#;
        command.args(["-c", script]).arg(paths::supervisor());
        let mapping = |(child_fd, (_, fd)): (i32, &(String, OwnedFd))| FdMapping {
            parent_fd: fd.try_clone().unwrap(),
            child_fd,
        };
        let mappings = (3..).zip(&self.passed).map(mapping).collect();
        command.fd_mappings(mappings).unwrap();
        command
    }

    fn command(&self, folder: &TempDir, model: &Path) -> Command {
        let mut command = self.launcher();
        for name in FROM_A_SERVICE_MANAGER {
            command.env_remove(name);
        }
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ORCD_")) {
            command.env_remove(name);
        }
        command.args(self.action);
        if self.model.is_some() {
            command.arg("--model").arg(model);
            command.args(["--device", &self.device, "--port", "0"]);
            let runtime = folder.path().join("run");
            std::fs::create_dir(&runtime).unwrap();
            command.arg("--runtime-dir").arg(runtime);
            let worker = self.worker.clone().unwrap_or_else(paths::worker);
            command.arg("--worker-bin").arg(worker);
        }
        if self.failpoints {
            let directory = folder.path().join(FAILPOINTS);
            std::fs::create_dir(&directory).unwrap();
            command.env("ORCD_TEST_FAILPOINTS", directory);
        }
        // As many as a small machine has: what takes time here takes time everywhere.
        command.env("ORCD_THREADS", "2");
        if !self.passed.is_empty() {
            let names: Vec<_> = self.passed.iter().map(|(name, _)| name.as_str()).collect();
            command.env("LISTEN_FDS", names.len().to_string());
            command.env("LISTEN_FDNAMES", names.join(":"));
        }
        command.args(&self.flags).envs(&self.env);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }
}

/// Runs a program in a mount namespace of its own, in which a plain user may mount.
fn with_own_mounts() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount"]);
    command
}

/// Why no service can have a small disk here; `None` if it can.
pub fn small_disk_refused() -> Option<String> {
    let mut command = with_own_mounts();
    command.args(["mount", "-t", "tmpfs", "tmpfs", "/mnt"]);
    match command.output() {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Some(format!("unshare: {error}")),
    }
}

/// What a test run under a service manager would hand on to every service.
const FROM_A_SERVICE_MANAGER: [&str; 7] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "JOURNAL_STREAM",
];

/// Address and worker id of `READY http://127.0.0.1:PORT worker_id=UUID`.
fn parse_ready(line: &str) -> Option<(SocketAddr, String)> {
    let (url, id) = line.strip_prefix("READY ")?.split_once(" worker_id=")?;
    let address = url.strip_prefix("http://")?.parse().ok()?;
    let is_hex = |part: &str| part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let parts: Vec<_> = id.split('-').collect();
    let lengths: Vec<_> = parts.iter().map(|part| part.len()).collect();
    let uuid = lengths == [8, 4, 4, 4, 12] && parts.iter().all(|part| is_hex(part));
    uuid.then(|| (address, id.to_owned()))
}

/// A short path: sockets live below it, and their paths are bounded.
fn folder() -> TempDir {
    tempfile::Builder::new().prefix("orcd-").tempdir().unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ready_line_is_taken_only_as_promised() {
        let id = "0190b2a4-7c1d-4f6e-9a3b-5d2c8e1f0a47";
        let good = format!("READY http://127.0.0.1:4711 worker_id={id}");
        assert_eq!(
            parse_ready(&good),
            Some((([127, 0, 0, 1], 4711).into(), id.into()))
        );
        for (from, to) in [
            ("READY", "Ready"),
            ("http", "https"),
            (":4711", ""),
            (" worker_id", "  worker_id"),
            (id, "1"),
            (id, "0190b2a4-7c1d-4f6e-9a3b-5d2c8e1f0a4Z"),
            ("4711 ", "4711 x=1 "),
        ] {
            assert_eq!(parse_ready(&good.replace(from, to)), None, "{from} → {to}");
        }
    }
}

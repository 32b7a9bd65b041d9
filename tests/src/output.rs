//! What a service writes, and how it ends.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStderr, ChildStdout, ExitStatus};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use crate::proc::wait_until;

/// How a service ended that was to end by itself.
#[derive(Debug)]
pub struct Exit {
    /// Exit status.
    pub status: ExitStatus,
    /// All of stdout.
    pub stdout: String,
    /// All of stderr.
    pub stderr: String,
    /// From its start, or from the request to stop.
    pub elapsed: Duration,
}

/// What a process wrote so far, kept by threads that read all the time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Output {
    stdout: Arc<Mutex<String>>,
    stderr: Arc<Mutex<String>>,
}

impl Output {
    /// Reads both pipes until they close; the receiver gets the first line of stdout.
    pub(crate) fn follow(&self, child: &mut Child) -> mpsc::Receiver<String> {
        let (send, receive) = mpsc::channel();
        let stdout: ChildStdout = child.stdout.take().unwrap();
        let into = self.stdout.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                into.lock().unwrap().push_str(&format!("{line}\n"));
                let _ = send.send(line);
            }
        });
        let mut stderr: ChildStderr = child.stderr.take().unwrap();
        let into = self.stderr.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = stderr.read(&mut buffer) {
                into.lock()
                    .unwrap()
                    .push_str(&String::from_utf8_lossy(&buffer[..n]));
            }
        });
        receive
    }

    pub(crate) fn stdout(&self) -> String {
        self.stdout.lock().unwrap().clone()
    }

    pub(crate) fn stderr(&self) -> String {
        self.stderr.lock().unwrap().clone()
    }

    /// All of it, once the process has ended and its pipes are drained.
    pub(crate) fn exit(&self, status: ExitStatus, elapsed: Duration) -> Exit {
        // Each reader thread holds one reference until its pipe closes.
        let drained =
            || Arc::strong_count(&self.stdout) == 1 && Arc::strong_count(&self.stderr) == 1;
        wait_until(Duration::from_secs(20), drained);
        Exit {
            status,
            stdout: self.stdout(),
            stderr: self.stderr(),
            elapsed,
        }
    }
}

impl Exit {
    /// Checks the exit code and gives the line `error: CODE: message` on stderr.
    #[track_caller]
    pub fn error_line(&self, code: i32) -> &str {
        assert_eq!(self.status.code(), Some(code), "{self:#?}");
        let mut lines = self
            .stderr
            .lines()
            .filter(|line| line.starts_with("error: "));
        let line = lines
            .next()
            .unwrap_or_else(|| panic!("no error line: {self:#?}"));
        assert_eq!(lines.next(), None, "a second error line");
        line
    }
}

/// Waits until the process has ended; `None` when it still runs after `limit`.
pub(crate) fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let mut status = None;
    wait_until(limit, || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    status
}

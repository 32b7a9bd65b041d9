//! Processes by `/proc`: who is a child of whom, and who is gone.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A process, told from a later one with the same number by its start time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// Start time in clock ticks since boot.
    start: u64,
}

impl Process {
    /// The process that has this number now.
    pub fn find(pid: u32) -> Option<Self> {
        stat(pid).map(|s| Self {
            pid,
            start: s.start,
        })
    }

    /// Running or stopped; a zombie is gone.
    pub fn is_alive(self) -> bool {
        stat(self.pid).is_some_and(|s| s.start == self.start && !matches!(s.state, 'Z' | 'X'))
    }

    /// All of it stands still, after SIGSTOP.
    pub fn is_stopped(self) -> bool {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid));
        let mut tasks = tasks.into_iter().flatten().flatten();
        self.is_alive()
            && tasks.all(|task| {
                let pid = task.file_name().to_str().and_then(|name| name.parse().ok());
                pid.and_then(stat).is_none_or(|s| s.state == 'T')
            })
    }

    /// Waits until the process is gone; false when it still lives after `limit`.
    pub fn is_gone_within(self, limit: Duration) -> bool {
        wait_until(limit, || !self.is_alive())
    }

    /// Sends a signal; a process that is gone already is no error.
    pub fn signal(self, signal: Signal) {
        if self.is_alive() {
            let _ = kill(Pid::from_raw(i32::try_from(self.pid).unwrap()), signal);
        }
    }

    /// Live children.
    pub fn children(self) -> Vec<Self> {
        let pids = std::fs::read_dir("/proc").unwrap().flatten();
        pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|&pid| stat(pid).is_some_and(|s| s.parent == self.pid))
            .filter_map(Self::find)
            .filter(|child| child.is_alive())
            .collect()
    }

    /// Dead children that nobody has waited for.
    pub fn zombies(self) -> usize {
        let pids = std::fs::read_dir("/proc").unwrap().flatten();
        pids.filter_map(|entry| stat(entry.file_name().to_str()?.parse().ok()?))
            .filter(|s| s.parent == self.pid && s.state == 'Z')
            .count()
    }

    /// Open file descriptors.
    pub fn descriptors(self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid)).map_or(0, Iterator::count)
    }

    /// A number out of `/proc/PID/status`: `Threads`, `VmRSS` (KiB).
    pub fn status(self, field: &str) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(field))?;
        let value = line.strip_prefix(':')?.split_whitespace().next()?;
        value.parse().ok()
    }

    /// File name of the executable.
    pub fn name(self) -> String {
        let exe = std::fs::read_link(format!("/proc/{}/exe", self.pid)).unwrap_or_default();
        exe.file_name()
            .map(|n| n.to_string_lossy().into_owned())
            .unwrap_or_default()
    }
}

/// Polls `condition` until it holds; false when it doesn't within `limit`.
pub fn wait_until(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

struct Stat {
    state: char,
    parent: u32,
    start: u64,
}

/// Fields 3, 4 and 22 of `/proc/PID/stat`; the name in field 2 may hold spaces and parentheses.
fn stat(pid: u32) -> Option<Stat> {
    let line = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<_> = line[line.rfind(')')? + 1..].split_whitespace().collect();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        start: fields.get(19)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_child_is_found_and_a_killed_one_is_gone() {
        let me = Process::find(std::process::id()).unwrap();
        let mut sleeper = Command::new("sleep").arg("60").spawn().unwrap();
        let child = Process::find(sleeper.id()).unwrap();
        assert!(child.is_alive() && me.children().contains(&child));
        child.signal(Signal::SIGKILL);
        assert!(
            child.is_gone_within(Duration::from_secs(5)),
            "a zombie counts as gone"
        );
        sleeper.wait().unwrap();
        assert!(!me.children().contains(&child));
    }
}

//! The command line, which only the supervisor writes. Everything else comes in the load request.

use std::ffi::OsString;
use std::path::PathBuf;

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Serve the supervisor that listens at `socket`.
    Serve {
        /// Its socket.
        socket: PathBuf,
        /// Its process id, to notice a parent that died before this process was ready to.
        supervisor_pid: u32,
    },
    /// Do the work of a crashed worker again.
    Replay {
        /// File from the crash directory.
        bundle: PathBuf,
    },
    /// Try the constraint on standard input.
    CheckConstraint,
    /// Look whether the load request on standard input could be done.
    CheckLoad,
    /// Say what this binary is.
    Version,
}

/// What a person who starts this by hand reads.
pub const USAGE: &str = "\
cuda-worker is started by worker-orcd and serves nobody else.
Start worker-orcd --model PATH instead; see worker-orcd --help.
usage: cuda-worker --socket PATH --supervisor-pid PID | --replay CRASH.json | --check-constraint | --check-load | --version";

/// Reads the arguments after the program's name; `None` for anything but the forms of
/// [`USAGE`].
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Option<Command> {
    let args: Vec<OsString> = args.into_iter().collect();
    match args.as_slice() {
        [flag] if flag == "--version" => Some(Command::Version),
        [flag] if flag == "--check-constraint" => Some(Command::CheckConstraint),
        [flag] if flag == "--check-load" => Some(Command::CheckLoad),
        [flag, bundle] if flag == "--replay" => Some(Command::Replay {
            bundle: bundle.into(),
        }),
        [first, socket, second, pid] if first == "--socket" && second == "--supervisor-pid" => {
            let supervisor_pid = pid.to_str()?.parse().ok()?;
            Some(Command::Serve {
                socket: socket.into(),
                supervisor_pid,
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Option<Command> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn exactly_these_forms_are_understood() {
        let serve = Command::Serve {
            socket: "/run/s".into(),
            supervisor_pid: 7,
        };
        assert_eq!(of("--socket /run/s --supervisor-pid 7"), Some(serve));
        assert_eq!(of("--version"), Some(Command::Version));
        assert_eq!(of("--check-constraint"), Some(Command::CheckConstraint));
        assert_eq!(of("--check-load"), Some(Command::CheckLoad));
        let bundle = "crash.json".into();
        assert_eq!(of("--replay crash.json"), Some(Command::Replay { bundle }));
        for wrong in [
            "",
            "--help",
            "--socket /run/s",
            "--replay",
            "--supervisor-pid 7 --socket /run/s",
            "--socket /run/s --supervisor-pid seven",
            "--socket /run/s --supervisor-pid 7 --version",
        ] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }
}

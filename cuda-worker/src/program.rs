//! The program around the library: its command line, and what it answers there.

use std::io::Write as _;
use std::process::ExitCode;

use orcd_shared::exit;
use orcd_shared::protocol::version::{BUILD, PROTOCOL};

use crate::args::{self, Command};
use crate::constraint::check;
use crate::{BACKENDS, load_check, replay, startup};

/// Does what the command line asks for.
#[must_use]
pub fn run() -> ExitCode {
    let code = match args::parse(std::env::args_os().skip(1)) {
        Some(Command::Serve {
            socket,
            supervisor_pid,
        }) => startup::run(&socket, supervisor_pid),
        Some(Command::Replay { bundle }) => replay::run(&bundle, |line| {
            // A closed standard output leaves nobody to tell.
            let _ = writeln!(std::io::stdout(), "{line}");
        }),
        Some(Command::CheckConstraint) => check::run(std::io::stdin(), std::io::stdout()),
        Some(Command::CheckLoad) => load_check::run(std::io::stdin(), std::io::stdout()),
        Some(Command::Version) => {
            let backends = BACKENDS.join(", ");
            // A closed standard output leaves nobody to tell.
            let _ = writeln!(
                std::io::stdout(),
                "cuda-worker {BUILD}\nprotocol {PROTOCOL}\ndevices {backends}"
            );
            exit::worker::OK
        }
        None => {
            let _ = writeln!(std::io::stderr(), "{}", args::USAGE);
            exit::worker::USAGE
        }
    };
    ExitCode::from(code)
}

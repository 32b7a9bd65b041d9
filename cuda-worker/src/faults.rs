//! Faults on purpose, for tests of what happens around this process: it dies, stops or stands still
//! at a chosen point. A test names a directory in `ORCD_DEBUG_FAULTS` and puts a file there whose
//! name is the point and whose text is the action; whoever removes the file strikes, so that one
//! file is one fault, whichever worker comes there first. A number after the action says at which
//! pass it happens, counted from the first that finds the file: `kill 20` before the twentieth step.
//! Without the variable nothing happens.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, raise};

use crate::leave::leave;

/// Where it can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Point {
    /// Before this process connects.
    Start,
    /// Between the load request and the first byte read.
    Load,
    /// The weights are there, the engine is not.
    Loaded,
    /// On the socket's reader, before a command is passed on.
    Command,
    /// On the engine thread, before a step.
    Step,
    /// On the engine thread, when a step's tokens have left the device and not this process.
    Drawn,
}

impl Point {
    fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Load => "load",
            Self::Loaded => "loaded",
            Self::Command => "command",
            Self::Step => "step",
            Self::Drawn => "drawn",
        }
    }
}

/// How often each point was passed since a fault waits there.
static PASSES: [AtomicU32; 6] = [const { AtomicU32::new(0) }; 6];

/// While a file of this name is in the directory, the action `wait` waits.
const GATE: &str = "gate";
/// What the action `eat` takes at most: more than a test's limit allows, no more than a machine has.
const EATEN_MIB: usize = 256;
/// Between two looks at the gate.
const LOOK: Duration = Duration::from_millis(1);

static DIRECTORY: LazyLock<Option<PathBuf>> =
    LazyLock::new(|| std::env::var_os("ORCD_DEBUG_FAULTS").map(PathBuf::from));

/// Strikes if a fault waits at this point.
pub(crate) fn at(point: Point) {
    let Some(directory) = &*DIRECTORY else {
        return;
    };
    let file = directory.join(point.name());
    let Ok(text) = std::fs::read_to_string(&file) else {
        return;
    };
    let mut words = text.split_whitespace();
    let action = words.next().unwrap_or_default();
    let wanted = words.next().and_then(|n| n.parse().ok()).unwrap_or(1);
    let passes = &PASSES[point as usize];
    if passes.fetch_add(1, Ordering::Relaxed) + 1 < wanted {
        return;
    }
    passes.store(0, Ordering::Relaxed);
    if std::fs::remove_file(&file).is_ok() {
        strike(action, directory);
    }
}

/// Dies of a job with the seed that the file `poison` holds. The file stays: such a job is deadly
/// whenever it is tried.
pub(crate) fn of_job(seed: u64) {
    let Some(directory) = &*DIRECTORY else {
        return;
    };
    let deadly = std::fs::read_to_string(directory.join("poison"));
    if deadly.is_ok_and(|text| text.trim().parse() == Ok(seed)) {
        strike("segv", directory);
    }
}

/// What is not known does nothing.
fn strike(action: &str, directory: &Path) {
    let signal = |signal| {
        // Again if it returns: a handler for stack overflows lets the first SIGSEGV pass.
        while raise(signal).is_ok() {}
    };
    match action {
        "kill" => signal(Signal::SIGKILL),
        "segv" => signal(Signal::SIGSEGV),
        "abort" => std::process::abort(),
        "exit" => leave(1),
        "stop" => drop(raise(Signal::SIGSTOP)),
        "spin" => loop {
            std::hint::spin_loop();
        },
        "sleep" => loop {
            std::thread::sleep(Duration::from_secs(1));
        },
        "wait" => {
            while directory.join(GATE).exists() {
                std::thread::sleep(LOOK);
            }
        }
        "eat" => {
            // Touched, every page of it.
            let eaten: Vec<_> = (0..EATEN_MIB).map(|_| vec![1_u8; 1 << 20]).collect();
            std::hint::black_box(eaten);
        }
        _ => {}
    }
}

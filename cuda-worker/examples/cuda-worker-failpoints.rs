//! The worker with failpoints, for tests of what happens around it: it dies, stops or stands still at
//! a chosen place. A test names a directory in `ORCD_TEST_FAILPOINTS` and puts a file there whose name
//! is the place and whose text is the action; whoever removes the file acts, so that one file is one
//! fault, whichever worker comes there first. A number after the action says at which pass it happens,
//! counted from the first that finds the file: `kill 20` before the twentieth step.
//!
//! The file `poison` holds a seed and stays: a job with that seed is deadly whenever it is tried.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cuda_worker::failpoints::{self, Failpoint};
use nix::sys::signal::{Signal, raise};

/// How often each place was passed since a file waits there.
static PASSES: Mutex<BTreeMap<&'static str, u32>> = Mutex::new(BTreeMap::new());

/// While a file of this name is in the directory, the action `wait` waits.
const GATE: &str = "gate";
/// What the action `eat` takes at most: more than a test's limit allows, no more than a machine has.
const EATEN_MIB: usize = 256;
/// Between two looks at the gate.
const LOOK: Duration = Duration::from_millis(1);

static DIRECTORY: LazyLock<Option<PathBuf>> =
    LazyLock::new(|| std::env::var_os("ORCD_TEST_FAILPOINTS").map(PathBuf::from));

fn main() -> ExitCode {
    failpoints::install(|point| {
        if let Some(directory) = &*DIRECTORY {
            pass(point, directory);
        }
    });
    cuda_worker::program::run()
}

fn pass(point: Failpoint, directory: &Path) {
    let name = match point {
        Failpoint::Submit { seed } => return submit(seed, directory),
        Failpoint::Start => "start",
        Failpoint::Load => "load",
        Failpoint::Loaded => "loaded",
        Failpoint::Command => "command",
        Failpoint::Step => "step",
        Failpoint::Sampled => "sampled",
        Failpoint::Ledger => "ledger",
        Failpoint::Adopt => "adopt",
        Failpoint::Evict => "evict",
        Failpoint::Preempt => "preempt",
    };
    let file = directory.join(name);
    let Ok(text) = std::fs::read_to_string(&file) else {
        return;
    };
    let mut words = text.split_whitespace();
    let action = words.next().unwrap_or_default();
    let wanted = words.next().and_then(|n| n.parse().ok()).unwrap_or(1);
    if count(name) < wanted {
        return;
    }
    passes().remove(name);
    if std::fs::remove_file(&file).is_ok() {
        act(action, directory);
    }
}

/// One more pass of a place.
fn count(name: &'static str) -> u32 {
    let mut passes = passes();
    let passes = passes.entry(name).or_default();
    *passes += 1;
    *passes
}

fn passes() -> MutexGuard<'static, BTreeMap<&'static str, u32>> {
    PASSES.lock().unwrap_or_else(PoisonError::into_inner)
}

fn submit(seed: u64, directory: &Path) {
    let deadly = std::fs::read_to_string(directory.join("poison"));
    if deadly.is_ok_and(|text| text.trim().parse() == Ok(seed)) {
        act("segv", directory);
    }
}

/// An action that isn't known is a test's mistake; that the worker lives on shows it.
fn act(action: &str, directory: &Path) {
    let signal = |signal| {
        // Again if it returns: a handler for stack overflows lets the first SIGSEGV pass.
        while raise(signal).is_ok() {}
    };
    match action {
        "kill" => signal(Signal::SIGKILL),
        "segv" => signal(Signal::SIGSEGV),
        "abort" => std::process::abort(),
        // As the worker leaves: no destructors, no exit handlers.
        "exit" => signal_hook::low_level::exit(1),
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

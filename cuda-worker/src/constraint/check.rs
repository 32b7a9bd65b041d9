//! `cuda-worker --check-constraint`: whether a constraint can be used, found out in a process that may die of it. The
//! constraint comes on standard input, as a frame; why it can't be used goes to standard output.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use orcd_shared::constraint::Constraint;
use orcd_shared::exit;

use super::compiler::Compiler;
use super::{Matcher, STACK_BYTES, Vocabulary, place};
use crate::link::FrameReader;

/// Time of the processor that it may take, seconds.
const CPU_SECONDS: u64 = 1;
/// Memory that it may take beside what the program has of it when it starts, bytes of addresses.
const MEMORY_BYTES: u64 = 512 << 20;

/// Bytes of an output that are tried.
const STEPS: usize = 64;
/// What makes them differ: a prime.
const STRIDE: usize = 101;

/// How long the place of a fault is searched for: a part of the time that this process has.
const MOST_SEARCH: Duration = Duration::from_millis(200);

/// Checks the constraint that `input` has; returns the exit code.
#[must_use]
pub fn run(input: impl Read, mut output: impl Write) -> u8 {
    if let Err(error) = limit_this_process() {
        // Without bounds it might take the machine along.
        let _ = write!(output, "this process can't be bounded: {error}");
        return exit::worker::INTERNAL;
    }
    let constraint = match FrameReader::new(input).message() {
        Ok(Some(constraint)) => constraint,
        Ok(None) | Err(_) => return exit::worker::PROTOCOL,
    };
    let (reason, code) = match on_a_thread(constraint) {
        Ok(Ok(())) => return exit::worker::OK,
        Ok(Err(reason)) => (reason, exit::worker::REFUSED),
        // Not the constraint's fault.
        Err(error) => (
            format!("no thread can be started: {error}"),
            exit::worker::INTERNAL,
        ),
    };
    let _ = output.write_all(reason.as_bytes());
    let _ = output.flush();
    code
}

/// Bounds time, memory and what a crash leaves behind.
fn limit_this_process() -> io::Result<()> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    // The signal of the first bound says that this was it; the second one is for who doesn't die of that.
    let most = getrlimit(Resource::RLIMIT_CPU)?.1;
    setrlimit(
        Resource::RLIMIT_CPU,
        CPU_SECONDS.min(most),
        (CPU_SECONDS + 1).min(most),
    )?;
    // No more than this process was given.
    let addresses = (addresses()? + MEMORY_BYTES).min(getrlimit(Resource::RLIMIT_AS)?.1);
    setrlimit(Resource::RLIMIT_AS, addresses, addresses)?;
    Ok(())
}

/// Bytes of addresses that this process has.
fn addresses() -> io::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:"));
    let kib = size.and_then(|size| size.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    let kib = kib.ok_or_else(|| io::Error::other("/proc/self/status has no VmSize"))?;
    Ok(kib.saturating_mul(1024))
}

/// With the stack that the worker would have for it.
fn on_a_thread(constraint: Constraint) -> io::Result<Result<(), String>> {
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
    let checking = thread.spawn(move || check(&constraint))?;
    let unforeseen = |_| Err("it can't be compiled".to_owned());
    Ok(checking.join().unwrap_or_else(unforeseen))
}

/// Makes some tokens of an output: one of which each costs seconds is found out by this process's bound of time.
fn go_on(mut matcher: Matcher) {
    for step in 0..STEPS {
        // It may be too much for some outputs and not for others.
        let Ok(mask) = matcher.mask() else {
            return;
        };
        let bits = mask.iter().zip((0u32..).step_by(32));
        let bytes = bits.flat_map(|(word, first)| {
            let bit = move |i: &u32| word >> i & 1 == 1;
            (0..32).filter(bit).map(move |i| first + i)
        });
        // Without the end token, which is the last.
        let mut bytes: Vec<u32> = bytes.filter(|&byte| byte < u8::MAX.into()).collect();
        if bytes.is_empty() {
            return;
        }
        matcher.accept(bytes.swap_remove(step * STRIDE % bytes.len()));
    }
}

/// Whether `constraint` compiles and allows a first byte.
///
/// # Errors
/// Why not, and in a schema where.
pub fn check(constraint: &Constraint) -> Result<(), String> {
    let compiler = Compiler::simple(&Vocabulary::of_bytes())?;
    let reason = match compiler.compile(constraint) {
        Ok(matcher) => {
            go_on(matcher);
            return Ok(());
        }
        Err(reason) => reason,
    };
    let Constraint::JsonSchema(text) = constraint else {
        return Err(reason);
    };
    // For the message alone: a reason without its place is better than none.
    let began = Instant::now();
    let fails = |schema: &serde_json::Value| {
        if began.elapsed() > MOST_SEARCH {
            return None;
        }
        let constraint = Constraint::JsonSchema(schema.to_string());
        compiler.compile(&constraint).err()
    };
    match serde_json::from_str(text) {
        Ok(schema) => Err(format!(
            "at {}: {reason}",
            place::of(&schema, &reason, fails)
        )),
        Err(_) => Err(reason),
    }
}

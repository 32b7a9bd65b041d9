//! What signals mean to this process.

use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, LazyLock};

use nix::sys::signal::Signal;
use nix::unistd::getppid;
use orcd_shared::exit;
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::flag;

use crate::abandon::Abandon;

/// What SIGUSR1 sets. One for the process, as handlers are; the engine asks it in the middle of a
/// step.
static ABANDON: LazyLock<Abandon> = LazyLock::new(Abandon::default);

/// Whether the engine is to give its step up.
pub(crate) fn step_is_abandoned() -> bool {
    ABANDON.is_due()
}

/// Sets the handlers, first thing in the process:
/// - SIGINT does nothing. Ctrl-C in a terminal reaches every process of its group, and the
///   supervisor lets running jobs finish before it says Shutdown.
/// - SIGTERM ends the process with code 0, also in the middle of a step.
/// - SIGUSR1 is kept for the engine thread, which looks between layers and between steps.
///
/// # Errors
/// The operating system refused a handler.
pub fn install() -> io::Result<Abandon> {
    // A handler rather than SIG_IGN: that would be inherited by a process started from here.
    flag::register(SIGINT, Arc::new(AtomicBool::new(false)))?;
    let always = Arc::new(AtomicBool::new(true));
    flag::register_conditional_shutdown(SIGTERM, i32::from(exit::worker::OK), always)?;
    let abandon = ABANDON.clone();
    flag::register(SIGUSR1, abandon.signal())?;
    Ok(abandon)
}

/// Asks the kernel to kill this process when the supervisor dies. The closed socket says the same;
/// this holds also if no thread is left to read it. Returns whether the supervisor is still there:
/// one that died before the call sends no signal.
///
/// # Errors
/// The operating system refused.
pub fn die_with(supervisor_pid: u32) -> io::Result<bool> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    Ok(u32::try_from(getppid().as_raw()) == Ok(supervisor_pid))
}

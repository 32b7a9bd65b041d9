//! Places in this process's life where a test can let something happen. What happens is not in this
//! library: a program that wants it installs a handler, as the example `cuda-worker-failpoints` does.
//! In the program that ships there is none, and passing a place does nothing.

use std::sync::OnceLock;

/// A place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failpoint {
    /// Before this process connects.
    Start,
    /// Between the load request and the first byte read.
    Load,
    /// The weights are there, the engine is not.
    Loaded,
    /// On the socket's reader, before a command is passed on.
    Command,
    /// On the engine thread, before a job gets its slot.
    Submit {
        /// The job's seed.
        seed: u64,
    },
    /// On the engine thread, in a step: it was begun, and the one before has been told.
    Step,
    /// On the engine thread, when a step's tokens have left the device and not this process.
    Sampled,
    /// Between a step's results and the ledger being told which pages are full.
    Ledger,
    /// The pool is this worker's by its epoch, and the ledger was not read yet.
    Adopt,
    /// A page that was kept is taken for something else, and the ledger was not told.
    Evict,
    /// A job is about to give its pages back to older ones.
    Preempt,
}

static HANDLER: OnceLock<fn(Failpoint)> = OnceLock::new();

/// From now on `handler` is called at every place. The first one installed stays.
pub fn install(handler: fn(Failpoint)) {
    // A second call has nothing to add.
    let _ = HANDLER.set(handler);
}

/// Passes a place.
pub(crate) fn pass(point: Failpoint) {
    if let Some(handler) = HANDLER.get() {
        handler(point);
    }
}

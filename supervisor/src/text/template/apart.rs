//! Runs the template engine on a stack of its own.
//!
//! The engine calls itself for each level of an expression, and for each level of data that it
//! prints, compares or frees. The length of a template bounds how many levels there are, but a
//! thread of the runtime has no room for that many.

use std::thread;

/// Stack in bytes: for one level of nesting per two bytes of the longest template. It takes
/// memory only where it is used.
const STACK_BYTES: usize = 256 << 20;

/// Does `work` on a stack of its own and waits for it.
///
/// # Errors
/// The machine has no thread to give, or the engine panicked, in words for people.
pub(super) fn run<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, String> {
    thread::scope(|scope| {
        let builder = thread::Builder::new()
            .name("template".to_owned())
            .stack_size(STACK_BYTES);
        let thread = builder
            .spawn_scoped(scope, work)
            .map_err(|e| format!("no thread to render on: {e}"))?;
        thread
            .join()
            .map_err(|_| "the template engine gave up on it".to_owned())
    })
}

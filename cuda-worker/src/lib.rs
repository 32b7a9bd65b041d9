//! The child process that turns tokens into tokens: it owns the device, the weights and the KV
//! cache, and is expendable. Everything a client sees is kept by the supervisor.
//!
//! The way of a job: [`startup`] reads the socket → [`engine_thread`] → [`scheduler`] → `engine`,
//! each importing only to its right; tokens come back over the [`outbox`].
//!
//! **Threads.** The main thread reads the socket and ends the process when the supervisor is gone;
//! the engine thread ([`engine_main`]) alone touches the device and writes what it has to say; a third
//! adds the heartbeat ([`outbox`]).

#![deny(unsafe_code)]

pub mod abandon;
pub mod args;
pub mod arithmetic;
pub mod constraint;
pub mod descriptors;
pub mod engine;
pub mod engine_main;
pub mod engine_thread;
mod exit_now;
pub mod failpoints;
#[allow(unsafe_code)]
mod ffi;
pub mod heard;
pub mod link;
mod load_check;
pub mod loader;
mod loading;
mod log;
pub mod memory;
pub mod oom;
pub mod outbox;
pub mod pool;
/// For tests alone; a program that doesn't call it has none of it.
#[doc(hidden)]
pub mod probe;
pub mod program;
pub mod replay;
pub mod residency;
pub mod scheduler;
pub mod signals;
pub mod sizing;
pub mod startup;
pub mod weights_plan;

/// The kinds of device that this build can run on.
pub const BACKENDS: &[&str] = if cfg!(feature = "cuda") {
    &["cpu", "cuda"]
} else {
    &["cpu"]
};

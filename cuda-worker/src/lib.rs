//! The child process that turns tokens into tokens: it owns the device, the weights and the KV
//! cache, and is expendable. Everything a client sees is kept by the supervisor.
//!
//! The way of a job: `link` → `engine_thread` → [`scheduler`] → `engine`, each importing only to
//! its right; tokens come back the same way.

pub mod scheduler;

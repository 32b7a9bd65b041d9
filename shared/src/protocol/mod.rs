//! The language between supervisor and worker: bincode messages in length-prefixed frames over
//! one local socket. File descriptors travel beside it, on the worker's standard input.
//!
//! **Invariant.** [`message::ToWorker::Hello`] and [`message::ToSupervisor::Hello`] stay variant 0
//! with their present fields for ever: two builds of different age can always tell each other who
//! they are. Everything else may change with [`version::PROTOCOL`].

pub mod frame;
pub mod message;
pub mod version;

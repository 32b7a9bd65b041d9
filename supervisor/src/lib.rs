//! The supervisor: owns text, jobs and the handles of the weights; spawns, watches and replaces
//! the worker process that owns the device.

#![deny(unsafe_code)]

// For `samples`, which the tests in `tests/` have too.
#[cfg(test)]
extern crate self as orcd_supervisor;

pub mod advice;
pub mod awake;
pub mod callback;
pub mod chat;
pub mod check;
pub mod config;
pub mod crash_dir;
pub mod fingerprint;
pub mod http;
pub mod jobs;
pub mod log;
pub mod memory;
pub mod metrics;
pub mod model;
pub mod models;
pub mod run;
#[cfg(test)]
#[path = "../tests/samples/mod.rs"]
mod samples;
pub mod signals;
pub mod snapshot;
pub mod systemd;
pub mod text;
pub mod trial;
pub mod worker;

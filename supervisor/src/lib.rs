//! The supervisor: owns text, jobs and the handles of the weights; spawns, watches and replaces
//! the worker process that owns the device.

#![deny(unsafe_code)]

pub mod jobs;
pub mod metrics;
pub mod text;
pub mod worker;

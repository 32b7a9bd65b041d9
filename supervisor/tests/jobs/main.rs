//! Jobs from submission to their last event, on a worker that is played by the test.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a panic is a failing test with a place
#![allow(unreachable_pub)] // modules of one test binary

mod cached;
mod crash;
mod ending;
mod flow;
mod host;
mod hostile;
mod journal;
mod memory;
mod model_file;
mod pool;
mod preemption;
mod readers;
#[path = "../samples/mod.rs"]
mod samples;
mod startup;
mod support;
mod timeouts;
mod watchdog;

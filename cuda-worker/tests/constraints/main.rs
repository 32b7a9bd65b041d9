//! Outputs under constraints, judged by another implementation than the one that makes them; and jobs with constraints
//! beside others.
// A test's panic is its failure, helpers' included.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout
)]

#[path = "../engine_support/mod.rs"]
mod engine_support;
mod jobs;
mod limits;
mod matchers;
mod outputs;
mod rig;
mod sampler;
mod schemas;
mod trial;

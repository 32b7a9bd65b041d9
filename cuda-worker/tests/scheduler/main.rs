//! The scheduler's rules, with an engine that computes nothing but notices every broken
//! precondition.
// A test's panic is its failure, helpers' included.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used
)]

mod admission;
mod batching;
mod cancel;
mod errors;
mod fake;
mod finish;
mod independence;
mod preemption;
mod rig;
mod serving;
mod storm;

//! The real binary, with a small supervisor around it that speaks the protocol over a real socket.
// A panic is a failing test with a place, in helpers too.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used
)]

mod ending;
mod haiku;
mod handshake;
mod jobs;
mod limits;
mod loading;
mod model;
mod supervisor;

//! HTTP on the real dispatcher, whose worker is played by the test, over real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a panic is a failing test with a place
#![allow(unreachable_pub)] // modules of one test binary

mod bad_head;
mod chat_template;
mod clients_that_leave;
mod errors;
mod half_closed;
mod health;
mod openapi;
mod page;
#[path = "../jobs/support.rs"]
#[allow(dead_code)] // made for another test binary
mod played;
mod prefix_cache;
mod rate;
#[path = "../samples/mod.rs"]
#[allow(dead_code)] // made for other tests too
mod samples;
mod streams;
mod support;
mod tool_calls;

//! Harness of the black-box tests: starts the two real processes, speaks HTTP to them over a
//! socket of its own, and checks every byte of every stream against the contract.

pub mod documents;
pub mod failpoints;
pub mod harness;
pub mod http;
pub mod hub;
pub mod job;
pub mod kv_pool;
pub mod lock;
pub mod model;
pub mod notify;
pub mod output;
pub mod paths;
pub mod proc;
pub mod real;
pub mod real_systemd;
pub mod report;
pub mod routes;
pub mod sse;
pub mod start;
pub mod stats;
pub mod stream;

pub use harness::WorkerHarness;
pub use job::{Job, Transcript};
pub use model::Model;
pub use notify::NotifyDouble;
pub use output::Exit;
pub use real::RealModel;
pub use routes::routes;
pub use start::Starter;

//! Black-box tests of `worker-orcd` and `cuda-worker`: one file per subject, each test on its own
//! pair of real processes.

mod access;
mod cancel;
mod changed_files;
mod command_line;
mod context;
mod correlation;
mod crash;
mod crash_bundle;
mod deadline;
mod determinism;
mod flow;
mod gpu;
mod hang;
mod health;
mod http_edges;
mod invalid_request;
mod memory;
mod metrics;
mod orphan;
mod places;
mod poison;
mod quality;
mod queue;
mod replay_check;
mod resume;
mod shutdown;
mod slow_reader;
mod standby;
mod startup;
mod stop_sequence;
mod storms;
mod systemd;
mod systemd_real;
mod systemd_units;
mod utf8;

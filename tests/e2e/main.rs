//! Black-box tests of `worker-orcd` and `cuda-worker`: one file per subject, each test on its own
//! pair of real processes.

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
mod metrics;
mod notices;
mod oom;
mod orphan;
mod poison;
mod quality;
mod queue;
mod real_weights;
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

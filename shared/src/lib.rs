//! What the supervisor and the worker both know: the protocol between them, the job and its
//! parameters, the exit codes, and the reader for untrusted model files.

pub mod gguf;

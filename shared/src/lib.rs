//! What the supervisor and the worker both know: the protocol between them, the job and its
//! parameters, the exit codes, and the reader for untrusted model files.

#![deny(unsafe_code)]

pub mod claim;
pub mod constraint;
pub mod crash;
pub mod descriptors;
pub mod error;
pub mod exit;
pub mod gguf;
pub mod job;
pub mod kv;
pub mod logit_bias;
pub mod protocol;
pub mod sampling;
pub mod sealed;
pub mod token_ids;
pub mod vocab;
pub mod weights;

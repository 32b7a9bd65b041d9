//! Constraints: which tokens an output may go on with. A [`Compiler`] makes a [`Matcher`] of a constraint, [`Grammars`]
//! does so on a thread beside the engine's, [`check`] in a process of its own before there is a job.
//!
//! **Invariant.** What a matcher allows is a function of the constraint, the vocabulary and the tokens alone. Its bounds
//! count steps of work and bytes, never time. Caches of others would change that count, so each job has its own, and a
//! replay computes the masks of the tokens that it is given, as the first run did.

pub mod check;
mod compiler;
mod grammars;
mod matcher;
mod place;
mod vocabulary;

pub use compiler::Compiler;
pub use grammars::{Compiled, Grammars, Order};
pub use matcher::Matcher;
pub use vocabulary::Vocabulary;

/// The stack of a thread that compiles: compilers of schemas and grammars are recursive, and the trial is to have no more
/// room than the worker.
pub const STACK_BYTES: usize = 8 << 20;

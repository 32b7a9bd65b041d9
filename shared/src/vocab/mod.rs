//! The vocabulary of a model file: its tokens, the bytes that each stands for, and those at which generation ends.
//! The supervisor makes its tokenizer of it; the worker needs the bytes for constraints.

pub mod bytelevel;
mod end;
mod error;
mod table;
mod types;

pub use end::end_tokens;
pub use error::VocabError;
pub use table::{Spelling, TokenBytes, TokenType, Vocab, byte_token, check_length};

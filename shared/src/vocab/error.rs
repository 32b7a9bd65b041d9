//! What can be wrong with a file's vocabulary.

use crate::gguf::GgufError;

/// Why there is no vocabulary.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VocabError {
    /// A key is missing or has another type than expected.
    #[error(transparent)]
    Metadata(#[from] GgufError),
    /// `tokenizer.ggml.model` names a kind that is not implemented.
    #[error("tokenizer model `{model}` is not supported; use a file with `gpt2` or `llama`")]
    UnknownModel {
        /// The value found.
        model: String,
    },
    /// The vocabulary has no tokens.
    #[error("`tokenizer.ggml.tokens` is empty; the file holds no vocabulary")]
    NoTokens,
    /// The texts of all tokens together exceed what offsets of 32 bits reach.
    #[error("the tokens' texts take {bytes} bytes, more than the 4 GiB supported")]
    TooLarge {
        /// Length of all texts in bytes.
        bytes: usize,
    },
    /// A per-token array does not have one entry per token.
    #[error("`{key}` has {found} entries for {tokens} tokens; the file is damaged")]
    Length {
        /// The array's key.
        key: &'static str,
        /// Its entries.
        found: usize,
        /// The entries of `tokenizer.ggml.tokens`.
        tokens: usize,
    },
    /// A value of `tokenizer.ggml.token_type` is none of 1 to 6.
    #[error("token {id} has the unknown type {value} in `tokenizer.ggml.token_type`")]
    TokenType {
        /// The token.
        id: usize,
        /// Its type.
        value: i32,
    },
    /// A key names a token after the end of the vocabulary.
    #[error("`{key}` is {id}, but the vocabulary has {tokens} tokens")]
    IdOutOfRange {
        /// The key.
        key: &'static str,
        /// Its value.
        id: u32,
        /// The vocabulary's size.
        tokens: usize,
    },
}

//! Every way in which building or using a tokenizer can fail.

use orcd_shared::gguf::GgufError;

/// What is wrong with a file's tokenizer, or with a text given to it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// A key is missing or has another type than expected.
    #[error(transparent)]
    Metadata(#[from] GgufError),
    /// `tokenizer.ggml.model` names a kind that is not implemented.
    #[error("tokenizer model `{model}` is not supported; use a file with `gpt2` or `llama`")]
    UnknownModel {
        /// The value found.
        model: String,
    },
    /// `tokenizer.ggml.pre` names a pre-tokenizer that is not implemented.
    #[error(
        "pre-tokenizer `{pre}` is not supported; the nearest that are: `{}`",
        .nearest.join("`, `")
    )]
    UnknownPre {
        /// The value found.
        pre: String,
        /// The names most like it.
        nearest: [&'static str; 3],
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
    /// A value of `tokenizer.ggml.scores` is not a number.
    #[error("the score of token {id} in `tokenizer.ggml.scores` is not a number")]
    Score {
        /// The token.
        id: usize,
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
    /// An entry of `tokenizer.ggml.merges` cannot be used.
    #[error("merge {index} (`{merge}`) in `tokenizer.ggml.merges` {reason}")]
    Merge {
        /// Its place in the array.
        index: usize,
        /// The entry.
        merge: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// No token stands for a byte, so that some texts could not be written in tokens.
    #[error("no token stands for byte 0x{byte:02X}; the vocabulary is incomplete")]
    MissingByte {
        /// The byte.
        byte: u8,
    },
    /// The matcher for special tokens could not be built.
    #[error("cannot build the matcher for {count} special tokens: {reason}")]
    Specials {
        /// How many there are.
        count: usize,
        /// The matcher's reason.
        reason: String,
    },
    /// The byte-pair model refused its vocabulary or a text.
    #[error("byte-pair model: {0}")]
    Bpe(#[source] Box<dyn std::error::Error + Send + Sync>),
}

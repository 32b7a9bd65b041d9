//! Every way in which building or using a tokenizer can fail.

use orcd_shared::gguf::GgufError;
use orcd_shared::vocab::VocabError;

use super::UnknownPreTokenizer;

/// What is wrong with a file's tokenizer, or with a text given to it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// A key is missing or has another type than expected.
    #[error(transparent)]
    Metadata(#[from] GgufError),
    /// The vocabulary can't be used.
    #[error(transparent)]
    Vocab(#[from] VocabError),
    /// `tokenizer.ggml.pre` names a pre-tokenizer that is not implemented.
    #[error("{0}; if one of them cuts texts as the model wants it, --pre-tokenizer NAME insists")]
    UnknownPre(#[from] UnknownPreTokenizer),
    /// A value of `tokenizer.ggml.scores` is not a number.
    #[error("the score of token {id} in `tokenizer.ggml.scores` is not a number")]
    Score {
        /// The token.
        id: usize,
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

//! White space that special tokens take with them: `lstrip` and `rstrip` of a tokenizer.json.
//!
//! A GGUF file has neither, so they follow from what it says of the model: all files of the architecture `phi3` are of
//! one of three vocabularies, which their pre-tokenizers tell apart. Names of models say nothing.

use orcd_shared::gguf::{GgufError, Metadata};

use super::Model;
use super::pre::Split;

const ARCHITECTURE: &str = "general.architecture";

/// Whether a special token takes the white space at its sides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Strip {
    pub(super) left: bool,
    pub(super) right: bool,
}

/// What the special tokens of a vocabulary do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Strips {
    /// They leave all white space.
    None,
    /// Phi-3 and 3.5, SentencePiece.
    Phi3,
    /// Phi-4, of cl100k.
    Phi4,
    /// Phi-4-mini, of o200k.
    Phi4Mini,
}

impl Strips {
    pub(super) fn of(metadata: &Metadata, model: &Model) -> Result<Self, GgufError> {
        if metadata.opt_str(ARCHITECTURE)? != Some("phi3") {
            return Ok(Self::None);
        }
        Ok(match model {
            Model::Spm(_) => Self::Phi3,
            Model::Bpe(bpe) => match bpe.pre.rules.split {
                Split::ThreeDigits => Self::Phi4,
                Split::O200k => Self::Phi4Mini,
                _ => Self::None,
            },
        })
    }

    /// What the special token `text` does.
    pub(super) fn of_token(self, text: &str) -> Strip {
        let (left, right) = match self {
            Self::None => (false, false),
            Self::Phi3 => (false, !matches!(text, "<unk>" | "<s>" | "<|endoftext|>")),
            Self::Phi4 => (true, true),
            Self::Phi4Mini => (
                false,
                matches!(
                    text,
                    "<|system|>" | "<|user|>" | "<|assistant|>" | "<|end|>" | "<|tag|>"
                ),
            ),
        };
        Strip { left, right }
    }
}

//! The tokens at which generation ends.

use std::collections::BTreeSet;

use super::VocabError;
use super::table::{TokenType, Vocab};
use crate::gguf::Metadata;

/// Keys that name such a token.
pub(super) const KEYS: [&str; 3] = [
    "tokenizer.ggml.eos_token_id",
    "tokenizer.ggml.eot_token_id",
    "tokenizer.ggml.eom_token_id",
];

/// Names that are one wherever they are special tokens: files tend to name only one of several.
pub(super) const NAMES: [&str; 16] = [
    "</s>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|im_end|>",
    "<|end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|return|>",
    "<|call|>",
    "<end_of_turn>",
    // A model that fills in the middle emits these where the code to fill in is over.
    "<|fim_pad|>",
    "<|fim_rep|>",
    "<|repo_name|>",
    "<|fim_sep|>",
    "<|file_sep|>",
    "<|file_separator|>",
];

/// The tokens at which generation ends, ascending, of the vocabulary that `metadata` describes. It takes a
/// fraction of the time that building a tokenizer does.
///
/// # Errors
/// Missing or inconsistent keys.
pub fn end_tokens(metadata: &Metadata) -> Result<Vec<u32>, VocabError> {
    let vocab = &Vocab::from_metadata(metadata)?;
    tokens(metadata, vocab)
}

fn tokens(metadata: &Metadata, vocab: &Vocab<'_>) -> Result<Vec<u32>, VocabError> {
    let special = |ty| matches!(ty, TokenType::Control | TokenType::UserDefined);
    let named = |name: &str| {
        let found = vocab
            .iter()
            .find(|&(_, text, ty)| text == name && special(ty));
        found.map(|(id, _, _)| id)
    };
    // Where messages are sent by `<|return|>`, `<|end|>` only ends one of several in a turn.
    let ends_message = named("<|return|>").is_some();
    let mut ids: BTreeSet<u32> = vocab
        .iter()
        .filter(|&(_, text, ty)| special(ty) && NAMES.contains(&text))
        .filter(|&(_, text, _)| !(ends_message && text == "<|end|>"))
        .map(|(id, _, _)| id)
        .collect();
    for key in KEYS {
        ids.extend(vocab.id_at(metadata, key)?);
    }
    Ok(ids.into_iter().collect())
}

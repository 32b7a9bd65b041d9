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

/// Names that are one wherever they are control tokens: files tend to name only one of several.
///
/// `</s>` is none of them: where it ends a text a key says so, and in Gemma's vocabulary it is a tag of HTML.
pub(super) const NAMES: [&str; 20] = [
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    MESSAGE_END,
    "<|endoftext|>",
    "<end_of_turn>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|flush|>",
    "<|calls|>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<｜end▁of▁sentence｜>",
    "<end_of_utterance>",
    "<|return|>",
    "<|call|>",
    "<|end_of_text|>",
];

/// Ends a message, which is the end of the turn unless other tokens are.
const MESSAGE_END: &str = "<|end|>";

/// Tokens that end a turn of several messages.
const TURN_ENDS: [[&str; 2]; 2] = [["<|return|>", "<|call|>"], ["<|flush|>", "<|calls|>"]];

/// Keys that name what stands after code that was filled in: padding, the next repository, the next file.
const FILL_KEYS: [&str; 3] = [
    "tokenizer.ggml.fim_pad_token_id",
    "tokenizer.ggml.fim_rep_token_id",
    "tokenizer.ggml.fim_sep_token_id",
];

/// Names of the same tokens, for files without these keys.
const FILL_NAMES: [&str; 10] = [
    "<|fim_pad|>",
    "<fim-pad>",
    "<fim_pad>",
    "<PAD>",
    "<|fim_repo|>",
    "<|repo_name|>",
    "<fim-repo>",
    "<REPO>",
    "<reponame>",
    "<|file_sep|>",
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
    let control = || {
        vocab
            .iter()
            .filter(|&(_, _, ty)| ty == TokenType::Control)
            .map(|(id, text, _)| (id, text))
    };
    let mut ids: BTreeSet<u32> = control()
        .filter(|(_, text)| NAMES.contains(text) || FILL_NAMES.contains(text))
        .map(|(id, _)| id)
        .collect();
    for key in FILL_KEYS {
        let id = vocab.id_at(metadata, key)?;
        ids.extend(id.filter(|&id| vocab.types[id as usize] == TokenType::Control));
    }
    for key in KEYS {
        ids.extend(vocab.id_at(metadata, key)?);
    }
    let has = |name: &str| vocab.tokens.iter().any(|text| text == name);
    if TURN_ENDS
        .iter()
        .any(|names| names.iter().all(|name| has(name)))
    {
        ids.retain(|&id| vocab.tokens[id as usize] != MESSAGE_END);
    }
    Ok(ids.into_iter().collect())
}

#[cfg(test)]
mod tests;

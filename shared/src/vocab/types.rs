//! Token types of a file that does not say them.

use super::table::{TokenType, byte_token};
use super::{VocabError, end, table};
use crate::gguf::Metadata;

const UNKNOWN: &str = "tokenizer.ggml.unknown_token_id";
const BEGIN: &str = "tokenizer.ggml.bos_token_id";

/// The types of `tokens` without `tokenizer.ggml.token_type`: normal tokens, as the format has it,
/// but for those whose nature the file says otherwise. Those are the tokens that other keys call
/// begin, end or unknown, the well-known names of end tokens, and `<0xNN>`.
pub(super) fn without_key(
    metadata: &Metadata,
    tokens: &[String],
) -> Result<Vec<TokenType>, VocabError> {
    let by_text = |text: &String| match text.as_str() {
        text if byte_token(text).is_some() => TokenType::Byte,
        text if end::NAMES.contains(&text) => TokenType::Control,
        _ => TokenType::Normal,
    };
    let mut types: Vec<TokenType> = tokens.iter().map(by_text).collect();
    let control = end::KEYS.iter().chain([&BEGIN]);
    let named = control.map(|&key| (key, TokenType::Control));
    for (key, ty) in named.chain([(UNKNOWN, TokenType::Unknown)]) {
        if let Some(id) = table::id_at(metadata, key, tokens)? {
            types[id as usize] = ty;
        }
    }
    Ok(types)
}

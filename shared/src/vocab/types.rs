//! Token types of a file that does not say them, or says them wrong.

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

/// What a token of the text `text` is that the file types `ty`.
///
/// A control token typed as user-defined text, as careless converters have it, would neither end an answer nor be kept
/// out of clients' texts. So one that is called as only control tokens are is taken for one.
pub(super) fn as_meant(text: &str, ty: TokenType) -> TokenType {
    if ty == TokenType::UserDefined && looks_like_control(text) {
        return TokenType::Control;
    }
    ty
}

/// Whether `text` is `<|…|>`, with bars of either width, or one of the well-known names.
fn looks_like_control(text: &str) -> bool {
    let between = |start, end| text.starts_with(start) && text.ends_with(end);
    between("<|", "|>") || between("<｜", "｜>") || end::NAMES.contains(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_token_typed_as_text_is_one_by_its_name() {
        for name in ["<|im_start|>", "<|im_end|>", "<｜User｜>", "<end_of_turn>"] {
            assert_eq!(
                as_meant(name, TokenType::UserDefined),
                TokenType::Control,
                "{name}"
            );
            assert_eq!(
                as_meant(name, TokenType::Normal),
                TokenType::Normal,
                "{name}"
            );
        }
        for text in [
            "</s>",
            "<think>",
            "<tool_call>",
            "<table>",
            "[PAD1]",
            "<|",
            "|>",
        ] {
            let ty = as_meant(text, TokenType::UserDefined);
            assert_eq!(ty, TokenType::UserDefined, "{text}");
        }
    }
}

//! The tokens of a file: their texts, their types and the bytes they stand for.

use orcd_shared::gguf::Metadata;

use super::types;
use super::{TokenizerError, bytelevel};

const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";

/// What a token is for, by the numbers of `tokenizer.ggml.token_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenType {
    Normal,
    Unknown,
    /// Steers the model (`<|im_end|>`); never shown, and never taken from a user's text.
    Control,
    /// Atomic in any text, shown as it is (`<think>`).
    UserDefined,
    Unused,
    /// `<0x0A>`: one byte, for texts that no other token covers.
    Byte,
}

impl TokenType {
    fn from_number(id: usize, value: i32) -> Result<Self, TokenizerError> {
        Ok(match value {
            1 => Self::Normal,
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            5 => Self::Unused,
            6 => Self::Byte,
            _ => return Err(TokenizerError::TokenType { id, value }),
        })
    }
}

/// A file's tokens while the tokenizer is built.
pub(super) struct Vocab<'m> {
    pub(super) tokens: &'m [String],
    /// One per token.
    pub(super) types: Vec<TokenType>,
    /// Whether the file has no types, so that these are what its other keys say.
    pub(super) types_absent: bool,
}

impl<'m> Vocab<'m> {
    pub(super) fn from_metadata(metadata: &'m Metadata) -> Result<Self, TokenizerError> {
        let tokens = metadata.strings(TOKENS)?;
        if tokens.is_empty() {
            return Err(TokenizerError::NoTokens);
        }
        // Ids and offsets have 32 bits; a token has at least an entry, so this bounds both.
        let bytes = tokens
            .iter()
            .map(String::len)
            .sum::<usize>()
            .max(tokens.len());
        if u32::try_from(bytes).is_err() {
            return Err(TokenizerError::TooLarge { bytes });
        }
        let Some(numbers) = metadata.opt_i32s(TYPES)? else {
            return Ok(Self {
                tokens,
                types: types::without_key(metadata, tokens)?,
                types_absent: true,
            });
        };
        check_length(TYPES, numbers.len(), tokens)?;
        let types = numbers
            .iter()
            .enumerate()
            .map(|(id, &n)| TokenType::from_number(id, n));
        Ok(Self {
            tokens,
            types: types.collect::<Result<_, _>>()?,
            types_absent: false,
        })
    }

    /// Ids, texts and types.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &'m str, TokenType)> {
        (0u32..)
            .zip(self.tokens)
            .zip(&self.types)
            .map(|((id, text), &ty)| (id, text.as_str(), ty))
    }

    /// The token that the optional key `key` names.
    pub(super) fn id_at(
        &self,
        metadata: &Metadata,
        key: &'static str,
    ) -> Result<Option<u32>, TokenizerError> {
        id_at(metadata, key, self.tokens)
    }
}

/// The one of `tokens` that the optional key `key` names.
pub(super) fn id_at(
    metadata: &Metadata,
    key: &'static str,
    tokens: &[String],
) -> Result<Option<u32>, TokenizerError> {
    match metadata.opt_u32(key)? {
        Some(id) if id as usize >= tokens.len() => Err(TokenizerError::IdOutOfRange {
            key,
            id,
            tokens: tokens.len(),
        }),
        id => Ok(id),
    }
}

/// Fails unless a per-token array has one entry for each of `tokens`.
pub(super) fn check_length(
    key: &'static str,
    found: usize,
    tokens: &[String],
) -> Result<(), TokenizerError> {
    if found == tokens.len() {
        return Ok(());
    }
    Err(TokenizerError::Length {
        key,
        found,
        tokens: tokens.len(),
    })
}

/// The byte that a token `<0xNN>` stands for.
pub(super) fn byte_token(text: &str) -> Option<u8> {
    let hex = text.strip_prefix("<0x")?.strip_suffix('>')?;
    if hex.len() != 2 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    u8::from_str_radix(hex, 16).ok()
}

/// How normal tokens are written in the vocabulary.
#[derive(Clone, Copy)]
pub(super) enum Spelling {
    /// In the byte-level alphabet.
    ByteLevel,
    /// As text with U+2581 for the space.
    Underscore,
}

/// The bytes of every token, in one buffer.
pub(super) struct ByteTable {
    bytes: Box<[u8]>,
    /// Ends of the tokens in `bytes`; a token starts where the one in front of it ends.
    ends: Box<[u32]>,
}

impl ByteTable {
    pub(super) fn new(vocab: &Vocab<'_>, spelling: Spelling) -> Self {
        let mut bytes = Vec::new();
        let mut ends = Vec::with_capacity(vocab.tokens.len());
        for (_, text, ty) in vocab.iter() {
            match (ty, spelling) {
                (TokenType::Control | TokenType::Unknown, _) => {}
                (TokenType::UserDefined, _) => bytes.extend_from_slice(text.as_bytes()),
                (_, Spelling::ByteLevel) => bytelevel::read(text, &mut bytes),
                (ty, Spelling::Underscore) => match byte_token(text) {
                    Some(byte) if ty == TokenType::Byte => bytes.push(byte),
                    _ => bytes.extend_from_slice(text.replace('\u{2581}', " ").as_bytes()),
                },
            }
            // Never longer than the texts, whose sum `Vocab` has checked.
            ends.push(bytes.len() as u32);
        }
        Self {
            bytes: bytes.into(),
            ends: ends.into(),
        }
    }

    /// The bytes of token `id`; none for an id after the end.
    pub(super) fn get(&self, id: u32) -> &[u8] {
        let id = id as usize;
        let Some(&end) = self.ends.get(id) else {
            return &[];
        };
        let start = id.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start as usize..end as usize]
    }

    /// Number of tokens.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }
}

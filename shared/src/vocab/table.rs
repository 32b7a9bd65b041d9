//! The tokens of a file: their texts, their types and the bytes they stand for.

use super::{VocabError, bytelevel, types};
use crate::gguf::Metadata;

const MODEL: &str = "tokenizer.ggml.model";
const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";

/// What a token is for, by the numbers of `tokenizer.ggml.token_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenType {
    /// Text.
    Normal,
    /// Stands for what no other token covers.
    Unknown,
    /// Steers the model (`<|im_end|>`); never shown, and never taken from a user's text.
    Control,
    /// Atomic in any text, shown as it is (`<think>`).
    UserDefined,
    /// Text that the model was not trained on.
    Unused,
    /// `<0x0A>`: one byte, for texts that no other token covers.
    Byte,
}

impl TokenType {
    fn from_number(id: usize, value: i32) -> Result<Self, VocabError> {
        Ok(match value {
            1 => Self::Normal,
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            5 => Self::Unused,
            6 => Self::Byte,
            _ => return Err(VocabError::TokenType { id, value }),
        })
    }
}

/// A file's tokens, borrowed from its metadata.
#[derive(Debug)]
pub struct Vocab<'m> {
    /// Their texts, by id; at least one.
    pub tokens: &'m [String],
    /// One per token.
    pub types: Vec<TokenType>,
    /// Whether the file has no types, so that these are what its other keys say.
    pub types_absent: bool,
}

impl<'m> Vocab<'m> {
    /// Reads the tokens and their types.
    ///
    /// # Errors
    /// Missing or inconsistent keys.
    pub fn from_metadata(metadata: &'m Metadata) -> Result<Self, VocabError> {
        let tokens = metadata.strings(TOKENS)?;
        if tokens.is_empty() {
            return Err(VocabError::NoTokens);
        }
        // Ids and offsets have 32 bits; a token has at least an entry, so this bounds both.
        let bytes = tokens
            .iter()
            .map(String::len)
            .sum::<usize>()
            .max(tokens.len());
        if u32::try_from(bytes).is_err() {
            return Err(VocabError::TooLarge { bytes });
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
            .zip(tokens)
            .enumerate()
            .map(|(id, (&n, text))| {
                let ty = TokenType::from_number(id, n)?;
                Ok::<_, VocabError>(types::as_meant(text, ty))
            });
        Ok(Self {
            tokens,
            types: types.collect::<Result<_, _>>()?,
            types_absent: false,
        })
    }

    /// Ids, texts and types.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &'m str, TokenType)> {
        (0u32..)
            .zip(self.tokens)
            .zip(&self.types)
            .map(|((id, text), &ty)| (id, text.as_str(), ty))
    }

    /// The token that the optional key `key` names.
    ///
    /// # Errors
    /// It names none of the vocabulary.
    pub fn id_at(&self, metadata: &Metadata, key: &'static str) -> Result<Option<u32>, VocabError> {
        id_at(metadata, key, self.tokens)
    }
}

/// The one of `tokens` that the optional key `key` names.
pub(super) fn id_at(
    metadata: &Metadata,
    key: &'static str,
    tokens: &[String],
) -> Result<Option<u32>, VocabError> {
    match metadata.opt_u32(key)? {
        Some(id) if id as usize >= tokens.len() => Err(VocabError::IdOutOfRange {
            key,
            id,
            tokens: tokens.len(),
        }),
        id => Ok(id),
    }
}

/// Fails unless a per-token array has one entry for each of `tokens`.
///
/// # Errors
/// It has `found` entries, which is another number.
pub fn check_length(key: &'static str, found: usize, tokens: &[String]) -> Result<(), VocabError> {
    if found == tokens.len() {
        return Ok(());
    }
    Err(VocabError::Length {
        key,
        found,
        tokens: tokens.len(),
    })
}

/// The byte that a token `<0xNN>` stands for.
#[must_use]
pub fn byte_token(text: &str) -> Option<u8> {
    let hex = text.strip_prefix("<0x")?.strip_suffix('>')?;
    if hex.len() != 2 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    u8::from_str_radix(hex, 16).ok()
}

/// How normal tokens are written in the vocabulary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spelling {
    /// In the byte-level alphabet.
    ByteLevel,
    /// As text with U+2581 for the space.
    Underscore,
}

impl Spelling {
    /// That of the kind of vocabulary that `tokenizer.ggml.model` names.
    ///
    /// # Errors
    /// The key is missing, or names a kind that is not known.
    pub fn of(metadata: &Metadata) -> Result<Self, VocabError> {
        match metadata.str(MODEL)? {
            "gpt2" => Ok(Self::ByteLevel),
            "llama" => Ok(Self::Underscore),
            model => Err(VocabError::UnknownModel {
                model: model.to_owned(),
            }),
        }
    }
}

/// The bytes of every token, in one buffer: none for control tokens.
#[derive(Debug)]
pub struct TokenBytes {
    bytes: Box<[u8]>,
    /// Ends of the tokens in `bytes`; a token starts where the one in front of it ends.
    ends: Box<[u32]>,
}

impl TokenBytes {
    /// Of the vocabulary that `metadata` describes.
    ///
    /// # Errors
    /// Missing or inconsistent keys.
    pub fn of(metadata: &Metadata) -> Result<Self, VocabError> {
        let spelling = Spelling::of(metadata)?;
        Ok(Self::new(&Vocab::from_metadata(metadata)?, spelling))
    }

    /// Of `vocab`, written as `spelling` says.
    #[must_use]
    pub fn new(vocab: &Vocab<'_>, spelling: Spelling) -> Self {
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
    #[must_use]
    pub fn get(&self, id: u32) -> &[u8] {
        let id = id as usize;
        let Some(&end) = self.ends.get(id) else {
            return &[];
        };
        let start = id.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start as usize..end as usize]
    }

    /// Number of tokens.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none, which no [`Vocab`] allows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }
}

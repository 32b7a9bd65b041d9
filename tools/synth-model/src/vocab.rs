//! The vocabulary of a file: read from another GGUF, or built in.

use std::path::Path;

use orcd_shared::gguf::{Array, GgufFile, Metadata, Value};

use crate::shape::Shape;
use crate::{SynthError, builtin};

/// GGUF's token types.
pub(crate) mod token_type {
    pub(crate) const NORMAL: i32 = 1;
    pub(crate) const CONTROL: i32 = 3;
    pub(crate) const USER_DEFINED: i32 = 4;
    pub(crate) const UNUSED: i32 = 5;
    pub(crate) const BYTE: i32 = 6;
}

/// Id of the first special token of Qwen2.5.
const FIRST_SPECIAL: usize = 151_643;
/// The special tokens of Qwen2.5. Those up to the video padding are control tokens.
const SPECIALS: [&str; 22] = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<tool_call>",
    "</tool_call>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
];
/// How many of them are control tokens.
const CONTROLS: usize = 14;
/// Qwen2.5-Instruct ends a turn with `<|im_end|>` and pads with `<|endoftext|>`.
const REFERENCE_EOS: u32 = 151_645;

/// The keys that are taken over, in the order in which they are written.
const KEYS: [&str; 15] = [
    "model",
    "pre",
    "tokens",
    "scores",
    "token_type",
    "merges",
    "eos_token_id",
    "unknown_token_id",
    "padding_token_id",
    "bos_token_id",
    "add_bos_token",
    "add_eos_token",
    "add_space_prefix",
    "precompiled_charsmap",
    "remove_extra_whitespaces",
];

/// A tokenizer's tables.
#[derive(Clone, Debug)]
pub struct Vocab {
    pub(crate) tokens: Vec<String>,
    /// GGUF's token types, as many as there are tokens.
    pub(crate) types: Vec<i32>,
    /// The other values by their key after `tokenizer.ggml.`.
    pub(crate) other: Vec<(&'static str, Value)>,
    /// The chat template that came with it.
    pub(crate) template: Option<String>,
}

impl Vocab {
    /// Reads the vocabulary of a GGUF file.
    ///
    /// # Errors
    /// Faults of the file, and [`MissingKey`](orcd_shared::gguf::GgufError::MissingKey) where it
    /// has no vocabulary.
    pub fn read(path: &Path) -> Result<Vocab, SynthError> {
        let file = GgufFile::open(path)?;
        let from = &file.header().metadata;
        let tokens = from.strings("tokenizer.ggml.tokens")?.to_vec();
        let mut types = from
            .opt_i32s("tokenizer.ggml.token_type")?
            .unwrap_or_default();
        types.resize(tokens.len(), token_type::NORMAL);
        let taken = |&key: &&'static str| {
            if matches!(key, "tokens" | "token_type") {
                return None;
            }
            from.get(&full_key(key)).map(|value| (key, value.clone()))
        };
        let other = KEYS.iter().filter_map(taken).collect();
        let template = from.opt_str("tokenizer.chat_template")?.map(str::to_owned);
        Ok(Vocab {
            tokens,
            types,
            other,
            template,
        })
    }

    /// A byte-level vocabulary of the shape's size: every byte, a few merges, made-up words, and
    /// the special tokens of ChatML, with a ChatML template.
    ///
    /// # Errors
    /// [`SynthError::VocabTooSmall`].
    pub fn builtin(shape: &Shape) -> Result<Vocab, SynthError> {
        builtin::vocab(shape)
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there are no tokens.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Checks the size and, for the reference shape, names the special tokens: the vocabulary
    /// files in circulation have placeholders for most of them.
    pub(crate) fn adapt(&mut self, shape: &Shape) -> Result<(), SynthError> {
        if !shape.reference_vocab {
            return Ok(());
        }
        if self.len() != shape.vocab_size {
            let (shape, wanted) = (shape.name.clone(), shape.vocab_size);
            return Err(SynthError::VocabSize {
                shape,
                wanted,
                found: self.len(),
            });
        }
        for (id, token) in (FIRST_SPECIAL..).zip(SPECIALS) {
            self.tokens[id] = token.to_owned();
            let control = id - FIRST_SPECIAL < CONTROLS;
            let ty = if control {
                token_type::CONTROL
            } else {
                token_type::USER_DEFINED
            };
            self.types[id] = ty;
        }
        for id in FIRST_SPECIAL + SPECIALS.len()..self.len() {
            self.tokens[id] = format!("[PAD{id}]");
            self.types[id] = token_type::UNUSED;
        }
        self.set("eos_token_id", Value::U32(REFERENCE_EOS));
        self.set("padding_token_id", Value::U32(FIRST_SPECIAL as u32));
        self.set("bos_token_id", Value::U32(FIRST_SPECIAL as u32));
        self.set("add_bos_token", Value::Bool(false));
        Ok(())
    }

    fn set(&mut self, key: &'static str, value: Value) {
        self.other.retain(|(k, _)| *k != key);
        self.other.push((key, value));
    }

    /// For each token whether it is anything but text.
    pub(crate) fn rare(&self) -> Vec<bool> {
        let text = [token_type::NORMAL, token_type::BYTE];
        self.types.iter().map(|ty| !text.contains(ty)).collect()
    }

    /// Appends the tokenizer's keys.
    pub(crate) fn write(&self, to: &mut Metadata) -> Result<(), SynthError> {
        for key in KEYS {
            let value = match key {
                "tokens" => Some(Value::Array(Array::String(self.tokens.clone()))),
                "token_type" => Some(Value::Array(Array::I32(self.types.clone()))),
                _ => self
                    .other
                    .iter()
                    .find(|(k, _)| *k == key)
                    .map(|(_, v)| v.clone()),
            };
            if let Some(value) = value {
                to.insert(full_key(key), value)?;
            }
        }
        Ok(())
    }
}

fn full_key(key: &str) -> String {
    format!("tokenizer.ggml.{key}")
}

//! Text to token ids and back, as the model's file defines it.
//!
//! Two kinds of vocabularies are known: byte-level BPE (`tokenizer.ggml.model` = `gpt2`) and
//! SentencePiece (`llama`). Where the model's tokenizer.json brings texts into Unicode's composed
//! form first, that happens here too, between special tokens; a file does not say it, the name of
//! its pre-tokenizer does. Every other text comes back as it was. Encoding takes time proportional to the text, or
//! n log n within a piece, whatever the text is; it is still work of milliseconds for long prompts
//! and belongs on a blocking thread.

mod bpe;
mod error;
mod normalize;
mod notes;
mod pre;
mod specials;
mod spm;
mod strip;

use std::borrow::Cow;
use std::fmt;

use orcd_shared::gguf::Metadata;
use orcd_shared::vocab::{Spelling, TokenBytes, Vocab};

use bpe::Bpe;
pub use error::TokenizerError;
pub use pre::{PreTokenizerName, UnknownPreTokenizer};
pub use specials::Specials;
use specials::{Segment, SpecialTokens};
use spm::Spm;
use strip::Strips;

use super::guard::GuardedText;

/// Which kind of vocabulary a tokenizer has, by the names that `/health` reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenizerKind {
    /// Byte-level BPE from a GGUF file.
    GgufBpe,
    /// SentencePiece from a GGUF file.
    GgufSpm,
}

impl TokenizerKind {
    /// `gguf-bpe` or `gguf-spm`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::GgufBpe => "gguf-bpe",
            Self::GgufSpm => "gguf-spm",
        }
    }
}

enum Model {
    Bpe(Box<Bpe>),
    Spm(Spm),
}

/// A model's tokenizer. It keeps nothing borrowed from the file's metadata.
pub struct Tokenizer {
    model: Model,
    specials: SpecialTokens,
    bytes: TokenBytes,
    /// Id and name, if the file has one.
    bos: Option<(u32, Box<str>)>,
    /// Id and name, if the file has one.
    eos: Option<(u32, Box<str>)>,
    /// Whether prompts start with `bos`.
    add_bos: bool,
    notes: Vec<String>,
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer")
            .field("kind", &self.kind())
            .field("vocab_size", &self.vocab_size())
            .finish_non_exhaustive()
    }
}

impl Tokenizer {
    /// Builds the tokenizer that the keys `tokenizer.ggml.*` describe.
    ///
    /// # Errors
    /// Missing or inconsistent keys, and kinds of tokenizers that are not implemented, by name.
    pub fn from_metadata(metadata: &Metadata) -> Result<Self, TokenizerError> {
        Self::with_pre_tokenizer(metadata, None)
    }

    /// As [`from_metadata`](Self::from_metadata), with `pre_tokenizer` in place of the one that the file names.
    ///
    /// # Errors
    /// As there.
    pub fn with_pre_tokenizer(
        metadata: &Metadata,
        pre_tokenizer: Option<PreTokenizerName>,
    ) -> Result<Self, TokenizerError> {
        let spelling = Spelling::of(metadata)?;
        let vocab = Vocab::from_metadata(metadata)?;
        let (model, add_bos) = match spelling {
            Spelling::ByteLevel => {
                let bpe = Bpe::new(metadata, &vocab, pre_tokenizer)?;
                let add_bos = bpe.pre.rules.add_bos;
                (Model::Bpe(Box::new(bpe)), add_bos)
            }
            Spelling::Underscore => (Model::Spm(Spm::new(metadata, &vocab)?), true),
        };
        let named = |key| -> Result<Option<(u32, Box<str>)>, TokenizerError> {
            let id = vocab.id_at(metadata, key)?;
            Ok(id.map(|id| (id, vocab.tokens[id as usize].as_str().into())))
        };
        let eos = named("tokenizer.ggml.eos_token_id")?;
        Ok(Self {
            bos: named("tokenizer.ggml.bos_token_id")?,
            add_bos: metadata
                .opt_bool("tokenizer.ggml.add_bos_token")?
                .unwrap_or(add_bos),
            specials: SpecialTokens::new(&vocab, Strips::of(metadata, &model)?)?,
            bytes: TokenBytes::new(&vocab, spelling),
            notes: notes::of(metadata, &vocab, &model, pre_tokenizer),
            eos,
            model,
        })
    }

    /// The ids of `text` alone: no begin-of-sequence token is put in front.
    ///
    /// # Errors
    /// Only if the byte-pair model fails, which no text is known to cause.
    pub fn encode(&self, text: &str, specials: Specials) -> Result<Vec<u32>, TokenizerError> {
        self.encode_segments(text, specials, None)
    }

    /// The ids of a prompt: special tokens are parsed, except where `prompt` guards them, and the
    /// begin-of-sequence token stands in front if the file wants it, once.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn encode_prompt(&self, prompt: &GuardedText) -> Result<Vec<u32>, TokenizerError> {
        let mut ids = self.encode_segments(prompt.as_str(), Specials::Parse, prompt.guard())?;
        match self.bos {
            Some((bos, _)) if self.add_bos && ids.first() != Some(&bos) => ids.insert(0, bos),
            _ => {}
        }
        Ok(ids)
    }

    /// Cuts at special tokens, drops `guard` from the rest and encodes it.
    fn encode_segments(
        &self,
        text: &str,
        specials: Specials,
        guard: Option<char>,
    ) -> Result<Vec<u32>, TokenizerError> {
        let mut ids = Vec::with_capacity(text.len() / 3 + 1);
        let mut first = true;
        for segment in self.specials.split(text, specials) {
            match segment {
                Segment::Token(id) => ids.push(id),
                Segment::Text(text) => {
                    let text = match guard {
                        Some(guard) => Cow::Owned(text.replace(guard, "")),
                        None => Cow::Borrowed(text),
                    };
                    match &self.model {
                        Model::Bpe(bpe) => bpe.encode(&text, &mut ids)?,
                        Model::Spm(spm) => spm.encode(&text, first, &mut ids),
                    }
                }
            }
            first = matches!(segment, Segment::Token(_));
        }
        Ok(ids)
    }

    /// The bytes that a token adds to the output: none for control tokens and for ids after the
    /// end of the vocabulary. They need not be valid UTF-8 on their own.
    pub fn token_bytes(&self, id: u32) -> &[u8] {
        self.bytes.get(id)
    }

    /// The bytes of a whole text: of the tokens one after another, without the space that a
    /// SentencePiece vocabulary puts in front of texts. Output that goes on after a prompt is
    /// put together from [`token_bytes`](Self::token_bytes) instead, and keeps that space.
    pub fn decode(&self, ids: &[u32]) -> Vec<u8> {
        let mut bytes = Vec::from_iter(ids.iter().flat_map(|&id| self.token_bytes(id)).copied());
        let prefixed = matches!(&self.model, Model::Spm(spm) if spm.space_prefix);
        if prefixed && bytes.first() == Some(&b' ') {
            bytes.remove(0);
        }
        bytes
    }

    /// What the file leaves open or lacks and what was taken for it, a sentence each, for the log.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Number of tokens.
    pub fn vocab_size(&self) -> usize {
        self.bytes.len()
    }

    /// The kind of vocabulary.
    pub fn kind(&self) -> TokenizerKind {
        match self.model {
            Model::Bpe(_) => TokenizerKind::GgufBpe,
            Model::Spm(_) => TokenizerKind::GgufSpm,
        }
    }

    /// The begin-of-sequence token.
    pub fn bos(&self) -> Option<u32> {
        self.bos.as_ref().map(|&(id, _)| id)
    }

    /// The end-of-sequence token.
    pub fn eos(&self) -> Option<u32> {
        self.eos.as_ref().map(|&(id, _)| id)
    }

    /// The name of the begin-of-sequence token, empty if there is none.
    pub fn bos_text(&self) -> &str {
        self.bos.as_ref().map_or("", |(_, text)| text)
    }

    /// The name of the end-of-sequence token, empty if there is none.
    pub fn eos_text(&self) -> &str {
        self.eos.as_ref().map_or("", |(_, text)| text)
    }

    pub(super) fn special_tokens(&self) -> &SpecialTokens {
        &self.specials
    }
}

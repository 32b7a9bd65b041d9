//! The supervisor's view of the model file: its name and its text side, read from the header once. The
//! tensors are the worker's business. [`crate::worker::model_file`] is what holds the file open, so that
//! later workers load the same one.

use std::fmt;
use std::path::{Path, PathBuf};

use orcd_shared::gguf::{GgufError, GgufFile, Metadata};
use orcd_shared::sampling::{SamplingParams, numbers};
use orcd_shared::vocab::end_tokens;

use crate::text::{TemplateStatus, TextError, TextModel, TextOverrides, TokenizerError};

const NAME_KEY: &str = "general.name";
/// Longest name taken from a file.
const MAX_NAME_CHARS: usize = 200;

/// Why a model can't be served.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The file is no sound GGUF file. Its messages name the key or tensor and the offset.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: GgufError,
    },
    /// There is no file, or it can't be read; the message names it.
    #[error(transparent)]
    Unreadable(GgufError),
    /// Its tokenizer or chat template can't be used.
    #[error("{}: {source}", path.display())]
    Text {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: TextError,
    },
}

/// A model as far as text goes.
pub struct Model {
    name: String,
    vocab_size: u32,
    recommended: SamplingParams,
    end_tokens: Vec<u32>,
    text: TextModel,
}

/// An open model file: what a worker is to know of it, and what a [`Model`] is made of.
#[derive(Debug)]
pub struct ModelHeader {
    file: GgufFile,
    end_tokens: Vec<u32>,
}

impl ModelHeader {
    /// Reads the file's header.
    ///
    /// # Errors
    /// [`ModelError`], with the file and the place in it.
    pub fn read(path: &Path) -> Result<Self, ModelError> {
        let damaged = |source| ModelError::File {
            path: path.to_owned(),
            source,
        };
        let file = GgufFile::open(path).map_err(|source| match source {
            GgufError::Io { .. } | GgufError::NotAFile { .. } | GgufError::Empty { .. } => {
                ModelError::Unreadable(source)
            }
            _ => damaged(source),
        })?;
        let end_tokens = end_tokens(&file.header().metadata);
        let end_tokens = end_tokens.map_err(|error| ModelError::Text {
            path: path.to_owned(),
            source: TokenizerError::from(error).into(),
        })?;
        Ok(Self { file, end_tokens })
    }

    /// The tokens at which generation ends.
    #[must_use]
    pub fn end_tokens(&self) -> &[u32] {
        &self.end_tokens
    }

    /// Builds the tokenizer and the chat template, with `overrides` in place of what the file says; what there is to be
    /// said of them, [`Model::warnings`] has. Takes up to a second for large vocabularies.
    ///
    /// # Errors
    /// [`ModelError::Text`].
    pub fn build(&self, overrides: &TextOverrides) -> Result<Model, ModelError> {
        let path = self.file.path();
        let file_name = path.file_stem().unwrap_or_default().to_string_lossy();
        let metadata = &self.file.header().metadata;
        TextModel::with_overrides(metadata, overrides)
            .and_then(|text| Model::with_text(text, metadata, &file_name))
            .map_err(|source| ModelError::Text {
                path: path.to_owned(),
                source,
            })
    }
}

impl Model {
    /// The model that `metadata` describes, named `fallback` if the metadata has no name.
    ///
    /// # Errors
    /// The tokenizer or the chat template can't be used.
    pub fn from_metadata(metadata: &Metadata, fallback: &str) -> Result<Self, TextError> {
        Self::with_text(TextModel::from_metadata(metadata)?, metadata, fallback)
    }

    fn with_text(text: TextModel, metadata: &Metadata, fallback: &str) -> Result<Self, TextError> {
        let named = metadata
            .opt_str(NAME_KEY)?
            .map(str::trim)
            .filter(|name| !name.is_empty());
        let name = named
            .unwrap_or(fallback)
            .chars()
            .take(MAX_NAME_CHARS)
            .collect();
        let vocab_size = u32::try_from(text.tokenizer().vocab_size()).unwrap_or(u32::MAX);
        Ok(Self {
            name,
            vocab_size,
            recommended: recommended(metadata),
            end_tokens: end_tokens(metadata).map_err(TokenizerError::from)?,
            text,
        })
    }

    /// What requests will meet: what the file leaves open, and a template that fails; a sentence each.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = self.text.tokenizer().notes().to_vec();
        if let TemplateStatus::Error(reason) = self.text.template_status() {
            warnings.push(format!(
                "{reason}; requests with messages will fail, raw prompts (\"template\": false) \
                 work; give another template with --chat-template FILE"
            ));
        }
        warnings
    }

    /// What the file calls the model, or the file's own name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The sampling that the file recommends, beside what it says nothing of.
    #[must_use]
    pub fn recommended_sampling(&self) -> SamplingParams {
        self.recommended
    }

    /// Tokens in the vocabulary.
    #[must_use]
    pub fn vocab_size(&self) -> u32 {
        self.vocab_size
    }

    /// The tokens at which generation ends.
    #[must_use]
    pub fn end_tokens(&self) -> &[u32] {
        &self.end_tokens
    }

    /// `gguf-bpe`, `gguf-spm`.
    #[must_use]
    pub fn tokenizer_kind(&self) -> &'static str {
        self.text.tokenizer().kind().as_str()
    }

    /// Prompts to tokens, tokens to output.
    #[must_use]
    pub fn text(&self) -> &TextModel {
        &self.text
    }
}

/// What the keys `general.sampling.*` say, as GGUF names them. What is out of bounds is passed over.
fn recommended(metadata: &Metadata) -> SamplingParams {
    let mut params = SamplingParams::defaults();
    for (name, bounds, field) in numbers() {
        let key = match name {
            "temperature" => "general.sampling.temp",
            "top_p" => "general.sampling.top_p",
            "min_p" => "general.sampling.min_p",
            "repetition_penalty" => "general.sampling.penalty_repeat",
            _ => continue,
        };
        let value = metadata.opt_f32(key).ok().flatten();
        match value.map(|value| bounds.engine_value(value.into())) {
            Some(Some(value)) => *field(&mut params) = value,
            Some(None) => tracing::warn!(
                "{key} is out of bounds, {}; it is passed over",
                bounds.rule(name)
            ),
            None => {}
        }
    }
    let top_k = metadata.opt_u32("general.sampling.top_k").ok().flatten();
    params.top_k = top_k.unwrap_or(params.top_k);
    params
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

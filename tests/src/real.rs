//! Real models: weights that others trained, fetched by `make real-models` (its script names where they come from).

use std::env;
use std::path::PathBuf;

use crate::model::Model;
use crate::paths;
use crate::report;

/// A real model that some tests run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RealModel {
    /// Qwen2.5-Coder-0.5B-Instruct Q4_K_M: the reference model's sibling, of the same shape, types and tokenizer.
    Coder,
    /// SmolLM2-135M-Instruct Q4_1: architecture `llama`, pre-tokenizer `smollm`.
    Smol,
    /// Qwen2.5-0.5B-Instruct Q4_K_M as published, the reference model (`make fetch-reference`).
    Reference,
}

impl RealModel {
    /// The name of its file.
    pub fn file_name(self) -> &'static str {
        match self {
            Self::Coder => "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
            Self::Smol => "SmolLM2-135M-Instruct.Q4_1.gguf",
            Self::Reference => "qwen/qwen2.5-0.5b-instruct-q4_k_m.gguf",
        }
    }

    /// The model, or `None` and a line SKIPPED with the reason.
    ///
    /// # Panics
    /// With `CI=true` if the file is missing and nothing says that it could not be had. The reference model alone may
    /// be missing without a word: its host is no package index.
    #[track_caller]
    pub fn get(self) -> Option<Model> {
        let path = paths::real_models().join(self.file_name());
        if path.is_file() {
            return Some(Model::File(path));
        }
        let note = PathBuf::from(format!("{}.missing", path.display()));
        let reason = std::fs::read_to_string(note).ok();
        let in_ci = env::var("CI").is_ok_and(|value| value == "true");
        assert!(
            !in_ci || reason.is_some() || self == Self::Reference,
            "{} is not here, and nothing says why; make real-models comes before the tests",
            path.display()
        );
        let reason = reason
            .as_deref()
            .map_or("make real-models gets it", str::trim);
        report::skipped(&format!("{} is not here: {reason}", path.display()));
        None
    }
}

//! How a chat template can fail.

use std::error::Error as _;

/// What is wrong with a chat template, or with messages given to it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// The template is no valid Jinja: the model cannot be served with it.
    #[error("the model's chat template does not compile: {0}")]
    Compile(String),
    /// The template rejects these messages, in its own words (`raise_exception`).
    #[error("the model's chat template refuses the messages: {0}")]
    Refused(String),
    /// The template failed on these messages, or exceeded its budget.
    #[error("the model's chat template failed: {0}")]
    Render(String),
}

impl TemplateError {
    pub(super) fn compile(error: &minijinja::Error) -> Self {
        Self::Compile(error.to_string())
    }

    pub(super) fn render(error: &minijinja::Error) -> Self {
        let mut cause = error.source();
        while let Some(source) = cause {
            if let Some(Refusal(reason)) = source.downcast_ref() {
                return Self::Refused(reason.clone());
            }
            cause = source.source();
        }
        Self::Render(error.to_string())
    }
}

/// What `raise_exception` was called with; travels as the source of the engine's error.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Refusal(pub(super) String);

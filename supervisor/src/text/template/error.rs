//! How a chat template can fail.

use std::error::Error as _;

/// What is wrong with a chat template, or with messages given to it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// The template is no valid Jinja.
    #[error("the model's chat template does not compile: {0}")]
    Compile(String),
    /// The template rejects these messages, in its own words (`raise_exception`).
    #[error("the model's chat template refuses the messages: {0}")]
    Refused(String),
    /// These messages make the template do more than it may.
    #[error("the messages are too much for the model's chat template: {0}")]
    Budget(String),
    /// The template itself fails: it has something that is not supported, or a fault.
    #[error("the model's chat template failed: {0}")]
    Render(String),
    /// The template is longer than is read.
    #[error("the chat template has {bytes} bytes, more than the {max} supported")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// The bound.
        max: usize,
    },
}

impl TemplateError {
    pub(super) fn compile(error: &minijinja::Error) -> Self {
        Self::Compile(error.to_string())
    }

    pub(super) fn render(error: &minijinja::Error) -> Self {
        let mut cause = error.source();
        while let Some(source) = cause {
            if let Some(Rejection(reason)) = source.downcast_ref() {
                return Self::Refused(reason.clone());
            }
            cause = source.source();
        }
        if error.kind() == minijinja::ErrorKind::OutOfFuel {
            return Self::Budget(error.to_string());
        }
        Self::Render(error.to_string())
    }
}

/// What `raise_exception` was called with; travels as the source of the engine's error.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Rejection(pub(super) String);

//! OpenAI's routes.

pub(super) mod chat_completions;
pub(super) mod completions;
pub(super) mod models;
pub(super) mod responses;

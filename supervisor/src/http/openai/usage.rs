//! How many tokens a request took.

use serde::Serialize;

/// The counts of one request.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(super) struct Usage {
    pub(super) prompt_tokens: u64,
    pub(super) completion_tokens: u64,
    total_tokens: u64,
    prompt_tokens_details: PromptTokens,
}

#[derive(Debug, Clone, Copy, Default, Serialize)]
struct PromptTokens {
    cached_tokens: u64,
}

impl Usage {
    /// Counts a prompt, once for all choices that share it.
    pub(super) fn add_prompt(&mut self, tokens: u32) {
        self.prompt_tokens += u64::from(tokens);
        self.total_tokens += u64::from(tokens);
    }

    /// Counts what was kept of a prompt when the first of its choices began. The prompt is counted once, and what the
    /// others find is mostly the first one's.
    pub(super) fn add_cached(&mut self, tokens: u32) {
        self.prompt_tokens_details.cached_tokens += u64::from(tokens);
    }

    /// Counts a choice's output.
    pub(super) fn add_output(&mut self, tokens: u32) {
        self.completion_tokens += u64::from(tokens);
        self.total_tokens += u64::from(tokens);
    }
}

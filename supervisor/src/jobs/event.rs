//! What readers of a job's stream get.

use orcd_shared::error::ErrorCode;

/// What a reader of a job's stream gets.
#[derive(Debug, Clone, PartialEq)]
pub enum JobEvent {
    /// The job was given to the worker for the first time.
    Started {
        /// Wall clock, for people.
        started_at: jiff::Timestamp,
        /// Tokens of the prompt.
        prompt_tokens: u32,
        /// The seed in use.
        seed: u64,
    },
    /// One generated token.
    Token {
        /// Text that became certain with it; may be empty.
        text: String,
        /// Index among generated tokens, from 0 without a gap.
        index: u32,
        /// Token id.
        id: u32,
    },
    /// Last event of a job that ended by itself.
    End {
        /// Number of token events.
        tokens_out: u32,
        /// First to last token, milliseconds.
        decode_time_ms: u64,
        /// Time the engine spent in the steps that drew these tokens, microseconds.
        engine_time_us: u64,
        /// Why it ended.
        stop: StopReason,
        /// How often it was replayed after a crash.
        replays: u32,
    },
    /// Last event of a job that could not go on.
    Error {
        /// Contract code.
        code: ErrorCode,
        /// What failed and what to do.
        message: String,
        /// Number of token events before it.
        tokens_out: u32,
    },
}

/// Why a job ended by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StopReason {
    /// End-of-generation token (not itself a token event).
    Eos,
    /// `max_tokens` reached.
    MaxTokens,
    /// One of the stop sequences appeared.
    StopSequence(String),
    /// No room left in the context.
    ContextFull,
}

/// An event with its SSE id.
#[derive(Debug, Clone, PartialEq)]
pub struct Numbered {
    /// Running from 0.
    pub id: u64,
    /// What happened.
    pub event: JobEvent,
}

impl JobEvent {
    /// Nothing comes after it.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        matches!(self, Self::End { .. } | Self::Error { .. })
    }
}

impl Numbered {
    /// Bytes of memory that it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let text = match &self.event {
            JobEvent::Token { text, .. } => text.capacity(),
            JobEvent::Error { message, .. } => message.capacity(),
            JobEvent::End {
                stop: StopReason::StopSequence(text),
                ..
            } => text.capacity(),
            JobEvent::Started { .. } | JobEvent::End { .. } => 0,
        };
        size_of::<Self>() + text
    }
}

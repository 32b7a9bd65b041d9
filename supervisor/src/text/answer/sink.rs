//! Makes pieces of what the machines find.

use super::MAX_HELD;

/// A part of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Text for the reader.
    Content(String),
    /// Text of the reasoning before the answer.
    Reasoning(String),
    /// A tool call begins.
    ToolCall {
        /// Counts the calls of the answer from 0.
        index: u32,
        /// Of the function.
        name: String,
    },
    /// A part of a call's arguments, which together are JSON if the model wrote JSON.
    Arguments {
        /// Of the call.
        index: u32,
        /// Never empty.
        text: String,
    },
}

/// Where the machines put what they have decided.
#[derive(Clone, Debug)]
pub(super) struct Sink {
    /// What the current push has completed.
    pub(super) pieces: Vec<Piece>,
    /// Calls begun.
    pub(super) calls: u32,
    /// Whether white space at the end of content waits: a call may follow, and drops it.
    waits: bool,
    /// White space at the end of content, its last [`MAX_HELD`] bytes.
    space: String,
    /// Whether white space is dropped until other content comes.
    skips: bool,
}

impl Sink {
    pub(super) fn new(waits: bool) -> Self {
        Self {
            pieces: Vec::new(),
            calls: 0,
            waits,
            space: String::new(),
            skips: false,
        }
    }

    pub(super) fn content(&mut self, text: &str) {
        let text = if self.skips { text.trim_start() } else { text };
        if text.is_empty() {
            return;
        }
        self.skips = false;
        let settled = if self.waits { text.trim_end() } else { text };
        if !settled.is_empty() {
            self.flush();
            self.append_content(settled);
        }
        self.space.push_str(&text[settled.len()..]);
        self.release_excess();
    }

    pub(super) fn reasoning(&mut self, text: &str) {
        if let Some(Piece::Reasoning(last)) = self.pieces.last_mut() {
            last.push_str(text);
        } else if !text.is_empty() {
            self.pieces.push(Piece::Reasoning(text.to_owned()));
        }
    }

    /// Begins a call. White space before it and after it is no content.
    pub(super) fn begin_call(&mut self, name: String) {
        self.space.clear();
        self.skips = true;
        self.pieces.push(Piece::ToolCall {
            index: self.calls,
            name,
        });
        self.calls += 1;
    }

    /// Adds to the arguments of the call begun last.
    pub(super) fn arguments(&mut self, more: &str) {
        if let Some(Piece::Arguments { text, .. }) = self.pieces.last_mut() {
            text.push_str(more);
        } else if !more.is_empty() {
            self.pieces.push(Piece::Arguments {
                index: self.calls.saturating_sub(1),
                text: more.to_owned(),
            });
        }
    }

    /// Drops white space until other content comes.
    pub(super) fn skip_space(&mut self) {
        self.skips = true;
    }

    /// The white space that waits is content.
    pub(super) fn flush(&mut self) {
        let space = std::mem::take(&mut self.space);
        self.append_content(&space);
    }

    fn append_content(&mut self, text: &str) {
        if let Some(Piece::Content(last)) = self.pieces.last_mut() {
            last.push_str(text);
        } else if !text.is_empty() {
            self.pieces.push(Piece::Content(text.to_owned()));
        }
    }

    /// Lets go of the beginning of overlong white space. Which part waits depends on the text alone,
    /// not on how it was cut.
    fn release_excess(&mut self) {
        let excess = self.space.len().saturating_sub(MAX_HELD);
        if excess > 0 {
            let cut = (excess..=self.space.len()).find(|&at| self.space.is_char_boundary(at));
            let rest = self.space.split_off(cut.unwrap_or(self.space.len()));
            self.flush();
            self.space = rest;
        }
    }

    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.space.len()
    }
}

//! Keeps control tokens in users' texts from acting as such.
//!
//! A chat template writes control tokens (`<|im_end|>`) around the messages, so its output has to
//! be parsed for them, but a message that contains the characters `<|im_end|>` must not end its
//! turn. So before rendering, a guard, a character that occurs in no message, is put inside each
//! name of a control token in the messages; parsing then does not find it, and the guard is dropped
//! from the text before it becomes tokens.
//!
//! This survives what templates do with contents (trimming, joining, splitting, `tojson`), since
//! the guard travels inside the text; a message without such names is not touched at all, so its
//! tokens are those of plain rendering. A name of which only a part is in the text is broken as
//! well, see [`edges`]. What it does not cover is a template that deletes from the middle of a
//! content and so joins the halves of a name itself.

mod edges;

pub(super) use edges::Edges;

use super::tokenizer::Tokenizer;

/// The code points that are set aside for a program's own use and no text has (Unicode 23.7).
fn candidates() -> impl Iterator<Item = char> {
    let planes = (0..=16u32)
        .rev()
        .flat_map(|plane| [plane << 16 | 0xFFFE, plane << 16 | 0xFFFF]);
    (0xFDD0..=0xFDEF).chain(planes).filter_map(char::from_u32)
}

/// Breaks control tokens apart in the texts of one prompt.
pub struct Guard<'t> {
    tokenizer: &'t Tokenizer,
    /// None for prompts of one text.
    edges: Option<&'t Edges>,
    /// None if no text needs guarding.
    guard: Option<char>,
}

/// The messages use every code point that could stand for something of the service's own.
#[derive(Debug, thiserror::Error)]
#[error(
    "the messages use all noncharacters of Unicode, one of which is needed to mark places in them; \
     leave out one of them"
)]
pub struct Unguardable;

impl<'t> Guard<'t> {
    /// A guard for prompts made of `texts`.
    ///
    /// # Errors
    /// [`Unguardable`].
    pub fn new<'a, I>(tokenizer: &'t Tokenizer, texts: I) -> Result<Self, Unguardable>
    where
        I: Iterator<Item = &'a str> + Clone,
    {
        Self::with_edges(tokenizer, None, texts)
    }

    /// A guard for prompts that a template with `edges` makes of `texts`.
    pub(super) fn with_edges<'a, I>(
        tokenizer: &'t Tokenizer,
        edges: Option<&'t Edges>,
        texts: I,
    ) -> Result<Self, Unguardable>
    where
        I: Iterator<Item = &'a str> + Clone,
    {
        let mut this = Self {
            tokenizer,
            edges,
            guard: None,
        };
        if texts.clone().any(|text| !this.breaks(text).is_empty()) {
            this.guard = Some(this.marker(texts)?);
        }
        Ok(this)
    }

    /// A character other than the guard that occurs in none of `texts`.
    pub(super) fn marker<'a>(
        &self,
        texts: impl Iterator<Item = &'a str> + Clone,
    ) -> Result<char, Unguardable> {
        let taken = |&c: &char| Some(c) == self.guard || texts.clone().any(|t| t.contains(c));
        candidates().find(|c| !taken(c)).ok_or(Unguardable)
    }

    /// The character that breaks names apart, if there are any.
    pub(super) fn character(&self) -> Option<char> {
        self.guard
    }

    /// Where the guard goes in `text`, ascending.
    fn breaks(&self, text: &str) -> Vec<usize> {
        let mut at: Vec<usize> = self.tokenizer.special_tokens().breaks(text).collect();
        if let Some(edges) = self.edges {
            at.extend(edges.breaks(text));
            at.sort_unstable();
            at.dedup();
        }
        at
    }

    /// `text` without control tokens.
    pub fn apply(&self, text: &str) -> String {
        let Some(guard) = self.guard else {
            return text.to_owned();
        };
        let mut out = String::with_capacity(text.len() + 16);
        let mut from = 0;
        for at in self.breaks(text) {
            out.push_str(&text[from..at]);
            out.push(guard);
            from = at;
        }
        out.push_str(&text[from..]);
        out
    }

    /// The prompt that was rendered from texts that went through [`apply`](Self::apply).
    pub fn seal(&self, rendered: String) -> GuardedText {
        GuardedText {
            text: rendered,
            guard: self.guard,
        }
    }
}

/// A prompt, in which control tokens are to be parsed except where a guard is inside them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardedText {
    text: String,
    guard: Option<char>,
}

impl GuardedText {
    /// A text all of whose control tokens are to be parsed.
    pub fn trusted(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            guard: None,
        }
    }

    /// The text as people see it.
    pub(super) fn into_text(self) -> String {
        match self.guard {
            Some(guard) => self.text.replace(guard, ""),
            None => self.text,
        }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    pub(super) fn guard(&self) -> Option<char> {
        self.guard
    }
}

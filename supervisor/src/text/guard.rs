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
//! tokens are those of plain rendering. What it does not cover is a template that deletes from the
//! middle of a content and so joins the halves of a name itself.

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
    /// None if no text needs guarding.
    guard: Option<char>,
}

/// The messages have the name of a control token, and use every code point that could guard it.
#[derive(Debug, thiserror::Error)]
#[error("the messages use all noncharacters of Unicode and a control token; leave out one of them")]
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
        if !texts
            .clone()
            .any(|text| tokenizer.special_tokens().has_control(text))
        {
            return Ok(Self {
                tokenizer,
                guard: None,
            });
        }
        let free = |&c: &char| !texts.clone().any(|text| text.contains(c));
        let guard = candidates().find(free).ok_or(Unguardable)?;
        Ok(Self {
            tokenizer,
            guard: Some(guard),
        })
    }

    /// `text` without control tokens.
    pub fn apply(&self, text: &str) -> String {
        match self.guard {
            Some(guard) => self.tokenizer.special_tokens().break_apart(text, guard),
            None => text.to_owned(),
        }
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

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    pub(super) fn guard(&self) -> Option<char> {
        self.guard
    }
}

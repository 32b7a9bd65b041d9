//! Tokens that are found in a text as a whole, before anything else looks at it.

use aho_corasick::{AhoCorasick, Input, MatchKind};
use orcd_shared::vocab::{TokenType, Vocab};

use super::TokenizerError;
use super::strip::{Strip, Strips};

/// Whether a text may contain control tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Specials {
    /// `<|im_end|>` in the text is the control token.
    Parse,
    /// `<|im_end|>` in the text is ten characters.
    ///
    /// User-defined tokens (`<think>`) are atomic all the same: they are text that happens to have
    /// a token of its own, and cannot end a turn.
    AsText,
}

/// A part of a text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Segment<'t> {
    Text(&'t str),
    Token(u32),
}

/// Whether a token acts on the model instead of being text. Those are found only where control
/// tokens are parsed: `<unk>` in a raw prompt is the token, in a message it is five characters.
fn acts(ty: TokenType) -> bool {
    matches!(ty, TokenType::Control | TokenType::Unknown)
}

/// Finds control, unknown and user-defined tokens; the leftmost wins, of several there the longest.
pub(in crate::text) struct SpecialTokens {
    control: Matcher,
    control_names: Vec<Box<str>>,
    user_defined: Matcher,
    both: Matcher,
}

impl SpecialTokens {
    pub(super) fn new(vocab: &Vocab<'_>, strips: Strips) -> Result<Self, TokenizerError> {
        let of = |wanted: fn(TokenType) -> bool| {
            vocab.iter().filter(move |&(_, text, ty)| {
                // Of a single character no part could be broken apart, see `breaks`.
                let long_enough = text.chars().nth(usize::from(acts(ty))).is_some();
                wanted(ty) && long_enough
            })
        };
        Ok(Self {
            control: Matcher::new(of(acts), strips)?,
            control_names: of(acts).map(|(_, text, _)| text.into()).collect(),
            user_defined: Matcher::new(of(|ty| ty == TokenType::UserDefined), strips)?,
            both: Matcher::new(of(|ty| acts(ty) || ty == TokenType::UserDefined), strips)?,
        })
    }

    /// Cuts `text` at its special tokens, without the white space that these take with them.
    pub(super) fn split<'t>(&self, text: &'t str, specials: Specials) -> Vec<Segment<'t>> {
        let matcher = match specials {
            Specials::Parse => &self.both,
            Specials::AsText => &self.user_defined,
        };
        let mut segments = Vec::new();
        let mut at = 0;
        while let Some(found) = matcher.find(text, at) {
            let mut before = &text[at..found.start];
            if found.strip.left {
                before = before.trim_end();
            }
            if !before.is_empty() {
                segments.push(Segment::Text(before));
            }
            segments.push(Segment::Token(found.id));
            at = found.end;
            if found.strip.right {
                at = text.len() - text[at..].trim_start().len();
            }
        }
        if at < text.len() {
            segments.push(Segment::Text(&text[at..]));
        }
        segments
    }

    /// The names of all control tokens.
    pub(in crate::text) fn control_names(&self) -> &[Box<str>] {
        &self.control_names
    }

    /// Where a guard breaks the names of control tokens in `text`, ascending: after the first
    /// character of each, so that none is left, not even one that overlaps another.
    pub(in crate::text) fn breaks(&self, text: &str) -> impl Iterator<Item = usize> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let start = self.control.find(text, at)?.start;
            at = start + text[start..].chars().next().map_or(1, char::len_utf8);
            Some(at)
        })
    }
}

/// A set of tokens, found by their texts.
struct Matcher {
    /// None for an empty set.
    automaton: Option<AhoCorasick>,
    /// By pattern.
    tokens: Vec<(u32, Strip)>,
}

/// A token in a text.
struct Found {
    /// In bytes.
    start: usize,
    end: usize,
    id: u32,
    strip: Strip,
}

impl Matcher {
    fn new<'v>(
        tokens: impl Iterator<Item = (u32, &'v str, TokenType)>,
        strips: Strips,
    ) -> Result<Self, TokenizerError> {
        let (tokens, texts): (Vec<_>, Vec<&str>) = tokens
            .map(|(id, text, _)| ((id, strips.of_token(text)), text))
            .unzip();
        let automaton = (!texts.is_empty())
            .then(|| {
                AhoCorasick::builder()
                    .match_kind(MatchKind::LeftmostLongest)
                    .build(&texts)
            })
            .transpose()
            .map_err(|e| TokenizerError::Specials {
                count: texts.len(),
                reason: e.to_string(),
            })?;
        Ok(Self { automaton, tokens })
    }

    /// The first match at or after byte `at`.
    fn find(&self, text: &str, at: usize) -> Option<Found> {
        let found = self
            .automaton
            .as_ref()?
            .find(Input::new(text).range(at..))?;
        let (id, strip) = self.tokens[found.pattern().as_usize()];
        Some(Found {
            start: found.start(),
            end: found.end(),
            id,
            strip,
        })
    }
}

//! Tokens that are found in a text as a whole, before anything else looks at it.

use aho_corasick::{AhoCorasick, Input, MatchKind};
use orcd_shared::vocab::{TokenType, Vocab};

use super::TokenizerError;

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
    pub(super) fn new(vocab: &Vocab<'_>) -> Result<Self, TokenizerError> {
        let of = |wanted: fn(TokenType) -> bool| {
            vocab.iter().filter(move |&(_, text, ty)| {
                // Of a single character no part could be broken apart, see `breaks`.
                let long_enough = text.chars().nth(usize::from(acts(ty))).is_some();
                wanted(ty) && long_enough
            })
        };
        Ok(Self {
            control: Matcher::new(of(acts))?,
            control_names: of(acts).map(|(_, text, _)| text.into()).collect(),
            user_defined: Matcher::new(of(|ty| ty == TokenType::UserDefined))?,
            both: Matcher::new(of(|ty| acts(ty) || ty == TokenType::UserDefined))?,
        })
    }

    /// Cuts `text` at its special tokens.
    pub(super) fn split<'t>(&self, text: &'t str, specials: Specials) -> Vec<Segment<'t>> {
        let matcher = match specials {
            Specials::Parse => &self.both,
            Specials::AsText => &self.user_defined,
        };
        let mut segments = Vec::new();
        let mut at = 0;
        while let Some((start, end, id)) = matcher.find(text, at) {
            if start > at {
                segments.push(Segment::Text(&text[at..start]));
            }
            segments.push(Segment::Token(id));
            at = end;
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
            let (start, _, _) = self.control.find(text, at)?;
            at = start + text[start..].chars().next().map_or(1, char::len_utf8);
            Some(at)
        })
    }
}

/// A set of strings with an id each.
struct Matcher {
    /// None for an empty set.
    automaton: Option<AhoCorasick>,
    /// By pattern.
    ids: Vec<u32>,
}

impl Matcher {
    fn new<'v>(
        tokens: impl Iterator<Item = (u32, &'v str, TokenType)>,
    ) -> Result<Self, TokenizerError> {
        let (ids, texts): (Vec<u32>, Vec<&str>) = tokens.map(|(id, text, _)| (id, text)).unzip();
        let automaton = (!ids.is_empty())
            .then(|| {
                AhoCorasick::builder()
                    .match_kind(MatchKind::LeftmostLongest)
                    .build(&texts)
            })
            .transpose()
            .map_err(|e| TokenizerError::Specials {
                count: ids.len(),
                reason: e.to_string(),
            })?;
        Ok(Self { automaton, ids })
    }

    /// Start, end and id of the first match at or after byte `at`.
    fn find(&self, text: &str, at: usize) -> Option<(usize, usize, u32)> {
        let found = self
            .automaton
            .as_ref()?
            .find(Input::new(text).range(at..))?;
        Some((
            found.start(),
            found.end(),
            self.ids[found.pattern().as_usize()],
        ))
    }
}

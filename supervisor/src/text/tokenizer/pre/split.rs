//! Expressions that cut texts, and the cutting.
//!
//! The published expressions end in `\s+(?!\S)|\s+`, and a look-ahead wants a backtracking engine,
//! whose step limit long runs of white space exceed. Here a linear-time engine takes `\s+`, and
//! [`Stage`] does what the look-ahead would have done.

use regex::Regex;

/// One way to cut, as several names share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::text::tokenizer) enum Split {
    /// Of the qwen2 family: each digit alone.
    SingleDigits,
    /// Of the llama 3 family: digits in threes, from the left.
    ThreeDigits,
    /// Of Qwen 3.5: as the qwen2 family, with marks that belong to words.
    SingleDigitsMarked,
    /// Mistral's: words end where small letters are followed by a capital; each digit alone.
    Tekken,
    /// OpenAI's o200k: as Mistral's, with contractions that stay at their words, and digits in threes.
    O200k,
    /// GPT-2's own.
    Gpt2,
    /// Each digit alone first, then what is between them as GPT-2 does.
    DigitsThenGpt2,
    /// Punctuation, then GPT-2's, then runs of digits, then threes of ASCII digits.
    Default,
}

const GPT_2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+";

/// What a match that is white space leaves to the word after it, as the look-ahead has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spaces {
    /// Nothing: the expression has no look-ahead.
    Keep,
    /// Its last character, whichever it is.
    LeaveLast,
    /// Its last character, unless that is a line break, for which the expression has a branch of
    /// its own.
    LeaveLastBlank,
}

const CONTRACTIONS: &str = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
/// What may stand in front of a word and belong to it.
const LEAD: &str = r"[^\r\n\p{L}\p{N}]?";
/// Letters that are no capitals, and those that are no small ones.
const SMALL: &str = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]";
const CAPITAL: &str = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]";

/// An expression that knows line breaks: words, digits and symbols, then line breaks and other white space.
fn with_lines(words: &str, digits: &str, symbols: &str) -> String {
    [words, digits, symbols, r"\s*[\r\n]+", r"\s+"].join("|")
}

/// The expression of the qwen2 and llama 3 families, with their runs of digits left open.
fn words(digits: &str) -> String {
    with_lines(
        &format!(r"{CONTRACTIONS}|{LEAD}\p{{L}}+"),
        digits,
        r" ?[^\s\p{L}\p{N}]+[\r\n]*",
    )
}

/// The expression of Qwen 3.5.
fn marked_words() -> String {
    with_lines(
        &format!(r"{CONTRACTIONS}|{LEAD}[\p{{L}}\p{{M}}]+"),
        r"\p{N}",
        r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*",
    )
}

/// The expression that tekken and o200k share, with what may end a word and their runs of digits left open.
fn cased_words(ending: &str, digits: &str) -> String {
    with_lines(
        &format!("{LEAD}{CAPITAL}*{SMALL}+{ending}|{LEAD}{CAPITAL}+{SMALL}*{ending}"),
        digits,
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
    )
}

impl Split {
    /// Its stages: each cuts the pieces of the one in front.
    pub(super) fn stages(self) -> Result<Vec<Stage>, regex::Error> {
        let gpt_2 = || Stage::new(GPT_2, Spaces::LeaveLast);
        let isolate = |expression| Stage::new(expression, Spaces::Keep);
        let lines = |expression: String| Ok(vec![Stage::new(&expression, Spaces::LeaveLastBlank)?]);
        match self {
            Self::SingleDigits => lines(words(r"\p{N}")),
            Self::ThreeDigits => lines(words(r"\p{N}{1,3}")),
            Self::SingleDigitsMarked => lines(marked_words()),
            Self::Tekken => lines(cased_words("", r"\p{N}")),
            Self::O200k => lines(cased_words(&format!("{CONTRACTIONS}?"), r"\p{N}{1,3}")),
            Self::Gpt2 => Ok(vec![gpt_2()?]),
            Self::DigitsThenGpt2 => Ok(vec![isolate(r"\p{N}")?, gpt_2()?]),
            Self::Default => Ok(vec![
                isolate(r"[\p{P}\$\+<=>\^~\|]+")?,
                gpt_2()?,
                isolate(r"\p{N}+")?,
                isolate("[0-9][0-9][0-9]")?,
            ]),
        }
    }
}

/// An expression whose matches are pieces, as is what lies between them.
pub(super) struct Stage {
    expression: Regex,
    spaces: Spaces,
}

impl Stage {
    fn new(expression: &str, spaces: Spaces) -> Result<Self, regex::Error> {
        Ok(Self {
            expression: Regex::new(expression)?,
            spaces,
        })
    }

    /// The pieces of `text`, in order; their concatenation is `text`.
    pub(super) fn pieces<'t>(&self, text: &'t str) -> Pieces<'_, 't> {
        Pieces {
            stage: self,
            rest: text,
        }
    }

    /// The bytes at the start of `rest` that are its first piece.
    fn first(&self, rest: &str) -> usize {
        match self.expression.find(rest) {
            Some(found) if found.start() > 0 => found.start(),
            Some(found) => self.before_word(rest, found.end()),
            None => rest.len(),
        }
    }

    /// `\s+(?!\S)`: white space in front of a word leaves its last character to the word.
    ///
    /// `end` is the end of the match at the start of `rest`. A match that ends in white space,
    /// other than a line break where those have a branch, can only come from the branch `\s+`.
    fn before_word(&self, rest: &str, end: usize) -> usize {
        let Some(last) = rest[..end].chars().next_back() else {
            return end;
        };
        let leaves = match self.spaces {
            Spaces::Keep => false,
            Spaces::LeaveLast => last.is_whitespace(),
            Spaces::LeaveLastBlank => last.is_whitespace() && !matches!(last, '\r' | '\n'),
        };
        let shorter = end - last.len_utf8();
        if leaves && shorter > 0 && end < rest.len() {
            shorter
        } else {
            end
        }
    }
}

/// Iterator over the pieces of a text.
pub(super) struct Pieces<'s, 't> {
    stage: &'s Stage,
    rest: &'t str,
}

impl<'t> Iterator for Pieces<'_, 't> {
    type Item = &'t str;

    fn next(&mut self) -> Option<&'t str> {
        if self.rest.is_empty() {
            return None;
        }
        let (piece, rest) = self.rest.split_at(self.stage.first(self.rest));
        self.rest = rest;
        Some(piece)
    }
}

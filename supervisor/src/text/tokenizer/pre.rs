//! Pre-tokenizers: how a text is cut into the pieces inside which byte pairs are merged.

use regex::Regex;

use super::TokenizerError;

/// Cuts a text into pieces; nothing is lost between them.
///
/// The published patterns end in `\s+(?!\S)|\s+`, and a look-ahead wants a backtracking engine,
/// whose step limit long runs of white space exceed. Here a linear-time engine takes `\s+`, and
/// [`Pieces`] does what the look-ahead would have done.
pub(super) struct PreTokenizer {
    pattern: Regex,
    /// Whether a piece that is a token as a whole is taken without looking at the merges.
    pub(super) whole_pieces: bool,
    /// Whether such vocabularies put a begin-of-sequence token in front where the file is silent.
    pub(super) add_bos: bool,
}

/// The pattern shared by the qwen2 and llama-3 families, with their runs of digits left open.
fn pattern(digits: &str) -> String {
    [
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)",
        r"[^\r\n\p{L}\p{N}]?\p{L}+",
        digits,
        r" ?[^\s\p{L}\p{N}]+[\r\n]*",
        r"\s*[\r\n]+",
        r"\s+",
    ]
    .join("|")
}

impl PreTokenizer {
    /// The pre-tokenizer that `tokenizer.ggml.pre` calls `name`.
    ///
    /// # Errors
    /// [`TokenizerError::UnknownPre`].
    pub(super) fn new(name: &str) -> Result<Self, TokenizerError> {
        let (digits, llama) = match name {
            "qwen2" => (r"\p{N}", false),
            "llama-bpe" | "llama3" | "llama-v3" => (r"\p{N}{1,3}", true),
            _ => {
                return Err(TokenizerError::UnknownPre {
                    pre: name.to_owned(),
                });
            }
        };
        let pattern = Regex::new(&pattern(digits)).map_err(|e| TokenizerError::Bpe(Box::new(e)))?;
        Ok(Self {
            pattern,
            whole_pieces: llama,
            add_bos: llama,
        })
    }

    /// The pieces of `text`, in order; their concatenation is `text`.
    pub(super) fn pieces<'t>(&self, text: &'t str) -> Pieces<'_, 't> {
        Pieces {
            pattern: &self.pattern,
            text,
            at: 0,
        }
    }
}

/// Iterator over the pieces of a text.
pub(super) struct Pieces<'p, 't> {
    pattern: &'p Regex,
    text: &'t str,
    /// Bytes of `text` already given out.
    at: usize,
}

impl<'t> Iterator for Pieces<'_, 't> {
    type Item = &'t str;

    fn next(&mut self) -> Option<&'t str> {
        let rest = &self.text[self.at..];
        if rest.is_empty() {
            return None;
        }
        // The pattern has a branch for every character, so that a match starts at once. Were it
        // not so, the gap would go out in front of the match rather than being lost.
        let end = self.pattern.find(rest).map_or(rest.len(), |m| m.end());
        let end = before_last_space(rest, end);
        self.at += end;
        Some(&rest[..end])
    }
}

/// `\s+(?!\S)`: white space in front of a word leaves its last character to the word.
///
/// `end` is the end of the match at the start of `rest`. A match that ends in white space other
/// than a line break can only come from the branch `\s+`.
fn before_last_space(rest: &str, end: usize) -> usize {
    let run = &rest[..end];
    match run.chars().next_back() {
        Some(last) if last.is_whitespace() && !matches!(last, '\r' | '\n') => {
            let shorter = end - last.len_utf8();
            if shorter > 0 && end < rest.len() {
                shorter
            } else {
                end
            }
        }
        _ => end,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cut<'t>(name: &str, text: &'t str) -> Vec<&'t str> {
        PreTokenizer::new(name).unwrap().pieces(text).collect()
    }

    #[test]
    fn words_take_the_space_in_front() {
        assert_eq!(
            cut("qwen2", "Hello  world's\tend"),
            ["Hello", " ", " world", "'s", "\tend"]
        );
        assert_eq!(
            cut("qwen2", "a   \n\n  b \n"),
            ["a", "   \n\n", " ", " b", " \n"]
        );
        assert_eq!(cut("qwen2", "end   "), ["end", "   "]);
        assert_eq!(cut("qwen2", "  5"), [" ", " ", "5"]);
        assert_eq!(cut("qwen2", " ..\n\nx"), [" ..\n\n", "x"]);
    }

    #[test]
    fn digits_stand_alone_or_in_threes() {
        assert_eq!(cut("qwen2", "1234"), ["1", "2", "3", "4"]);
        assert_eq!(cut("llama-bpe", "1234"), ["123", "4"]);
        assert_eq!(cut("llama3", "12a"), cut("llama-v3", "12a"));
    }

    #[test]
    fn an_unknown_name_is_an_error_that_says_it() {
        let error = PreTokenizer::new("gpt-9").err().unwrap().to_string();
        assert!(error.contains("`gpt-9`"), "{error}");
    }

    proptest! {
        #[test]
        fn no_character_is_lost(text in r"[ \n\t a-c0-2'é\u{1F980}\u{3000}.]{0,40}|\PC{0,40}") {
            prop_assert_eq!(cut("qwen2", &text).concat(), text.clone());
            prop_assert_eq!(cut("llama-bpe", &text).concat(), text);
        }

        #[test]
        fn a_piece_of_white_space_never_hides_the_space_of_a_word(text in r"[ \t\na'.]{0,30}") {
            let pieces = cut("qwen2", &text);
            for pair in pieces.windows(2) {
                // As the look-ahead has it: in front of a non-space the run kept its last blank
                // out, unless that blank is all there is.
                let blank = pair[0].chars().all(|c| c == ' ' || c == '\t');
                if blank && pair[0].len() > 1 {
                    prop_assert!(pair[1].starts_with([' ', '\t']), "{:?}", pieces);
                }
            }
        }
    }
}

//! The text of one job's output, token by token.

use super::stop::StopMatcher;
use super::tokenizer::Tokenizer;
use super::utf8::Utf8Assembler;

/// What one token adds to the output.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TextDelta {
    /// Valid UTF-8, often empty: while a code point is unfinished or a stop sequence may begin.
    pub text: String,
    /// The stop sequence that this token has completed. The output is over.
    pub stop: Option<String>,
}

/// Assembles the output of one job from its token ids.
///
/// It depends on nothing but the ids and the stop sequences: pushing the same ids to a fresh one
/// gives the same pieces, which is how the position in a stream is found again after a crash.
#[derive(Clone, Debug)]
pub struct TokenText {
    utf8: Utf8Assembler,
    stop: StopMatcher,
}

impl TokenText {
    /// The text of a job that ends at any of the sequences `stop`.
    pub fn new(stop: Vec<String>) -> Self {
        Self {
            utf8: Utf8Assembler::new(),
            stop: StopMatcher::new(stop),
        }
    }

    /// Takes the next token. Control tokens add nothing, but no stop sequence reaches over one: what was held back
    /// for it comes out, in front of whatever the control token begins or ends.
    pub fn push(&mut self, id: u32, tokenizer: &Tokenizer) -> TextDelta {
        let bytes = tokenizer.token_bytes(id);
        if bytes.is_empty() {
            return TextDelta {
                text: self.stop.flush(),
                stop: None,
            };
        }
        let mut text = String::new();
        self.utf8.push(bytes, &mut text);
        self.pass(&text)
    }

    /// Ends the output and returns what was held back. Nothing is, after a stop sequence.
    ///
    /// An unfinished code point becomes U+FFFD, which may itself complete a stop sequence.
    pub fn finish(mut self) -> TextDelta {
        let mut text = String::new();
        self.utf8.flush(&mut text);
        let mut last = self.pass(&text);
        if last.stop.is_none() {
            last.text.push_str(&self.stop.flush());
        }
        last
    }

    fn pass(&mut self, text: &str) -> TextDelta {
        let out = self.stop.push(text);
        let stop = out.matched.and_then(|index| self.stop.sequence(index));
        TextDelta {
            text: out.emit,
            stop: stop.map(str::to_owned),
        }
    }
}

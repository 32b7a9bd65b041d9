//! Output that a client has of another service: ids become the events that they were there, by the same code that makes
//! events of a worker's tokens.

use super::StopReason;
use super::admission::Limit;
use super::journal::Ending;
use crate::text::{TokenText, Tokenizer};

/// The output so far of a job that goes on here.
#[derive(Debug, Clone)]
pub struct Resumption {
    /// The digest of the request as the client has it.
    pub request_digest: Box<str>,
    /// The token events that the client has.
    tokens: Vec<PastToken>,
    /// Ids that a worker goes on after: all but an end token.
    generated: Vec<u32>,
    /// Ids of the client, an end token among them.
    drawn: usize,
    /// What the next token's text follows.
    text: TokenText,
    /// Nothing is left to generate.
    ending: Option<Ending>,
}

/// A token event that the client has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PastToken {
    pub(super) id: u32,
    pub(super) text: String,
}

/// What a journal takes over.
#[derive(Debug)]
pub(super) struct Past {
    pub(super) tokens: Vec<PastToken>,
    pub(super) generated: Vec<u32>,
    pub(super) text: TokenText,
    pub(super) ending: Option<Ending>,
}

impl Past {
    /// That of a job which begins here, with these stop sequences.
    pub(super) fn none(stop: Vec<String>) -> Self {
        Self {
            tokens: Vec::new(),
            generated: Vec::new(),
            text: TokenText::new(stop),
            ending: None,
        }
    }
}

/// Ids go on after the end of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BeyondEnd {
    /// The first of them.
    pub index: usize,
}

impl Resumption {
    /// What `ids` were. `end_tokens` are those that end the output, `stop` its stop sequences.
    ///
    /// # Errors
    /// [`BeyondEnd`].
    pub fn new(
        request_digest: Box<str>,
        ids: Vec<u32>,
        end_tokens: &[u32],
        stop: Vec<String>,
        tokenizer: &Tokenizer,
    ) -> Result<Self, BeyondEnd> {
        let mut past = Self {
            request_digest,
            tokens: Vec::with_capacity(ids.len()),
            generated: Vec::with_capacity(ids.len()),
            drawn: ids.len(),
            text: TokenText::new(stop),
            ending: None,
        };
        for (index, id) in ids.into_iter().enumerate() {
            if past.ending.is_some() {
                return Err(BeyondEnd { index });
            }
            past.add(id, end_tokens.contains(&id), tokenizer);
        }
        Ok(past)
    }

    fn add(&mut self, id: u32, is_end: bool, tokenizer: &Tokenizer) {
        if is_end {
            let rest = self.text.clone().finish();
            self.ending = Some(match rest.stop {
                Some(stop) => Ending::StopSequence(stop),
                None => Ending::Stop(StopReason::Eos),
            });
            // It is an event where it brought what was held back.
            if !rest.text.is_empty() {
                let text = rest.text;
                self.tokens.push(PastToken { id, text });
            }
            return;
        }
        self.generated.push(id);
        let piece = self.text.push(id, tokenizer);
        self.ending = piece.stop.map(Ending::StopSequence);
        let text = piece.text;
        self.tokens.push(PastToken { id, text });
    }

    /// Token events that the client has.
    #[must_use]
    pub fn events(&self) -> usize {
        self.tokens.len()
    }

    /// Whether they are more tokens than the output may have.
    pub(super) fn exceeds(&self, limit: Limit) -> bool {
        self.drawn > limit.max_tokens as usize
    }

    /// All of it, of a job with this limit: the last token that it allows ended the output.
    pub(super) fn within(mut self, limit: Limit) -> Past {
        if self.ending.is_none() && self.generated.len() == limit.max_tokens as usize {
            let rest = self.text.clone().finish();
            if let Some(last) = self.tokens.last_mut() {
                last.text.push_str(&rest.text);
            }
            self.ending = Some(match rest.stop {
                Some(stop) => Ending::StopSequence(stop),
                None => Ending::Stop(limit.reached()),
            });
        }
        Past {
            tokens: self.tokens,
            generated: self.generated,
            text: self.text,
            ending: self.ending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::{END, tokenizer};

    fn of(text: &str, stop: &[&str], end: bool) -> Result<Resumption, BeyondEnd> {
        // The vocabulary has all bytes as its first tokens.
        let mut ids: Vec<u32> = text.bytes().map(u32::from).collect();
        ids.extend(end.then_some(END));
        let stop = stop.iter().map(|&s| s.to_owned()).collect();
        Resumption::new("d".into(), ids, &[END], stop, &tokenizer())
    }

    fn within(max_tokens: u32, past: Resumption) -> (String, Option<Ending>) {
        let limit = Limit {
            max_tokens,
            asked: max_tokens,
            by_context: false,
        };
        assert!(!past.exceeds(limit));
        let past = past.within(limit);
        let text = past.tokens.iter().map(|token| token.text.as_str());
        (text.collect(), past.ending)
    }

    #[test]
    fn what_was_held_back_is_held_back_again() {
        let past = of("xa", &["ab"], false).unwrap();
        assert_eq!(past.events(), 2);
        assert_eq!(within(9, past), ("x".into(), None));
    }

    #[test]
    fn an_output_that_is_over_ends_as_it_did() {
        let eos = Some(Ending::Stop(StopReason::Eos));
        let most = Some(Ending::Stop(StopReason::MaxTokens));
        let stop = Some(Ending::StopSequence("ab".into()));
        for (text, end, max_tokens, events, expected) in [
            // The end token brought nothing, and was no event.
            ("x", true, 9, 1, ("x", eos.clone())),
            ("xa", true, 9, 3, ("xa", eos)),
            ("xa", false, 2, 2, ("xa", most)),
            ("xab", false, 9, 3, ("x", stop.clone())),
            ("xab", false, 3, 3, ("x", stop)),
        ] {
            let past = of(text, &["ab"], end).unwrap();
            assert_eq!(past.events(), events, "{text}");
            let (text, ending) = within(max_tokens, past);
            assert_eq!((text.as_str(), ending), expected);
        }
    }

    #[test]
    fn nothing_comes_after_the_end() {
        let index = |past: Result<Resumption, BeyondEnd>| past.unwrap_err().index;
        assert_eq!(index(of("xaby", &["ab"], false)), 3);
        assert_eq!(index(of("xab", &["ab"], true)), 3);
        let ids = vec![120, END, 120];
        let past =
            |end_tokens| Resumption::new("d".into(), ids.clone(), end_tokens, vec![], &tokenizer());
        assert_eq!(index(past(&[END])), 2);
        // Where end tokens are tokens like others.
        assert_eq!(past(&[]).unwrap().events(), 3);
        let limit = Limit {
            max_tokens: 2,
            asked: 2,
            by_context: false,
        };
        assert!(past(&[]).unwrap().exceeds(limit));
    }
}

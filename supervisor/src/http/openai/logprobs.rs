//! Logprobs as chat completions and completions write them.

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::jobs::TopLogprob;
use crate::text::Tokenizer;

/// Logprobs of one token.
#[derive(Debug, Clone)]
pub(super) struct Logprob {
    pub(super) id: u32,
    pub(super) logprob: f32,
    pub(super) top: Box<[TopLogprob]>,
}

/// A token as chat completions write it.
#[derive(Debug, Serialize)]
pub(super) struct ChatLogprob {
    #[serde(flatten)]
    drawn: ChatToken,
    top_logprobs: Vec<ChatToken>,
}

#[derive(Debug, Serialize)]
struct ChatToken {
    token: String,
    logprob: f32,
    bytes: Vec<u8>,
}

/// Of some tokens, as completions write them.
#[derive(Debug, Default, Serialize)]
pub(super) struct CompletionLogprobs {
    tokens: Vec<String>,
    token_logprobs: Vec<f32>,
    top_logprobs: Vec<Top>,
    text_offset: Vec<usize>,
}

/// The most likely tokens, best first.
#[derive(Debug)]
struct Top(Vec<(String, f32)>);

impl ChatLogprob {
    pub(super) fn new(of: &Logprob, tokenizer: &Tokenizer) -> Self {
        let token = |id, logprob| ChatToken {
            token: text(id, tokenizer),
            logprob,
            bytes: tokenizer.token_bytes(id).to_vec(),
        };
        Self {
            drawn: token(of.id, of.logprob),
            top_logprobs: of.top.iter().map(|t| token(t.id, t.logprob)).collect(),
        }
    }
}

impl CompletionLogprobs {
    /// Adds a token, which begins at the character `offset` of the output.
    pub(super) fn add(&mut self, of: &Logprob, offset: usize, tokenizer: &Tokenizer) {
        self.tokens.push(text(of.id, tokenizer));
        self.token_logprobs.push(of.logprob);
        let top = of.top.iter().map(|t| (text(t.id, tokenizer), t.logprob));
        self.top_logprobs.push(Top(top.collect()));
        self.text_offset.push(offset);
    }
}

impl Serialize for Top {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (at, (token, logprob)) in self.0.iter().enumerate() {
            // Tokens that are part of a character look alike; the most likely one keeps the name.
            if self.0[..at].iter().all(|(other, _)| other != token) {
                map.serialize_entry(token, logprob)?;
            }
        }
        map.end()
    }
}

fn text(id: u32, tokenizer: &Tokenizer) -> String {
    String::from_utf8_lossy(tokenizer.token_bytes(id)).into_owned()
}

//! Completions: a text, or tokens, to be continued.

use std::sync::Arc;

use serde::Serialize;

use super::super::error::ApiError;
use super::super::generate::Decoding;
use super::super::json::Json;
use super::super::validate::{Fields, Generation, Input};
use super::logprobs::{CompletionLogprobs, Logprob};
use super::request::{self, Common, MaxTokens};
use super::resumable::Resumable;
use super::stream::{Answer, Chunks};
use super::usage::Usage;
use super::{Head, finish_reason};
use crate::jobs::JobEvent;
use crate::text::Tokenizer;

/// Most outputs of one request: of all its prompts together.
const MAX_OUTPUTS: usize = 64;
/// Tokens of a request that says nothing of it.
const DEFAULT_MAX_TOKENS: u32 = 16;

/// An answer in the making.
pub(in crate::http) struct Completion {
    head: Head,
    stream: bool,
    include_usage: bool,
    return_token_ids: bool,
    tokenizer: Arc<Tokenizer>,
    /// Outputs for each prompt.
    choices: usize,
    outputs: Vec<Choice>,
    usage: Usage,
    /// For the first chunk of a stream with the ids of its only output.
    resumable: Option<Resumable>,
}

/// One output so far; of a stream that which has not gone out.
#[derive(Debug, Default, Serialize)]
struct Choice {
    index: usize,
    text: String,
    logprobs: Option<CompletionLogprobs>,
    finish_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_ids: Option<Vec<u32>>,
    /// Characters of the output so far.
    #[serde(skip)]
    chars: usize,
}

#[derive(Serialize)]
struct Object<'a> {
    #[serde(flatten)]
    head: &'a Head,
    choices: &'a [Choice],
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<Usage>>,
    #[serde(flatten)]
    resumable: Option<Resumable>,
}

/// What a body asks for.
///
/// # Errors
/// All that is wrong with it.
pub(in crate::http) fn decode(
    body: Json,
    decoding: &Decoding,
) -> Result<(Vec<Generation>, Completion), ApiError> {
    let mut fields = Fields::of(body).map_err(ApiError::invalid)?;
    let f = &mut fields;
    let fresh = request::fresh("cmpl");
    let common = Common::take(f, &decoding.limits, fresh.seed);
    let mut max_tokens = MaxTokens::take(f, &["max_tokens"]);
    max_tokens.most.get_or_insert(DEFAULT_MAX_TOKENS);
    let logprobs = f.count("logprobs", 0, orcd_shared::job::MAX_TOP_LOGPROBS);
    let inputs = inputs(f, decoding.limits.vocab_size);
    let outputs = inputs.len() * common.choices();
    if outputs > MAX_OUTPUTS {
        let message =
            format!("n for each prompt makes {outputs} outputs; at most {MAX_OUTPUTS} are made");
        f.fault("n", "at most 64 outputs", message);
    }
    if common.resume.is_some() && outputs > 1 {
        let message =
            format!("the prompts make {outputs} outputs; only a single one can be gone on with");
        f.fault("prompt", "one with resume", message);
    }
    request::finish(fields)?;
    let id = common.id(fresh.job_id);
    let head = Head::new(
        id.clone(),
        "text_completion",
        common.model.clone(),
        decoding,
    )?;
    let generation = |(at, input)| {
        let job_id = match at {
            0 => id.clone(),
            _ => format!("{id}-{at}"),
        };
        common.generation(job_id, ("prompt", input), max_tokens, logprobs)
    };
    let generations = inputs.into_iter().enumerate().map(generation).collect();
    let answer = Completion {
        head,
        stream: common.stream,
        include_usage: common.include_usage,
        return_token_ids: common.return_token_ids,
        tokenizer: Arc::clone(decoding.model.text().tokenizer()),
        choices: common.choices(),
        outputs: (0..outputs).map(Choice::new).collect(),
        usage: Usage::default(),
        resumable: None,
    };
    Ok((generations, answer))
}

/// The prompts: a text, tokens, or an array of either.
fn inputs(f: &mut Fields, vocab_size: u32) -> Vec<Input> {
    const RULE: &str = "a string, an array of token ids, or an array of either";
    let Some(value) = f.required("prompt", RULE) else {
        return Vec::new();
    };
    let inputs: Option<Vec<_>> = match value {
        Json::Array(items) if matches!(items.first(), Some(Json::String(_) | Json::Array(_))) => {
            items
                .into_iter()
                .map(|item| input(item, vocab_size))
                .collect()
        }
        other => input(other, vocab_size).map(|input| vec![input]),
    };
    if inputs.is_none() {
        let message = format!("prompt is none of these: {RULE} below {vocab_size}");
        f.fault("prompt", RULE, message);
    }
    inputs.unwrap_or_default()
}

fn input(value: Json, vocab_size: u32) -> Option<Input> {
    match value {
        Json::String(text) => Some(Input::Prompt {
            text,
            template: false,
        }),
        Json::Array(items) => {
            let id = |item: &Json| item.token_id(vocab_size);
            items
                .iter()
                .map(id)
                .collect::<Option<Vec<u32>>>()
                .map(Input::Ids)
        }
        _ => None,
    }
}

impl Answer for Completion {
    fn streams(&self) -> bool {
        self.stream
    }

    fn event(&mut self, index: usize, event: JobEvent, chunks: &mut Chunks) {
        if self.return_token_ids && self.outputs.len() == 1 {
            self.resumable = Resumable::of(&self.head.id, &event);
        }
        let is_first_of_prompt = index.is_multiple_of(self.choices);
        let Some(choice) = self.outputs.get_mut(index) else {
            return;
        };
        match event {
            JobEvent::Started { prompt_tokens, .. } if is_first_of_prompt => {
                self.usage.add_prompt(prompt_tokens);
            }
            JobEvent::Started { .. } | JobEvent::Error { .. } => {}
            JobEvent::Token {
                text,
                id,
                logprob,
                top,
                ..
            } => {
                let logprob = logprob
                    .zip(top)
                    .map(|(logprob, top)| Logprob { id, logprob, top });
                choice.add(&text, logprob.as_ref(), &self.tokenizer);
                if self.return_token_ids {
                    choice.token_ids.get_or_insert_default().push(id);
                }
            }
            JobEvent::End {
                tokens_out,
                stop_reason,
                cached_tokens,
                ..
            } => {
                self.usage.add_output(tokens_out);
                if is_first_of_prompt {
                    self.usage.add_cached(cached_tokens);
                }
                choice.finish_reason = Some(finish_reason(stop_reason));
            }
        }
        if self.stream && (choice.has_news() || self.resumable.is_some()) {
            let next = choice.next();
            let choice = std::mem::replace(choice, next);
            chunks.add(&Object {
                head: &self.head,
                choices: &[choice],
                usage: self.include_usage.then_some(None),
                resumable: self.resumable.take(),
            });
        }
    }

    fn last(&mut self, chunks: &mut Chunks) {
        if self.include_usage {
            chunks.add(&Object {
                head: &self.head,
                choices: &[],
                usage: Some(Some(self.usage)),
                resumable: None,
            });
        }
    }

    fn whole(self) -> impl Serialize {
        Whole {
            head: self.head,
            choices: self.outputs,
            usage: self.usage,
        }
    }
}

#[derive(Serialize)]
struct Whole {
    #[serde(flatten)]
    head: Head,
    choices: Vec<Choice>,
    usage: Usage,
}

impl Choice {
    fn new(index: usize) -> Self {
        Self {
            index,
            ..Self::default()
        }
    }

    fn add(&mut self, text: &str, logprob: Option<&Logprob>, tokenizer: &Tokenizer) {
        if let Some(logprob) = logprob {
            let all = self.logprobs.get_or_insert_default();
            all.add(logprob, self.chars, tokenizer);
        }
        self.text.push_str(text);
        self.chars += text.chars().count();
    }

    /// Whether there is something to send.
    fn has_news(&self) -> bool {
        !self.text.is_empty()
            || self.logprobs.is_some()
            || self.token_ids.is_some()
            || self.finish_reason.is_some()
    }

    /// What follows it in a stream.
    fn next(&self) -> Self {
        Self {
            index: self.index,
            chars: self.chars,
            ..Self::default()
        }
    }
}

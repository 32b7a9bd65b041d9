//! Chat completions: a conversation to be gone on with.

use std::sync::Arc;

use serde::Serialize;

use super::super::error::ApiError;
use super::super::generate::Decoding;
use super::super::json::Json;
use super::super::validate::messages::{Unknown, conversation};
use super::super::validate::{Fields, Generation, Input};
use super::logprobs::{ChatLogprob, Logprob};
use super::request::{self, Common, MaxTokens};
use super::resumable::Resumable;
use super::stream::{Answer, Chunks};
use super::tools::{ToolChoice, is_of_the_first_call};
use super::usage::Usage;
use super::{Head, finish_reason};
use crate::jobs::{JobEvent, StopReason};
use crate::text::{AnswerParser, ChatInput, ForcedCall, Piece};
use message::{Delta, Message};

mod message;

const WHOLE: &str = "chat.completion";
const CHUNK: &str = "chat.completion.chunk";

/// An answer in the making.
pub(in crate::http) struct Chat {
    head: Head,
    stream: bool,
    include_usage: bool,
    return_token_ids: bool,
    model: Arc<crate::model::Model>,
    with_tools: bool,
    /// What each output is.
    forced_call: Option<ForcedCall>,
    /// All of an output is content, if it is no call.
    is_constrained: bool,
    parallel_calls: bool,
    outputs: Vec<Choice>,
    usage: Usage,
    /// For the first chunk of a stream with the ids of its only output.
    resumable: Option<Resumable>,
}

/// One output so far.
struct Choice {
    parser: Option<AnswerParser>,
    message: Message,
    logprobs: Vec<ChatLogprob>,
    token_ids: Vec<u32>,
    finish_reason: Option<&'static str>,
}

/// What a body asks for.
///
/// # Errors
/// All that is wrong with it.
pub(in crate::http) fn decode(
    body: Json,
    decoding: &Decoding,
) -> Result<(Vec<Generation>, Chat), ApiError> {
    let mut fields = Fields::of(body).map_err(ApiError::invalid)?;
    let f = &mut fields;
    let fresh = request::fresh("chatcmpl");
    let mut common = Common::take(f, &decoding.limits, fresh.seed);
    let max_tokens = MaxTokens::take(f, &["max_completion_tokens", "max_tokens"]);
    let top_logprobs = top_logprobs(f);
    // Without it calls after the first are left out.
    let parallel_calls = f.flag_or("parallel_tool_calls", true);
    let choice = ToolChoice::take(f);
    let mut chat = chat_input(f);
    if let Some(chat) = &mut chat {
        choice.apply(f, chat, &mut common, decoding);
    }
    request::finish(fields)?;
    // `finish` has failed where there is none.
    let chat = chat.unwrap_or_default();
    let object = if common.stream { CHUNK } else { WHOLE };
    let id = common.id(fresh.job_id);
    let head = Head::new(id.clone(), object, common.model.clone(), decoding)?;
    let answer = Chat {
        stream: common.stream,
        include_usage: common.include_usage,
        return_token_ids: common.return_token_ids,
        model: Arc::clone(&decoding.model),
        with_tools: chat.tools.is_some(),
        forced_call: chat.forced_call.clone(),
        is_constrained: common.is_constrained(),
        parallel_calls,
        outputs: (0..common.choices())
            .map(|at| Choice::new(&head.id, at))
            .collect(),
        usage: Usage::default(),
        resumable: None,
        head,
    };
    let input = Input::Chat(Box::new(chat));
    let generation = common.generation(id, ("messages", input), max_tokens, top_logprobs);
    Ok((vec![generation], answer))
}

/// The conversation, with OpenAI's words for what goes to the template.
fn chat_input(f: &mut Fields) -> Option<ChatInput> {
    let effort = f.take("reasoning_effort");
    let messages = f.required("messages", "an array of messages")?;
    let mut chat = conversation(f, messages, Unknown::Ignored)?;
    chat.add_generation_prompt = f.flag_or("add_generation_prompt", chat.add_generation_prompt);
    if let Some(effort) = effort {
        chat.kwargs
            .entry("reasoning_effort")
            .or_insert_with(|| effort.into());
    }
    Some(chat)
}

fn top_logprobs(f: &mut Fields) -> Option<u32> {
    let wanted = f.flag("logprobs");
    let top = f.count("top_logprobs", 0, orcd_shared::job::MAX_TOP_LOGPROBS);
    if top.is_some_and(|top| top > 0) && !wanted {
        let message = "top_logprobs is given without logprobs; set logprobs to true".to_owned();
        f.fault("top_logprobs", "with logprobs", message);
    }
    wanted.then(|| top.unwrap_or(0))
}

impl Answer for Chat {
    fn streams(&self) -> bool {
        self.stream
    }

    fn begin(&mut self, index: usize, prompt_end: &[u32]) {
        let parser = match &self.forced_call {
            Some(call) => AnswerParser::of_call(call),
            None if self.is_constrained => return,
            None => self.model.text().answer_parser(prompt_end, self.with_tools),
        };
        if let Some(choice) = self.outputs.get_mut(index) {
            choice.parser = Some(parser);
        }
    }

    fn event(&mut self, index: usize, event: JobEvent, chunks: &mut Chunks) {
        if self.return_token_ids && self.outputs.len() == 1 {
            self.resumable = Resumable::of(&self.head.id, &event);
        }
        let Some(choice) = self.outputs.get_mut(index) else {
            return;
        };
        let mut pieces = Vec::new();
        match event {
            JobEvent::Started { prompt_tokens, .. } => {
                if index == 0 {
                    self.usage.add_prompt(prompt_tokens);
                }
                if self.stream {
                    self.send(index, Delta::first(), chunks);
                }
                return;
            }
            JobEvent::Error { .. } => return,
            JobEvent::Token {
                text,
                id,
                logprob,
                top,
                ..
            } => {
                choice.push(id, &text, &mut pieces);
                let logprob = logprob
                    .zip(top)
                    .map(|(logprob, top)| Logprob { id, logprob, top });
                choice
                    .logprobs
                    .extend(logprob.map(|l| ChatLogprob::new(&l, self.model.text().tokenizer())));
                if self.return_token_ids {
                    choice.token_ids.push(id);
                }
            }
            JobEvent::End {
                tokens_out,
                stop_reason,
                cached_tokens,
                ..
            } => {
                self.usage.add_output(tokens_out);
                if index == 0 {
                    self.usage.add_cached(cached_tokens);
                }
                choice.finish(stop_reason, &mut pieces);
            }
        }
        if !self.parallel_calls {
            pieces.retain(is_of_the_first_call);
        }
        if !self.stream {
            pieces
                .into_iter()
                .for_each(|piece| choice.message.add(piece));
            return;
        }
        let mut deltas: Vec<_> = pieces
            .into_iter()
            .map(|piece| choice.message.delta(piece))
            .collect();
        if self.return_token_ids {
            // Whoever goes on elsewhere has all that came of a token, or nothing of it.
            deltas = deltas.into_iter().reduce(Delta::with).into_iter().collect();
        }
        let has_more = !choice.logprobs.is_empty() || !choice.token_ids.is_empty();
        let is_over = choice.finish_reason.is_some();
        let is_bare = deltas.is_empty();
        let ends_with_it = self.return_token_ids && !is_bare;
        deltas
            .into_iter()
            .for_each(|delta| self.send(index, delta, chunks));
        if (is_over && !ends_with_it) || (is_bare && has_more) {
            self.send(index, Delta::default(), chunks);
        }
    }

    fn last(&mut self, chunks: &mut Chunks) {
        if self.include_usage {
            chunks.add(&Chunk {
                head: &self.head,
                choices: [].as_slice(),
                usage: Some(Some(self.usage)),
                resumable: None,
            });
        }
    }

    fn whole(self) -> impl Serialize {
        let choices = self.outputs.into_iter().enumerate();
        Whole {
            head: self.head,
            choices: choices.map(|(index, choice)| choice.whole(index)).collect(),
            usage: self.usage,
        }
    }
}

impl Chat {
    /// Adds a chunk, which takes along what the choice has of logprobs and ids. Its end goes with a chunk that has
    /// nothing else, or, with ids, all that is left.
    fn send(&mut self, index: usize, delta: Delta, chunks: &mut Chunks) {
        let Some(choice) = self.outputs.get_mut(index) else {
            return;
        };
        let finish_reason = if delta.is_empty() || self.return_token_ids {
            choice.finish_reason
        } else {
            None
        };
        chunks.add(&Chunk {
            head: &self.head,
            choices: [ChunkChoice {
                index,
                delta,
                logprobs: Logprobs::of(std::mem::take(&mut choice.logprobs)),
                finish_reason,
                token_ids: Some(std::mem::take(&mut choice.token_ids))
                    .filter(|ids| !ids.is_empty()),
            }]
            .as_slice(),
            usage: self.include_usage.then_some(None),
            resumable: self.resumable.take(),
        });
    }
}

impl Choice {
    fn new(request: &str, index: usize) -> Self {
        Self {
            parser: None,
            message: Message::new(request, index),
            logprobs: Vec::new(),
            token_ids: Vec::new(),
            finish_reason: None,
        }
    }

    fn push(&mut self, id: u32, text: &str, pieces: &mut Vec<Piece>) {
        match &mut self.parser {
            Some(parser) => parser.push(id, text, pieces),
            None if text.is_empty() => {}
            None => pieces.push(Piece::Content(text.to_owned())),
        }
    }

    fn finish(&mut self, reason: StopReason, pieces: &mut Vec<Piece>) {
        let mut called = false;
        if let Some(parser) = &mut self.parser {
            parser.finish(pieces);
            called = parser.has_calls();
        }
        // A stop sequence may have cut the last call short.
        self.finish_reason = Some(match reason {
            StopReason::Eos if called => "tool_calls",
            reason => finish_reason(reason),
        });
    }

    fn whole(self, index: usize) -> WholeChoice {
        WholeChoice {
            index,
            message: self.message.whole(),
            logprobs: Logprobs::of(self.logprobs),
            finish_reason: self.finish_reason,
            token_ids: Some(self.token_ids).filter(|ids| !ids.is_empty()),
        }
    }
}

#[derive(Serialize)]
struct Chunk<'a> {
    #[serde(flatten)]
    head: &'a Head,
    choices: &'a [ChunkChoice],
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<Usage>>,
    #[serde(flatten)]
    resumable: Option<Resumable>,
}

#[derive(Serialize)]
struct ChunkChoice {
    index: usize,
    delta: Delta,
    logprobs: Option<Logprobs>,
    finish_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_ids: Option<Vec<u32>>,
}

#[derive(Serialize)]
struct Whole {
    #[serde(flatten)]
    head: Head,
    choices: Vec<WholeChoice>,
    usage: Usage,
}

#[derive(Serialize)]
struct WholeChoice {
    index: usize,
    message: Message,
    logprobs: Option<Logprobs>,
    finish_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_ids: Option<Vec<u32>>,
}

#[derive(Serialize)]
struct Logprobs {
    content: Vec<ChatLogprob>,
    refusal: Option<()>,
}

impl Logprobs {
    fn of(content: Vec<ChatLogprob>) -> Option<Self> {
        (!content.is_empty()).then_some(Self {
            content,
            refusal: None,
        })
    }
}

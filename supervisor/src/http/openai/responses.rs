//! Responses: a conversation in items. Nothing is stored, so none goes on from an earlier one.

mod input;
mod items;

use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value, json};

use super::super::error::ApiError;
use super::super::generate::Decoding;
use super::super::json::Json;
use super::super::validate::{Fields, Generation, Input};
use super::Head;
use super::request::{self, Common, MaxTokens, not_supported};
use super::stream::{Answer, Chunks};
use super::tools::{ToolChoice, is_of_the_first_call};
use crate::jobs::{JobEvent, StopReason};
use crate::text::{AnswerParser, ForcedCall, Piece};
use items::Items;

/// An answer in the making.
pub(in crate::http) struct Response {
    head: Head,
    stream: bool,
    /// What the request said, which the answer repeats.
    echo: Value,
    model: Arc<crate::model::Model>,
    with_tools: bool,
    /// What the output is.
    forced_call: Option<ForcedCall>,
    /// All of the output is content, if it is no call.
    is_constrained: bool,
    parallel_calls: bool,
    parser: Option<AnswerParser>,
    items: Items,
    usage: Usage,
    stop_reason: Option<StopReason>,
    /// Number of the next event.
    sequence: u64,
}

#[derive(Debug, Clone, Copy, Default, Serialize)]
struct Usage {
    input_tokens: u64,
    input_tokens_details: InputTokens,
    output_tokens: u64,
    output_tokens_details: OutputTokens,
    total_tokens: u64,
}

#[derive(Debug, Clone, Copy, Default, Serialize)]
struct InputTokens {
    cached_tokens: u64,
}

#[derive(Debug, Clone, Copy, Default, Serialize)]
struct OutputTokens {
    reasoning_tokens: u64,
}

/// What a body asks for.
///
/// # Errors
/// All that is wrong with it.
pub(in crate::http) fn decode(
    body: Json,
    decoding: &Decoding,
) -> Result<(Vec<Generation>, Response), ApiError> {
    let mut fields = Fields::of(body).map_err(ApiError::invalid)?;
    let f = &mut fields;
    refuse(f);
    let fresh = request::fresh("resp");
    // Here the format has another place.
    f.take("response_format");
    let mut common = Common::take(f, &decoding.limits, fresh.seed);
    let said = said(f);
    if let Some(text) = f.take("text") {
        common.take_text_format(f, text);
    }
    let max_tokens = MaxTokens::take(f, &["max_output_tokens"]);
    let parallel_calls = f.flag_or("parallel_tool_calls", true);
    let choice = ToolChoice::take(f);
    let mut chat = input::conversation(f);
    // Without a message something else is wrong.
    if !chat.messages.is_empty() {
        choice.apply(f, &mut chat, &mut common, decoding);
    }
    let echo = echo(&common, max_tokens.most, parallel_calls, said);
    f.take("metadata");
    request::finish(fields)?;
    let head = Head::new(
        fresh.job_id.clone(),
        "response",
        common.model.clone(),
        decoding,
    )?;
    let answer = Response {
        stream: common.stream,
        echo,
        model: Arc::clone(&decoding.model),
        with_tools: chat.tools.is_some(),
        forced_call: chat.forced_call.clone(),
        is_constrained: common.is_constrained(),
        parallel_calls,
        parser: None,
        items: Items::new(&head.id),
        usage: Usage::default(),
        stop_reason: None,
        sequence: 0,
        head,
    };
    let input = Input::Chat(Box::new(chat));
    let generation = common.generation(fresh.job_id, ("input", input), max_tokens, None);
    Ok((vec![generation], answer))
}

/// Refuses by name what needs a memory of earlier answers, and what needs the ids of their tokens.
fn refuse(f: &mut Fields) {
    for name in [
        "previous_response_id",
        "conversation",
        "prompt",
        "background",
        "n",
        "resume",
    ] {
        match f.take(name) {
            None | Some(Json::Bool(false) | Json::Unsigned(1)) => {}
            Some(_) => not_supported(f, name),
        }
    }
}

/// What the request says of itself, which stays in it: the answer repeats it as it is.
fn said(f: &Fields) -> Value {
    let field = |name: &str| {
        f.peek(name)
            .map_or(Value::Null, |value| value.clone().into())
    };
    let or = |value: Value, default: Value| if value.is_null() { default } else { value };
    let mut text = field("text");
    if text["format"].is_null() {
        text = match text {
            Value::Object(mut members) => {
                members.insert("format".into(), json!({"type": "text"}));
                members.into()
            }
            _ => json!({"format": {"type": "text"}}),
        };
    }
    json!({
        "instructions": field("instructions"),
        "metadata": or(field("metadata"), json!({})),
        "reasoning": {"effort": field("reasoning")["effort"], "summary": field("reasoning")["summary"]},
        "text": text,
        "tool_choice": or(field("tool_choice"), "auto".into()),
        "tools": or(field("tools"), json!([])),
    })
}

/// The same with what the answer says for what the request left out, and for what is done in any case.
fn echo(common: &Common, max_tokens: Option<u32>, parallel_calls: bool, said: Value) -> Value {
    let sampling = common.sampling();
    let mut echo = said;
    echo["max_output_tokens"] = max_tokens.into();
    echo["temperature"] = number(sampling.temperature);
    echo["top_p"] = number(sampling.top_p);
    echo["parallel_tool_calls"] = parallel_calls.into();
    echo["previous_response_id"] = Value::Null;
    echo["store"] = false.into();
    echo["truncation"] = "disabled".into();
    echo
}

/// A number as it is written, not as the nearest double's many digits.
fn number(x: f32) -> Value {
    x.to_string()
        .parse::<f64>()
        .map_or(Value::Null, Value::from)
}

impl Answer for Response {
    fn streams(&self) -> bool {
        self.stream
    }

    fn begin(&mut self, _: usize, prompt_end: &[u32]) {
        self.parser = match &self.forced_call {
            Some(call) => Some(AnswerParser::of_call(call)),
            None if self.is_constrained => None,
            None => Some(self.model.text().answer_parser(prompt_end, self.with_tools)),
        };
    }

    fn event(&mut self, _: usize, event: JobEvent, chunks: &mut Chunks) {
        let mut pieces = Vec::new();
        match event {
            JobEvent::Started { prompt_tokens, .. } => {
                self.usage.input_tokens = prompt_tokens.into();
                self.tell(
                    "response.created",
                    json!({"response": self.object()}),
                    chunks,
                );
                self.tell(
                    "response.in_progress",
                    json!({"response": self.object()}),
                    chunks,
                );
            }
            JobEvent::Token { text, id, .. } => match &mut self.parser {
                Some(parser) => parser.push(id, &text, &mut pieces),
                None if text.is_empty() => {}
                None => pieces.push(Piece::Content(text)),
            },
            JobEvent::End {
                tokens_out,
                stop_reason,
                cached_tokens,
                ..
            } => {
                if let Some(parser) = &mut self.parser {
                    parser.finish(&mut pieces);
                }
                self.usage.input_tokens_details.cached_tokens = cached_tokens.into();
                self.usage.output_tokens = tokens_out.into();
                self.usage.total_tokens = self.usage.input_tokens + u64::from(tokens_out);
                self.stop_reason = Some(stop_reason);
            }
            JobEvent::Error { .. } => {}
        }
        if !self.parallel_calls {
            pieces.retain(is_of_the_first_call);
        }
        let mut events: Vec<_> = pieces
            .into_iter()
            .flat_map(|piece| self.items.add(piece))
            .collect();
        if self.stop_reason.is_some() {
            events.extend(self.items.end(self.status()));
        }
        for (name, data) in events {
            self.tell(name, data, chunks);
        }
    }

    fn last(&mut self, chunks: &mut Chunks) {
        let name = match self.status() {
            "incomplete" => "response.incomplete",
            _ => "response.completed",
        };
        self.tell(name, json!({"response": self.object()}), chunks);
    }

    fn whole(self) -> impl Serialize {
        self.object()
    }
}

impl Response {
    /// Adds an event with its number, if the answer is a stream.
    fn tell(&mut self, name: &'static str, mut data: Value, chunks: &mut Chunks) {
        if !self.stream {
            return;
        }
        data["type"] = name.into();
        data["sequence_number"] = self.sequence.into();
        self.sequence += 1;
        chunks.add_named(name, &data);
    }

    fn status(&self) -> &'static str {
        match self.stop_reason {
            None => "in_progress",
            Some(StopReason::Eos | StopReason::StopSequence) => "completed",
            Some(StopReason::MaxTokens | StopReason::ContextFull) => "incomplete",
        }
    }

    /// The answer as far as it is.
    fn object(&self) -> Value {
        let mut object = self.echo.clone();
        let status = self.status();
        object["id"] = self.head.id.as_str().into();
        object["object"] = "response".into();
        object["created_at"] = self.head.created.into();
        object["model"] = self.head.model.as_str().into();
        object["status"] = status.into();
        object["error"] = Value::Null;
        object["incomplete_details"] = match status {
            "incomplete" => json!({"reason": "max_output_tokens"}),
            _ => Value::Null,
        };
        object["output"] = self.items.output().into();
        object["usage"] = self.stop_reason.map_or(Value::Null, |_| json!(self.usage));
        object
    }
}

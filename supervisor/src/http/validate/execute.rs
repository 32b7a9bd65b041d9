//! The body of `POST /execute`.

use orcd_shared::job::{CacheScope, JobOptions, MAX_TOP_LOGPROBS};
use orcd_shared::sampling::{Kind, PARAMETERS, SamplingParams, numbers};

use super::super::error::Detail;
use super::super::json::Json;
use super::cache::{CACHE_FIELDS, CacheUse};
use super::fields::Fields;
use super::format::response_format;
use super::logit_bias::logit_bias;
use super::messages::{CHAT_FIELDS, Unknown, conversation};
use super::resume::{Resume, Strictness, resume};
use super::{DEFAULT_MAX_TOKENS, Limits, MAX_STOP_BYTES, MAX_STOPS, job_id};
use crate::text::ChatInput;

/// Where a format stands in most dialects.
const RESPONSE_FORMAT: &str = "response_format";

/// All fields, as the error of an unknown one lists them.
pub(in crate::http) fn field_names() -> Vec<&'static str> {
    let mut names = vec![
        "job_id",
        "prompt",
        "prompt_ids",
        "messages",
        "template",
        "max_tokens",
    ];
    names.extend(CHAT_FIELDS);
    names.extend(PARAMETERS.iter().map(|p| p.name));
    names.extend([
        "logit_bias",
        "ignore_eos",
        "logprobs",
        "response_format",
        "stop",
        "seed",
        "stream",
        "on_disconnect",
        "resume",
    ]);
    names.extend(CACHE_FIELDS);
    names
}

/// A checked request.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// What it wants.
    pub generation: Generation,
    /// Event by event; otherwise all at once.
    pub stream: bool,
}

/// Outputs that are wanted for one prompt, whatever dialect they are asked for in.
#[derive(Debug, Clone, PartialEq)]
pub struct Generation {
    /// The job's name.
    pub job_id: String,
    /// What to continue.
    pub input: Input,
    /// The field that it comes from, as the dialect calls it.
    pub field: &'static str,
    /// Most tokens to generate; `None` is what the context leaves.
    pub max_tokens: Option<u32>,
    /// The field that says so, where the client did: then no fewer may be all that there is ever room for.
    pub max_tokens_field: Option<&'static str>,
    /// How to draw, the seed included.
    pub sampling: SamplingParams,
    /// What else the worker is to do. Its scope is set when it is known who asks: see `cache`.
    pub options: JobOptions,
    /// With which jobs it shares KV pages.
    pub cache: CacheUse,
    /// Stop sequences.
    pub stop: Vec<String>,
    /// The field that its constraint comes from, if it has one.
    pub constraint_field: &'static str,
    /// Go on without a reader.
    pub continue_on_disconnect: bool,
    /// How many outputs, which differ in [`SamplingParams::choice`].
    pub choices: u32,
    /// The one output, as far as the client has it of another service.
    pub resume: Option<Resume>,
}

/// What the model is to continue.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// A text.
    Prompt {
        /// The text.
        text: String,
        /// Wrap it as one user turn, if the model has a chat template.
        template: bool,
    },
    /// Tokens.
    Ids(Vec<u32>),
    /// A conversation.
    Chat(Box<ChatInput>),
}

impl Input {
    /// The field that it comes from.
    #[must_use]
    pub fn field(&self) -> &'static str {
        match self {
            Self::Prompt { .. } => "prompt",
            Self::Ids(_) => "prompt_ids",
            Self::Chat(_) => "messages",
        }
    }
}

/// What a request gets that does not say it.
#[derive(Debug, Clone)]
pub struct Fresh {
    /// A name that no other job has.
    pub job_id: String,
    /// A random seed.
    pub seed: u64,
}

/// Checks a body; what it leaves out of `fresh` is taken from there.
///
/// # Errors
/// All faults.
pub fn execute(body: Json, limits: &Limits, fresh: Fresh) -> Result<Request, Vec<Detail>> {
    let mut fields = Fields::of(body)?;
    let f = &mut fields;
    let job_id = f.take("job_id").map(|value| job_id(f, value));
    let input = input(f, limits.vocab_size);
    let most = limits.max_tokens_out;
    let max_tokens = f.count("max_tokens", 1, most);
    let resume = resume(f, limits.vocab_size, Strictness::Strict);
    let sampling = sampling(f, limits, fresh.seed);
    let ignore_end = f.flag("ignore_eos");
    let options = JobOptions {
        ignore_end,
        top_logprobs: f.count("logprobs", 0, MAX_TOP_LOGPROBS),
        logit_bias: logit_bias(f, limits.vocab_size),
        constraint: response_format(f, RESPONSE_FORMAT, ignore_end, Unknown::Refused),
        cache: CacheScope::default(),
    };
    let stop = stop(f);
    let stream = f.flag_or("stream", true);
    let cache = CacheUse::take(f);
    let continue_on_disconnect = on_disconnect(f);
    if continue_on_disconnect && !stream {
        let message = "stream is false; a job that goes on without its reader has a stream".into();
        f.fault("on_disconnect", "cancel without a stream", message);
    }
    if resume.is_some() && !stream && options.top_logprobs.is_some() {
        let message = "logprobs are given with resume and without stream; those of resume.ids are not known here";
        f.fault("logprobs", "with resume only in a stream", message.into());
    }
    fields.finish(&field_names())?;
    let generation = Generation {
        // A bad one is a fault, on which `finish` has failed.
        job_id: job_id.flatten().unwrap_or(fresh.job_id),
        field: input.as_ref().map_or("prompt", Input::field),
        // `finish` has failed where there is none.
        input: input.unwrap_or(Input::Ids(Vec::new())),
        max_tokens_field: max_tokens.map(|_| "max_tokens"),
        max_tokens: Some(max_tokens.unwrap_or(DEFAULT_MAX_TOKENS.min(most))),
        sampling,
        options,
        cache,
        constraint_field: RESPONSE_FORMAT,
        stop,
        continue_on_disconnect,
        choices: 1,
        resume,
    };
    Ok(Request { generation, stream })
}

/// How to draw: what the body says, and the service's defaults. Faults of whole numbers come first.
pub(in crate::http) fn sampling(f: &mut Fields, limits: &Limits, seed: u64) -> SamplingParams {
    let mut sampling = limits.defaults;
    for p in &PARAMETERS {
        if let Kind::Count(field) = p.kind {
            let default = *field(&mut sampling);
            *field(&mut sampling) = f.count(p.name, 0, limits.vocab_size).unwrap_or(default);
        }
    }
    for (name, bounds, field) in numbers() {
        let default = *field(&mut sampling);
        *field(&mut sampling) = f.number(name, bounds, default);
    }
    sampling.seed = f.integer("seed", 0, u64::MAX).unwrap_or(seed);
    sampling
}

fn input(f: &mut Fields, vocab_size: u32) -> Option<Input> {
    const RULE: &str = "exactly one of prompt, prompt_ids and messages";
    let template = f.flag_or("template", true);
    let (mut input, mut found) = (None, Vec::with_capacity(1));
    let given = ["prompt", "prompt_ids", "messages"].map(|name| Some((name, f.take(name)?)));
    for (name, value) in given.into_iter().flatten() {
        if let Some(other) = found.last() {
            let message = format!("{other} and {name} are both given; give one");
            f.fault(name, RULE, message);
        }
        found.push(name);
        input = match name {
            "prompt" => prompt(f, value).map(|text| Input::Prompt { text, template }),
            "prompt_ids" => ids(f, name, value, vocab_size).map(Input::Ids),
            _ => templated(f, value, template).map(|chat| Input::Chat(Box::new(chat))),
        };
    }
    if !found.contains(&"messages") {
        without_messages(f);
    }
    if found.is_empty() {
        let message = "prompt is missing, and so are prompt_ids and messages; give one".into();
        f.fault("prompt", RULE, message);
    }
    input
}

/// Notes what goes with messages only.
pub(super) fn without_messages(f: &mut Fields) {
    for name in CHAT_FIELDS {
        let is_off = |value: &Json| name == "continue_final_message" && *value == Json::Bool(false);
        if f.take(name).is_some_and(|value| !is_off(&value)) {
            let message =
                format!("{name} is given without messages; it goes to the chat template with them");
            f.fault(name, "with messages", message);
        }
    }
}

fn templated(f: &mut Fields, value: Json, template: bool) -> Option<ChatInput> {
    if !template {
        let message = "template is false; messages always use it".to_owned();
        f.fault("template", "true with messages", message);
    }
    conversation(f, value, Unknown::Refused)
}

/// Token ids of a prompt.
pub(super) fn ids(f: &mut Fields, name: &str, value: Json, vocab_size: u32) -> Option<Vec<u32>> {
    const RULE: &str = "ids of the vocabulary";
    let Json::Array(items) = value else {
        return f.wrong_type(name, RULE, &value, "an array of token ids");
    };
    let id = |item: &Json| item.token_id(vocab_size);
    let found: Option<Vec<u32>> = items.iter().map(id).collect();
    if found.is_none() {
        let at = items
            .iter()
            .position(|item| id(item).is_none())
            .unwrap_or_default();
        let message = format!("{name}[{at}] is no token id; give whole numbers below {vocab_size}");
        f.fault(name, RULE, message);
    }
    found
}

fn prompt(f: &mut Fields, value: Json) -> Option<String> {
    const RULE: &str = "at least one character";
    let text = f.string("prompt", RULE, value)?;
    // How long it may be the context says.
    if text.is_empty() {
        f.fault("prompt", RULE, "prompt is empty; give some text".into());
        return None;
    }
    Some(text)
}

pub(in crate::http) fn stop(f: &mut Fields) -> Vec<String> {
    const RULE: &str = "at most 4 strings";
    let items = match f.take("stop") {
        None => return Vec::new(),
        Some(Json::Array(items)) => items,
        // As OpenAI's clients give a single one.
        Some(only @ Json::String(_)) => return stop_text(f, "stop", only).into_iter().collect(),
        Some(other) => {
            return f
                .wrong_type("stop", RULE, &other, "a string or an array of strings")
                .unwrap_or_default();
        }
    };
    if items.len() > MAX_STOPS {
        let message = format!("stop has {} strings; give at most {MAX_STOPS}", items.len());
        f.fault("stop", RULE, message);
        return Vec::new();
    }
    let mut stops = Vec::with_capacity(items.len());
    for (i, item) in items.into_iter().enumerate() {
        stops.extend(stop_text(f, &format!("stop[{i}]"), item));
    }
    stops
}

/// One stop sequence; notes what is none.
fn stop_text(f: &mut Fields, name: &str, value: Json) -> Option<String> {
    f.text(name, MAX_STOP_BYTES, value)
}

fn on_disconnect(f: &mut Fields) -> bool {
    const RULE: &str = "cancel or continue";
    let Some(value) = f.take("on_disconnect") else {
        return false;
    };
    match f.string("on_disconnect", RULE, value).as_deref() {
        Some("continue") => true,
        Some("cancel") | None => false,
        Some(_) => {
            f.fault(
                "on_disconnect",
                RULE,
                "on_disconnect is neither cancel nor continue".into(),
            );
            false
        }
    }
}

//! The body of `POST /execute`.

use orcd_shared::job::{JobOptions, MAX_TOP_LOGPROBS};
use orcd_shared::sampling::{Kind, PARAMETERS, SamplingParams, numbers};

use super::super::error::Detail;
use super::super::json::Json;
use super::fields::Fields;
use super::{Limits, MAX_MESSAGES, MAX_PROMPT_CHARS, MAX_STOP_BYTES, MAX_STOPS, job_id};
use crate::text::{Message, Role};

/// All fields, as the error of an unknown one lists them.
pub(in crate::http) fn field_names() -> Vec<&'static str> {
    let mut names = vec!["job_id", "prompt", "messages", "template", "max_tokens"];
    names.extend(PARAMETERS.iter().map(|p| p.name));
    names.extend(["ignore_eos", "logprobs", "stop", "seed", "on_disconnect"]);
    names
}

/// A checked request.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The job's name.
    pub job_id: String,
    /// What to continue.
    pub input: Input,
    /// Most tokens to generate; `None` is the default.
    pub max_tokens: Option<u32>,
    /// How to draw, the seed included.
    pub sampling: SamplingParams,
    /// What else the worker is to do.
    pub options: JobOptions,
    /// Stop sequences.
    pub stop: Vec<String>,
    /// Go on without a reader.
    pub continue_on_disconnect: bool,
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
    /// A conversation.
    Messages(Vec<Message>),
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
    let input = input(f);
    let max_tokens = f.count("max_tokens", 1, limits.max_tokens_out);
    let sampling = sampling(f, limits.vocab_size, fresh.seed);
    let options = JobOptions {
        ignore_end: f.flag("ignore_eos"),
        top_logprobs: f.count("logprobs", 0, MAX_TOP_LOGPROBS),
    };
    let stop = stop(f);
    let continue_on_disconnect = on_disconnect(f);
    fields.finish(&field_names())?;
    Ok(Request {
        // A bad one is a fault, on which `finish` has failed.
        job_id: job_id.flatten().unwrap_or(fresh.job_id),
        // `finish` has failed where there is none.
        input: input.unwrap_or(Input::Messages(Vec::new())),
        max_tokens,
        sampling,
        options,
        stop,
        continue_on_disconnect,
    })
}

/// How to draw. Faults of whole numbers come first.
fn sampling(f: &mut Fields, vocab_size: u32, seed: u64) -> SamplingParams {
    let mut sampling = SamplingParams::GREEDY;
    for p in &PARAMETERS {
        if let Kind::Count(field) = p.kind {
            *field(&mut sampling) = f.count(p.name, 0, vocab_size).unwrap_or(0);
        }
    }
    for (name, bounds, field) in numbers() {
        *field(&mut sampling) = f.number(name, bounds);
    }
    sampling.seed = f.integer("seed", 0, u64::MAX).unwrap_or(seed);
    sampling
}

fn input(f: &mut Fields) -> Option<Input> {
    const RULE: &str = "exactly one of prompt and messages";
    let template = f.take("template");
    if let Some(value) = &template
        && !matches!(value, Json::Bool(_))
    {
        f.wrong_type::<()>("template", "bool", value, "true or false");
    }
    let template = template != Some(Json::Bool(false));
    match (f.take("prompt"), f.take("messages")) {
        (Some(value), None) => prompt(f, value).map(|text| Input::Prompt { text, template }),
        (None, Some(value)) => {
            if !template {
                let message = "template is false; messages always use it".to_owned();
                f.fault("template", "true with messages", message);
            }
            messages(f, value).map(Input::Messages)
        }
        (None, None) => {
            f.fault(
                "prompt",
                RULE,
                "prompt is missing, and so is messages; give one".into(),
            );
            None
        }
        (Some(value), Some(list)) => {
            f.fault(
                "messages",
                RULE,
                "prompt and messages are both given; give one".into(),
            );
            prompt(f, value);
            messages(f, list);
            None
        }
    }
}

fn prompt(f: &mut Fields, value: Json) -> Option<String> {
    const RULE: &str = "1-32768 characters";
    let text = f.string("prompt", RULE, value)?;
    let chars = text.chars().count();
    if (1..=MAX_PROMPT_CHARS).contains(&chars) {
        return Some(text);
    }
    let message = format!("prompt has {chars} characters; give 1 to {MAX_PROMPT_CHARS}");
    f.fault("prompt", RULE, message);
    None
}

fn messages(f: &mut Fields, value: Json) -> Option<Vec<Message>> {
    const RULE: &str = "1-256 messages";
    let Json::Array(items) = value else {
        return f.wrong_type("messages", RULE, &value, "an array of messages");
    };
    if !(1..=MAX_MESSAGES).contains(&items.len()) {
        let message = format!(
            "messages has {} items; give 1 to {MAX_MESSAGES}",
            items.len()
        );
        f.fault("messages", RULE, message);
        return None;
    }
    let mut list = Vec::with_capacity(items.len());
    let mut faults = Vec::new();
    for (i, item) in items.into_iter().enumerate() {
        match message(i, item) {
            Ok(message) => list.push(message),
            Err(more) => faults.extend(more),
        }
    }
    // How long they are together is bounded by the body's size, and by the context.
    if faults.is_empty() && list.iter().all(|m| m.content.is_empty()) {
        let message = "the contents of messages are all empty; give some text".to_owned();
        f.fault("messages", "at least one character", message);
    }
    f.add_faults(faults);
    Some(list)
}

fn message(index: usize, value: Json) -> Result<Message, Vec<Detail>> {
    const ROLE_RULE: &str = "system, user or assistant";
    let path = format!("messages[{index}]");
    let mut m = Fields::at(path, value).map_err(|fault| vec![fault])?;
    let role = m.required("role", ROLE_RULE);
    let role = role.and_then(|value| m.string("role", ROLE_RULE, value));
    let role = match role.as_deref() {
        Some("system") => Role::System,
        Some("assistant") => Role::Assistant,
        // None: already a fault.
        Some("user") | None => Role::User,
        Some(_) => {
            m.fault(
                "role",
                ROLE_RULE,
                format!("messages[{index}].role is none of {ROLE_RULE}"),
            );
            Role::User
        }
    };
    let content = m.required("content", "string");
    let content = content.and_then(|value| m.string("content", "string", value));
    m.finish(&["role", "content"])?;
    Ok(Message {
        role,
        content: content.unwrap_or_default(),
    })
}

fn stop(f: &mut Fields) -> Vec<String> {
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
    const RULE: &str = "1-100 bytes";
    let text = f.string(name, RULE, value)?;
    if !(1..=MAX_STOP_BYTES).contains(&text.len()) {
        let message = format!(
            "{name} has {} bytes; give 1 to {MAX_STOP_BYTES}",
            text.len()
        );
        f.fault(name, RULE, message);
    }
    Some(text)
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

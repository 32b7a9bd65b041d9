//! Bodies of the routes that convert text and make no job.

use super::super::error::Detail;
use super::super::json::Json;
use super::execute::{Input, ids, without_messages};
use super::fields::Fields;
use super::messages::{CHAT_FIELDS, Unknown, conversation};
use crate::text::ChatInput;

const GENERATION_PROMPT: &str = "add_generation_prompt";

/// Checks the body of `POST /tokenize`: a text as it is, or a conversation.
///
/// # Errors
/// All faults.
pub(in crate::http) fn tokenize(body: Json) -> Result<Input, Vec<Detail>> {
    const RULE: &str = "exactly one of prompt and messages";
    let mut f = Fields::of(body)?;
    let input = match (f.take("prompt"), f.take("messages")) {
        (Some(value), None) => {
            bare(&mut f);
            let text = f.string("prompt", "string", value);
            text.map(|text| Input::Prompt {
                text,
                template: false,
            })
        }
        (None, Some(value)) => messages(&mut f, value).map(|chat| Input::Chat(Box::new(chat))),
        _ => {
            bare(&mut f);
            let message = "give one of prompt and messages".to_owned();
            f.fault("prompt", RULE, message);
            None
        }
    };
    model(&mut f);
    f.finish(
        &[
            &["prompt", "messages", "model", GENERATION_PROMPT],
            &CHAT_FIELDS[..],
        ]
        .concat(),
    )?;
    // `finish` has failed where there is none.
    Ok(input.unwrap_or(Input::Ids(Vec::new())))
}

/// Checks the body of `POST /detokenize`.
///
/// # Errors
/// All faults.
pub(in crate::http) fn detokenize(body: Json, vocab_size: u32) -> Result<Vec<u32>, Vec<Detail>> {
    let mut f = Fields::of(body)?;
    let value = f.required("tokens", "an array of token ids");
    let tokens = value.and_then(|value| ids(&mut f, "tokens", value, vocab_size));
    model(&mut f);
    f.finish(&["tokens", "model"])?;
    // `finish` has failed where there are none.
    Ok(tokens.unwrap_or_default())
}

/// Checks the body of `POST /apply-template`.
///
/// # Errors
/// All faults.
pub(in crate::http) fn apply_template(body: Json) -> Result<ChatInput, Vec<Detail>> {
    let mut f = Fields::of(body)?;
    let value = f.required("messages", "an array of messages");
    if value.is_none() {
        bare(&mut f);
    }
    let chat = value.and_then(|value| messages(&mut f, value));
    model(&mut f);
    f.finish(&[&["messages", "model", GENERATION_PROMPT], &CHAT_FIELDS[..]].concat())?;
    // `finish` has failed where there is none.
    Ok(chat.unwrap_or_default())
}

/// Notes what goes with messages alone.
fn bare(f: &mut Fields) {
    without_messages(f);
    if f.take(GENERATION_PROMPT).is_some() {
        let message = "add_generation_prompt is given without messages; leave it out".to_owned();
        f.fault(GENERATION_PROMPT, "only with messages", message);
    }
}

/// The conversation, and whether the assistant's turn begins behind it.
fn messages(f: &mut Fields, value: Json) -> Option<ChatInput> {
    let mut chat = conversation(f, value, Unknown::Refused)?;
    chat.add_generation_prompt = f.flag_or(GENERATION_PROMPT, chat.add_generation_prompt);
    Some(chat)
}

/// Other servers take the model's name there; it is not looked at.
fn model(f: &mut Fields) {
    if let Some(value) = f.take("model") {
        f.string("model", "string", value);
    }
}

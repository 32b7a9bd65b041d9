//! What requests may be, for the OpenAPI document: the same bounds that they are checked against.

use orcd_shared::job::MAX_TOP_LOGPROBS;
use orcd_shared::sampling::{Bounds, Kind, PARAMETERS};
use serde_json::{Value, json};
use utoipa::openapi::extensions::Extensions;
use utoipa::openapi::schema::{
    AdditionalProperties, ArrayBuilder, ObjectBuilder, OneOfBuilder, Schema, SchemaType, Type,
};

use super::{
    JOB_ID_PUNCTUATION, MAX_JOB_ID_BYTES, MAX_MESSAGES, MAX_PROMPT_CHARS, MAX_STOP_BYTES, MAX_STOPS,
};
use crate::http::openapi::Instance;
use crate::jobs::admission::DEFAULT_MAX_TOKENS;
use crate::text::Role;

/// The body of `POST /execute`.
pub(in crate::http) fn execute(instance: &Instance) -> Schema {
    let most_tokens = instance.max_tokens_out;
    let max_tokens = integer(1, Some(most_tokens.into()))
        .default(Some(DEFAULT_MAX_TOKENS.min(most_tokens).into()))
        .description(Some(
            "Most tokens to generate; cut to what the context leaves. The upper bound is --max-tokens-out.",
        ));
    let seed = integer(0, Some(u64::MAX)).description(Some(
        "Seed of the sampling. Left out: a random one below 2^53, sent in `started`.",
    ));
    let template = optional(Type::Boolean).default(Some(true.into())).description(Some(
        "The prompt becomes one user message in the model's chat template, if it has one; false gives it to \
         the model as it is. With `messages` only true.",
    ));
    let on_disconnect = optional(Type::String)
        .enum_values(Some([json!("cancel"), json!("continue"), Value::Null]))
        .default(Some("cancel".into()))
        .description(Some(
            "What becomes of the job when its reader goes away, or reads too slowly. `continue` lets it run \
             and keeps its events for `GET /jobs/{job_id}/events`.",
        ));
    let mut body = object()
        .property("job_id", job_id(optional(Type::String)).description(Some(
            "Names the job; not that of one in flight. Left out: a fresh UUID, sent in `started`.",
        )))
        .property("prompt", prompt())
        .property("messages", messages())
        .property("template", template)
        .property("max_tokens", max_tokens);
    for p in &PARAMETERS {
        let value = match &p.kind {
            Kind::Number(bounds, _) => number(bounds),
            Kind::Count(_) => {
                integer(0, instance.vocab_size.map(u64::from)).default(Some(0.into()))
            }
        };
        body = body.property(p.name, value.description(Some(p.about)));
    }
    let ignore_eos = optional(Type::Boolean).default(Some(false.into())).description(Some(
        "End tokens are tokens like others: only `max_tokens`, a stop sequence and the context end the output.",
    ));
    let logprobs = integer(0, Some(MAX_TOP_LOGPROBS.into())).description(Some(
        "`token` events carry `logprob` and, of so many of the most likely tokens, `top`.",
    ));
    let body = body
        .property("ignore_eos", ignore_eos)
        .property("logprobs", logprobs)
        .property("stop", stop())
        .property("seed", seed)
        .property("on_disconnect", on_disconnect)
        .examples([
            json!({"job_id": "count", "prompt": "Count to five", "temperature": 0}),
            json!({
                "job_id": "rain",
                "messages": [{"role": "user", "content": "Write a haiku about rain"}],
                "seed": 7,
                "on_disconnect": "continue",
            }),
        ]);
    // Keywords of JSON Schema that utoipa's objects lack.
    let either = json!([
        {
            "required": ["prompt"],
            "properties": {"prompt": {"type": "string"}, "messages": {"type": "null"}},
        },
        {
            "required": ["messages"],
            "properties": {
                "messages": {"type": "array"},
                "prompt": {"type": "null"},
                "template": {"enum": [true, null]},
            },
        },
    ]);
    let mut body = body.build();
    body.extensions = Some(Extensions::from_iter([("oneOf", either)]));
    body.into()
}

/// The body of `POST /cancel`.
pub(in crate::http) fn cancel() -> Schema {
    object()
        .property(
            "job_id",
            job_id(ObjectBuilder::new().schema_type(Type::String)),
        )
        .required("job_id")
        .into()
}

/// The body of `POST /shutdown`.
pub(in crate::http) fn shutdown() -> Schema {
    object().into()
}

/// A job's name, as a value of `builder`'s type.
pub(in crate::http) fn job_id(builder: ObjectBuilder) -> ObjectBuilder {
    builder
        .pattern(Some(format!("^[A-Za-z0-9{JOB_ID_PUNCTUATION}]+$")))
        .min_length(Some(1))
        .max_length(Some(MAX_JOB_ID_BYTES))
}

fn object() -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::Object)
        .additional_properties(Some(AdditionalProperties::FreeForm(false)))
}

/// A field that may be left out, or be `null`.
fn optional(kind: Type) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(SchemaType::from_iter([kind, Type::Null]))
}

fn integer(least: u64, most: Option<u64>) -> ObjectBuilder {
    optional(Type::Integer).minimum(Some(least)).maximum(most)
}

fn number(bounds: &Bounds) -> ObjectBuilder {
    let number = optional(Type::Number)
        .maximum(Some(bounds.most))
        .default(Some(bounds.default.into()));
    if bounds.includes_least {
        number.minimum(Some(bounds.least))
    } else {
        number.exclusive_minimum(Some(bounds.least))
    }
}

fn prompt() -> ObjectBuilder {
    optional(Type::String)
        .min_length(Some(1))
        .max_length(Some(MAX_PROMPT_CHARS))
        .description(Some(
            "What to continue, in characters. Give this or `messages`, not both.",
        ))
}

fn messages() -> ArrayBuilder {
    let roles = Role::ALL.map(|role| json!(role));
    let role = ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(roles));
    let content = ObjectBuilder::new().schema_type(Type::String);
    let message = object()
        .property("role", role)
        .property("content", content)
        .required("role")
        .required("content");
    let mut array = ArrayBuilder::new()
        .schema_type(SchemaType::from_iter([Type::Array, Type::Null]))
        .items(message)
        .min_items(Some(1))
        .max_items(Some(MAX_MESSAGES))
        .description(Some(
            "A conversation, whose contents are not all empty. Needs a chat template (`chat_template` of \
             `/health`). Give this or `prompt`, not both.",
        ))
        .build();
    let some_text = json!({"type": "object", "properties": {"content": {"minLength": 1}}});
    array.extensions = Some(Extensions::from_iter([("contains", some_text)]));
    array.into()
}

fn stop() -> OneOfBuilder {
    let one = || {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .min_length(Some(1))
            .max_length(Some(MAX_STOP_BYTES))
            .description(Some(format!("At most {MAX_STOP_BYTES} bytes of UTF-8.")))
    };
    OneOfBuilder::new()
        .item(one())
        .item(ArrayBuilder::new().items(one()).max_items(Some(MAX_STOPS)))
        .item(ObjectBuilder::new().schema_type(Type::Null))
        .description(Some(
            "The first of them that is complete in the text ends the output, in front of it.",
        ))
}

//! What requests may be, for the OpenAPI document: the same bounds that they are checked against.

use orcd_shared::constraint::MAX_CONSTRAINT_BYTES;
use orcd_shared::job::MAX_TOP_LOGPROBS;
use orcd_shared::sampling::{Bounds, Kind, PARAMETERS};
use serde_json::{Value, json};
use utoipa::openapi::extensions::Extensions;
use utoipa::openapi::schema::{
    AdditionalProperties, ArrayBuilder, ObjectBuilder, OneOfBuilder, Schema, SchemaType, Type,
};

use super::logit_bias;
use super::messages::MAX_TOOLS;
use super::{
    DEFAULT_MAX_TOKENS, JOB_ID_PUNCTUATION, MAX_CACHE_SALT_BYTES, MAX_JOB_ID_BYTES, MAX_MESSAGES,
    MAX_STOP_BYTES, MAX_STOPS,
};
use crate::http::openapi::Instance;
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
    let stream = optional(Type::Boolean)
        .default(Some(true.into()))
        .description(Some(
            "Events as they come; false: one JSON object when all is there.",
        ));
    let mut body = object()
        .property("job_id", job_id(optional(Type::String)).description(Some(
            "Names the job; not that of one in flight. Left out: a fresh UUID, sent in `started`.",
        )))
        .property("prompt", prompt())
        .property("prompt_ids", prompt_ids(instance.vocab_size))
        .property("messages", optional_messages())
        .property("template", template)
        .property("max_tokens", max_tokens);
    body = chat_fields(body);
    body = sampling(body, instance);
    let ignore_eos = optional(Type::Boolean).default(Some(false.into())).description(Some(
        "End tokens are tokens like others: only `max_tokens`, a stop sequence and the context end the output.",
    ));
    let logprobs = integer(0, Some(MAX_TOP_LOGPROBS.into())).description(Some(
        "`token` events carry `logprob` and, of so many of the most likely tokens, `top`.",
    ));
    body = cache_fields(body);
    let body = body
        .property("ignore_eos", ignore_eos)
        .property("logprobs", logprobs)
        .property("response_format", response_format())
        .property("stop", stop())
        .property("seed", seed)
        .property("stream", stream)
        .property("on_disconnect", on_disconnect)
        .property("resume", resume(instance.vocab_size))
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
            "properties": without_messages(json!({
                "prompt": {"type": "string"},
                "prompt_ids": {"type": "null"},
            })),
        },
        {
            "required": ["prompt_ids"],
            "properties": without_messages(json!({
                "prompt_ids": {"type": "array"},
                "prompt": {"type": "null"},
            })),
        },
        {
            "required": ["messages"],
            "properties": {
                "messages": {"type": "array"},
                "prompt": {"type": "null"},
                "prompt_ids": {"type": "null"},
                "template": {"enum": [true, null]},
            },
        },
    ]);
    let mut body = body.build();
    body.extensions = Some(Extensions::from_iter([("oneOf", either)]));
    body.into()
}

/// `properties`, and those of a body that has no messages.
fn without_messages(mut properties: Value) -> Value {
    properties["messages"] = json!({"type": "null"});
    for name in ["tools", "documents", "chat_template_kwargs"] {
        properties[name] = json!({"type": "null"});
    }
    properties["continue_final_message"] = json!({"enum": [false, null]});
    properties
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

/// A body without fields.
pub(in crate::http) fn no_fields() -> Schema {
    object().into()
}

/// A job's name, as a value of `builder`'s type.
pub(in crate::http) fn job_id(builder: ObjectBuilder) -> ObjectBuilder {
    builder
        .pattern(Some(format!("^[A-Za-z0-9{JOB_ID_PUNCTUATION}]+$")))
        .min_length(Some(1))
        .max_length(Some(MAX_JOB_ID_BYTES))
}

pub(in crate::http) fn object() -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::Object)
        .additional_properties(Some(AdditionalProperties::FreeForm(false)))
}

/// What changes the drawing of tokens, with the defaults of this instance.
pub(in crate::http) fn sampling(mut body: ObjectBuilder, instance: &Instance) -> ObjectBuilder {
    let mut defaults = instance.defaults;
    for p in &PARAMETERS {
        let value = match &p.kind {
            Kind::Number(bounds, field) => number(bounds, *field(&mut defaults)),
            Kind::Count(field) => {
                let default = *field(&mut defaults);
                integer(0, instance.vocab_size.map(u64::from)).default(Some(default.into()))
            }
        };
        body = body.property(p.name, value.description(Some(p.about)));
    }
    body.property("logit_bias", logit_bias::schema(instance.vocab_size))
}

/// A field that may be left out, or be `null`.
pub(in crate::http) fn optional(kind: Type) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(SchemaType::from_iter([kind, Type::Null]))
}

pub(in crate::http) fn integer(least: u64, most: Option<u64>) -> ObjectBuilder {
    optional(Type::Integer).minimum(Some(least)).maximum(most)
}

fn number(bounds: &Bounds, default: f32) -> ObjectBuilder {
    let number = optional(Type::Number)
        .maximum(Some(bounds.most))
        .default(Some(default.into()));
    if bounds.includes_least {
        number.minimum(Some(bounds.least))
    } else {
        number.exclusive_minimum(Some(bounds.least))
    }
}

fn prompt() -> ObjectBuilder {
    optional(Type::String)
        .min_length(Some(1))
        .description(Some(
            "What to continue; its tokens have to leave room in the context. Give this or `messages`, not both.",
        ))
}

fn token_id(vocab_size: Option<u32>) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::Integer)
        .minimum(Some(0))
        .exclusive_maximum(vocab_size)
}

fn prompt_ids(vocab_size: Option<u32>) -> ArrayBuilder {
    ArrayBuilder::new()
        .schema_type(SchemaType::from_iter([Type::Array, Type::Null]))
        .items(token_id(vocab_size))
        .min_items(Some(1))
        .description(Some(
            "What to continue, in token ids; nothing is put in front of them.",
        ))
}

/// A conversation, which may be left out.
fn optional_messages() -> ArrayBuilder {
    conversation(SchemaType::from_iter([Type::Array, Type::Null]))
}

/// A conversation.
pub(in crate::http) fn messages() -> ArrayBuilder {
    conversation(Type::Array.into())
}

fn conversation(kind: SchemaType) -> ArrayBuilder {
    let mut array = ArrayBuilder::new()
        .schema_type(kind)
        .items(message())
        .min_items(Some(1))
        .max_items(Some(MAX_MESSAGES))
        .description(Some(
            "A conversation, whose contents are not all empty. Needs a chat template (`chat_template` of \
             `/health`).",
        ))
        .build();
    let some_text = json!({
        "type": "object",
        "properties": {"content": {"type": "string", "minLength": 1}},
        "required": ["content"],
    });
    array.extensions = Some(Extensions::from_iter([("contains", some_text)]));
    array.into()
}

fn message() -> ObjectBuilder {
    let text = || ObjectBuilder::new().schema_type(Type::String);
    let role = text().enum_values(Some(Role::ALL.map(|role| json!(role))));
    let part = object()
        .property("type", text().enum_values(Some(["text"])))
        .property("text", text())
        .required("type")
        .required("text");
    let content = OneOfBuilder::new().item(text()).item(
        ArrayBuilder::new()
            .items(part)
            .description(Some("Texts, put together with line breaks between them.")),
    );
    let arguments = ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::String, Type::Object]))
        .description(Some("A JSON object, or its text."));
    let function = ObjectBuilder::new()
        .schema_type(Type::Object)
        .property("name", text())
        .property("arguments", arguments)
        .required("name")
        .required("arguments");
    let call = ObjectBuilder::new()
        .schema_type(Type::Object)
        .property("function", function)
        .required("function");
    let calls = ArrayBuilder::new()
        .schema_type(SchemaType::from_iter([Type::Array, Type::Null]))
        .items(call)
        .max_items(Some(MAX_TOOLS))
        .description(Some("Calls that the assistant made."));
    object()
        .property("role", role)
        .property("content", content)
        .property("name", optional(Type::String))
        .property("tool_calls", calls)
        .property("tool_call_id", optional(Type::String))
        .property("reasoning_content", optional(Type::String))
        .required("role")
        .required("content")
}

/// What goes to the chat template beside the messages.
pub(in crate::http) fn chat_fields(body: ObjectBuilder) -> ObjectBuilder {
    let text = || ObjectBuilder::new().schema_type(Type::String);
    let function = ObjectBuilder::new()
        .schema_type(Type::Object)
        .property(
            "name",
            text()
                .pattern(Some("^[A-Za-z0-9_.-]+$"))
                .min_length(Some(1))
                .max_length(Some(64)),
        )
        .property("description", optional(Type::String))
        .property("parameters", optional(Type::Object))
        .required("name");
    let tool = ObjectBuilder::new()
        .schema_type(Type::Object)
        .property("function", function)
        .required("function");
    let list = |items: ObjectBuilder| {
        ArrayBuilder::new()
            .schema_type(SchemaType::from_iter([Type::Array, Type::Null]))
            .items(items)
            .max_items(Some(MAX_TOOLS))
    };
    body.property(
        "tools",
        list(tool).description(Some("Functions that the model may call.")),
    )
    .property(
        "documents",
        list(ObjectBuilder::new().schema_type(Type::Object))
            .description(Some("Texts for templates that take them.")),
    )
    .property(
        "chat_template_kwargs",
        optional(Type::Object)
            .additional_properties(Some(AdditionalProperties::FreeForm(true)))
            .description(Some(
                "Variables of the chat template, such as `enable_thinking`.",
            )),
    )
    .property(
        "continue_final_message",
        optional(Type::Boolean)
            .default(Some(false.into()))
            .description(Some("The last message is the assistant's, and goes on.")),
    )
}

/// The body of `POST /tokenize`.
pub(in crate::http) fn tokenize() -> Schema {
    let body = object()
        .property("model", optional(Type::String))
        .property(
            "prompt",
            optional(Type::String).description(Some("A text, as it is.")),
        )
        .property("messages", optional_messages())
        .property("add_generation_prompt", generation_prompt());
    let either = json!([
        {
            "required": ["prompt"],
            "properties": without_messages(json!({"prompt": {"type": "string"}, "add_generation_prompt": {"type": "null"}})),
        },
        {
            "required": ["messages"],
            "properties": {"messages": {"type": "array"}, "prompt": {"type": "null"}},
        },
    ]);
    let mut body = chat_fields(body).build();
    body.extensions = Some(Extensions::from_iter([("oneOf", either)]));
    body.into()
}

/// The body of `POST /detokenize`.
pub(in crate::http) fn detokenize(instance: &Instance) -> Schema {
    let ids = ArrayBuilder::new().items(token_id(instance.vocab_size));
    object()
        .property("model", optional(Type::String))
        .property("tokens", ids)
        .required("tokens")
        .into()
}

/// The body of `POST /apply-template`.
pub(in crate::http) fn apply_template() -> Schema {
    let body = object()
        .property("model", optional(Type::String))
        .property("messages", messages())
        .property("add_generation_prompt", generation_prompt())
        .required("messages");
    chat_fields(body).into()
}

fn generation_prompt() -> ObjectBuilder {
    optional(Type::Boolean).description(Some(
        "Whether the prompt ends with the beginning of the assistant's turn; it does unless the last message goes on.",
    ))
}

/// What an output has to be.
pub(in crate::http) fn response_format() -> OneOfBuilder {
    let text = || ObjectBuilder::new().schema_type(Type::String);
    let kind = |kinds: &[&str]| {
        let kinds: Vec<_> = kinds.iter().map(|kind| json!(kind)).collect();
        object()
            .property("type", text().enum_values(Some(kinds)))
            .required("type")
    };
    let described = |body: ObjectBuilder| {
        body.property("name", optional(Type::String))
            .property("description", optional(Type::String))
            .property(
                "strict",
                optional(Type::Boolean).description(Some("The schema is heeded in any case.")),
            )
            .property(
                "schema",
                ObjectBuilder::new()
                    .schema_type(Type::Object)
                    .additional_properties(Some(AdditionalProperties::FreeForm(true)))
                    .description(Some("A JSON Schema.")),
            )
            .required("schema")
    };
    let source = |about: &str| {
        text()
            .min_length(Some(1))
            .max_length(Some(MAX_CONSTRAINT_BYTES))
            .description(Some(about))
    };
    let nested = kind(&["json_schema"])
        .property("json_schema", described(object()))
        .required("json_schema");
    let regex = kind(&["regex"])
        .property(
            "pattern",
            source("A regular expression of the whole output."),
        )
        .required("pattern");
    let lark = kind(&["lark"])
        .property(
            "grammar",
            source("A grammar in llguidance's dialect of Lark."),
        )
        .required("grammar");
    OneOfBuilder::new()
        .item(kind(&["text", "json_object"]))
        .item(described(kind(&["json_schema"])))
        .item(nested)
        .item(regex)
        .item(lark)
        .item(ObjectBuilder::new().schema_type(Type::Null))
        .description(Some(
            "What the output has to be. It is, unless it is cut short by its bound of tokens, the context or a stop \
             sequence. A schema or a grammar that can't be compiled is refused. Not with `ignore_eos`.",
        ))
}

/// What says which output is to be gone on with.
pub(in crate::http) fn resume(vocab_size: Option<u32>) -> ObjectBuilder {
    let text = || {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .min_length(Some(1))
    };
    let ids = ArrayBuilder::new().items(token_id(vocab_size));
    let time = text().pattern(Some(
        "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}[+-][0-9]{2}:[0-9]{2}$",
    ));
    let members = object()
        .schema_type(SchemaType::from_iter([Type::Object, Type::Null]))
        .property("ids", ids)
        .property("fingerprint", text())
        .property("request_digest", text())
        .property("template_time", time)
        .description(Some(
            "Output that another service began and this one goes on with: the ids of its tokens that were received, and what \
             its `started` said. The rest of the request is the same, with the `seed` of `started`.",
        ));
    ["ids", "fingerprint", "request_digest", "template_time"]
        .into_iter()
        .fold(members, ObjectBuilder::required)
}

/// What a request says of the prefix cache.
pub(in crate::http) fn cache_fields(body: ObjectBuilder) -> ObjectBuilder {
    let cache = optional(Type::Boolean).default(Some(true.into())).description(Some(
        "Pages of KV memory are kept, and shared with jobs of the same API key whose prompts begin with the same \
         tokens. It changes when tokens come, never which. False: nothing of the job is kept or shared.",
    ));
    let salt = optional(Type::String)
        .min_length(Some(1))
        .max_length(Some(MAX_CACHE_SALT_BYTES))
        .description(Some(format!(
            "At most {MAX_CACHE_SALT_BYTES} bytes of UTF-8. Only jobs with the same salt share, and only those of the \
             same key. Not with `cache` false.",
        )));
    body.property("cache", cache).property("cache_salt", salt)
}

pub(in crate::http) fn stop() -> OneOfBuilder {
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

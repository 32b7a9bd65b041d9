//! What the OpenAPI document says of OpenAI's dialects: the fields that mean something here.

use orcd_shared::error::ErrorCode;
use orcd_shared::job::MAX_TOP_LOGPROBS;
use serde_json::{Value, json};
use utoipa::openapi::path::OperationBuilder;
use utoipa::openapi::schema::{
    ArrayBuilder, ObjectBuilder, OneOfBuilder, Schema, SchemaType, Type,
};
use utoipa::openapi::{Required, ResponseBuilder};

use super::super::openapi::{self, Description, Instance};
use super::super::sse;
use super::super::validate::schema::{
    cache_fields, chat_fields, integer, messages, optional, response_format, resume, sampling, stop,
};

/// A route that generates text.
pub(in crate::http) fn generation(
    id: &str,
    summary: &str,
    request: impl Into<Schema>,
) -> Description {
    let object = ObjectBuilder::new()
        .schema_type(Type::Object)
        .property("id", ObjectBuilder::new().schema_type(Type::String))
        .required("id");
    let answer: ResponseBuilder = openapi::response(
        "The answer; with `stream` its chunks, each a line `data: {...}`, then `data: [DONE]`.",
        openapi::json(object),
    );
    Description {
        operation: OperationBuilder::new()
            .operation_id(Some(id))
            .summary(Some(summary))
            .description(Some(
                "The same core as `/execute`: the same tokens for the same prompt tokens, parameters and seed, \
                 whatever becomes of workers; cancelled when the client goes away, or by `/cancel` with the \
                 answer's `id`. Fields that nobody knows are ignored. Errors have OpenAI's form.",
            ))
            .request_body(Some(openapi::body("As OpenAI has it.", Required::True, request.into())))
            .response("200", sse::with_stream(answer)),
        errors: &[
            ErrorCode::ContextLengthExceeded,
            ErrorCode::FingerprintMismatch,
            ErrorCode::QueueFull,
            ErrorCode::Draining,
            ErrorCode::WorkerUnavailable,
            ErrorCode::InferenceTimeout,
            ErrorCode::Cancelled,
            ErrorCode::VramOom,
            ErrorCode::WorkerCrashed,
            ErrorCode::ReplayDiverged,
        ],
        invalid: &[404, 413],
    }
}

/// The body of `POST /v1/chat/completions`.
pub(in crate::http) fn chat(instance: &Instance) -> Schema {
    let flag = || optional(Type::Boolean);
    let body = common(instance)
        .property("resume", resumed(instance))
        .property("messages", messages())
        .property("max_completion_tokens", integer(1, None))
        .property(
            "max_tokens",
            integer(1, None).description(Some("The older name of `max_completion_tokens`.")),
        )
        .property("logprobs", flag())
        .property("top_logprobs", integer(0, Some(MAX_TOP_LOGPROBS.into())))
        .property("parallel_tool_calls", flag())
        .property("tool_choice", tool_choice())
        .property("response_format", response_format())
        .required("messages");
    chat_fields(body).into()
}

/// What forces a call needs `tools` beside it, which says the text.
fn tool_choice() -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::String, Type::Null]))
        .enum_values(Some([json!("none"), json!("auto"), Value::Null]))
        .description(Some(
            "With `tools` also `required`, or one by name: `{\"type\": \"function\", \"function\": {\"name\": \"f\"}}`.",
        ))
}

/// The body of `POST /v1/completions`.
pub(in crate::http) fn completion(instance: &Instance) -> Schema {
    let text = || ObjectBuilder::new().schema_type(Type::String);
    let id = || {
        ObjectBuilder::new()
            .schema_type(Type::Integer)
            .minimum(Some(0))
            .exclusive_maximum(instance.vocab_size)
    };
    let prompt = OneOfBuilder::new()
        .item(text())
        .item(ArrayBuilder::new().items(text()).min_items(Some(1)))
        .item(ArrayBuilder::new().items(id()).min_items(Some(1)))
        .item(
            ArrayBuilder::new()
                .items(ArrayBuilder::new().items(id()).min_items(Some(1)))
                .min_items(Some(1)),
        )
        .description(Some("A text as it is, or token ids, or several of either."));
    common(instance)
        .property("resume", resumed(instance))
        .property("prompt", prompt)
        .property("max_tokens", integer(1, None).default(Some(16.into())))
        .property("logprobs", integer(0, Some(MAX_TOP_LOGPROBS.into())))
        .property("response_format", response_format())
        .required("prompt")
        .into()
}

/// The body of `POST /v1/responses`.
pub(in crate::http) fn response(instance: &Instance) -> Schema {
    let text = || ObjectBuilder::new().schema_type(Type::String);
    let message = ObjectBuilder::new()
        .schema_type(Type::Object)
        .property("type", text().enum_values(Some(["message"])))
        .property(
            "role",
            text().enum_values(Some(["system", "developer", "user", "assistant"])),
        )
        .property("content", text().min_length(Some(1)))
        .required("role")
        .required("content");
    let input = OneOfBuilder::new()
        .item(text().min_length(Some(1)))
        .item(ArrayBuilder::new().items(message).min_items(Some(1)))
        .description(Some(
            "A text, or items: messages, `function_call`, `function_call_output`, `reasoning`.",
        ));
    common(instance)
        .property("input", input)
        .property("instructions", optional(Type::String))
        .property("max_output_tokens", integer(1, None))
        .property(
            "text",
            ObjectBuilder::new()
                .schema_type(SchemaType::from_iter([Type::Object, Type::Null]))
                .property("format", response_format()),
        )
        .required("input")
        .into()
}

/// As for `/execute`, and the id of the answer that is gone on with.
fn resumed(instance: &Instance) -> ObjectBuilder {
    resume(instance.vocab_size).property("id", optional(Type::String))
}

/// What both have.
fn common(instance: &Instance) -> ObjectBuilder {
    let model = optional(Type::String)
        .description(Some("A name of `/v1/models`; left out: the only model."));
    let options = ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::Object, Type::Null]))
        .property("include_usage", optional(Type::Boolean))
        .description(Some("Only with `stream`."));
    let body = ObjectBuilder::new()
        .schema_type(Type::Object)
        .property("model", model)
        .property(
            "stream",
            optional(Type::Boolean).default(Some(false.into())),
        )
        .property("stream_options", options)
        .property(
            "n",
            integer(1, Some(super::request::MAX_CHOICES.into())).default(Some(1.into())),
        )
        .property("ignore_eos", optional(Type::Boolean))
        .property("return_token_ids", optional(Type::Boolean));
    sampling(cache_fields(body), instance)
        .property("stop", stop())
        .property("seed", integer(0, Some(u64::MAX)))
}

//! `POST /execute`: a request becomes a job, the job's events the answer.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::Response;
use orcd_shared::error::ErrorCode;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinError;
use utoipa::openapi::Required;
use utoipa::openapi::link::LinkBuilder;
use utoipa::openapi::path::OperationBuilder;
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type};
use uuid::Uuid;

use super::super::correlation::CorrelationId;
use super::super::error::{ApiError, Detail};
use super::super::openapi::{self, Description, Instance};
use super::super::validate::{self, Fresh, Input, Limits};
use super::super::{App, body, deadline, sse};
use crate::jobs::NewJob;
use crate::model::Model;

/// Random seeds stay below this, so that a client whose numbers are doubles can repeat them.
const RANDOM_SEED_BITS: u32 = 53;

/// Takes a job and answers with its stream.
pub(super) async fn execute(
    State(app): State<Arc<App>>,
    Extension(CorrelationId(correlation_id)): Extension<CorrelationId>,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    // What would be refused whatever the body says is refused before it costs anything.
    let service = match app.service_with_room() {
        Ok(service) => service,
        Err(error) => return Err(body::pass_over(&parts, body, error).await),
    };
    let deadline = deadline::of_request(&parts.headers, app.inference_timeout);
    let bytes = body::read(&parts, body, &app.bodies).await?;
    let task = Preparation {
        model: Arc::clone(&service.model),
        max_tokens_out: app.max_tokens_out,
        context: service
            .jobs
            .snapshot()
            .worker
            .as_ref()
            .map(|worker| worker.context),
    };
    // Megabytes of JSON and long prompts take milliseconds: too long for the threads that pass
    // tokens on.
    let prepared = with_permit(&app.preparing, move || task.prepare(&bytes))
        .await
        .unwrap_or_else(|_| Err(ApiError::internal()))?;
    let deadline = deadline?;
    let job = NewJob {
        job_id: prepared.request.job_id,
        model: service.model.name().into(),
        prompt: prepared.tokens,
        tokenizer: Arc::clone(service.model.text().tokenizer()),
        max_tokens: prepared.request.max_tokens,
        sampling: prepared.request.sampling,
        options: prepared.request.options,
        stop: prepared.request.stop,
        deadline,
        continue_on_disconnect: prepared.request.continue_on_disconnect,
        correlation_id: correlation_id.to_string(),
    };
    let stream = service.jobs.submit(job).await?;
    Ok(sse::response(stream))
}

/// Runs `work` on a thread of its own, as soon as there is a permit. The permit goes with the work, which
/// is done also when whoever waits for it has left.
async fn with_permit<T: Send + 'static>(
    permits: &Arc<Semaphore>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    let permit = Arc::clone(permits).acquire_owned().await;
    let working = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        work()
    });
    working.await
}

/// What the OpenAPI document says of it.
pub(super) fn describe(instance: &Instance) -> Description {
    let deadline = openapi::header_parameter(
        deadline::NAME,
        "RFC 3339 with an offset: until when the answer is of use. Given once. A time in the past is 504.",
        ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime))),
    );
    let events = LinkBuilder::new()
        .operation_id("jobEvents")
        .parameter("job_id", "$request.body#/job_id")
        .description("The same stream again, of a job with `\"on_disconnect\":\"continue\"`.")
        .build();
    let cancel = LinkBuilder::new()
        .operation_id("cancel")
        .request_body(Some(json!({"job_id": "$request.body#/job_id"})))
        .description("Ends the job.")
        .build();
    Description {
        operation: OperationBuilder::new()
            .operation_id(Some("execute"))
            .summary(Some("Start a job; the answer is its stream"))
            .description(Some(
                "The same model file, prompt tokens, parameters and seed give the same tokens on any device, \
                 beside any other jobs, and whatever becomes of workers. All bad fields are named at once. A \
                 prompt that fits its bounds may still be refused: its tokens have to leave room in the context \
                 (`context_length` of `/health`), and the chat template has to take the messages.",
            ))
            .parameter(deadline)
            .request_body(Some(openapi::body(
                "What to generate, and how.",
                Required::True,
                validate::schema::execute(instance),
            )))
            .response(
                "200",
                sse::describe().link("Events", events).link("Cancel", cancel),
            ),
        errors: &[
            ErrorCode::ContextLengthExceeded,
            ErrorCode::JobExists,
            ErrorCode::QueueFull,
            ErrorCode::Draining,
            ErrorCode::WorkerUnavailable,
            ErrorCode::InferenceTimeout,
        ],
        invalid: &[413],
    }
}

/// What a body is checked against.
struct Preparation {
    model: Arc<Model>,
    max_tokens_out: u32,
    /// Tokens per sequence, once a worker has said it.
    context: Option<u32>,
}

/// A checked request and its prompt's tokens.
struct Prepared {
    request: validate::Request,
    tokens: Vec<u32>,
}

impl Preparation {
    fn prepare(&self, bytes: &[u8]) -> Result<Prepared, ApiError> {
        let limits = Limits {
            max_tokens_out: self.max_tokens_out,
            vocab_size: self.model.vocab_size(),
        };
        let body = body::parse(bytes)?;
        let fresh = Fresh {
            job_id: Uuid::new_v4().to_string(),
            seed: fastrand::u64(..1 << RANDOM_SEED_BITS),
        };
        let request = validate::execute(body, &limits, fresh).map_err(ApiError::invalid)?;
        let tokens = self.tokens(&request.input)?;
        Ok(Prepared { request, tokens })
    }

    fn tokens(&self, input: &Input) -> Result<Vec<u32>, ApiError> {
        let field = match input {
            Input::Prompt { .. } => "prompt",
            Input::Messages(_) => "messages",
        };
        let fault = |constraint: &str, message: String| {
            vec![Detail {
                field: field.into(),
                constraint: constraint.into(),
                message,
            }]
        };
        let text = self.model.text();
        let encoded = match input {
            Input::Prompt {
                text: prompt,
                template,
            } => text.encode_prompt(prompt, *template),
            Input::Messages(messages) => text.encode_messages(messages),
        };
        let tokens = encoded.map_err(|error| {
            if error.is_request_fault() {
                return ApiError::invalid(fault(
                    "fits the model's chat template",
                    error.to_string(),
                ));
            }
            if error.is_template_fault() {
                return ApiError::new(ErrorCode::Internal, error.to_string());
            }
            tracing::error!(%error, "a prompt could not be turned into tokens");
            ApiError::internal()
        })?;
        if tokens.is_empty() {
            let message = format!("{field} has no tokens");
            return Err(ApiError::invalid(fault("at least one token", message)));
        }
        match self.context {
            Some(context) if tokens.len() >= context as usize => {
                let message = format!(
                    "the prompt has {} tokens, the context holds {context} with at least one \
                     for output; shorten the prompt",
                    tokens.len()
                );
                let constraint = format!("prompt tokens < {context}");
                Err(
                    ApiError::new(ErrorCode::ContextLengthExceeded, message.clone())
                        .details(fault(&constraint, message)),
                )
            }
            _ => Ok(tokens),
        }
    }
}
#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// A client that posts and leaves would otherwise free its permit while its work goes on, and fill every
    /// thread there is.
    #[tokio::test]
    async fn a_permit_goes_with_the_work_and_not_with_who_waits_for_it() {
        let permits = Arc::new(Semaphore::new(1));
        let (begun, begins) = tokio::sync::oneshot::channel();
        let (finish, finished) = mpsc::channel::<()>();
        let waiting = with_permit(&permits, move || {
            begun.send(()).unwrap();
            finished.recv().unwrap();
        });
        tokio::select! {
            _ = waiting => panic!("it was not let finish"),
            begun = begins => begun.unwrap(),
        }
        // Whoever waited is gone.
        assert_eq!(permits.available_permits(), 0);
        finish.send(()).unwrap();
        let next = with_permit(&permits, || 7);
        assert_eq!(next.await.unwrap(), 7);
    }
}

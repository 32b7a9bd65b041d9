//! `GET /jobs/{job_id}/events`: the events of a job that goes on without its reader, for any number
//! of readers.

use std::sync::Arc;

use axum::Extension;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, StatusCode};
use orcd_shared::error::ErrorCode;
use utoipa::openapi::path::{OperationBuilder, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{Required, ResponseBuilder};

use super::super::error::{ApiError, Detail};
use super::super::openapi::{self, Description, Instance};
use super::super::sse;
use super::super::{App, validate};
use crate::jobs::{JobName, NoStream, Owner};

const LAST_EVENT_ID: &str = "last-event-id";

/// Answers with the events after `Last-Event-ID`, or with all of them. A reader that has the last
/// event gets 204, which is how an `EventSource` is told to stop.
pub(super) async fn job_events(
    State(app): State<Arc<App>>,
    Extension(owner): Extension<Owner>,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    // A path that is no job's name names no job.
    let name = path.map(|Path(job_id)| job_id).unwrap_or_default();
    if !validate::is_job_id(&name) {
        return Err(unknown());
    }
    let after = last_event_id(&headers)?;
    let service = app.service()?;
    let stream = match service.jobs.resume(JobName { owner, name }, after).await {
        Ok(stream) => stream,
        Err(NoStream::Complete) => return Ok(StatusCode::NO_CONTENT.into_response()),
        Err(NoStream::Unknown) => return Err(unknown()),
        Err(NoStream::Ahead { events }) => return Err(ahead(after.unwrap_or_default(), events)),
        Err(NoStream::Crowded { readers }) => return Err(crowded(readers)),
    };
    Ok(sse::response(stream, None))
}

fn unknown() -> ApiError {
    let message = "no such job with events kept: only jobs started with \"on_disconnect\": \
                   \"continue\" have them, until --resume-ttl-sec after their end";
    ApiError::invalid_with(StatusCode::NOT_FOUND, message)
}

fn ahead(given: u64, events: u64) -> ApiError {
    let message = format!(
        "Last-Event-ID is {given}, but the job has had {events} events, numbered from 0; give the \
         id of the last event you have, or none for all of them"
    );
    ApiError::invalid(vec![Detail {
        field: "Last-Event-ID".into(),
        constraint: format!("less than {events}"),
        message,
    }])
}

fn crowded(readers: usize) -> ApiError {
    let message =
        format!("the job has {readers} readers, more are not served; close one of them first");
    ApiError::new(ErrorCode::QueueFull, message)
}

/// What the OpenAPI document says of it.
pub(super) fn describe(_: &Instance) -> Description {
    let job_id = ParameterBuilder::new()
        .name("job_id")
        .parameter_in(ParameterIn::Path)
        .required(Required::True)
        .description(Some("The job's name."))
        .schema(Some(validate::schema::job_id(
            ObjectBuilder::new().schema_type(Type::String),
        )));
    let last = openapi::header_parameter(
        "Last-Event-ID",
        "The last event that the reader has; the answer begins after it. Left out or empty: all events. \
         Given twice, or an event that the job has not had yet: 400.",
        ObjectBuilder::new()
            .schema_type(Type::String)
            .pattern(Some("^[0-9]*$")),
    );
    let nothing = ResponseBuilder::new()
        .description("The job has ended, and `Last-Event-ID` is its last event.");
    Description {
        operation: OperationBuilder::new()
            .operation_id(Some("jobEvents"))
            .summary(Some("The stream again, from any event on"))
            .description(Some(
                "Of a job that was started with `\"on_disconnect\":\"continue\"`, while it runs and for \
                 --resume-ttl-sec after its end; of any other job 404. Events that are there come at once. Ids \
                 and bytes are those of the first stream.",
            ))
            .parameter(job_id)
            .parameter(last)
            .response("200", sse::describe())
            .response("204", nothing),
        errors: &[ErrorCode::QueueFull, ErrorCode::WorkerUnavailable],
        invalid: &[404],
    }
}

/// The event that a reader has had last, by the header `Last-Event-ID`.
///
/// # Errors
/// `INVALID_REQUEST`: it is no whole number, or there are two of them.
pub fn last_event_id(headers: &HeaderMap) -> Result<Option<u64>, ApiError> {
    let mut values = headers.get_all(LAST_EVENT_ID).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    // Two of them would be two different places.
    let text = match values.next() {
        Some(_) => "?",
        None => value.to_str().unwrap_or("?").trim(),
    };
    // What a browser sends that has seen no event with an id.
    if text.is_empty() {
        return Ok(None);
    }
    match text.parse() {
        Ok(id) if text.bytes().all(|b| b.is_ascii_digit()) => Ok(Some(id)),
        _ => Err(ApiError::invalid(vec![Detail {
            field: "Last-Event-ID".into(),
            constraint: "the id of an event".into(),
            message:
                "Last-Event-ID is not one whole number; give the id of the last event you have"
                    .into(),
        }])),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn last_event_id_is_a_whole_number_or_absent() {
        let parse = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(LAST_EVENT_ID, HeaderValue::from_static(value));
            last_event_id(&headers)
        };
        assert_eq!(last_event_id(&HeaderMap::new()).unwrap(), None);
        assert_eq!(parse("").unwrap(), None);
        assert_eq!(parse("0").unwrap(), Some(0));
        assert_eq!(parse(" 17 ").unwrap(), Some(17));
        for bad in ["-1", "+1", "x", "1.5", "18446744073709551616"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        let mut two = HeaderMap::new();
        two.append(LAST_EVENT_ID, HeaderValue::from_static("1"));
        two.append(LAST_EVENT_ID, HeaderValue::from_static("1"));
        assert!(last_event_id(&two).is_err());
    }
}

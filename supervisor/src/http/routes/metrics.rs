//! `GET /metrics`: the service's counters, as Prometheus text or as `OpenMetrics`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, header};
use prometheus_client::encoding::prometheus_text;
use utoipa::openapi::path::OperationBuilder;
use utoipa::openapi::schema::{ObjectBuilder, Type};

use super::super::App;
use super::super::error::ApiError;
use super::super::openapi::{self, Description, Instance};
use crate::metrics::Format;

const OPEN_METRICS: &str = "application/openmetrics-text";
const PLAIN: &str = "text/plain";

/// Answers a scrape.
pub(super) async fn metrics(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let snapshot = app.service.get().map(|service| service.jobs.snapshot());
    let (format, kind) = if takes_open_metrics(&headers) {
        let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        (Format::OpenMetrics, kind)
    } else {
        (Format::Prometheus, prometheus_text::CONTENT_TYPE)
    };
    let text = app
        .metrics
        .encode(format, snapshot.as_deref())
        .map_err(|_| ApiError::internal())?;
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

/// Prometheus asks for it by name, curl and older scrapers don't.
fn takes_open_metrics(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.contains(OPEN_METRICS))
}

/// What the OpenAPI document says of it.
pub(super) fn describe(_: &Instance) -> Description {
    let text = || ObjectBuilder::new().schema_type(Type::String);
    let (open, in_open) = openapi::content(OPEN_METRICS, text());
    let response = openapi::response("All metrics.", openapi::content(PLAIN, text()));
    Description {
        operation: OperationBuilder::new()
            .operation_id(Some("metrics"))
            .summary(Some("Counters, for Prometheus"))
            .description(Some(format!(
                "In Prometheus text, or in OpenMetrics 1.0.0 where `Accept` has `{OPEN_METRICS}`. Needs no key."
            )))
            .response("200", response.content(open, in_open)),
        errors: &[],
        invalid: &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_metrics_is_for_those_who_ask() {
        let takes = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, value.parse().unwrap());
            takes_open_metrics(&headers)
        };
        assert!(takes(
            "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"
        ));
        assert!(!takes("*/*") && !takes("text/plain; version=0.0.4"));
        assert!(!takes_open_metrics(&HeaderMap::new()));
    }
}

//! `GET /metrics`: the service's counters, as Prometheus text or as `OpenMetrics`.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, header};

use super::App;
use super::error::ApiError;

const OPEN_METRICS: &str = "application/openmetrics-text";

/// Answers a scrape.
pub(super) async fn metrics(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let snapshot = app.service.get().map(|service| service.jobs.snapshot());
    let text = app
        .metrics
        .encode(snapshot.as_deref())
        .map_err(|_| ApiError::internal())?;
    let (kind, text) = if takes_open_metrics(&headers) {
        (
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            text,
        )
    } else {
        ("text/plain; version=0.0.4; charset=utf-8", plain(&text))
    };
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

/// The same in the older format: it knows neither units nor an end, and a counter's type goes by the
/// name of its samples.
fn plain(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    let mut lines = open_metrics.lines().peekable();
    while let Some(line) = lines.next() {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        // Writing into a `String` doesn't fail.
        let _ = match words[..] {
            ["#", "UNIT" | "EOF", ..] => Ok(()),
            ["#", "HELP", name, help]
                if lines
                    .peek()
                    .is_some_and(|next| *next == format!("# TYPE {name} counter")) =>
            {
                writeln!(text, "# HELP {name}_total {help}")
            }
            ["#", "TYPE", name, "counter"] => writeln!(text, "# TYPE {name}_total counter"),
            _ => writeln!(text, "{line}"),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_have_their_samples_names_in_the_older_format() {
        let metrics = crate::metrics::Metrics::new();
        metrics.tokens(3);
        let open = metrics.encode(None).unwrap();
        let text = plain(&open);
        for line in [
            "# HELP orcd_tokens_generated_total Tokens generated.",
            "# TYPE orcd_tokens_generated_total counter",
            "orcd_tokens_generated_total 3",
            "# TYPE orcd_first_token_seconds histogram",
            "# TYPE orcd_ready gauge",
        ] {
            assert!(text.lines().any(|l| l == line), "no {line:?} in:\n{text}");
        }
        assert!(!text.contains("# EOF") && !text.contains("# UNIT"));
        let samples = |text: &str| text.lines().filter(|l| !l.starts_with('#')).count();
        assert_eq!(samples(&text), samples(&open));
    }

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

//! Why a stream can't go on.

use std::time::Duration;

/// Why a stream can't go on anywhere.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No replica was given.
    #[error("there is no replica; give at least one URL, such as http://127.0.0.1:8080")]
    NoReplica,
    /// Not the URL of a service.
    #[error("`{0}` is no URL of a service; give one such as http://127.0.0.1:8080")]
    Url(String),
    /// The body can't be sent.
    #[error("the body {0}")]
    Body(&'static str),
    /// A service answered with an error that no other would do without, or the last one that was asked did.
    #[error("{code}: {message}")]
    Service {
        /// As in the service's table of errors.
        code: String,
        /// For people.
        message: String,
    },
    /// A service could not be reached, or the connection broke.
    #[error("{replica}: {reason}")]
    Connection {
        /// Its URL.
        replica: String,
        /// What failed.
        reason: String,
    },
}

/// What a failed attempt means.
#[derive(Debug)]
pub(crate) enum Failure {
    /// No replica will do.
    Final(Error),
    /// Another replica may, or this one later.
    Elsewhere {
        error: Error,
        /// When to ask this one again.
        after: Option<Duration>,
    },
}

/// Codes that another replica, or the same one a moment later, may not answer with.
const ELSEWHERE: [&str; 13] = [
    "QUEUE_FULL",
    "RATE_LIMITED",
    "DRAINING",
    "WORKER_UNAVAILABLE",
    "INSUFFICIENT_VRAM",
    "INSUFFICIENT_MEMORY",
    "VRAM_OOM",
    "CUDA_ERROR",
    "INFERENCE_TIMEOUT",
    "CANCELLED",
    "REPLAY_DIVERGED",
    // Another model or other limits: a replica for other streams.
    "FINGERPRINT_MISMATCH",
    // The service has not yet noticed that the last connection is cut.
    "JOB_EXISTS",
];

/// Codes that are the same everywhere. What has neither is a router's, whose service is gone.
const FINAL: [&str; 8] = [
    "INVALID_REQUEST",
    "CONTEXT_LENGTH_EXCEEDED",
    "UNAUTHORIZED",
    "INVALID_API_KEY",
    "FORBIDDEN_ORIGIN",
    "INTERNAL",
    "WORKER_CRASHED",
    "MODEL_NOT_FOUND",
];

impl Failure {
    /// Of an error that a service sent, in its own form or in OpenAI's, which has the same codes in small letters, and none
    /// for a wrong request; or that a router sent, where it may be one's.
    pub(crate) fn of_service(
        error: &serde_json::Value,
        after: Option<Duration>,
        may_be_a_routers: bool,
    ) -> Self {
        let code = match error["code"].as_str() {
            Some(code) => code.to_ascii_uppercase(),
            None if error["type"] == "invalid_request_error" => "INVALID_REQUEST".into(),
            None => "UNKNOWN".into(),
        };
        let is_elsewhere = ELSEWHERE.contains(&code.as_str())
            || may_be_a_routers && !FINAL.contains(&code.as_str());
        let message = error["message"].as_str().unwrap_or_default().to_owned();
        let error = Error::Service { code, message };
        match is_elsewhere {
            true => Self::Elsewhere { error, after },
            false => Self::Final(error),
        }
    }

    pub(crate) fn connection(replica: &hyper::Uri, reason: impl ToString) -> Self {
        Self::Elsewhere {
            error: Error::Connection {
                replica: replica.to_string(),
                reason: reason.to_string(),
            },
            after: None,
        }
    }
}

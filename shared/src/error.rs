//! The error codes that clients see, with their HTTP status and whether trying again helps.

use serde::{Deserialize, Serialize};

/// A code of the contract's error table. In JSON it stands as its `SCREAMING_SNAKE_CASE` name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ErrorCode {
    /// A field is missing, unknown, of the wrong type or out of bounds.
    InvalidRequest,
    /// The prompt leaves no room for a token in the context.
    ContextLengthExceeded,
    /// A job of this name is in flight.
    JobExists,
    /// The queue has no place left.
    QueueFull,
    /// The service is stopping.
    Draining,
    /// No worker can take jobs at present.
    WorkerUnavailable,
    /// The model does not fit the device.
    InsufficientVram,
    /// No memory for this job's KV cache.
    VramOom,
    /// The device reported an error.
    CudaError,
    /// The model could not be loaded.
    ModelLoadFailed,
    /// A bug.
    Internal,
    /// The deadline or the inference timeout passed.
    InferenceTimeout,
    /// Cancelled by the client, or by shutdown.
    Cancelled,
    /// The job was running in several crashes: it is the suspect.
    WorkerCrashed,
    /// A replayed token differed from one already sent.
    ReplayDiverged,
    /// The model does not fit the memory that a worker on a processor may take.
    InsufficientMemory,
    /// The request brings none of the service's keys.
    Unauthorized,
    /// A web page or a name from elsewhere asks a service that is there for its own machine.
    ForbiddenOrigin,
    /// Output that was begun elsewhere is to be gone on with, and would not be here.
    FingerprintMismatch,
    /// The client asks more often than it may.
    RateLimited,
}

impl ErrorCode {
    /// Every code, in the order of their numbers on the wire.
    pub const ALL: [Self; 20] = [
        Self::InvalidRequest,
        Self::ContextLengthExceeded,
        Self::JobExists,
        Self::QueueFull,
        Self::Draining,
        Self::WorkerUnavailable,
        Self::InsufficientVram,
        Self::VramOom,
        Self::CudaError,
        Self::ModelLoadFailed,
        Self::Internal,
        Self::InferenceTimeout,
        Self::Cancelled,
        Self::WorkerCrashed,
        Self::ReplayDiverged,
        Self::InsufficientMemory,
        Self::Unauthorized,
        Self::ForbiddenOrigin,
        Self::FingerprintMismatch,
        Self::RateLimited,
    ];

    /// The name on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::InvalidRequest => "INVALID_REQUEST",
            Self::ContextLengthExceeded => "CONTEXT_LENGTH_EXCEEDED",
            Self::JobExists => "JOB_EXISTS",
            Self::QueueFull => "QUEUE_FULL",
            Self::Draining => "DRAINING",
            Self::WorkerUnavailable => "WORKER_UNAVAILABLE",
            Self::InsufficientVram => "INSUFFICIENT_VRAM",
            Self::VramOom => "VRAM_OOM",
            Self::CudaError => "CUDA_ERROR",
            Self::ModelLoadFailed => "MODEL_LOAD_FAILED",
            Self::Internal => "INTERNAL",
            Self::InferenceTimeout => "INFERENCE_TIMEOUT",
            Self::Cancelled => "CANCELLED",
            Self::WorkerCrashed => "WORKER_CRASHED",
            Self::ReplayDiverged => "REPLAY_DIVERGED",
            Self::InsufficientMemory => "INSUFFICIENT_MEMORY",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::ForbiddenOrigin => "FORBIDDEN_ORIGIN",
            Self::FingerprintMismatch => "FINGERPRINT_MISMATCH",
            Self::RateLimited => "RATE_LIMITED",
        }
    }

    /// HTTP status of an error that comes before the stream starts.
    #[must_use]
    pub fn http_status(self) -> u16 {
        match self {
            Self::InvalidRequest | Self::ContextLengthExceeded => 400,
            Self::Unauthorized => 401,
            Self::ForbiddenOrigin => 403,
            Self::JobExists | Self::FingerprintMismatch => 409,
            Self::RateLimited => 429,
            Self::QueueFull
            | Self::Draining
            | Self::WorkerUnavailable
            | Self::InsufficientVram
            | Self::InsufficientMemory => 503,
            Self::VramOom
            | Self::CudaError
            | Self::ModelLoadFailed
            | Self::Internal
            | Self::WorkerCrashed
            | Self::ReplayDiverged => 500,
            Self::InferenceTimeout => 504,
            Self::Cancelled => 499,
        }
    }

    /// Whether the same request may succeed later or elsewhere.
    #[must_use]
    pub fn retriable(self) -> bool {
        match self {
            Self::InvalidRequest
            | Self::ContextLengthExceeded
            | Self::JobExists
            | Self::ModelLoadFailed
            | Self::Internal
            | Self::WorkerCrashed
            | Self::Unauthorized
            | Self::ForbiddenOrigin
            | Self::FingerprintMismatch => false,
            Self::QueueFull
            | Self::RateLimited
            | Self::Draining
            | Self::WorkerUnavailable
            | Self::InsufficientVram
            | Self::InsufficientMemory
            | Self::VramOom
            | Self::CudaError
            | Self::InferenceTimeout
            | Self::Cancelled
            | Self::ReplayDiverged => true,
        }
    }
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::ErrorCode;

    #[test]
    fn json_name_is_the_display_name() {
        for code in ErrorCode::ALL {
            let json = serde_json::to_string(&code).unwrap();
            assert_eq!(json, format!("\"{code}\""));
        }
    }

    #[test]
    fn all_codes_are_listed_in_order() {
        let decoded = |number: usize| {
            let number = u8::try_from(number).unwrap();
            let config = bincode::config::standard();
            bincode::serde::decode_from_slice::<ErrorCode, _>(&[number], config)
                .map(|(code, _)| code)
        };
        for (number, code) in ErrorCode::ALL.into_iter().enumerate() {
            assert_eq!(decoded(number).unwrap(), code);
        }
        assert!(
            decoded(ErrorCode::ALL.len()).is_err(),
            "a code is missing in ALL"
        );
    }
}

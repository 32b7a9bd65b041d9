//! What comes of a token.

use orcd_shared::error::ErrorCode;
use orcd_shared::protocol::message::StepToken;

use super::super::{Numbered, StopReason};
use crate::worker::replay::{ReplayCheck, Verdict};

/// What a token of the worker means.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenOutcome {
    /// The token event, if it is one.
    pub event: Option<Numbered>,
    /// The job is at its end.
    pub ending: Option<Ending>,
}

/// How a job ends.
#[derive(Debug, Clone, PartialEq)]
pub enum Ending {
    /// By itself.
    Stop(StopReason),
    /// With this one of its stop sequences.
    StopSequence(String),
    /// It can't go on.
    Error(ErrorCode, String),
}

impl Ending {
    /// For logs and metrics: "end", or the error's code.
    #[must_use]
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::Stop(_) | Self::StopSequence(_) => "end",
            Self::Error(code, _) => code.name(),
        }
    }
}

impl TokenOutcome {
    /// What the first token after a replay means: no event, whatever it is. `is_of_client`: the tokens that were replayed
    /// are those that the client sent.
    pub(super) fn from_check(check: ReplayCheck, token: &StepToken, is_of_client: bool) -> Self {
        match check.judge(token) {
            Verdict::Agrees if token.finish.is_none() => Self {
                event: None,
                ending: None,
            },
            // The first time it was not the last: the job would have ended with it.
            Verdict::Agrees => Self::failed(format!(
                "the worker ended its replay at token {}, which was not the last",
                token.index
            )),
            Verdict::Diverges if is_of_client => Self {
                event: None,
                ending: Some(Ending::Error(
                    ErrorCode::ReplayDiverged,
                    format!(
                        "token {} came out differently from resume.ids[{0}]; the stream ends here rather than \
                         continue another text; send the ids as they were received, or the job without resume",
                        token.index
                    ),
                )),
            },
            Verdict::Diverges => Self {
                event: None,
                ending: Some(Ending::Error(
                    ErrorCode::ReplayDiverged,
                    format!(
                        "after a crash, token {} came out differently; the stream ends here \
                         rather than continue another text; send the job again",
                        token.index
                    ),
                )),
            },
            Verdict::WrongIndex => Self::failed(format!(
                "the worker began its replay with token {}, not with the last one sent",
                token.index
            )),
        }
    }

    /// The worker broke its promises about this job.
    pub(super) fn failed(message: String) -> Self {
        Self {
            event: None,
            ending: Some(Ending::Error(ErrorCode::Internal, message)),
        }
    }
}

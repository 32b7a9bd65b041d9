//! What comes of a token.

use orcd_shared::error::ErrorCode;
use orcd_shared::protocol::message::StepToken;

use super::super::{Numbered, StopReason};
use crate::worker::replay::{ReplayCheck, Verdict};

/// What a token of the worker means.
#[derive(Debug, Clone, PartialEq)]
pub struct Taken {
    /// The token event, if it is one.
    pub event: Option<Numbered>,
    /// What comes of the job.
    pub then: Then,
}

/// What comes of a job after a token.
#[derive(Debug, Clone, PartialEq)]
pub enum Then {
    /// It goes on.
    GoOn,
    /// It is at its end.
    End(StopReason),
    /// It can't go on.
    Fail(ErrorCode, String),
}

impl Taken {
    /// What the first token after a replay means: no event, whatever it is.
    pub(super) fn from_check(check: ReplayCheck, token: &StepToken) -> Self {
        match check.judge(token) {
            Verdict::Agrees if token.finish.is_none() => Self {
                event: None,
                then: Then::GoOn,
            },
            // The first time it was not the last: the job would have ended with it.
            Verdict::Agrees => Self::failed(format!(
                "the worker ended its replay at token {}, which was not the last",
                token.index
            )),
            Verdict::Diverges => Self {
                event: None,
                then: Then::Fail(
                    ErrorCode::ReplayDiverged,
                    format!(
                        "after a crash, token {} came out differently; the stream ends here \
                         rather than continue another text; send the job again",
                        token.index
                    ),
                ),
            },
            Verdict::Misplaced => Self::failed(format!(
                "the worker began its replay with token {}, not with the last one sent",
                token.index
            )),
        }
    }

    /// The worker broke its promises about this job.
    pub(super) fn failed(message: String) -> Self {
        Self {
            event: None,
            then: Then::Fail(ErrorCode::Internal, message),
        }
    }
}

//! Going on with a job on another worker: the check that keeps two different continuations from being
//! joined.
//!
//! A worker that is given emitted tokens processes all but the last as prompt and draws the last
//! one again. It must come out as it stands in the journal; if it doesn't, something that is not
//! part of the job decided about tokens, and nothing after it can be trusted to continue the text
//! that the client has.

use orcd_shared::protocol::message::StepToken;

/// The token that a worker has to derive again before it may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplayCheck {
    index: u32,
    id: u32,
}

/// What the first token after a replay says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The same token again: go on after it.
    Agrees,
    /// Another token at the same place.
    Diverges,
    /// Not the token that was due.
    WrongIndex,
}

impl ReplayCheck {
    /// The check for a job with these tokens in the journal; none without tokens.
    #[must_use]
    pub fn of(emitted: &[u32]) -> Option<Self> {
        let (&id, before) = emitted.split_last()?;
        Some(Self {
            index: u32::try_from(before.len()).ok()?,
            id,
        })
    }

    /// Compares.
    #[must_use]
    pub fn judge(self, token: &StepToken) -> Verdict {
        match (token.index == self.index, token.id == self.id) {
            (true, true) => Verdict::Agrees,
            (true, false) => Verdict::Diverges,
            (false, _) => Verdict::WrongIndex,
        }
    }
}

#[cfg(test)]
mod tests {
    use orcd_shared::job::JobKey;

    use super::*;

    #[test]
    fn check_wants_the_last_emitted_token_at_its_place() {
        let token = |index, id| StepToken {
            key: JobKey(1),
            index,
            id,
            finish: None,
        };
        assert_eq!(ReplayCheck::of(&[]), None);
        let check = ReplayCheck::of(&[5, 6, 7]).unwrap();
        assert_eq!(check.judge(&token(2, 7)), Verdict::Agrees);
        assert_eq!(check.judge(&token(2, 8)), Verdict::Diverges);
        assert_eq!(check.judge(&token(3, 7)), Verdict::WrongIndex);
        assert_eq!(check.judge(&token(1, 6)), Verdict::WrongIndex);
    }
}

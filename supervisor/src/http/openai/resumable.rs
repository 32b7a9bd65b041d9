//! What the first chunk of a stream carries for a client that may have to go on elsewhere.

use serde::Serialize;

use crate::jobs::JobEvent;

/// To be sent back: `seed` as it is, `resume` with the ids that were received.
#[derive(Debug, Serialize)]
pub(super) struct Resumable {
    seed: u64,
    resume: Origin,
}

#[derive(Debug, Serialize)]
struct Origin {
    /// The answer's, which ids of calls are made of.
    id: String,
    fingerprint: Box<str>,
    request_digest: Box<str>,
    template_time: Box<str>,
}

impl Resumable {
    /// What the first event of the only output of the answer `id` says; `None`: it is another event.
    pub(super) fn of(id: &str, event: &JobEvent) -> Option<Self> {
        let JobEvent::Started {
            seed,
            fingerprint,
            request_digest,
            template_time,
            ..
        } = event
        else {
            return None;
        };
        Some(Self {
            seed: *seed,
            resume: Origin {
                id: id.to_owned(),
                fingerprint: fingerprint.clone(),
                request_digest: request_digest.clone(),
                template_time: template_time.clone(),
            },
        })
    }
}

//! Bodies of requests: they are refused, with faults that can be written, or what is accepted keeps
//! the contract's bounds.

use orcd_shared::sampling::SamplingParams;
use orcd_supervisor::http::body;
use orcd_supervisor::http::validate::{self, Fresh, Input, Limits};

const LIMITS: Limits = Limits {
    max_tokens_out: 2048,
    vocab_size: 1000,
    defaults: SamplingParams::GREEDY,
};

/// Reads `bytes` as the body of each route that has one.
pub fn run(bytes: &[u8]) {
    let parse = || body::parse(bytes);
    let Ok(parsed) = parse() else {
        return;
    };
    let fresh = Fresh {
        job_id: "fresh".into(),
        seed: 7,
    };
    match validate::execute(parsed, &LIMITS, fresh) {
        Ok(validate::Request {
            generation: request,
            ..
        }) => {
            assert!(validate::is_job_id(&request.job_id));
            assert!(
                request
                    .max_tokens
                    .is_none_or(|n| (1..=LIMITS.max_tokens_out).contains(&n))
            );
            assert!(request.stop.len() <= validate::MAX_STOPS);
            assert!(
                request
                    .stop
                    .iter()
                    .all(|stop| (1..=validate::MAX_STOP_BYTES).contains(&stop.len()))
            );
            match &request.input {
                Input::Prompt { text, .. } => {
                    assert!(!text.is_empty());
                }
                Input::Ids(ids) => assert!(ids.iter().all(|&id| id < LIMITS.vocab_size)),
                Input::Chat(chat) => {
                    assert!((1..=validate::MAX_MESSAGES).contains(&chat.messages.len()));
                }
            }
        }
        Err(faults) => assert!(!faults.is_empty()),
    }
    if let Ok(parsed) = parse() {
        let _ = validate::cancel(parsed);
    }
    if let Ok(parsed) = parse() {
        let _ = validate::no_fields(parsed);
    }
}

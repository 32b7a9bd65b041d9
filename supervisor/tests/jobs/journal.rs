//! The journal by itself: for any tokens, stop sequences and crashes, events are numbered without a
//! gap or a repetition, and are those of a run without crashes.

use std::time::Instant;

use orcd_shared::job::{Finish, JobKey};
use orcd_shared::protocol::message::StepToken;
use orcd_supervisor::jobs::admission::Limit;
use orcd_supervisor::jobs::journal::{Ending, Journal};
use orcd_supervisor::jobs::{JobEvent, NewJob, Numbered};
use proptest::prelude::*;

use super::support::{END, job, text_of, timeless};

/// What a model would say: bytes, then an end token or the limit.
#[derive(Debug, Clone)]
struct Story {
    ids: Vec<u32>,
    ends: bool,
    stop: Vec<String>,
    /// Number of tokens emitted in all when the worker dies, ascending.
    crashes: Vec<usize>,
}

fn story() -> impl Strategy<Value = Story> {
    // Few letters, so that stop sequences are met; parts of characters, so that they are torn.
    let id = prop_oneof![5 => 97..100_u32, 1 => Just(0xc3), 1 => Just(0xa4), 1 => 0..256_u32];
    let stop = proptest::collection::vec("[abcä]{1,4}", 0..3);
    (
        proptest::collection::vec(id, 1..40),
        any::<bool>(),
        stop,
        proptest::collection::vec(0..40_usize, 0..4),
    )
        .prop_map(|(ids, ends, stop, mut crashes)| {
            crashes.sort_unstable();
            Story {
                ids,
                ends,
                stop,
                crashes,
            }
        })
}

impl Story {
    fn token(&self, index: usize) -> StepToken {
        let last = index + 1 == self.ids.len();
        let (id, finish) = match self.ids.get(index) {
            Some(&id) => (id, (last && !self.ends).then_some(Finish::MaxTokens)),
            None => (END, Some(Finish::Eos)),
        };
        StepToken {
            key: JobKey(1),
            index: index as u32,
            id,
            finish,
        }
    }

    /// Gives its tokens to a journal and returns the events.
    fn run(&self, crashes: &[usize]) -> Vec<Numbered> {
        let limit = Limit {
            max_tokens: 512,
            asked: 512,
            by_context: false,
        };
        let stop = self.stop.clone();
        let mut journal = Journal::new(JobKey(1), NewJob { stop, ..job("a") }, limit, "d".into());
        let mut events = Vec::new();
        events.extend(journal.started(jiff::Timestamp::UNIX_EPOCH));
        let mut crashes = crashes.iter().peekable();
        let mut index = journal.submission().emitted.len();
        loop {
            if crashes.next_if(|&&at| at <= index).is_some() {
                let spec = journal.submission();
                assert_eq!(spec.emitted, self.ids[..spec.emitted.len()]);
                index = spec.emitted.len().saturating_sub(1);
            }
            let outcome = journal.record_token(self.token(index), None, 1, Instant::now());
            events.extend(outcome.event);
            match outcome.ending {
                None => index += 1,
                Some(Ending::Error(code, message)) => panic!("{code}: {message}"),
                Some(ending) => {
                    events.push(journal.end(ending));
                    return events;
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn crashes_leave_no_trace(story in story()) {
        let calm = story.run(&[]);
        let stormy = story.run(&story.crashes);
        prop_assert_eq!(timeless(stormy), timeless(calm));
    }

    #[test]
    fn ids_and_indices_have_no_gap_and_no_repetition(story in story()) {
        let events = story.run(&story.crashes);
        let ids: Vec<u64> = events.iter().map(|e| e.id).collect();
        prop_assert_eq!(ids, (0..events.len() as u64).collect::<Vec<_>>());
        let mut tokens = 0;
        for numbered in &events {
            match numbered.event {
                JobEvent::Token { index, .. } => {
                    prop_assert_eq!(index, tokens);
                    tokens += 1;
                }
                JobEvent::End { tokens_out, .. } => prop_assert_eq!(tokens_out, tokens),
                _ => {}
            }
        }
    }

    #[test]
    fn all_text_comes_out_unless_it_is_stopped(story in story()) {
        let story = Story { stop: vec![], ..story };
        let bytes: Vec<u8> = story.ids.iter().map(|&id| u8::try_from(id).unwrap()).collect();
        let text = text_of(&story.run(&story.crashes));
        prop_assert_eq!(text, String::from_utf8_lossy(&bytes));
    }
}

#[test]
fn started_comes_once() {
    let limit = Limit {
        max_tokens: 1,
        asked: 1,
        by_context: false,
    };
    let mut journal = Journal::new(JobKey(1), job("a"), limit, "d".into());
    assert_eq!(journal.started(jiff::Timestamp::now()).len(), 1);
    assert_eq!(journal.started(jiff::Timestamp::now()), []);
}

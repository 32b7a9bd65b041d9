use super::*;
use crate::samples::job;

/// A journal of a job with a prompt of three tokens.
fn journal() -> Journal {
    let limit = Limit {
        max_tokens: 8,
        asked: 8,
        by_context: false,
    };
    Journal::new(JobKey(1), job("a"), limit, "d".into())
}

fn cached_at_the_end(journal: &mut Journal) -> u32 {
    match journal.end(Ending::Stop(StopReason::MaxTokens)).event {
        JobEvent::End { cached_tokens, .. } => cached_tokens,
        other => panic!("{other:?}"),
    }
}

fn token(index: u32) -> StepToken {
    StepToken {
        key: JobKey(1),
        index,
        id: b'x'.into(),
        finish: None,
    }
}

#[test]
fn what_was_kept_is_counted_when_the_job_begins_first() {
    let mut journal = journal();
    journal.submission();
    assert_eq!(journal.begun(2), Some(2));
    journal.record_token(token(0), None, 1, Instant::now());
    // Replayed, it finds what it computed itself; so it does when it was preempted.
    journal.submission();
    assert_eq!(journal.begun(4), None);
    journal.preempted();
    journal.submission();
    assert_eq!(journal.begun(4), None);
    assert_eq!(cached_at_the_end(&mut journal), 2);
}

#[test]
fn nothing_kept_is_a_count_too() {
    let mut journal = journal();
    assert_eq!(journal.begun(0), Some(0));
    assert_eq!(journal.begun(3), None);
    assert_eq!(cached_at_the_end(&mut journal), 0);
}

#[test]
fn no_more_than_the_prompt_is_counted() {
    let mut journal = journal();
    assert_eq!(journal.begun(64), Some(3));
    assert_eq!(cached_at_the_end(&mut journal), 3);
}

#[test]
fn a_worker_that_says_nothing_of_it_kept_nothing() {
    assert_eq!(cached_at_the_end(&mut journal()), 0);
}

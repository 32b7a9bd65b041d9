use orcd_shared::job::Finish;

use crate::rig::{EOS, LIMITS, Rig, job};

fn ending_of(prompt: usize, max_tokens: u32, always: u32) -> (u32, Finish) {
    let mut rig = Rig::new(LIMITS);
    rig.engine.always = Some(always);
    rig.submit(job(1, prompt, max_tokens));
    rig.finish();
    rig.ending(1).expect("job has no end")
}

#[test]
fn end_token_is_the_last_one_reported() {
    assert_eq!(ending_of(5, 10, EOS), (0, Finish::Eos));
}

#[test]
fn max_tokens_counts_from_the_first() {
    assert_eq!(ending_of(5, 1, 7), (0, Finish::MaxTokens));
    assert_eq!(ending_of(5, 10, 7), (9, Finish::MaxTokens));
}

#[test]
fn token_on_the_last_position_ends_the_job() {
    let context = LIMITS.context;
    assert_eq!(
        ending_of(context as usize - 1, 10, 7),
        (0, Finish::ContextFull)
    );
    assert_eq!(ending_of(5, 1000, 7), (context - 6, Finish::ContextFull));
    assert_eq!(
        ending_of(5, context - 4, 7),
        (context - 6, Finish::ContextFull)
    );
}

#[test]
fn max_tokens_wins_over_a_context_that_is_full_at_the_same_token() {
    let context = LIMITS.context;
    assert_eq!(
        ending_of(5, context - 5, 7),
        (context - 6, Finish::MaxTokens)
    );
    assert_eq!(
        ending_of(context as usize - 1, 1, 7),
        (0, Finish::MaxTokens)
    );
}

#[test]
fn an_end_token_that_is_ignored_is_a_token_like_others() {
    let mut rig = Rig::new(LIMITS);
    rig.engine.always = Some(EOS);
    let mut job = job(1, 5, 4);
    job.options.ignore_end = true;
    rig.submit(job);
    rig.finish();
    assert_eq!(rig.ids(1), [EOS; 4]);
    assert_eq!(rig.ending(1), Some((3, Finish::MaxTokens)));
}

#[test]
fn end_token_wins_over_both() {
    assert_eq!(
        ending_of(LIMITS.context as usize - 1, 1, EOS),
        (0, Finish::Eos)
    );
}

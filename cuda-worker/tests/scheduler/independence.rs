//! What a job says depends on nothing but the job.

use cuda_worker::scheduler::Limits;
use orcd_shared::job::Finish;
use proptest::prelude::*;

use crate::fake::next_id;
use crate::rig::{LIMITS, Rig, alone, job};

#[test]
fn tokens_are_those_of_the_engine_on_prompt_and_output() {
    let job = job(3, 20, 10);
    let mut tokens = job.prompt.clone();
    for id in alone(&job) {
        assert_eq!(id, next_id(&tokens, job.sampling.seed));
        tokens.push(id);
    }
    assert_eq!(tokens.len(), 30);
}

#[test]
fn replay_from_any_token_gives_the_same_stream_beginning_with_the_last_one_sent() {
    let whole = job(1, 30, 40);
    let ids = alone(&whole);
    for sent in 0..=ids.len() {
        let mut rig = Rig::new(LIMITS);
        let mut replay = whole.clone();
        replay.emitted = ids[..sent].to_vec();
        rig.submit(replay);
        rig.finish();
        let first = sent.saturating_sub(1);
        assert_eq!(
            rig.tokens()[&1][0].index as usize,
            first,
            "after {sent} tokens"
        );
        assert_eq!(rig.ids(1), ids[first..], "after {sent} tokens");
        assert_eq!(rig.ending(1), Some((39, Finish::MaxTokens)));
    }
}

#[test]
fn replay_asks_for_the_same_positions_as_the_first_run() {
    let mut replay = job(1, 30, 40);
    replay.emitted = alone(&replay);
    let mut rig = Rig::new(LIMITS);
    rig.submit(replay);
    rig.finish();
    assert_eq!(rig.engine.opened, [(0, 70)]);
}

#[test]
fn altered_replay_shows_in_the_token_that_is_drawn_again() {
    let whole = job(1, 30, 40);
    let ids = alone(&whole);
    let mut replay = whole;
    replay.emitted = ids[..10].to_vec();
    replay.emitted[4] ^= 1;
    let mut rig = Rig::new(LIMITS);
    rig.submit(replay);
    rig.turn().unwrap();
    rig.turn().unwrap();
    rig.turn().unwrap();
    assert_ne!(rig.ids(1)[0], ids[9]);
}

#[derive(Debug, Clone)]
enum Action {
    Submit { prompt: usize, max: u32 },
    Cancel(u64),
    Turn,
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let action = prop_oneof![
        2 => (1usize..60, 1u32..20).prop_map(|(prompt, max)| Action::Submit { prompt, max }),
        1 => (0u64..30).prop_map(Action::Cancel),
        4 => Just(Action::Turn),
    ];
    prop::collection::vec(action, 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_company_leaves_a_jobs_tokens_alone(
        actions in actions(), slots in 1u32..6, extra in 0u32..40,
    ) {
        let limits = Limits { slots, max_batch_tokens: slots + extra, kv_pages: 4 * slots, ..LIMITS };
        let mut rig = Rig::new(limits);
        let mut jobs = Vec::new();
        let mut cancelled = Vec::new();
        for action in actions {
            match action {
                Action::Submit { prompt, max } => {
                    let job = job(jobs.len() as u64, prompt, max);
                    rig.submit(job.clone());
                    jobs.push(job);
                }
                Action::Cancel(key) => {
                    rig.cancel(key);
                    cancelled.push(key);
                }
                Action::Turn => rig.turn().unwrap(),
            }
        }
        rig.finish();

        prop_assert_eq!(rig.cancelled(), cancelled.clone());
        prop_assert!(rig.engine.largest_batch() <= limits.max_batch_tokens as usize);
        prop_assert!(rig.engine.open_slots().is_empty());
        let failures = rig.failures();
        for job in jobs {
            let key = job.key.0;
            let expected = alone(&job);
            let got = rig.ids(key);
            prop_assert!(expected.starts_with(&got), "job {key}: {got:?} of {expected:?}");
            // Without a slot.
            let failed = failures.iter().any(|f| f.0 == key);
            prop_assert!(got == expected || failed || cancelled.contains(&key));
            prop_assert!(!failed || got.is_empty());
        }
    }
}

use cuda_worker::scheduler::Limits;
use orcd_shared::error::ErrorCode;
use orcd_shared::job::Finish;
use orcd_shared::logit_bias::LogitBias;
use orcd_shared::protocol::message::ToSupervisor;
use orcd_shared::sampling::SamplingParams;

use crate::fake::VOCAB;
use crate::rig::{LIMITS, Rig, job};

#[test]
fn a_job_beyond_the_slots_is_refused_and_the_others_go_on() {
    let mut rig = Rig::new(LIMITS);
    (1..=6).for_each(|key| rig.submit(job(key, 3, 4)));
    assert_eq!(
        rig.failures(),
        [(5, ErrorCode::Internal), (6, ErrorCode::Internal)]
    );
    assert_eq!(rig.scheduler.running(), 4);
    rig.finish();
    assert_eq!(rig.tokens().into_keys().collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert!(rig.tokens().values().all(|t| t.len() == 4));
}

#[test]
fn a_slot_is_free_for_the_next_job_right_after_the_last_token() {
    let mut rig = Rig::new(LIMITS);
    for (key, max) in [(1, 5), (2, 1), (3, 5), (4, 5)] {
        rig.submit(job(key, 1, max));
    }
    rig.turn().unwrap();
    assert_eq!(rig.engine.open_slots(), [0, 2, 3]);
    rig.submit(job(5, 1, 2));
    assert_eq!(
        rig.engine.opened.last(),
        Some(&(1, 3)),
        "job 5 in the slot of job 2"
    );
    rig.finish();
    assert!(rig.engine.open_slots().is_empty());
    assert!(rig.scheduler.idle());
}

#[test]
fn a_job_is_opened_for_what_it_may_become_whatever_the_context_is() {
    let mut rig = Rig::new(LIMITS);
    rig.submit(job(1, 10, 5));
    rig.submit(job(2, 10, 5000));
    assert_eq!(rig.engine.opened, [(0, 15), (1, 5010)]);
}

#[test]
fn bad_jobs_never_reach_the_engine() {
    let good = job(1, 3, 4);
    let mut unknown_id = good.clone();
    unknown_id.prompt[1] = VOCAB;
    let mut unknown_replay = good.clone();
    unknown_replay.emitted = vec![u32::MAX];
    let mut long_replay = good.clone();
    long_replay.emitted = vec![1; 5];
    let mut not_a_number = good.clone();
    not_a_number.sampling = SamplingParams {
        temperature: f32::NAN,
        ..SamplingParams::GREEDY
    };
    let mut no_mass = good.clone();
    no_mass.sampling = SamplingParams {
        top_p: 0.0,
        ..SamplingParams::GREEDY
    };
    let mut unknown_bias = good.clone();
    unknown_bias.options.logit_bias = LogitBias::new(vec![(VOCAB, 1.0)], u32::MAX).unwrap();
    let cases = [
        (job(1, 0, 4), ErrorCode::InvalidRequest),
        (job(1, 3, 0), ErrorCode::InvalidRequest),
        (not_a_number, ErrorCode::InvalidRequest),
        (no_mass, ErrorCode::InvalidRequest),
        (unknown_bias, ErrorCode::InvalidRequest),
        (
            job(1, LIMITS.context as usize, 4),
            ErrorCode::ContextLengthExceeded,
        ),
        (unknown_id, ErrorCode::Internal),
        (unknown_replay, ErrorCode::Internal),
        (long_replay, ErrorCode::Internal),
    ];
    for (bad, code) in cases {
        let mut rig = Rig::new(LIMITS);
        rig.submit(bad);
        assert_eq!(rig.failures(), [(1, code)]);
        assert!(rig.scheduler.idle());
    }
}

#[test]
fn a_prompt_that_leaves_no_room_in_the_pool_is_refused() {
    let mut rig = Rig::new(Limits {
        kv_pages: 2,
        ..LIMITS
    });
    rig.submit(job(1, 128, 4));
    rig.submit(job(2, 127, 4));
    assert_eq!(rig.failures(), [(1, ErrorCode::ContextLengthExceeded)]);
    let said = |m: &ToSupervisor| matches!(m, ToSupervisor::JobFailed { message, .. } if message.contains("128 of KV memory"));
    assert!(rig.received.iter().any(said), "{:?}", rig.received);
    rig.finish();
    assert_eq!(rig.ending(2), Some((0, Finish::ContextFull)));
}

#[test]
fn the_output_begins_after_the_prompt_also_where_it_is_replayed() {
    let mut rig = Rig::new(LIMITS);
    let mut replayed = job(2, 7, 9);
    replayed.emitted = vec![1, 2, 3];
    rig.submit(job(1, 30, 4));
    rig.submit(replayed);
    rig.finish();
    assert_eq!(Vec::from_iter(rig.engine.outputs), [(0, 30), (1, 7)]);
}

#[test]
fn a_key_in_use_is_refused_and_its_job_goes_on() {
    let mut rig = Rig::new(LIMITS);
    rig.submit(job(1, 3, 4));
    rig.turn().unwrap();
    rig.submit(job(1, 9, 4));
    assert_eq!(rig.failures(), [(1, ErrorCode::Internal)]);
    rig.finish();
    assert_eq!(rig.ids(1).len(), 4);
}

use cuda_worker::scheduler::Limits;
use orcd_shared::job::JobKey;
use orcd_shared::protocol::message::ToSupervisor;

use crate::rig::{LIMITS, Rig, job};

#[test]
fn streams_go_on_beside_a_long_prompt() {
    let mut rig = Rig::new(LIMITS);
    rig.submit(job(1, 1, 100));
    rig.submit(job(2, 1, 100));
    rig.turn().unwrap();
    rig.submit(job(3, 140, 5));
    for _ in 0..9 {
        rig.turn().unwrap();
    }
    assert_eq!(
        (rig.ids(1).len(), rig.ids(2).len()),
        (10, 10),
        "one token each step"
    );
    assert!(rig.ids(3).is_empty());
    rig.turn().unwrap();
    assert_eq!(rig.ids(3).len(), 1, "140 prompt tokens in 10 steps of 14");
}

#[test]
fn no_step_is_larger_than_the_limit() {
    for max_batch_tokens in [4, 5, 16, 64] {
        let mut rig = Rig::new(Limits {
            max_batch_tokens,
            ..LIMITS
        });
        rig.run((1..=12).map(|key| job(key, key as usize * 15, 7)));
        assert!(rig.engine.largest_batch() <= max_batch_tokens as usize);
        assert!(rig.tokens().values().all(|t| t.len() == 7));
    }
}

#[test]
fn batch_limit_below_the_slots_is_raised_to_them() {
    let mut rig = Rig::new(Limits {
        max_batch_tokens: 1,
        ..LIMITS
    });
    (1..=4).for_each(|key| rig.submit(job(key, 1, 2)));
    rig.turn().unwrap();
    assert_eq!(rig.tokens().len(), 4);
}

#[test]
fn short_prompt_does_not_wait_behind_a_long_one() {
    let mut rig = Rig::new(LIMITS);
    rig.submit(job(1, 200, 3));
    rig.submit(job(2, 8, 3));
    rig.turn().unwrap();
    assert_eq!((rig.ids(1).len(), rig.ids(2).len()), (0, 1));
}

#[test]
fn a_long_prompt_is_not_starved_by_a_flow_of_short_jobs() {
    // Four slots and four tokens a step: every step has its three short jobs.
    let mut rig = Rig::new(Limits {
        max_batch_tokens: 4,
        ..LIMITS
    });
    rig.submit(job(1, 50, 3));
    let mut key = 1;
    for _ in 0..60 {
        while rig.scheduler.running() < 4 {
            key += 1;
            rig.submit(job(key, 2 + key as usize % 3, 2));
        }
        rig.turn().unwrap();
    }
    assert_eq!(rig.ids(1).len(), 3);
}

#[test]
fn every_step_is_reported_also_without_tokens() {
    let mut rig = Rig::new(LIMITS);
    rig.submit(job(1, 40, 2));
    rig.finish();
    let (begun, reports) = rig.received.split_first().unwrap();
    let expected = ToSupervisor::Begun {
        key: JobKey(1),
        cached: 0,
    };
    assert_eq!(*begun, expected);
    let reports = reports.iter().map(|m| match m {
        ToSupervisor::Step(r) => (r.step, r.tokens.len()),
        other => panic!("{other:?}"),
    });
    let expected = [(1, 0), (2, 0), (3, 1), (4, 1)];
    assert_eq!(reports.collect::<Vec<_>>(), expected);
    assert_eq!(rig.scheduler.steps(), 4);
}

#[test]
fn only_the_last_chunk_of_a_prompt_draws() {
    let mut rig = Rig::new(LIMITS);
    rig.submit(job(1, 33, 1));
    rig.finish();
    assert_eq!(
        rig.engine.batches,
        [[(0, 16, false)], [(0, 16, false)], [(0, 1, true)]]
    );
}

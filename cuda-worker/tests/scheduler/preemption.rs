//! A pool that is too small for all jobs at once: the youngest leave, come again, and nobody sees it.

use cuda_worker::scheduler::Limits;
use orcd_shared::job::JobSpec;
use orcd_shared::protocol::message::ToSupervisor;
use proptest::prelude::*;

use crate::rig::{LIMITS, Rig, alone, job};

/// A pool of so many pages.
fn limits(kv_pages: u32) -> Limits {
    Limits { kv_pages, ..LIMITS }
}

#[test]
fn the_youngest_leaves_when_the_pages_run_out_and_says_so_after_its_tokens() {
    let mut rig = Rig::new(limits(3));
    rig.submit(job(1, 10, 100));
    rig.submit(job(2, 10, 100));
    rig.submit(job(3, 60, 100));
    // Each has a page, and the third is the first to need another.
    while rig.preempted().is_empty() {
        rig.turn().unwrap();
    }
    assert_eq!(rig.preempted(), [3]);
    assert_eq!(rig.engine.open_slots(), [0, 1]);
    // All that it drew was said before: four tokens fill its page, and the fifth is drawn there.
    assert_eq!(rig.ids(3), alone(&job(3, 60, 100))[..5]);
    let at = |wanted: &dyn Fn(&ToSupervisor) -> bool| rig.received.iter().position(wanted).unwrap();
    let last = at(
        &|m| matches!(m, ToSupervisor::Step(r) if r.tokens.iter().any(|t| t.key.0 == 3 && t.index == 4)),
    );
    assert!(last < at(&|m| matches!(m, ToSupervisor::Preempted(_))));
}

#[test]
fn jobs_wait_for_pages_that_can_not_be_used_yet() {
    let mut rig = Rig::new(limits(3));
    // Somebody may be writing to one of them.
    rig.engine.kv_pages = 2;
    rig.submit(job(1, 100, 20));
    rig.submit(job(2, 30, 20));
    (0..10).for_each(|_| rig.turn().unwrap());
    assert_eq!(rig.preempted(), [0; 0]);
    assert!(!rig.ids(1).is_empty() && rig.ids(2).is_empty());
    assert!(!rig.scheduler.is_waiting());
    rig.engine.kv_pages = 3;
    rig.finish();
    for key in [1, 2] {
        let job = job(key, [100, 30][key as usize - 1], 20);
        assert_eq!(rig.ids(key), alone(&job));
    }
    // Nobody is there to make room for a job alone.
    rig.engine.kv_pages = 1;
    rig.submit(job(3, 100, 5));
    rig.turn().unwrap();
    assert!(rig.scheduler.is_waiting() && rig.ids(3).is_empty());
    rig.engine.kv_pages = 3;
    rig.finish();
    assert_eq!(rig.ids(3), alone(&job(3, 100, 5)));
    assert_eq!(rig.preempted(), [0; 0]);
}

#[test]
fn a_newcomer_without_room_leaves_before_it_has_done_anything() {
    let mut rig = Rig::new(limits(2));
    rig.submit(job(1, 100, 20));
    rig.turn().unwrap();
    rig.submit(job(2, 30, 20));
    rig.turn().unwrap();
    assert_eq!(rig.preempted(), [2]);
    assert_eq!(rig.engine.open_slots(), [0]);
    rig.finish();
    assert_eq!(rig.ids(1), alone(&job(1, 100, 20)));
}

#[test]
fn a_job_that_comes_back_is_older_than_those_that_came_meanwhile() {
    let mut rig = Rig::new(limits(2));
    rig.submit(job(5, 64, 20));
    rig.turn().unwrap();
    let mut back = job(2, 60, 20);
    back.emitted = alone(&back)[..4].to_vec();
    rig.submit(back);
    while rig.preempted().is_empty() {
        rig.turn().unwrap();
    }
    assert_eq!(rig.preempted(), [5]);
}

#[test]
fn a_prompt_claims_all_its_pages_before_it_is_read() {
    let mut rig = Rig::new(limits(4));
    rig.submit(job(1, 200, 5));
    rig.turn().unwrap();
    assert!(rig.ids(1).is_empty(), "the prompt is longer than a step");
    rig.submit(job(2, 20, 5));
    rig.turn().unwrap();
    assert_eq!(rig.preempted(), [2]);
}

#[test]
fn the_oldest_has_a_token_with_every_step_whoever_comes() {
    let mut rig = Rig::new(limits(4));
    rig.submit(job(1, 1, 250));
    for turn in 0..240 {
        while rig.scheduler.running() < 4 {
            rig.submit(job(
                1000 + turn * 10 + rig.scheduler.running() as u64,
                63,
                9,
            ));
        }
        rig.turn().unwrap();
        assert_eq!(rig.ids(1).len(), turn as usize + 1);
    }
    assert!(!rig.preempted().contains(&1) && rig.preempted().len() > 100);
}

fn jobs() -> impl Strategy<Value = Vec<JobSpec>> {
    let shape = (1usize..150, 1u32..150);
    prop::collection::vec(shape, 1..12).prop_map(|shapes| {
        let job = |(key, (prompt, max))| job(key as u64, prompt, max);
        shapes.into_iter().enumerate().map(job).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_tiny_pool_gives_every_job_what_a_huge_one_does(
        jobs in jobs(), pages in 4u32..9, slots in 1u32..6, eagerly: bool,
    ) {
        let mut rig = Rig::new(Limits { slots, ..limits(pages) });
        rig.run_preempted(&jobs, pages, eagerly);
        prop_assert!(rig.failures().is_empty());
        for job in &jobs {
            // Four pages hold a whole context.
            prop_assert_eq!(rig.ids(job.key.0), alone(job), "job {}", job.key);
            prop_assert!(rig.ending(job.key.0).is_some());
        }
        prop_assert!(rig.engine.most_pages <= pages as usize);
        prop_assert!(rig.engine.open_slots().is_empty());
    }
}

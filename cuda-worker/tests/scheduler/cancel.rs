use crate::rig::{LIMITS, Rig, alone, job};

#[test]
fn job_is_cancelled_in_the_middle_of_its_prompt() {
    let mut rig = Rig::new(LIMITS);
    rig.submit(job(1, 100, 3));
    rig.turn().unwrap();
    rig.cancel(1);
    assert!(rig.engine.open_slots().is_empty());
    assert!(rig.scheduler.idle());
    assert!(rig.ids(1).is_empty());
}

#[test]
fn generating_job_says_nothing_after_its_cancellation() {
    let mut rig = Rig::new(LIMITS);
    rig.submit(job(1, 4, 50));
    rig.submit(job(2, 4, 50));
    (0..5).for_each(|_| rig.turn().unwrap());
    rig.cancel(1);
    let before = rig.ids(1).len();
    rig.finish();
    assert_eq!(rig.ids(1).len(), before);
    assert_eq!(
        rig.ids(2),
        alone(&job(2, 4, 50)),
        "the other job is not touched"
    );
}

#[test]
fn slot_of_a_cancelled_job_serves_the_next_one() {
    let mut rig = Rig::new(LIMITS);
    (1..=4).for_each(|key| rig.submit(job(key, 2, 30)));
    rig.turn().unwrap();
    rig.cancel(3);
    rig.submit(job(5, 2, 30));
    assert_eq!(rig.engine.opened.last(), Some(&(2, 32)));
    rig.finish();
    assert_eq!(rig.ids(5), alone(&job(5, 2, 30)));
}

#[test]
fn unknown_and_finished_jobs_are_acknowledged_too() {
    let mut rig = Rig::new(LIMITS);
    rig.cancel(77);
    rig.submit(job(1, 2, 1));
    rig.finish();
    rig.cancel(1);
    rig.cancel(1);
    assert_eq!(rig.cancelled(), [77, 1, 1]);
}

#[test]
fn job_cancelled_before_its_first_step_gives_its_slot_back() {
    let mut rig = Rig::new(LIMITS);
    rig.submit(job(1, 2, 1));
    rig.cancel(1);
    rig.turn().unwrap();
    assert!(rig.engine.open_slots().is_empty() && rig.engine.batches.is_empty());
    assert_eq!(rig.cancelled(), [1]);
}

use cuda_worker::scheduler::step_engine::EngineError;
use orcd_shared::error::ErrorCode;
use orcd_shared::exit;
use orcd_shared::protocol::message::ToSupervisor;

use crate::rig::{LIMITS, Rig, job};

#[test]
fn lost_device_ends_the_process_and_none_of_the_steps_tokens_leave() {
    let mut rig = Rig::new(LIMITS);
    rig.submit(job(1, 2, 9));
    rig.turn().unwrap();
    rig.engine.fail_next = Some(EngineError::Device("illegal address".into()));
    let fatal = rig.turn().unwrap_err();
    assert_eq!(
        (fatal.code, fatal.exit),
        (ErrorCode::CudaError, exit::worker::DEVICE_LOST)
    );
    assert_eq!(fatal.message, "engine step: illegal address");
    assert_eq!(rig.ids(1).len(), 1);
    assert_eq!(rig.scheduler.steps(), 1);
}

#[test]
fn step_given_up_on_request_is_made_again_and_changes_no_token() {
    let ids = |interrupted: bool| {
        let mut rig = Rig::new(LIMITS);
        rig.submit(job(1, 20, 9));
        for turn in 0..12 {
            if interrupted && turn % 3 == 1 {
                rig.engine.fail_next = Some(EngineError::Abandoned);
                let steps = rig.scheduler.steps();
                rig.turn().unwrap();
                assert_eq!(rig.scheduler.steps(), steps, "it is no step");
            }
            rig.turn().unwrap();
        }
        rig.ids(1)
    };
    let undisturbed = ids(false);
    assert!(!undisturbed.is_empty());
    assert_eq!(ids(true), undisturbed);
}

#[test]
fn broken_precondition_in_a_step_is_a_bug_of_this_process() {
    let mut rig = Rig::new(LIMITS);
    rig.submit(job(1, 2, 9));
    rig.engine.fail_next = Some(EngineError::Invalid("start".into()));
    let fatal = rig.turn().unwrap_err();
    assert_eq!(
        (fatal.code, fatal.exit),
        (ErrorCode::Internal, exit::worker::INTERNAL)
    );
}

#[test]
fn broken_logits_end_their_job_with_the_position_and_no_other() {
    let alone = |key| {
        let mut rig = Rig::new(LIMITS);
        rig.submit(job(key, 5, 9));
        rig.finish();
        rig.ids(key)
    };
    let mut rig = Rig::new(LIMITS);
    rig.submit(job(1, 20, 9));
    rig.submit(job(2, 5, 9));
    rig.turn().unwrap();
    // In slot 0 from the fourth token on.
    while rig.ids(1).len() < 3 {
        rig.turn().unwrap();
    }
    rig.engine.broken_slot = Some(0);
    rig.turn().unwrap();
    rig.engine.broken_slot = None;
    let failures: Vec<_> = rig
        .received
        .iter()
        .filter_map(|received| match received {
            ToSupervisor::JobFailed { key, code, message } => Some((key.0, *code, message)),
            _ => None,
        })
        .collect();
    let [(1, ErrorCode::Internal, message)] = failures[..] else {
        panic!("{failures:?}");
    };
    assert!(message.contains("not finite at position 23"), "{message}");
    assert_eq!(rig.engine.open_slots(), [1], "the slot is given back");
    rig.finish();
    assert_eq!(rig.ids(1).len(), 3, "no token is made of it");
    assert_eq!(rig.ids(2), alone(2));
}

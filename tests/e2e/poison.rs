//! Jobs that kill the worker: they end, the others go on.

use orcd_tests::{Job, Model, Starter};

const DEADLY: u64 = 666;

#[test]
fn job_that_kills_every_worker_is_given_up_and_the_others_finish() {
    let service = Starter::new(Model::Slow)
        .failpoints()
        .without_hang_timeout()
        .start();
    let jobs = [1, 2, 3].map(|seed| Job::lasting(&format!("job-{seed}"), 200).set("seed", seed));
    let undisturbed = service.run_together(&jobs);
    // The worker has all of them when it takes the poison.
    service.hold_before_step(1);
    let streams: Vec<_> = jobs.iter().map(|job| service.execute(job)).collect();
    service.wait_for_trigger("step");
    service.set_failpoint("poison", &DEADLY.to_string());
    let poison = service.execute(&Job::lasting("poison", 50).set("seed", DEADLY));
    service.release();
    let poison = poison.finish();
    let error = poison.error();
    assert_eq!(
        (error.code.as_str(), error.retriable, error.tokens_out),
        ("WORKER_CRASHED", false, 0)
    );
    for (stream, expected) in streams.into_iter().zip(&undisturbed) {
        let found = stream.finish();
        assert_eq!(found.token_bytes(), expected.token_bytes());
        // A job that had ended before the second or third crash saw fewer of them.
        assert!((1..=3).contains(&found.end().replays));
    }
    assert_eq!(service.health()["worker"]["restarts"], 3);
    assert_eq!(service.run(&Job::lasting("next", 3)).end().replays, 0);
}

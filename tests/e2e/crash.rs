//! The worker is expendable: a stream survives its death byte for byte.

use std::time::Duration;

use nix::sys::signal::Signal;
use orcd_tests::stream::Stream;
use orcd_tests::{Job, Model, Starter, Transcript, WorkerHarness, report};
use serde_json::json;

const RECOVERY: Duration = Duration::from_secs(20);

fn four_jobs() -> Vec<Job> {
    let prompts = [
        "in the morning",
        "a song of the sea",
        "one",
        "the sand and the wind ",
    ];
    let temperatures = [0.0, 0.7, 1.0, 1.5];
    let job = |i: usize| {
        let job = Job::new(&format!("job-{i}"), prompts[i]).set("temperature", temperatures[i]);
        job.set("top_k", 64)
            .set("seed", i as u64)
            .set("max_tokens", 70 + 10 * i as u64)
    };
    (0..4).map(job).collect()
}

/// A service whose worker may stand still until the test goes on.
pub(crate) fn without_hang_timeout(model: Model) -> WorkerHarness {
    Starter::new(model)
        .failpoints()
        .without_hang_timeout()
        .start()
}

/// Runs the jobs at the same time; `disturb` comes when the worker stands before its `step`-th step
/// of them, and makes no other.
pub(crate) fn run_disturbed(
    service: &WorkerHarness,
    jobs: &[Job],
    step: u32,
    disturb: impl FnOnce(),
) -> Vec<Transcript> {
    let streams = service.execute_and_trigger(jobs, "sleep", step);
    disturb();
    streams.into_iter().map(Stream::finish).collect()
}

#[track_caller]
pub(crate) fn assert_unchanged(expected: &[Transcript], found: &[Transcript], replays: u64) {
    for (expected, found) in expected.iter().zip(found) {
        assert_eq!(expected.token_bytes(), found.token_bytes());
        assert_eq!(expected.end().stop_reason, found.end().stop_reason);
        assert_eq!(found.end().replays, replays);
    }
    assert_eq!(expected.len(), found.len());
}

#[test]
fn killed_worker_mid_stream_changes_no_byte() {
    let service = without_hang_timeout(Model::Slow);
    let jobs = four_jobs();
    let undisturbed = service.run_together(&jobs);
    let disturbed = run_disturbed(&service, &jobs, 30, || {
        service.kill_worker();
    });
    assert_unchanged(&undisturbed, &disturbed, 1);
    let gap = disturbed[0]
        .arrivals
        .windows(2)
        .map(|w| w[1] - w[0])
        .max()
        .unwrap();
    report::figure(&format!(
        "longest pause of a stream over the kill: {gap:.2?}"
    ));
}

#[test]
fn killed_worker_mid_stream_changes_no_byte_of_a_chat() {
    let service = without_hang_timeout(Model::Haiku);
    let topics = ["rivers", "the moon", "a cat", "snow"];
    let jobs: Vec<_> = (0..4)
        .map(|i| {
            let job = Job::new(
                &format!("haiku-{i}"),
                &format!("Write a haiku about {}", topics[i]),
            );
            job.set("seed", i as u64)
                .set("temperature", 0.7)
                .set("max_tokens", 64)
        })
        .collect();
    let undisturbed = service.run_together(&jobs);
    let disturbed = run_disturbed(&service, &jobs, 8, || {
        service.kill_worker();
    });
    for (expected, found) in undisturbed.iter().zip(&disturbed) {
        assert_eq!(expected.token_bytes(), found.token_bytes());
        assert_eq!(expected.end().stop_reason, found.end().stop_reason);
    }
}

/// A replay resubmits what was generated: it counts as output there, and the prompt never does.
#[test]
fn killed_worker_mid_stream_changes_no_byte_under_penalties_and_biases() {
    const FORCED: u64 = 7;
    let service = without_hang_timeout(Model::Slow);
    let plain: Vec<_> = (four_jobs().into_iter())
        .map(|job| job.set("ignore_eos", true))
        .collect();
    let without = service.run_together(&plain);
    let banned: serde_json::Map<_, _> = (without[2].ids().iter())
        .map(|id| (id.to_string(), json!(-100)))
        .collect();
    let forced = json!({ FORCED.to_string(): 100 });
    let mut jobs = plain.into_iter();
    let mut next = |fields: [(&str, serde_json::Value); 2]| {
        let job = jobs.next().unwrap();
        (fields.into_iter()).fold(job, |job, (name, value)| job.set(name, value))
    };
    let jobs = [
        next([
            ("frequency_penalty", json!(0.4)),
            ("repetition_penalty", json!(1.1)),
        ]),
        next([
            ("presence_penalty", json!(2)),
            ("frequency_penalty", json!(-0.1)),
        ]),
        next([("logit_bias", banned.into()), ("top_p", json!(0.9))]),
        next([("logit_bias", forced), ("frequency_penalty", json!(2))]),
    ];
    let undisturbed = service.run_together(&jobs);
    let disturbed = run_disturbed(&service, &jobs, 30, || {
        service.kill_worker();
    });
    assert_unchanged(&undisturbed, &disturbed, 1);
    for (without, with) in without.iter().zip(&disturbed) {
        assert_ne!(without.ids(), with.ids(), "nothing was changed");
    }
    let ids = disturbed[2].ids();
    assert!(without[2].ids().iter().all(|id| !ids.contains(id)));
    // Until it was there so often that the penalty outweighs the bias: that is after the kill.
    let ids = disturbed[3].ids();
    assert!(ids[..35].iter().all(|id| *id == FORCED), "{ids:?}");
    assert!(ids[60..].iter().any(|id| *id != FORCED), "{ids:?}");
}

#[test]
fn killed_worker_mid_stream_changes_no_logprob() {
    let service = without_hang_timeout(Model::Slow);
    let jobs: Vec<_> = (four_jobs().into_iter().zip([0, 1, 5, 20]))
        .map(|(job, top)| job.set("logprobs", top).set("ignore_eos", true))
        .collect();
    let undisturbed = service.run_together(&jobs);
    let disturbed = run_disturbed(&service, &jobs, 30, || {
        service.kill_worker();
    });
    assert_unchanged(&undisturbed, &disturbed, 1);
    for (transcript, top) in disturbed.iter().zip([0, 1, 5, 20]) {
        for token in transcript.token_data() {
            let likely = token["top"].as_array().unwrap();
            assert_eq!(likely.len(), top);
            let logprob = token["logprob"].as_f64().unwrap();
            assert!(logprob <= 0.0 && likely.iter().all(|t| t["logprob"].as_f64().unwrap() <= 0.0));
            let own = likely.iter().find(|t| t["id"] == token["id"]);
            assert!(own.is_none_or(|t| t["logprob"] == token["logprob"]));
        }
    }
}

#[test]
fn each_way_to_die_changes_no_byte() {
    let service = without_hang_timeout(Model::Slow);
    let job = [Job::lasting("a", 40)];
    let undisturbed = service.run_together(&job);
    for signal in [Signal::SIGABRT, Signal::SIGILL, Signal::SIGTERM] {
        let disturbed = run_disturbed(&service, &job, 15, || service.worker().signal(signal));
        assert_unchanged(&undisturbed, &disturbed, 1);
        service.wait_for_health(RECOVERY, |h| h["status"] == "healthy");
    }
}

#[test]
fn hanging_worker_is_replaced_and_changes_no_byte() {
    let service = Starter::new(Model::Slow).failpoints().start();
    let job = &four_jobs()[..1];
    let undisturbed = service.run_together(job);
    let hanging = service.worker();
    let streams = service.execute_and_trigger(job, "stop", 15);
    let disturbed: Vec<_> = streams.into_iter().map(Stream::finish).collect();
    assert_unchanged(&undisturbed, &disturbed, 1);
    assert_ne!(service.worker(), hanging);
    assert!(hanging.is_gone_within(RECOVERY));
}

#[test]
fn two_kills_in_one_stream_change_no_byte() {
    let service = without_hang_timeout(Model::Slow);
    let job = [Job::lasting("a", 100)];
    let undisturbed = service.run_together(&job);
    let disturbed = run_disturbed(&service, &job, 15, || {
        // For the next worker.
        service.set_failpoint("step", "sleep 30");
        service.kill_worker();
        service.wait_for_trigger("step");
        service.kill_worker();
    });
    assert_unchanged(&undisturbed, &disturbed, 2);
}

#[test]
fn killed_while_the_prompt_is_processed_it_starts_over() {
    let service = without_hang_timeout(Model::Slow);
    let job = [Job::lasting("a", 20).set("prompt", "the sea and ".repeat(250))];
    let undisturbed = service.run_together(&job);
    let (_, prompt_tokens) = undisturbed[0].started();
    assert!(prompt_tokens > 512, "{prompt_tokens}: done with one step");
    let disturbed = run_disturbed(&service, &job, 2, || {
        service.kill_worker();
    });
    assert_unchanged(&undisturbed, &disturbed, 1);
}

#[test]
fn killed_while_a_job_is_queued_both_come_through() {
    let service = Starter::new(Model::Slow).failpoints().flag("--parallel", 1);
    let service = service.without_hang_timeout().start();
    let [first, second] =
        ["first", "second"].map(|name| Job::lasting(name, 40).set("prompt", name));
    let undisturbed = [service.run(&first), service.run(&second)];
    let running = service.execute_and_trigger(&[first], "sleep", 10).remove(0);
    let mut queued = service.execute(&second);
    queued.read_anything();
    service.kill_worker();
    assert!(!queued.has_started());
    assert_unchanged(&undisturbed[..1], &[running.finish()], 1);
    assert_unchanged(&undisturbed[1..], &[queued.finish()], 0);
}

#[test]
fn killed_while_a_stop_sequence_is_half_seen_it_still_stops_there() {
    let service = without_hang_timeout(Model::Slow);
    let job = Job::lasting("a", 60);
    let text = service.run(&job).text();
    let tail: String = text
        .chars()
        .rev()
        .take(6)
        .collect::<Vec<_>>()
        .into_iter()
        .rev()
        .collect();
    let job = job.set("stop", vec![tail]);
    let undisturbed = service.run(&job);
    assert_eq!(undisturbed.end().stop_reason, "STOP_SEQUENCE");
    // A step or more for the prompt, then one for each token.
    let near_the_end = undisturbed.ids().len().saturating_sub(2).max(1);
    let near_the_end = u32::try_from(near_the_end).unwrap();
    let disturbed = run_disturbed(&service, &[job], near_the_end, || {
        service.kill_worker();
    });
    assert_eq!(disturbed[0].token_bytes(), undisturbed.token_bytes());
    assert_eq!(
        disturbed[0].end().stop_sequence,
        undisturbed.end().stop_sequence
    );
}

#[test]
fn killed_idle_worker_is_replaced_on_the_kept_weights() {
    let service = WorkerHarness::start(Model::Slow);
    let before = service.health();
    assert_eq!(before["worker"]["generation"], 1);
    assert_eq!(before["worker"]["restarts"], 0);
    assert!(before["worker"]["last_exit"].is_null());
    assert_eq!(before["load_source"], "file");
    let killed = service.kill_worker();

    let accepted_meanwhile = service.run(&Job::lasting("meanwhile", 3));
    assert_eq!(accepted_meanwhile.end().tokens_out, 3);
    let after = service.wait_for_health(RECOVERY, |h| h["status"] == "healthy");
    assert_eq!(after["worker"]["restarts"], 1);
    assert_eq!(after["worker"]["generation"], 2);
    assert_ne!(after["worker"]["pid"], killed.pid);
    assert_eq!(
        after["load_source"], "handle",
        "the weights outlive their worker"
    );
    let last_exit = after["worker"]["last_exit"].as_str().unwrap();
    assert!(last_exit.contains("SIGKILL"), "{last_exit}");
}

#[test]
fn killed_worker_comes_back_though_the_model_file_is_gone() {
    let service = without_hang_timeout(Model::Slow);
    let job = [Job::lasting("a", 60)];
    let undisturbed = service.run_together(&job);
    std::fs::remove_file(service.model()).unwrap();
    let disturbed = run_disturbed(&service, &job, 15, || {
        service.kill_worker();
    });
    assert_unchanged(&undisturbed, &disturbed, 1);
}

#[test]
fn job_that_runs_in_crash_after_crash_is_given_up_alone() {
    let service = Starter::new(Model::Slow)
        .failpoints()
        .flag("--max-restarts", 100);
    let service = service.without_hang_timeout().start();
    // Only a crash with the job on the worker counts against it.
    service.set_failpoint("step", "kill 5");
    let suspect = service.execute(&Job::lasting("suspect", 1000));
    for _ in 1..3 {
        service.wait_for_trigger("step");
        service.set_failpoint("step", "kill 2");
    }
    let transcript = suspect.finish();
    assert!(!service.is_failpoint_set("step"));
    let error = transcript.error();
    assert_eq!(
        (error.code.as_str(), error.retriable),
        ("WORKER_CRASHED", false),
        "{error:?}"
    );
    let other = service.run(&Job::lasting("other", 3));
    assert_eq!(other.end().tokens_out, 3);
}

#[test]
fn worker_that_dies_again_and_again_ends_the_service_with_code_3() {
    let service = Starter::new(Model::Tiny).flag("--max-restarts", 2).start();
    let supervisor = service.supervisor();
    let ended = orcd_tests::proc::wait_until(Duration::from_secs(60), || {
        supervisor
            .children()
            .iter()
            .for_each(|worker| worker.signal(Signal::SIGKILL));
        !supervisor.is_alive()
    });
    assert!(ended, "still tries");
    let exit = service.wait_for_exit(Duration::from_secs(1));
    assert!(
        exit.error_line(3)
            .starts_with("error: WORKER_UNAVAILABLE: "),
        "{}",
        exit.error_line(3)
    );
}

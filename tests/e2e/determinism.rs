//! A token is a function of model, prompt, parameters and seed. Nothing else may change a bit.

use orcd_tests::{Job, Model, Starter, Transcript, WorkerHarness};
use serde_json::json;

/// Jobs whose tokens would show the smallest difference: greedy, mild and hot, short and long
/// prompts.
fn jobs() -> Vec<Job> {
    let long = "the sea and the sand and a song ".repeat(20);
    let job = |name: &str, prompt: &str, temperature: f64| {
        let job = Job::new(name, prompt).set("temperature", temperature);
        job.set("seed", 42).set("max_tokens", 48)
    };
    vec![
        job("greedy", "in the morning", 0.0),
        job("mild", "in the morning", 0.7),
        job("mild-long", &long, 0.7),
        job("hot", "an evening", 1.5)
            .set("top_k", 40)
            .set("top_p", 0.9)
            .set("min_p", 0.01),
        job("penalized", "an evening", 1.0)
            .set("frequency_penalty", 0.5)
            .set("presence_penalty", 0.7)
            .set("logit_bias", json!({"3": -5, "40": 4, "41": 4.5})),
    ]
}

fn one_by_one(service: &WorkerHarness) -> Vec<Transcript> {
    jobs().iter().map(|job| service.run(job)).collect()
}

#[track_caller]
fn assert_same(what: &str, expected: &[Transcript], found: &[Transcript]) {
    for ((job, expected), found) in jobs().iter().zip(expected).zip(found) {
        assert_eq!(
            expected.token_bytes(),
            found.token_bytes(),
            "{} {what}",
            job.id()
        );
        assert_eq!(
            expected.end().stop_reason,
            found.end().stop_reason,
            "{} {what}",
            job.id()
        );
    }
    assert_eq!(expected.len(), found.len());
}

#[test]
fn same_seed_same_tokens_again_in_one_worker_and_beside_other_jobs() {
    for model in [Model::Haiku, Model::Tiny, Model::Llama] {
        let service = WorkerHarness::start(model);
        let alone = one_by_one(&service);
        let tokens: u64 = alone.iter().map(|t| t.end().tokens_out).sum();
        assert!(tokens > 30, "{tokens} tokens are too few to tell");
        assert_same("a second time", &alone, &one_by_one(&service));
        assert_same("beside the others", &alone, &service.run_together(&jobs()));
    }
}

#[test]
fn same_seed_same_tokens_across_workers_and_thread_counts() {
    let one = Starter::new(Model::Tiny).env("ORCD_THREADS", "1").start();
    let expected = one_by_one(&one);
    for threads in ["1", "2"] {
        let other = Starter::new(Model::Tiny)
            .env("ORCD_THREADS", threads)
            .start();
        let what = format!("in another worker with {threads} threads");
        assert_same(&what, &expected, &other.run_together(&jobs()));
    }
}

#[test]
fn number_of_sequences_at_once_changes_no_token() {
    let narrow = Starter::new(Model::Tiny).flag("--parallel", 1).start();
    let wide = Starter::new(Model::Tiny).flag("--parallel", 16).start();
    assert_same(
        "with --parallel 16",
        &narrow.run_together(&jobs()),
        &wide.run_together(&jobs()),
    );
}

#[test]
fn context_size_changes_no_token() {
    let small = Starter::new(Model::Tiny).flag("--context", 1024).start();
    let large = Starter::new(Model::Tiny).start();
    assert_same(
        "with --context 1024",
        &one_by_one(&large),
        &one_by_one(&small),
    );
}

#[test]
fn other_seed_other_tokens() {
    let service = WorkerHarness::start(Model::Tiny);
    let job = Job::new("a", "x")
        .set("temperature", 0.7)
        .set("max_tokens", 32);
    let first = service.run(&job.clone().set("seed", 1));
    for seed in [2, 3, u64::MAX, 1 << 32 | 1] {
        let other = service.run(&job.clone().set("seed", seed));
        assert_eq!(other.started().0, seed);
        assert_ne!(other.ids(), first.ids(), "seed {seed}");
    }
}

#[test]
fn temperature_zero_ignores_the_seed() {
    let service = WorkerHarness::start(Model::Tiny);
    let job = Job::new("a", "x")
        .set("temperature", 0)
        .set("max_tokens", 32);
    let first = service.run(&job.clone().set("seed", 1));
    assert_eq!(service.run(&job.set("seed", 2)).ids(), first.ids());
}

#[test]
fn random_seed_is_reported_and_reproduces_the_tokens() {
    let service = WorkerHarness::start(Model::Tiny);
    let job = Job::new("a", "x").set("max_tokens", 32);
    let (first, second) = (service.run(&job), service.run(&job));
    assert_ne!(first.started().0, second.started().0, "two random seeds");
    assert_ne!(first.ids(), second.ids());
    let again = service.run(&job.set("seed", first.started().0));
    assert_eq!(again.token_bytes(), first.token_bytes());
}

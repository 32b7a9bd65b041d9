//! The complete flow of a job, and what its fields do.

use orcd_shared::sampling::numbers;
use orcd_tests::sse::Kind;
use orcd_tests::{Job, Model, Starter, WorkerHarness, report};
use serde_json::json;

#[test]
fn stream_is_started_then_tokens_then_end() {
    complete_flow(&WorkerHarness::start(Model::Haiku));
}

#[test]
fn the_smallest_parameters_are_for_every_worker() {
    let service = WorkerHarness::start(Model::Haiku);
    let job = Job::new("tiny", "Count to five").set("max_tokens", 8);
    let job = numbers().fold(job, |job, (name, ..)| job.set(name, 1e-300));
    assert_eq!(service.run(&job).end().replays, 0);
    assert_eq!(service.health()["worker"]["restarts"], 0);
}

#[test]
fn stream_is_started_then_tokens_then_end_on_architecture_llama() {
    complete_flow(&WorkerHarness::start(Model::Llama));
}

/// The strict client checks order, counts and key sets; here is what it can't know.
pub(crate) fn complete_flow(service: &WorkerHarness) {
    let job = Job::new("flow-1", "Count to five")
        .set("temperature", 0)
        .set("max_tokens", 24);
    let stream = service.execute(&job);
    assert_eq!(stream.head().status, 200);
    let transcript = stream.finish();

    let Kind::Started { job_id, model, .. } = &transcript.events[0].kind else {
        panic!()
    };
    assert_eq!(job_id, "flow-1");
    assert_eq!(service.health()["model"], *model);
    assert!(transcript.started().1 > 0, "prompt tokens");
    assert!(!transcript.text().is_empty());
    let vocab_size = service.health()["vocab_size"].as_u64().unwrap();
    assert!(transcript.ids().iter().all(|&id| id < vocab_size));
    let end = transcript.end();
    assert_eq!(end.replays, 0);
    assert!(
        ["EOS", "MAX_TOKENS"].contains(&end.stop_reason.as_str()),
        "{end:?}"
    );
    assert_eq!(
        service.run(&job).token_bytes(),
        transcript.token_bytes(),
        "the name is free again"
    );
}

#[test]
fn tokens_go_out_one_by_one_as_they_are_made() {
    let service = Starter::new(Model::Slow).alone().start();
    let transcript = service.run(&Job::lasting("a", 40));
    assert_eq!(transcript.end().tokens_out, 40);
    let mut arrivals = transcript.arrivals.clone();
    arrivals.dedup();
    assert!(
        arrivals.len() >= 30,
        "40 tokens came in {} pieces",
        arrivals.len()
    );
    let total = transcript.over_at() - transcript.begin;
    let first = transcript.time_to_first_token();
    report::figure(&format!(
        "first token after {first:.2?}, the 40th after {total:.2?}"
    ));
    assert!(
        first * 2 < total,
        "the first token came after {first:?} of {total:?}"
    );
}

#[test]
fn max_tokens_is_exact() {
    let service = WorkerHarness::start(Model::Tiny);
    for max_tokens in [1, 2, 7, 64] {
        let transcript = service.run(&Job::lasting("a", max_tokens));
        assert_eq!(transcript.end().stop_reason, "MAX_TOKENS");
        assert_eq!(transcript.end().tokens_out, max_tokens);
    }
}

#[test]
fn service_limit_bounds_the_output_of_a_job_without_max_tokens() {
    let service = Starter::new(Model::Tiny)
        .flag("--max-tokens-out", 50)
        .start();
    let transcript = service.run(&Job::new("a", "x").set("top_k", 64));
    assert_eq!(transcript.end().stop_reason, "MAX_TOKENS");
    assert_eq!(transcript.end().tokens_out, 50);
    let reply = service.refusal(&Job::new("a", "x").set("max_tokens", 51));
    assert_eq!(reply.refusal(), (400, "INVALID_REQUEST".into()));
}

#[test]
fn prompt_is_one_user_turn_of_the_template_unless_told_otherwise() {
    let service = WorkerHarness::start(Model::Haiku);
    let greedy = |job: Job| service.run(&job.set("temperature", 0).set("max_tokens", 16));
    let prompt = "Write a haiku about rivers";
    let wrapped = greedy(Job::new("a", prompt));
    let explicit = greedy(Job::new("a", prompt).set("template", true));
    let turn = greedy(Job::chat("a", &[("user", prompt)]));
    let raw = greedy(Job::new("a", prompt).set("template", false));
    assert_eq!(wrapped.token_bytes(), explicit.token_bytes());
    assert_eq!(wrapped.token_bytes(), turn.token_bytes());
    assert_eq!(wrapped.started().1, turn.started().1);
    assert!(
        raw.started().1 < wrapped.started().1,
        "no template, fewer prompt tokens"
    );
}

#[test]
fn conversation_of_several_turns_reaches_the_model() {
    let service = WorkerHarness::start(Model::Haiku);
    let last = ("user", "Count to three");
    let prompt_tokens = |turns: &[(&str, &str)]| {
        service
            .run(&Job::chat("a", turns).set("max_tokens", 8))
            .started()
            .1
    };
    let one = prompt_tokens(&[last]);
    let three = prompt_tokens(&[("user", "Count to two"), ("assistant", "1 2"), last]);
    let system = [
        ("system", "Be brief."),
        ("user", "Hi"),
        ("assistant", "Hello."),
        last,
    ];
    assert!(
        one < three,
        "{one} prompt tokens for one turn, {three} for three"
    );
    assert!(one < prompt_tokens(&system));
}

#[test]
fn each_sampling_parameter_changes_the_draw() {
    let service = WorkerHarness::start(Model::Tiny);
    let base = Job::new("a", "x").set("seed", 5).set("max_tokens", 48);
    let plain = service.run(&base).ids();
    let greedy = service.run(&base.clone().set("temperature", 0)).ids();
    for (field, value) in [
        ("top_k", json!(1)),
        ("top_p", json!(1e-6)),
        ("min_p", json!(1)),
    ] {
        let ids = service.run(&base.clone().set(field, value)).ids();
        assert_eq!(ids, greedy, "{field} left more than the likeliest token");
        assert_ne!(ids, plain);
    }
    for (name, bounds, _) in numbers() {
        // Neither is off for any of them.
        let half = f64::midpoint(bounds.least, bounds.most);
        let is_default = half == f64::from(bounds.default);
        let value = if is_default { bounds.most } else { half };
        let ids = service.run(&base.clone().set(name, value)).ids();
        assert_ne!(ids, plain, "{name} {value}");
    }
}

#[test]
fn strong_repetition_penalty_repeats_less() {
    let service = WorkerHarness::start(Model::Tiny);
    let distinct = |penalty: f64| {
        let job = Job::new("a", "x")
            .set("temperature", 0)
            .set("max_tokens", 100);
        let mut ids = service.run(&job.set("repetition_penalty", penalty)).ids();
        ids.sort_unstable();
        ids.dedup();
        ids.len()
    };
    let (without, with) = (distinct(1.0), distinct(2.0));
    assert!(
        with > without,
        "{with} distinct tokens with the penalty, {without} without"
    );
}

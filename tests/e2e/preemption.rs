//! KV memory that is too small for all jobs at once, on purpose: who is younger pauses, and nobody sees more of it.

use std::time::Duration;

use orcd_tests::stream::Stream;
use orcd_tests::{Job, Model, Starter, WorkerHarness};
use serde_json::{Value, json};

/// Whatever a test waits for is there by then, on any machine.
const SOON: Duration = Duration::from_secs(60);

/// A service whose KV memory has so many pages of 64 positions.
fn with_pages(model: Model, pages: u32) -> WorkerHarness {
    Starter::new(model)
        .flag("--parallel", 12)
        .flag("--debug-kv-pages", pages)
        .start()
}

fn sized(name: &str, prompt: &str, tokens: u64) -> Job {
    let job = Job::new(name, prompt).set("max_tokens", tokens);
    job.set("seed", 11).set("top_k", 64).set("template", false)
}

/// Jobs that together grow to several times eight pages, and would show the smallest difference.
fn jobs() -> Vec<Job> {
    let schema = json!({
        "type": "object",
        "properties": {"note": {"type": "string", "minLength": 150}},
        "required": ["note"],
        "additionalProperties": false,
    });
    let long = "the sea and the sand ".repeat(9);
    vec![
        sized("greedy", "in the morning", 180).set("temperature", 0),
        sized("seeded", "in the morning", 200).set("temperature", 1.3),
        sized("long", &long, 90),
        sized("penalized", "an evening", 170)
            .set("repetition_penalty", 1.2)
            .set("frequency_penalty", 0.5)
            .set("presence_penalty", 0.7)
            .set("logit_bias", json!({"3": -5, "40": 4})),
        sized("schema", "a note", 160).set(
            "response_format",
            json!({"type": "json_schema", "schema": schema}),
        ),
        sized("regex", &long, 130).set(
            "response_format",
            json!({"type": "regex", "pattern": "([0-9]{4}-)*"}),
        ),
        sized("logprobs", "one", 150).set("logprobs", 3),
        sized("short", "two", 20),
    ]
}

/// Two choices for a prompt, on OpenAI's route.
fn choices(service: &WorkerHarness) -> Value {
    let body = json!({
        "prompt": "in the morning", "seed": 5, "temperature": 1.2, "max_tokens": 120, "n": 2,
        "top_k": 64,
    });
    let reply = service.post("/v1/completions", &body);
    assert_eq!(reply.status(), 200);
    reply.json()["choices"].clone()
}

/// Three jobs begin in so many pages at once. Whichever they are, there come three of which two grow beyond two pages
/// before the third has ended.
const PAGES: u32 = 6;

#[test]
fn streams_of_a_pool_that_is_too_small_equal_those_that_run_alone() {
    let roomy = with_pages(Model::Brisk, 1000);
    let alone: Vec<_> = jobs().iter().map(|job| roomy.run(job)).collect();
    let pair = choices(&roomy);
    assert_eq!(roomy.health()["kv"]["preemptions"], 0);
    drop(roomy);

    let service = with_pages(Model::Brisk, PAGES);
    let preemptions = || service.health()["kv"]["preemptions"].as_u64();
    // On a busy machine they may come so late, one after the other, that they find room.
    for _ in 0..10 {
        let (together, pair_together) = std::thread::scope(|scope| {
            let pair = scope.spawn(|| choices(&service));
            let together = service.run_together(&jobs());
            (together, pair.join().unwrap())
        });
        for (job, (alone, together)) in jobs().iter().zip(alone.iter().zip(&together)) {
            assert_eq!(alone.token_bytes(), together.token_bytes(), "{}", job.id());
            let (expected, found) = (alone.end(), together.end());
            assert_eq!(expected.stop_reason, found.stop_reason, "{}", job.id());
            assert_eq!(found.replays, 0, "{}", job.id());
        }
        assert_eq!(pair, pair_together);
        if preemptions() > Some(0) {
            break;
        }
    }
    let health = service.wait_for_health(SOON, |h| h["kv"]["pages_used"] == 0);
    let kv = &health["kv"];
    assert!(kv["preemptions"].as_u64() > Some(0), "{kv}");
    let pages = |name: &str| kv[name].as_u64().unwrap();
    assert_eq!(pages("pages"), u64::from(PAGES), "{kv}");
    // What is kept is nobody's.
    assert_eq!(
        pages("pages_free") + pages("pages_cached"),
        u64::from(PAGES),
        "{kv}"
    );
    assert_eq!(health["worker"]["restarts"], 0);
}

#[test]
fn a_worker_that_is_killed_while_a_job_is_preempted_changes_no_byte_and_blames_nobody_else() {
    let jobs = [
        sized("old", "in the morning", 380),
        sized("young", "an evening", 300),
    ];
    let service = with_pages(Model::Slow, 7);
    let alone: Vec<_> = jobs.iter().map(|job| service.run(job)).collect();
    let streams: Vec<Stream> = jobs
        .iter()
        .map(|job| {
            let mut stream = service.execute(job);
            stream.read_tokens(1);
            stream
        })
        .collect();
    // Both are at half of the pool, and the older has its second half before it.
    service.wait_for_health(SOON, |h| h["kv"]["preemptions"] == 1);
    service.kill_worker();
    let found: Vec<_> = streams.into_iter().map(Stream::finish).collect();
    for (job, (alone, found)) in jobs.iter().zip(alone.iter().zip(&found)) {
        assert_eq!(alone.token_bytes(), found.token_bytes(), "{}", job.id());
    }
    let replays: Vec<_> = found.iter().map(|found| found.end().replays).collect();
    assert_eq!(replays, [1, 0]);
    assert_eq!(service.health()["worker"]["restarts"], 1);
}

#[test]
fn what_could_never_fit_is_refused_with_what_fits_and_disturbs_nobody() {
    let service = with_pages(Model::Slow, 4);
    let mut neighbor = service.execute(&sized("neighbor", "x", 60));
    neighbor.read_tokens(1);
    let reply = service.refusal(&sized("large", "x", 1500));
    assert_eq!(reply.refusal(), (400, "CONTEXT_LENGTH_EXCEEDED".into()));
    let detail = &reply.error()["details"][0];
    assert_eq!(detail["field"], "max_tokens");
    let fits = detail["constraint"].clone();
    let reply = service.refusal(&sized("long", &"word ".repeat(400), 1));
    assert_eq!(reply.refusal(), (400, "CONTEXT_LENGTH_EXCEEDED".into()));
    let error = reply.error();
    assert_eq!(error["details"][0]["field"], "prompt");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("KV memory holds 256"), "{message}");
    let refused = json!({"prompt": "x", "max_tokens": 300});
    let reply = service.post("/v1/completions", &refused);
    assert_eq!(
        (reply.status(), &reply.json()["error"]["param"]),
        (400, &json!("max_tokens"))
    );
    // Whoever names no number gets what fits.
    let unnamed = Job::new("unnamed", "x").set("template", false);
    let filled = service.run(&unnamed.set("top_k", 64).set("seed", 1));
    let expected = format!("at most {}", filled.end().tokens_out);
    assert_eq!(fits, json!(expected));
    assert_eq!(filled.end().stop_reason, "CONTEXT_FULL");
    assert_eq!(neighbor.finish().end().tokens_out, 60);
    assert_eq!(service.health()["worker"]["restarts"], 0);
}

//! The limits of the context, before and while a job runs.

use orcd_tests::{Job, Model, Starter, WorkerHarness};

const CONTEXT: u64 = 128;

fn service() -> WorkerHarness {
    Starter::new(Model::Tiny).flag("--context", CONTEXT).start()
}

/// A prompt of exactly `n` tokens: single bytes that merge with nothing.
fn prompt_of(n: u64) -> Job {
    Job::new("a", &"#".repeat(usize::try_from(n).unwrap()))
        .set("template", false)
        .set("top_k", 64)
        .set("seed", 1)
}

#[test]
fn prompt_that_leaves_no_room_is_refused_with_both_numbers() {
    let service = service();
    for n in [CONTEXT, CONTEXT + 1, 5000] {
        let reply = service.refusal(&prompt_of(n));
        assert_eq!(reply.refusal(), (400, "CONTEXT_LENGTH_EXCEEDED".into()));
        let message = reply.error()["message"].as_str().unwrap().to_owned();
        for number in [n, CONTEXT] {
            assert!(
                message.contains(&number.to_string()),
                "no {number} in {message:?}"
            );
        }
        assert_eq!(reply.error()["retriable"], false);
        assert!(!reply.text().contains("####"), "the prompt is echoed");
    }
    assert_eq!(
        service.run(&prompt_of(CONTEXT - 1)).started().1,
        CONTEXT - 1
    );
}

#[test]
fn output_ends_where_the_context_does() {
    let service = service();
    for prompt in [1, 60, CONTEXT - 2, CONTEXT - 1] {
        for job in [prompt_of(prompt), prompt_of(prompt).set("max_tokens", 1000)] {
            let transcript = service.run(&job);
            assert_eq!(transcript.started().1, prompt);
            let end = transcript.end();
            assert_eq!(end.stop_reason, "CONTEXT_FULL", "{end:?}");
            let positions = prompt + end.tokens_out;
            assert!(
                positions == CONTEXT || positions == CONTEXT + 1,
                "{positions} positions"
            );
        }
    }
}

#[test]
fn max_tokens_that_fit_are_not_cut() {
    let service = service();
    let transcript = service.run(&prompt_of(60).set("max_tokens", CONTEXT - 60));
    assert_eq!(transcript.end().tokens_out, CONTEXT - 60);
    let transcript = service.run(&prompt_of(60).set("max_tokens", 10));
    assert_eq!(transcript.end().stop_reason, "MAX_TOKENS");
}

#[test]
fn context_is_what_health_says() {
    assert_eq!(service().health()["context_length"], CONTEXT);
    let own = WorkerHarness::start(Model::Haiku).health();
    assert_eq!(
        own["context_length"], 2048,
        "the model's own without --context"
    );
}

#[test]
fn full_context_leaves_the_next_job_a_fresh_one() {
    let service = service();
    let job = prompt_of(20).set("max_tokens", 30);
    let before = service.run(&job);
    service.run(&prompt_of(5));
    assert_eq!(service.run(&job).token_bytes(), before.token_bytes());
}

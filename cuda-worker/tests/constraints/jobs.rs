//! Jobs with constraints among others: in any company, cut anywhere, the same tokens.

use orcd_shared::constraint::Constraint;
use orcd_shared::error::ErrorCode;
use orcd_shared::job::{Finish, JobSpec};
use orcd_shared::protocol::message::ToSupervisor;

use crate::rig::{Output, Rig, constrained, free};

fn schema(text: &str) -> Constraint {
    Constraint::JsonSchema(text.to_owned())
}

/// Four constraints that end by themselves, or hardly ever.
fn constraints() -> [Constraint; 4] {
    [
        schema(
            r#"{"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 99}, "minItems": 3}"#,
        ),
        Constraint::Regex("[a-f]{3,9}(-[0-9]{2}){0,7}".to_owned()),
        Constraint::Lark(
            "start: verb \" \" noun\nverb: \"see\" | \"hear\"\nnoun: /[a-z]{2,40}/".to_owned(),
        ),
        schema(
            r#"{"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}"#,
        ),
    ]
}

fn jobs() -> Vec<JobSpec> {
    let jobs = (0..8u64).map(|key| match key % 2 {
        0 => constrained(key, constraints()[key as usize / 2].clone(), 40),
        _ => free(key, 40),
    });
    jobs.collect()
}

fn alone(job: &JobSpec) -> Output {
    let mut rig = Rig::new();
    rig.run([job.clone()]);
    rig.output(job.key.0)
}

#[test]
fn company_changes_no_token_of_anybody() {
    let mut rig = Rig::new();
    rig.run(jobs());
    for job in jobs() {
        assert_eq!(rig.output(job.key.0), alone(&job), "job {}", job.key);
    }
}

/// Whatever a worker had made by the time that it died.
#[test]
fn a_replay_from_any_token_goes_on_as_it_was() {
    for constraint in constraints() {
        let job = constrained(3, constraint, 24);
        let whole = alone(&job);
        for kept in 1..whole.tokens.len() {
            let mut rig = Rig::new();
            let mut again = job.clone();
            again.emitted = whole.tokens[..kept].to_vec();
            rig.run([again]);
            // The last one comes again.
            assert_eq!(
                rig.output(3).tokens,
                whole.tokens[kept - 1..],
                "after {kept}"
            );
            assert_eq!(rig.output(3).finish, whole.finish);
        }
    }
}

#[test]
fn choices_of_one_request_differ_and_fit() {
    let constraint = Constraint::Regex("[0-9]{12}".to_owned());
    let mut rig = Rig::new();
    let choice = |key: u64| {
        let mut job = constrained(1, constraint.clone(), 40);
        job.key.0 = key;
        job.sampling.choice = key as u32;
        job
    };
    rig.run((0..6).map(choice));
    let mut texts: Vec<_> = (0..6).map(|key| rig.output(key).bytes).collect();
    for text in &texts {
        assert_eq!(text.len(), 12, "{text:?}");
        assert!(text.iter().all(u8::is_ascii_digit), "{text:?}");
    }
    texts.sort();
    texts.dedup();
    assert_eq!(texts.len(), 6);
}

#[test]
fn an_output_that_is_whole_ends_as_by_an_end_token() {
    let output = alone(&constrained(1, Constraint::Regex("abc".to_owned()), 40));
    assert_eq!(output.bytes, b"abc");
    assert_eq!(output.finish, Some(Finish::Eos));
    let cut = alone(&constrained(
        1,
        Constraint::Regex("[ab]{100}".to_owned()),
        5,
    ));
    assert_eq!((cut.tokens.len(), cut.finish), (5, Some(Finish::MaxTokens)));
}

#[test]
fn a_constraint_that_does_not_compile_fails_its_job_alone() {
    let mut rig = Rig::new();
    let bad = constrained(1, schema(r#"{"type": "nothing"}"#), 20);
    rig.run([free(0, 20), bad, free(2, 20)]);
    let (code, message) = rig.output(1).failure.unwrap();
    assert_eq!(code, ErrorCode::InvalidRequest);
    assert!(message.contains("nothing"), "{message}");
    for key in [0, 2] {
        assert_eq!(rig.output(key), alone(&free(key, 20)));
    }
}

#[test]
fn a_job_that_is_cancelled_while_it_compiles_is_gone() {
    let mut rig = Rig::new();
    rig.submit(constrained(1, constraints()[0].clone(), 20));
    assert!(rig.scheduler.is_waiting() || rig.scheduler.running() == 1);
    rig.cancel(1);
    assert!(rig.scheduler.idle());
    // Another has its slot when the matcher comes.
    rig.run([
        free(2, 20),
        constrained(3, Constraint::Regex("x{4}".into()), 20),
    ]);
    assert_eq!(rig.output(1), Output::default());
    assert_eq!(rig.output(2), alone(&free(2, 20)));
    assert_eq!(rig.output(3).bytes, b"xxxx");
}

/// The prompt is read meanwhile, and nothing is drawn.
#[test]
fn a_prompt_does_not_wait_for_its_constraint() {
    let mut rig = Rig::new();
    let mut job = constrained(1, constraints()[0].clone(), 20);
    job.prompt = (0..200).collect();
    rig.submit(job.clone());
    // Without passing on what was compiled.
    let mut steps = 0;
    while !rig.scheduler.is_waiting() {
        rig.step();
        steps += 1;
    }
    assert!(steps > 1, "200 tokens take more than {steps} steps");
    let is_token = |m: &ToSupervisor| matches!(m, ToSupervisor::Step(r) if !r.tokens.is_empty());
    assert!(!rig.received().iter().any(is_token));
    rig.run([]);
    assert_eq!(rig.output(1), alone(&job));
}

#[test]
fn a_constrained_job_that_ignores_end_tokens_is_refused() {
    let mut rig = Rig::new();
    let mut job = constrained(1, constraints()[0].clone(), 20);
    job.options.ignore_end = true;
    rig.run([job]);
    assert_eq!(rig.output(1).failure.unwrap().0, ErrorCode::InvalidRequest);
}

#[test]
fn logprobs_are_those_of_the_model_whatever_is_allowed() {
    let mut job = constrained(1, Constraint::Regex("[0-9]{3}".into()), 20);
    job.options.top_logprobs = Some(5);
    let mut rig = Rig::new();
    rig.run([job.clone()]);
    let reports = rig.received().iter().filter_map(|m| match m {
        ToSupervisor::Step(report) => report.logprobs.first(),
        _ => None,
    });
    let tops: Vec<_> = reports.map(|logprobs| logprobs.top.clone()).collect();
    // The same first logits without the constraint.
    job.options.constraint = None;
    job.max_tokens = 1;
    let mut rig = Rig::new();
    rig.run([job]);
    let free = rig.received().iter().find_map(|m| match m {
        ToSupervisor::Step(report) => report.logprobs.first(),
        _ => None,
    });
    assert_eq!(Some(&tops[0]), free.map(|f| &f.top));
}

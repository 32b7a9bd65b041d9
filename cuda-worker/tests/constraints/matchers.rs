//! What a matcher allows.

use cuda_worker::constraint::{Compiler, Matcher};
use orcd_shared::constraint::Constraint;

use crate::engine_support::Rng;
use crate::sampler::{ENDS, allowed, draw, vocabulary, words};

fn compiled(constraint: &Constraint) -> Result<Matcher, String> {
    Compiler::new(&vocabulary()).unwrap().compile(constraint)
}

fn regex(pattern: &str) -> Matcher {
    compiled(&Constraint::Regex(pattern.to_owned())).unwrap()
}

fn allows(matcher: &mut Matcher) -> Vec<u32> {
    allowed(matcher.mask().unwrap())
}

fn go_on(matcher: &mut Matcher, text: &str) {
    for byte in text.bytes() {
        assert!(allows(matcher).contains(&byte.into()), "{text}: {byte}");
        matcher.accept(byte.into());
    }
}

#[test]
fn end_tokens_are_allowed_where_the_output_may_end_and_alone_where_it_must() {
    let mut matcher = regex("ab?");
    assert_eq!(allows(&mut matcher), [u32::from(b'a')]);
    go_on(&mut matcher, "a");
    assert_eq!(allows(&mut matcher), [u32::from(b'b'), ENDS[1], ENDS[0]]);
    go_on(&mut matcher, "b");
    assert_eq!(allows(&mut matcher), [ENDS[1], ENDS[0]]);
}

/// A forced text may be made of any tokens.
#[test]
fn every_tokenization_of_a_text_is_allowed() {
    let mut matcher = regex("true");
    let found: Vec<_> = allows(&mut matcher)
        .iter()
        .map(|t| words()[*t as usize].clone())
        .collect();
    assert_eq!(found, [b"t".to_vec(), b"true".to_vec()]);
}

#[test]
fn no_output_has_a_control_token_or_broken_utf8() {
    for (seed, pattern) in ["(.|\n){20,60}", "[^a-z]{30}", "\\PC{3,30}"]
        .iter()
        .enumerate()
    {
        for sample in 0..20 {
            let output = draw(
                &mut regex(pattern),
                &mut Rng(100 * seed as u64 + sample),
                100,
            );
            assert!(output.is_whole);
            String::from_utf8(output.bytes).unwrap();
        }
    }
}

#[test]
fn a_grammar_may_not_name_tokens() {
    for grammar in [
        "start: \"a\" <|im_end|>",
        "start: \"a\" <[257]>",
        "start: <[^257]>",
        "start: <[*]>",
    ] {
        let error = compiled(&Constraint::Lark(grammar.to_owned())).unwrap_err();
        assert!(error.contains("names tokens"), "{grammar}: {error}");
    }
}

#[test]
fn white_space_of_json_is_bounded() {
    let schema = r#"{"type": "object", "properties": {"a": {"type": "null"}}, "required": ["a"]}"#;
    let constraint = Constraint::JsonSchema(schema.to_owned());
    let mut matcher = compiled(&constraint).unwrap();
    go_on(&mut matcher, "{ \"a\":\n    ");
    let space = u32::from(b' ');
    for _ in 0..28 {
        assert!(allows(&mut matcher).contains(&space));
        matcher.accept(space);
    }
    assert!(!allows(&mut matcher).contains(&space));
    // And it is the service's, whatever a schema says.
    let own = schema.replacen('{', r#"{"x-guidance": {"whitespace_flexible": true},"#, 1);
    let mut matcher = compiled(&Constraint::JsonSchema(own)).unwrap();
    go_on(&mut matcher, "{ ");
    assert!(!allows(&mut matcher).contains(&space));
}

#[test]
fn a_replay_gives_the_masks_of_the_first_run() {
    let constraint = Constraint::JsonSchema(
        r#"{"type": "object", "properties": {"a": {"type": "string", "maxLength": 30}, "b": {"type": "number"}}}"#.to_owned(),
    );
    let compiler = Compiler::new(&vocabulary()).unwrap();
    let fresh = compiler.compile(&constraint).unwrap();
    for seed in 0..10 {
        let output = draw(&mut fresh.clone(), &mut Rng(seed), 60);
        let mut first = fresh.clone();
        for at in 0..=output.tokens.len() {
            let mut again = Compiler::new(&vocabulary())
                .unwrap()
                .compile(&constraint)
                .unwrap();
            again.replay(&output.tokens[..at]).unwrap();
            assert_eq!(allows(&mut again), allows(&mut first), "at {at}");
            if let Some(&token) = output.tokens.get(at) {
                first.accept(token);
            }
        }
    }
}

#[test]
fn tokens_that_do_not_fit_are_no_replay() {
    let error = regex("ab").replay(&[b'a'.into(), b'c'.into()]).unwrap_err();
    assert!(error.contains("after 1 tokens: token 99"), "{error}");
}

#[test]
fn a_model_without_an_end_token_has_no_constraints() {
    let error = cuda_worker::constraint::Vocabulary::new(words(), &[9999]).unwrap_err();
    assert!(
        error.contains("no token at which an output ends"),
        "{error}"
    );
}

//! What is found out about a constraint before there is a job.

use std::io::Write as _;
use std::process::{Command, Stdio};

use cuda_worker::constraint::check::check;
use orcd_shared::constraint::Constraint;
use orcd_shared::exit::worker as exit;
use orcd_shared::protocol::frame;
use serde_json::json;

use crate::schemas;

fn schema(value: &serde_json::Value) -> Constraint {
    Constraint::JsonSchema(value.to_string())
}

#[test]
fn good_constraints_pass() {
    for value in schemas::written() {
        check(&schema(&value)).unwrap_or_else(|reason| panic!("{reason}: {value}"));
    }
    check(&Constraint::Regex("[a-z]+".into())).unwrap();
    check(&Constraint::Lark("start: \"a\"".into())).unwrap();
}

#[test]
fn a_reason_names_its_place() {
    let bad = json!({"type": "object", "properties": {"ok": {"type": "string"}, "list": {
        "type": "array", "items": {"type": "string", "format": "telepathy"}}}});
    let reason = check(&schema(&bad)).unwrap_err();
    assert!(
        reason.starts_with("at #/properties/list/items: "),
        "{reason}"
    );
    assert!(reason.contains("telepathy"), "{reason}");
    let not = json!({"$defs": {"x": {"not": {"type": "string"}}}, "anyOf": [{"type": "null"}, {"$ref": "#/$defs/x"}]});
    let reason = check(&schema(&not)).unwrap_err();
    assert!(reason.starts_with("at #/$defs/x: "), "{reason}");
    let reason = check(&schema(&json!({"$ref": "#/$defs/missing"}))).unwrap_err();
    assert!(reason.contains("missing"), "{reason}");
    let reason = check(&Constraint::Regex("a(b".into())).unwrap_err();
    assert!(reason.contains("unclosed group"), "{reason}");
    let reason = check(&Constraint::Lark("start: \"a\"\nb: $".into())).unwrap_err();
    assert!(
        reason.contains("line 2") || reason.contains("2("),
        "{reason}"
    );
}

/// Runs the program; its exit code and what it says.
fn run(input: &[u8]) -> (Option<i32>, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_cuda-worker"))
        .arg("--check-constraint")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _ = child.stdin.take().unwrap().write_all(input);
    let output = child.wait_with_output().unwrap();
    (
        output.status.code(),
        String::from_utf8(output.stdout).unwrap(),
    )
}

fn framed(constraint: &Constraint) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::encode(constraint, &mut bytes).unwrap();
    bytes
}

#[test]
fn the_program_says_what_it_finds() {
    let good = run(&framed(&Constraint::Regex("[a-z]{3}".into())));
    assert_eq!(good, (Some(exit::OK.into()), String::new()));
    let (code, reason) = run(&framed(&Constraint::Regex("a(b".into())));
    assert_eq!(code, Some(exit::REFUSED.into()));
    assert!(reason.contains("unclosed group"), "{reason}");
    for broken in [&b""[..], b"\xff\xff\xff\xff", b"\x02\0\0\0\x09\x00"] {
        assert_eq!(run(broken).0, Some(exit::PROTOCOL.into()), "{broken:?}");
    }
}

/// Each of them would take seconds, gigabytes or the stack; it may say so or die of it, but soon.
#[test]
fn what_explodes_is_refused_or_ends_the_process() {
    let window =
        |i: u32| json!({"type": "string", "pattern": format!("^.*[a-z]{{{}}}.*$", 20 + i)});
    let objects = |i: u32| {
        let object =
            |j| json!({"type": "object", "properties": {format!("{i}.{j}"): {"type": "integer"}}});
        json!({"anyOf": (0..12).map(object).collect::<Vec<_>>()})
    };
    let windows = (0..40).map(window).collect::<Vec<_>>();
    let objects = (0..12).map(objects).collect::<Vec<_>>();
    let bombs = [
        schema(&json!({"allOf": windows})),
        schema(&json!({"allOf": objects})),
        schema(&json!({"type": "integer", "multipleOf": 9_999_991, "minimum": 0, "maximum": 1e15})),
        Constraint::Lark(
            "start: A\nA: /.*a.{30}/ & /.*b.{31}/ & /.*c.{32}/ & /.*d.{33}/ & /.*e.{34}/".into(),
        ),
        Constraint::Lark(format!(
            "start: {}\"a\"{}",
            "(".repeat(50_000),
            ")".repeat(50_000)
        )),
        Constraint::Regex("(".repeat(100_000) + &")".repeat(100_000)),
    ];
    let mut killed = 0;
    for bomb in bombs {
        let (code, reason) = run(&framed(&bomb));
        let shown: String = bomb.text().chars().take(60).collect();
        println!("{shown}: {code:?} {reason}");
        match code {
            None => killed += 1,
            Some(code) => assert_eq!(code, i32::from(exit::REFUSED), "{shown}: {reason}"),
        }
    }
    assert!(killed > 0, "none needed a process of its own");
}

/// They are large numbers and little work.
#[test]
fn what_only_looks_as_if_it_exploded_passes() {
    for pattern in [
        "((((a{1,100}){1,100}){1,100}){1,100}){1,100}",
        "(.{0,1000}[a-z]{0,1000}){1000}",
    ] {
        check(&Constraint::Regex(pattern.into())).unwrap();
    }
    check(&schema(
        &json!({"type": "array", "minItems": 1_000_000_000, "items": {"type": "null"}}),
    ))
    .unwrap();
}

/// llguidance would allow the bound itself.
#[test]
fn bounds_of_numbers_that_would_not_be_heeded_are_refused() {
    for number in [
        json!({"type": "number", "exclusiveMinimum": 0, "maximum": 0.75}),
        json!({"type": "number", "exclusiveMinimum": 3, "exclusiveMaximum": 3.5}),
        json!({"type": "number", "minimum": -2.5, "exclusiveMaximum": -2}),
    ] {
        let reason = check(&schema(&json!({"type": "array", "items": number}))).unwrap_err();
        assert!(reason.starts_with("at #/items: "), "{reason}");
    }
    for number in [
        json!({"type": "integer", "exclusiveMinimum": 0, "maximum": 1}),
        json!({"type": "number", "exclusiveMinimum": 0, "maximum": 1}),
        json!({"type": "number", "exclusiveMinimum": 0.25, "maximum": 0.5}),
        json!({"type": "number", "minimum": 0, "exclusiveMaximum": 0.5}),
    ] {
        check(&schema(&number)).unwrap();
    }
}

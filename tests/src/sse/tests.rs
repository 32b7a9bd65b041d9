use super::*;

const STARTED: &str = r#"{"type":"started","job_id":"a","model":"m","started_at":"2026-01-02T03:04:05Z","seed":18446744073709551615,"prompt_tokens":3,"fingerprint":"f","request_digest":"d","template_time":"t"}"#;
const END: &str = r#"{"type":"end","tokens_out":2,"decode_time_ms":1,"stop_reason":"EOS","replays":0,"engine_time_us":5,"cached_tokens":1}"#;
const ERROR: &str =
    r#"{"type":"error","code":"CANCELLED","message":"m","retriable":true,"tokens_out":0}"#;

fn block(name: &str, id: u64, data: &str) -> String {
    format!("event: {name}\nid: {id}\ndata: {data}\n\n")
}

fn token(id: u64, i: u64) -> String {
    block(
        "token",
        id,
        &format!(r#"{{"type":"token","t":"x","i":{i},"id":7}}"#),
    )
}

fn good() -> Vec<String> {
    vec![
        block("started", 0, STARTED),
        token(1, 0),
        token(2, 1),
        block("end", 3, END),
    ]
}

fn parse(stream: &str) -> Result<Vec<Item>, Malformed> {
    let mut parser = Parser::default();
    let mut items = Vec::new();
    // One byte at a time: where the network cuts must not matter.
    for byte in stream.as_bytes() {
        items.extend(parser.push(&[*byte])?);
    }
    parser.finish()?;
    Ok(items)
}

#[test]
fn a_good_stream_is_read() {
    let items = parse(&format!(": queued\n\n{}", good().concat())).unwrap();
    assert_eq!(items.len(), 5);
    assert_eq!(items[0], Item::Comment("queued".into()));
    let Item::Event(event) = &items[1] else {
        panic!()
    };
    assert!(matches!(
        event.kind,
        Kind::Started {
            seed: u64::MAX,
            prompt_tokens: 3,
            ..
        }
    ));
    assert_eq!(event.raw, block("started", 0, STARTED));
    assert!(
        parse(&block("error", 0, ERROR)).is_ok(),
        "a job may fail before it starts"
    );
}

#[test]
fn a_resumed_stream_goes_on_after_an_id() {
    let mut parser = Parser::after(1);
    parser
        .push((token(2, 1) + &block("end", 3, END)).as_bytes())
        .unwrap();
    parser.finish().unwrap();
    assert!(Parser::after(1).push(token(3, 1).as_bytes()).is_err());
}

#[test]
fn a_stream_of_another_service_goes_on_after_its_tokens() {
    let resumed = |tokens: u64| {
        format!(
            "event: resumed\ndata: {{\"type\":\"resumed\",\"job_id\":\"a\",\"tokens\":{tokens}}}\n\n"
        )
    };
    let read = |text: String| Parser::resumed(2).push(text.as_bytes());
    let end = END.replace("\"tokens_out\":2", "\"tokens_out\":3");
    let items = read(resumed(2) + &token(3, 2) + &block("end", 4, &end)).unwrap();
    let Item::Event(event) = &items[0] else {
        panic!()
    };
    assert_eq!(event.id, 2);
    assert!(read(resumed(1)).is_err(), "it leaves one out");
    assert!(read(resumed(2) + &resumed(2)).is_err());
    assert!(read(resumed(2) + &token(2, 1)).is_err(), "it was there");
    assert!(read(block("started", 0, STARTED)).is_err());
    assert!(Parser::default().push(resumed(0).as_bytes()).is_err());
}

#[test]
fn malformed_streams_are_rejected() {
    let with = |at: usize, block: &str| {
        let mut blocks = good();
        blocks[at] = block.to_owned();
        blocks.concat()
    };
    let end_with = |from: &str, to: &str| with(3, &block("end", 3, &END.replace(from, to)));
    let token_with = |from: &str, to: &str| with(1, &token(1, 0).replace(from, to));
    let started_with =
        |from: &str, to: &str| with(0, &block("started", 0, &STARTED.replace(from, to)));
    for (what, stream) in [
        ("nothing", String::new()),
        ("no terminal event", good()[..3].concat()),
        ("cut inside a block", good().concat().trim_end().to_owned()),
        ("an event after the end", good().concat() + &token(4, 2)),
        ("a comment after the end", good().concat() + ": x\n\n"),
        (
            "two terminal events",
            good().concat() + &block("end", 4, END),
        ),
        ("no started", token(0, 0) + &block("end", 1, END)),
        ("started twice", with(1, &block("started", 1, STARTED))),
        ("end before started", block("end", 0, END)),
        ("a gap in the ids", with(2, &token(3, 1))),
        ("an id twice", with(2, &token(1, 1))),
        ("a gap in i", with(2, &token(2, 2))),
        ("i from 1", with(1, &token(1, 1))),
        ("no id", token_with("id: 1\n", "")),
        ("no event name", token_with("event: token\n", "")),
        ("data twice", token_with("data:", "data: {}\ndata:")),
        ("retry field", token_with("id: 1\n", "id: 1\nretry: 5\n")),
        ("carriage returns", token_with("\n", "\r\n")),
        ("no colon", token_with("id: 1", "id 1")),
        ("data is no JSON", token_with("}", "")),
        ("data is no object", with(1, &block("token", 1, "[1]"))),
        (
            "type differs from the name",
            token_with("event: token", "event: metrics"),
        ),
        (
            "unknown event",
            with(1, &block("tick", 1, r#"{"type":"tick"}"#)),
        ),
        (
            "a key too many",
            token_with(r#""id":7"#, r#""id":7,"p":0.5"#),
        ),
        ("a key missing", token_with(r#","id":7"#, "")),
        ("t is no string", token_with(r#""t":"x""#, r#""t":null"#)),
        ("a negative token id", token_with(r#""id":7"#, r#""id":-7"#)),
        (
            "seed is a string",
            started_with("18446744073709551615", r#""5""#),
        ),
        (
            "started_at is no time",
            started_with("2026-01-02T", "yesterday "),
        ),
        (
            "tokens_out is wrong",
            end_with(r#""tokens_out":2"#, r#""tokens_out":3"#),
        ),
        ("unknown stop reason", end_with("EOS", "DONE")),
        (
            "stop sequence without reason",
            end_with("EOS\"", "EOS\",\"stop_sequence\":\"a\""),
        ),
        (
            "stop reason without sequence",
            end_with("EOS", "STOP_SEQUENCE"),
        ),
        (
            "an error with tokens too many",
            with(3, &block("error", 3, ERROR)),
        ),
    ] {
        assert!(parse(&stream).is_err(), "{what} was taken");
    }
}

#[test]
fn bytes_that_are_not_utf8_are_rejected() {
    assert!(Parser::default().push(b"event: token\xff\n\n").is_err());
}

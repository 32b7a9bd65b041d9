//! Text is whole code points, though tokens are bytes.

use std::collections::HashMap;

use orcd_shared::gguf::GgufFile;
use orcd_tests::{Job, Model, Transcript, WorkerHarness};

/// The bytes of each token of a byte-level vocabulary.
struct Vocabulary(Vec<Vec<u8>>);

impl Vocabulary {
    fn of(service: &WorkerHarness) -> Self {
        let file = GgufFile::open(service.model()).unwrap();
        let tokens = file
            .header()
            .metadata
            .strings("tokenizer.ggml.tokens")
            .unwrap()
            .to_vec();
        let bytes = byte_alphabet();
        Self(
            tokens
                .iter()
                .map(|t| t.chars().filter_map(|c| bytes.get(&c).copied()).collect())
                .collect(),
        )
    }

    /// What the ids decode to; ill-formed bytes become U+FFFD.
    fn decode(&self, ids: &[u64]) -> String {
        let bytes = ids
            .iter()
            .flat_map(|&id| self.0[usize::try_from(id).unwrap()].iter().copied());
        String::from_utf8_lossy(&bytes.collect::<Vec<u8>>()).into_owned()
    }
}

/// The usual stand-ins of bytes: printable ones as themselves, the others from U+0100 on.
fn byte_alphabet() -> HashMap<char, u8> {
    let mut other = '\u{100}'..;
    let mut stand_in = |byte: u8| match byte {
        b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => char::from(byte),
        _ => other.next().unwrap(),
    };
    (0..=255).map(|byte| (stand_in(byte), byte)).collect()
}

fn job(name: &str, seed: u64) -> Job {
    // Hot: all but uniform over a vocabulary that is half single bytes.
    Job::new(name, "x")
        .set("seed", seed)
        .set("temperature", 2)
        .set("max_tokens", 600)
}

fn two_byte_characters(transcript: &Transcript) -> usize {
    transcript
        .text()
        .chars()
        .filter(|c| ('\u{80}'..'\u{fffd}').contains(c))
        .count()
}

#[test]
fn concatenated_text_equals_the_decoded_output() {
    let service = WorkerHarness::start(Model::Tiny);
    let vocabulary = Vocabulary::of(&service);
    let mut whole = 0;
    for seed in 0..4 {
        let transcript = service.run(&job("a", seed));
        assert_eq!(
            transcript.text(),
            vocabulary.decode(&transcript.ids()),
            "seed {seed}"
        );
        whole += two_byte_characters(&transcript);
    }
    assert!(
        whole > 0,
        "no code point was put together from bytes; other seeds are needed"
    );
}

#[test]
fn bytes_of_an_unfinished_code_point_are_held_back() {
    let service = WorkerHarness::start(Model::Tiny);
    let vocabulary = Vocabulary::of(&service);
    let transcript = service.run(&job("a", 1));
    let (ids, pieces) = (transcript.ids(), transcript.pieces());
    let mut held_back = 0;
    let mut sent = String::new();
    for n in 1..ids.len() {
        sent.push_str(pieces[n - 1]);
        let decoded = vocabulary.decode(&ids[..n]);
        assert!(decoded.starts_with(&sent) || decoded.trim_end_matches('\u{fffd}') == sent);
        held_back += usize::from(pieces[n - 1].is_empty() && sent.len() < decoded.len());
    }
    assert!(
        held_back > 0,
        "no token ended inside a code point; another seed is needed"
    );
}

#[test]
fn unfinished_code_point_at_the_end_is_flushed() {
    let service = WorkerHarness::start(Model::Tiny);
    let vocabulary = Vocabulary::of(&service);
    let ids = service.run(&job("a", 1)).ids();
    let unfinished =
        |n: &usize| matches!(vocabulary.0[ids[n - 1] as usize].last(), Some(0xc2..=0xf4));
    let lengths: Vec<_> = (1..ids.len()).filter(unfinished).take(5).collect();
    assert!(
        !lengths.is_empty(),
        "no token ends with a leading byte; another seed is needed"
    );
    for length in lengths {
        let cut = service.run(&job("a", 1).set("max_tokens", length));
        assert_eq!(cut.ids(), ids[..length]);
        assert_eq!(cut.text(), vocabulary.decode(&ids[..length]));
        assert!(cut.text().ends_with('\u{fffd}'));
    }
}

#[test]
fn crash_inside_a_code_point_changes_no_byte() {
    let service = WorkerHarness::start(Model::Tiny);
    let expected = service.run(&job("a", 3));
    let mut stream = service.execute(&job("b", 3));
    stream.read_tokens(40);
    service.kill_worker();
    assert_eq!(stream.finish().token_bytes(), expected.token_bytes());
}

#[test]
fn prompts_in_any_script_are_taken() {
    let service = WorkerHarness::start(Model::Haiku);
    for prompt in [
        "Grüße aus Köln",
        "俳句を書いて",
        "Напиши хайку",
        "🦀🌊👩‍👩‍👧",
        "a\u{0}b\u{7f}\r\n\t",
        "e\u{301}",
    ] {
        let transcript = service.run(&Job::new("a", prompt).set("max_tokens", 3));
        assert!(transcript.started().1 > 0, "{prompt:?}");
    }
}

//! Stop sequences are matched on text, whatever tokens it came in.

use orcd_tests::{Job, Model, Transcript, WorkerHarness};

fn job() -> Job {
    // A low temperature and few candidates: mostly words, so that borders lie in plain text.
    Job::lasting("a", 120)
        .set("seed", 11)
        .set("temperature", 1.2)
        .set("prompt", "in the morning")
}

/// For each border between two tokens of plain text: the characters around it.
fn borders(transcript: &Transcript) -> Vec<String> {
    let plain =
        |piece: &str| !piece.is_empty() && piece.bytes().all(|b| (b' '..=b'~').contains(&b));
    let pairs = transcript
        .pieces()
        .windows(2)
        .map(<[_]>::to_vec)
        .collect::<Vec<_>>();
    let around = |pair: &Vec<&str>| format!("{}{}", &pair[0][pair[0].len() - 1..], &pair[1][..1]);
    pairs
        .iter()
        .filter(|pair| plain(pair[0]) && plain(pair[1]))
        .map(around)
        .collect()
}

#[track_caller]
fn assert_stops(service: &WorkerHarness, text: &str, stops: &[&str]) {
    let transcript = service.run(&job().set("stop", stops));
    let first = stops
        .iter()
        .filter_map(|s| text.find(s).map(|at| (at + s.len(), at, *s)))
        .min();
    let (_, at, stop) = first.expect("a stop sequence that occurs");
    assert_eq!(transcript.text(), text[..at], "stops {stops:?} in {text:?}");
    assert_eq!(transcript.end().stop_reason, "STOP_SEQUENCE");
    assert_eq!(transcript.end().stop_sequence.as_deref(), Some(stop));
}

#[test]
fn stop_sequence_across_token_borders_ends_the_output_before_it() {
    for model in [Model::Haiku, Model::Tiny] {
        let service = WorkerHarness::start(model);
        let transcript = service.run(&job());
        let borders = borders(&transcript);
        assert!(
            borders.len() >= 3,
            "too few borders in {:?}",
            transcript.pieces()
        );
        for border in borders.iter().step_by(borders.len().div_ceil(8)) {
            assert_stops(&service, &transcript.text(), &[border]);
        }
    }
}

#[test]
fn long_stop_sequence_over_many_tokens_is_found() {
    let service = WorkerHarness::start(Model::Tiny);
    let text = service.run(&job()).text();
    let starts: Vec<_> = text.char_indices().map(|(at, _)| at).collect();
    let (from, to) = (starts[starts.len() / 2], starts[starts.len() / 2 + 20]);
    assert_stops(&service, &text, &[&text[from..to]]);
}

#[test]
fn first_of_several_stop_sequences_wins() {
    let service = WorkerHarness::start(Model::Tiny);
    let transcript = service.run(&job());
    let borders = borders(&transcript);
    let (early, late) = (borders.first().unwrap(), borders.last().unwrap());
    assert_stops(
        &service,
        &transcript.text(),
        &[late, "\u{1}never\u{1}", early],
    );
}

#[test]
fn text_held_back_for_a_stop_sequence_that_does_not_come_is_flushed() {
    let service = WorkerHarness::start(Model::Tiny);
    let without = service.run(&job());
    let text = without.text();
    let last: String = text
        .chars()
        .rev()
        .take(4)
        .collect::<Vec<_>>()
        .iter()
        .rev()
        .collect();
    // Begins as the output ends, and goes on otherwise.
    let with = service.run(&job().set("stop", vec![format!("{last}\u{1}"), "\u{1}".into()]));
    assert_eq!(with.text(), text);
    assert_eq!(with.ids(), without.ids());
    assert_eq!(with.end().stop_reason, "MAX_TOKENS");
}

#[test]
fn text_that_may_begin_a_stop_sequence_is_held_back() {
    let service = WorkerHarness::start(Model::Tiny);
    let text = service.run(&job()).text();
    let stop: String = text.chars().skip(10).take(15).collect();
    let at = text.find(&stop).unwrap();
    let transcript = service.run(&job().set("stop", vec![stop.clone()]));
    let mut sent = String::new();
    for piece in transcript.pieces() {
        sent.push_str(piece);
        assert!(
            sent.len() <= at,
            "{sent:?} reaches into the stop sequence {stop:?}"
        );
    }
    assert!(
        transcript.pieces().last().unwrap().is_empty(),
        "the last token completed the stop"
    );
}

#[test]
fn stop_sequence_in_the_prompt_does_not_stop() {
    let service = WorkerHarness::start(Model::Tiny);
    let transcript = service.run(&job().set("stop", vec!["morning"]));
    assert!(transcript.end().tokens_out > 1);
}

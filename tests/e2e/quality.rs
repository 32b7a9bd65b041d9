//! The model that ships says something sensible. The only tests that judge what is said.

use std::collections::BTreeSet;

use orcd_tests::{Job, Model, WorkerHarness};

fn lines(text: &str) -> Vec<&str> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect()
}

#[test]
fn it_counts_to_five() {
    let service = WorkerHarness::start(Model::Haiku);
    let transcript = service.run(&Job::new("a", "Count to five").set("temperature", 0));
    let text = transcript.text().to_lowercase();
    let digits = (1..=5).all(|n| text.contains(&n.to_string()));
    let words = ["one", "two", "three", "four", "five"]
        .iter()
        .all(|word| text.contains(word));
    assert!(digits || words, "{text:?}");
    assert_eq!(transcript.end().stop_reason, "EOS");
}

#[test]
fn haiku_has_three_lines_ends_and_is_about_its_topic() {
    let service = WorkerHarness::start(Model::Haiku);
    let topics = ["autumn", "rivers", "the sea"];
    let about = topics.map(|topic| {
        let job = Job::new("a", &format!("Write a haiku about {topic}")).set("temperature", 0);
        let transcript = service.run(&job);
        assert_eq!(
            transcript.end().stop_reason,
            "EOS",
            "{:?}",
            transcript.text()
        );
        let text = transcript.text();
        assert_eq!(lines(&text).len(), 3, "{text:?}");
        assert!(lines(&text).iter().all(|line| line.len() > 4), "{text:?}");
        text
    });
    let distinct: BTreeSet<_> = about.iter().collect();
    assert_eq!(
        distinct.len(),
        3,
        "the topic makes no difference: {about:?}"
    );
}

#[test]
fn haiku_varies_with_the_seed() {
    let service = WorkerHarness::start(Model::Haiku);
    let haiku = |seed: u64| {
        let job = Job::new("a", "Write a haiku about GPU computing").set("temperature", 0.7);
        service.run(&job.set("seed", seed)).text()
    };
    let texts: BTreeSet<_> = (0..6).map(haiku).collect();
    assert!(texts.len() >= 4, "{texts:?}");
    let sensible = texts.iter().filter(|text| lines(text).len() == 3).count();
    assert!(sensible * 3 >= texts.len() * 2, "{texts:?}");
}

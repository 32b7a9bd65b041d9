//! The program against a service, and where there is none: it counts what came, and says what went wrong.

#![allow(clippy::unwrap_used)] // a panic is a failing test with a place

use std::process::{Command, Output};

use orcd_tests::{Job, Model, Starter};
use serde_json::Value;

fn load(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bench-load"))
        .args(words)
        .output()
        .unwrap()
}

fn error(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn other_machines_and_absent_services_are_refused() {
    let output = load(&["192.0.2.1:80"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(error(&output).contains("loopback"), "{}", error(&output));
    // A port that was free a moment ago.
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap().to_string();
    drop(socket);
    let output = load(&[&address, "--streams", "1"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        error(&output).contains("can't connect"),
        "{}",
        error(&output)
    );
}

#[test]
fn many_streams_are_measured_on_every_route() {
    let service = Starter::new(Model::Tiny).start();
    let address = service.address().to_string();
    let mut seen = 0;
    for route in ["execute", "chat", "completions"] {
        let output = load(&[
            &address,
            "--route",
            route,
            "--streams",
            "12",
            "--tokens",
            "20",
            "--rounds",
            "2",
            "--json",
        ]);
        assert!(output.status.success(), "{route}: {}", error(&output));
        let figures: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(figures["streams"], 12);
        assert!(figures["tokens_per_s"].as_f64().unwrap() > 0.0);
        let [half, most, last] = [0, 1, 2].map(|rank| figures["first_ms"][rank].as_f64().unwrap());
        assert!(0.0 < half && half <= most && most <= last, "{figures}");
        // It has seen every token that the service made.
        let metrics = service.get("/metrics").text().to_owned();
        let made = metrics
            .lines()
            .find_map(|line| line.strip_prefix("orcd_tokens_generated_total "))
            .and_then(|value| value.parse::<u64>().ok())
            .unwrap();
        assert!(made > seen + 2 * 12, "{metrics}");
        assert_eq!(
            figures["tokens_in_all"].as_u64(),
            Some(made - seen),
            "{route}"
        );
        seen = made;
    }
}

#[test]
fn further_fields_reach_the_streams_that_are_to_have_them() {
    let service = Starter::new(Model::Tiny).start();
    let address = service.address().to_string();
    let words = ["--with", "{\"temperature\": 9}", "--streams", "3"];
    let output = load(&[&[address.as_str()], words.as_slice()].concat());
    assert!(error(&output).contains("temperature"), "{}", error(&output));
    let none = [
        "--with-streams",
        "0",
        "--rounds",
        "1",
        "--tokens",
        "4",
        "--json",
    ];
    let output = load(&[&[address.as_str()], words.as_slice(), &none].concat());
    assert!(output.status.success(), "{}", error(&output));
    let output = load(&[&address, "--with", "[]"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_service_that_refuses_is_an_error_with_its_words() {
    let service = Starter::new(Model::Tiny).flag("--context", 64).start();
    let refusal = service.refusal(&Job::new("a", "b").set("max_tokens", 100_000));
    let address = service.address().to_string();
    let output = load(&[&address, "--streams", "2", "--tokens", "100000"]);
    assert_eq!(output.status.code(), Some(1));
    let said = error(&output);
    assert!(said.contains(&refusal.status().to_string()), "{said}");
    assert!(output.stdout.is_empty(), "no figures of a failed round");
}

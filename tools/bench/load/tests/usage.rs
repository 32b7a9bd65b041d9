//! What the program says where there is nothing to measure. `tests/e2e/load_generator.rs` has it measure a service.

#![allow(clippy::unwrap_used)] // a panic is a failing test with a place

use std::process::{Command, Output};

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

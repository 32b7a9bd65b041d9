//! What a test says though it passes. Written to the descriptor itself: the test runner keeps back
//! what passing tests `print!`.

use std::io::Write;

/// Says that the running test did not run, and why.
pub fn skipped(reason: &str) {
    line("SKIPPED", reason);
}

/// Says what the running test measured.
pub fn figure(text: &str) {
    line("measured", text);
}

fn line(kind: &str, text: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("?");
    let _ = std::io::stderr().write_all(format!("\n{kind} {test}: {text}\n").as_bytes());
}

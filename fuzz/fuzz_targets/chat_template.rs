//! A hostile chat template with hostile messages.

#![no_main]

#[path = "../targets/chat_template.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| target::run(bytes));

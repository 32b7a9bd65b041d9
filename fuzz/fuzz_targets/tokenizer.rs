//! A vocabulary of a hostile file, with arbitrary text.

#![no_main]

#[path = "../targets/tokenizer.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| target::run(bytes));

//! The header of a reader who comes back.

#![no_main]

#[path = "../targets/resume_header.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| target::run(bytes));

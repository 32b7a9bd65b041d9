//! Bodies of requests.

#![no_main]

#[path = "../targets/execute_body.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| target::run(bytes));

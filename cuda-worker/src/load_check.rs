//! `cuda-worker --check-load`: whether a load request could be done, found out in a process that takes no memory for it.
//! The request comes on standard input, as a frame; what it would take, or why it can't be done, goes to standard output.

use std::io::{Read, Write};

use orcd_shared::exit;
use orcd_shared::protocol::message::LoadRequest;

use crate::link::FrameReader;
use crate::loading::{self, Fit};

/// Looks at the request that `input` has; returns the exit code.
#[must_use]
pub(crate) fn run(input: impl Read, mut output: impl Write) -> u8 {
    let request: LoadRequest = match FrameReader::new(input).message() {
        Ok(Some(request)) => request,
        Ok(None) | Err(_) => return exit::worker::PROTOCOL,
    };
    let (text, code) = match loading::examine(&request) {
        Ok(fit) => (describe(&fit, request.engines), exit::worker::OK),
        Err(failure) => (
            format!("{}: {}", failure.code, failure.message),
            exit::worker::REFUSED,
        ),
    };
    // A closed standard output leaves nobody to tell.
    let _ = output.write_all(text.as_bytes());
    let _ = output.flush();
    code
}

fn describe(fit: &Fit, engines: u32) -> String {
    let options = &fit.options;
    let standby = match engines {
        0 | 1 => "",
        _ => " with a standby",
    };
    let free = fit.tightest.as_ref().map_or_else(String::new, |limit| {
        format!(", {} MiB free by {}", limit.free >> 20, limit.name)
    });
    format!(
        "{} on {}: {} MiB{standby}{free}; {} sequences of {} tokens share {} KV pages, {} MiB",
        fit.quant_kind,
        fit.device,
        fit.needed >> 20,
        options.slots,
        options.context,
        options.kv_pages,
        fit.pool_bytes >> 20,
    )
}

#[cfg(test)]
mod tests {
    use orcd_shared::protocol::frame;
    use orcd_shared::protocol::message::Device;

    use super::*;

    fn run_on(bytes: &[u8]) -> (u8, String) {
        let mut output = Vec::new();
        let code = run(bytes, &mut output);
        (code, String::from_utf8(output).unwrap())
    }

    fn check(request: &LoadRequest) -> (u8, String) {
        let mut bytes = Vec::new();
        frame::encode(request, &mut bytes).unwrap();
        run_on(&bytes)
    }

    fn model() -> String {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../models/haiku-nano-q4_k_m.gguf"
        );
        path.to_owned()
    }

    #[test]
    fn a_load_that_can_be_done_says_what_it_takes() {
        let request = LoadRequest {
            context: Some(256),
            parallel: Some(3),
            ..LoadRequest::new(model(), Device::Cpu)
        };
        let (code, text) = check(&request);
        assert_eq!(code, exit::worker::OK, "{text}");
        assert!(
            text.contains("; 3 sequences of 256 tokens share "),
            "{text}"
        );
    }

    #[test]
    fn one_that_cannot_be_done_says_why() {
        let absent = LoadRequest::new("/nowhere/m.gguf".to_owned(), Device::Cpu);
        let long = LoadRequest {
            context: Some(1 << 30),
            ..LoadRequest::new(model(), Device::Cpu)
        };
        for (request, named) in [(absent, "/nowhere/m.gguf"), (long, "--context")] {
            let (code, text) = check(&request);
            assert_eq!(code, exit::worker::REFUSED, "{text}");
            assert!(
                text.starts_with("MODEL_LOAD_FAILED: ") && text.contains(named),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_request_is_no_load() {
        for bytes in [&b""[..], b"\xff\xff\xff\xff", b"x"] {
            assert_eq!(run_on(bytes), (exit::worker::PROTOCOL, String::new()));
        }
    }
}

//! Frames from a peer that is broken or means harm: never a panic, never more memory than what has
//! arrived.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a panic is a failing test with a place

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use orcd_shared::error::ErrorCode;
use orcd_shared::job::{Finish, JobKey, JobOptions, JobSpec};
use orcd_shared::kv::PageCounts;
use orcd_shared::logit_bias::LogitBias;
use orcd_shared::protocol::frame::{self, FrameError, HEADER_BYTES, MAX_FRAME_BYTES};
use orcd_shared::protocol::message::{StepReport, StepToken, ToSupervisor, ToWorker};
use orcd_shared::sampling::SamplingParams;
use proptest::prelude::*;

/// Notes the largest single allocation of each thread.
struct Watch;

thread_local! {
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator unchanged; noting a size allocates nothing.
unsafe impl GlobalAlloc for Watch {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.with(|l| l.set(l.get().max(layout.size())));
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: `at` came from `alloc` above, that is from the system's allocator.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Watch = Watch;

/// serde's own cap on what it reserves for a sequence by its announced length: a mebibyte.
const MOST_RESERVED: usize = 1 << 20;

/// Decodes as both kinds; returns the largest allocation that took.
fn decode(bytes: &[u8]) -> usize {
    LARGEST.set(0);
    let read = [
        frame::decode::<ToWorker>(bytes).map(|m| m.map(|m| m.1)),
        frame::decode::<ToSupervisor>(bytes).map(|m| m.map(|m| m.1)),
    ];
    for taken in read.into_iter().flatten().flatten() {
        assert!(taken <= bytes.len());
    }
    LARGEST.get()
}

/// Reads as both sides do: what has arrived is decoded as far as it goes. The messages, and whether
/// the rest is beyond reading.
fn read_in_chunks<M: serde::de::DeserializeOwned>(bytes: &[u8], cuts: &[usize]) -> (Vec<M>, bool) {
    let mut messages = Vec::new();
    let mut arrived = Vec::new();
    let mut from = 0;
    for &to in cuts.iter().chain([&bytes.len()]) {
        arrived.extend_from_slice(&bytes[from..to]);
        from = to;
        loop {
            match frame::decode(&arrived) {
                Ok(Some((message, taken))) => {
                    messages.push(message);
                    arrived.drain(..taken);
                }
                Ok(None) => break,
                Err(_) => return (messages, true),
            }
        }
    }
    (messages, false)
}

/// One sound message of each kind, both ways.
fn sound_frames() -> Vec<Vec<u8>> {
    fn frame<M: serde::Serialize>(message: &M) -> Vec<u8> {
        let mut bytes = Vec::new();
        frame::encode(message, &mut bytes).unwrap();
        bytes
    }
    let key = JobKey(7);
    let (code, message) = (ErrorCode::CudaError, String::from("ä message"));
    let token = StepToken {
        key,
        index: 3,
        id: 70_000,
        finish: Some(Finish::Eos),
    };
    let report = StepReport {
        step: 1 << 40,
        step_us: 9,
        tokens: vec![token; 3],
        logprobs: Vec::new(),
    };
    let job = JobSpec {
        key,
        prompt: vec![1, 300, 70_000],
        emitted: vec![5],
        max_tokens: 64,
        sampling: SamplingParams::GREEDY,
        options: JobOptions::default(),
    };
    let build = String::from("0.1.0");
    let to_worker = [
        ToWorker::Hello {
            protocol: 1,
            build: build.clone(),
        },
        ToWorker::Submit(Box::new(job)),
        ToWorker::Cancel(key),
        ToWorker::Shutdown,
    ];
    let to_supervisor = [
        ToSupervisor::Hello { protocol: 1, build },
        ToSupervisor::LoadProgress { percent: 50 },
        ToSupervisor::LoadFailed {
            code,
            message: message.clone(),
        },
        ToSupervisor::Step(report),
        ToSupervisor::JobFailed {
            key,
            code,
            message: message.clone(),
        },
        ToSupervisor::Cancelled(key),
        ToSupervisor::Preempted(key),
        ToSupervisor::Heartbeat {
            steps: 1,
            running: 2,
            kv: PageCounts::default(),
        },
        ToSupervisor::Fatal { code, message },
    ];
    let frames = to_worker.iter().map(frame);
    frames.chain(to_supervisor.iter().map(frame)).collect()
}

/// What a broken or hostile peer may send: sound frames, cut, joined, with lengths that lie and
/// bytes that are wrong.
fn corpus() -> Vec<Vec<u8>> {
    let sound = sound_frames();
    let mut corpus = vec![sound.concat()];
    for frame in sound {
        let mut longer = frame.clone();
        longer[0] = longer[0].wrapping_add(1);
        let mut shorter = frame.clone();
        shorter[0] = shorter[0].wrapping_sub(1);
        let mut huge = frame.clone();
        huge[..HEADER_BYTES].fill(0xff);
        corpus.extend([longer, shorter, huge]);
        corpus.push(frame[..frame.len() - 1].to_vec());
        corpus.push(frame.repeat(2));
        for at in HEADER_BYTES..frame.len() {
            for wrong in [0x00, 0x7f, 0xfb, 0xfd, 0xff] {
                let mut damaged = frame.clone();
                damaged[at] = wrong;
                corpus.push(damaged);
            }
        }
        corpus.push(frame);
    }
    corpus
}

fn framed(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32).to_le_bytes()[..], body].concat()
}

fn job() -> impl Strategy<Value = JobSpec> {
    let ids = || prop::collection::vec(any::<u32>(), 0..200);
    let sampling = (any::<f32>(), any::<f32>(), any::<u32>(), any::<u64>());
    (any::<u64>(), ids(), ids(), any::<u32>(), sampling).prop_map(
        |(key, prompt, emitted, max_tokens, (temperature, min_p, top_k, seed))| JobSpec {
            key: JobKey(key),
            prompt,
            emitted,
            max_tokens,
            sampling: SamplingParams {
                temperature,
                min_p,
                top_k,
                seed,
                ..SamplingParams::GREEDY
            },
            options: JobOptions {
                logit_bias: LogitBias::new(vec![(top_k, -1.5)], u32::MAX).unwrap_or_default(),
                ..JobOptions::default()
            },
        },
    )
}

fn step() -> impl Strategy<Value = StepReport> {
    let finish = prop_oneof![
        Just(None),
        Just(Some(Finish::Eos)),
        Just(Some(Finish::MaxTokens)),
        Just(Some(Finish::ContextFull))
    ];
    let token =
        (any::<u64>(), any::<u32>(), any::<u32>(), finish).prop_map(|(key, index, id, finish)| {
            StepToken {
                key: JobKey(key),
                index,
                id,
                finish,
            }
        });
    (
        any::<u64>(),
        any::<u32>(),
        prop::collection::vec(token, 0..70),
    )
        .prop_map(|(step, step_us, tokens)| StepReport {
            step,
            step_us,
            tokens,
            logprobs: Vec::new(),
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn messages_survive_the_way(job in job(), step in step(), text in ".{0,300}") {
        let submit = ToWorker::Submit(Box::new(job));
        let said = [
            ToSupervisor::Step(step),
            ToSupervisor::Fatal { code: ErrorCode::CudaError, message: text },
        ];
        let mut bytes = Vec::new();
        frame::encode(&submit, &mut bytes).unwrap();
        let (read, taken) = frame::decode::<ToWorker>(&bytes).unwrap().unwrap();
        prop_assert_eq!((read, taken), (submit, bytes.len()));

        bytes.clear();
        said.iter().for_each(|m| frame::encode(m, &mut bytes).unwrap());
        let mut rest = &bytes[..];
        for message in said {
            let (read, taken) = frame::decode::<ToSupervisor>(rest).unwrap().unwrap();
            prop_assert_eq!(read, message);
            rest = &rest[taken..];
        }
        prop_assert!(rest.is_empty());
    }

    #[test]
    fn random_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(decode(&bytes) <= MOST_RESERVED);
        prop_assert!(decode(&framed(&bytes)) <= MOST_RESERVED);
    }

    #[test]
    fn random_bodies_of_each_variant_do_no_harm(
        variant in 0u8..9, body in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        let body = [&[variant][..], &body].concat();
        prop_assert!(decode(&framed(&body)) <= MOST_RESERVED);
    }

    #[test]
    fn truncated_frame_waits_and_truncated_body_is_an_error(job in job(), cut in any::<prop::sample::Index>()) {
        let mut whole = Vec::new();
        frame::encode(&ToWorker::Submit(Box::new(job)), &mut whole).unwrap();
        let cut = cut.index(whole.len());
        prop_assert!(frame::decode::<ToWorker>(&whole[..cut]).unwrap().is_none());
        if cut > HEADER_BYTES {
            let short = framed(&whole[HEADER_BYTES..cut]);
            prop_assert!(matches!(frame::decode::<ToWorker>(&short), Err(FrameError::Decode(_))));
        }
    }

    #[test]
    fn chunks_make_no_difference(
        which in prop::collection::vec(any::<prop::sample::Index>(), 1..6),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let corpus = corpus();
        let bytes: Vec<u8> = which.iter().flat_map(|i| i.get(&corpus).clone()).collect();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.sort_unstable();
        let whole = read_in_chunks::<ToSupervisor>(&bytes, &[]);
        // Printed, since a NaN is unlike itself.
        let cut = read_in_chunks::<ToSupervisor>(&bytes, &cuts);
        prop_assert_eq!(format!("{whole:?}"), format!("{cut:?}"));
        let whole = read_in_chunks::<ToWorker>(&bytes, &[]);
        let cut = read_in_chunks::<ToWorker>(&bytes, &cuts);
        prop_assert_eq!(format!("{whole:?}"), format!("{cut:?}"));
    }

    #[test]
    fn damaged_byte_does_no_harm(job in job(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let mut bytes = Vec::new();
        frame::encode(&ToWorker::Submit(Box::new(job)), &mut bytes).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(decode(&bytes) <= MOST_RESERVED);
    }
}

#[test]
fn corpus_of_broken_frames_does_no_harm() {
    for bytes in corpus() {
        assert!(decode(&bytes) <= MOST_RESERVED, "{bytes:?}");
    }
    let readable = |bytes: &Vec<u8>| {
        matches!(frame::decode::<ToWorker>(bytes), Ok(Some(_)))
            || matches!(frame::decode::<ToSupervisor>(bytes), Ok(Some(_)))
    };
    assert!(sound_frames().iter().all(readable), "the sound ones are");
}

/// The first inputs of the fuzzer, see fuzz/README.md.
#[test]
#[ignore = "writes files; for the fuzzer"]
fn write_fuzz_corpus() {
    let folder = std::env::var("ORCD_FUZZ_CORPUS").expect("ORCD_FUZZ_CORPUS names a folder");
    std::fs::create_dir_all(&folder).unwrap();
    for (n, bytes) in corpus().iter().enumerate() {
        std::fs::write(format!("{folder}/{n}"), bytes).unwrap();
    }
}

#[test]
fn length_over_the_limit_is_refused_before_anything_is_allocated() {
    for length in [u32::MAX, MAX_FRAME_BYTES as u32 + 1] {
        let bytes = [&length.to_le_bytes()[..], &[0; 64]].concat();
        let error = frame::decode::<ToWorker>(&bytes).unwrap_err();
        assert!(matches!(error, FrameError::TooLong { .. }), "{error}");
        assert_eq!(decode(&bytes), 0);
    }
}

#[test]
fn inner_length_of_any_size_reserves_no_more_than_the_cap() {
    // Submit, key 0, then a prompt that claims to hold 2^32-1, 2^63 or 4 MiB of bytes, of which the last would be allowed.
    for claim in [
        &[0xfc, 0xff, 0xff, 0xff, 0xff][..],
        &[0xfd, 0, 0, 0, 0, 0, 0, 0, 0x80],
        &[0xfc, 0, 0, 0x40, 0],
    ] {
        let bytes = framed(&[&[2, 0][..], claim, &[1, 2, 3]].concat());
        assert!(frame::decode::<ToWorker>(&bytes).is_err());
        assert!(decode(&bytes) <= MOST_RESERVED, "{} bytes", decode(&bytes));
    }
    // Hello, protocol 1, then a build name of 2^32-1 bytes.
    let bytes = framed(&[0, 1, 0xfc, 0xff, 0xff, 0xff, 0xff, b'x']);
    assert!(frame::decode::<ToWorker>(&bytes).is_err());
    assert!(decode(&bytes) <= MOST_RESERVED, "{} bytes", decode(&bytes));
}

#[test]
fn a_part_of_a_token_id_is_refused() {
    // Submit, key 0, then a prompt of so many bytes.
    let with_prompt = |bytes: u8| {
        let body = [&[2, 0, bytes][..], &vec![1; bytes.into()], &[0; 32]].concat();
        frame::decode::<ToWorker>(&framed(&body))
            .unwrap_err()
            .to_string()
    };
    for bytes in [1, 2, 3, 5, 7] {
        let error = with_prompt(bytes);
        assert!(error.contains("token ids of four bytes each"), "{error}");
    }
    assert!(!with_prompt(8).contains("token ids"));
}

#[test]
fn a_job_of_a_million_tokens_each_of_prompt_and_output_is_sent() {
    let ids = vec![u32::MAX; 1_000_000];
    let spec = JobSpec {
        key: JobKey(u64::MAX),
        prompt: ids.clone(),
        emitted: ids,
        max_tokens: u32::MAX,
        sampling: SamplingParams::GREEDY,
        options: JobOptions::default(),
    };
    let message = ToWorker::Submit(Box::new(spec));
    let mut bytes = Vec::new();
    frame::encode(&message, &mut bytes).unwrap();
    let (read, _) = frame::decode::<ToWorker>(&bytes).unwrap().unwrap();
    assert_eq!(read, message);
}

#[test]
fn people_read_ids_as_numbers() {
    let text = r#"{"key": 1, "prompt": [1, 70000], "emitted": [5], "max_tokens": 9,
        "sampling": {"temperature": 0.5, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "seed": 3},
        "options": {"ignore_end": false, "top_logprobs": null}}"#;
    let spec: JobSpec = serde_json::from_str(text).unwrap();
    assert_eq!(
        (&spec.prompt[..], &spec.emitted[..]),
        (&[1, 70_000][..], &[5][..])
    );
    let written = serde_json::to_string(&spec).unwrap();
    assert!(
        written.contains(r#""prompt":[1,70000],"emitted":[5]"#),
        "{written}"
    );
}

#[test]
fn bytes_after_the_message_are_refused() {
    let mut bytes = Vec::new();
    frame::encode(&ToWorker::Shutdown, &mut bytes).unwrap();
    let long = framed(&[&bytes[HEADER_BYTES..], &[0]].concat());
    let error = frame::decode::<ToWorker>(&long).unwrap_err();
    assert!(
        matches!(error, FrameError::TrailingBytes { extra: 1 }),
        "{error}"
    );
}

#[test]
fn message_over_the_limit_is_not_sent_and_leaves_no_trace() {
    let spec = JobSpec {
        key: JobKey(1),
        prompt: vec![u32::MAX; MAX_FRAME_BYTES / 4 + 1],
        emitted: Vec::new(),
        max_tokens: 1,
        sampling: SamplingParams::GREEDY,
        options: JobOptions::default(),
    };
    let mut out = b"before".to_vec();
    assert!(frame::encode(&ToWorker::Submit(Box::new(spec)), &mut out).is_err());
    assert_eq!(out, b"before");
}

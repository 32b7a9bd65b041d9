//! The CUDA engine against the CPU engine: the same ids and the same logits, bit for bit, whatever
//! the batch and however prompts are cut. Without a GPU every test says SKIPPED, or fails if
//! `ORCD_REQUIRE_GPU=1`.

#![allow(clippy::unwrap_used)] // a panic is a failing test with a place
#![allow(clippy::print_stdout)] // SKIPPED and why

mod generate;
#[path = "../engine_support/shares.rs"]
mod shares;

use std::path::{Path, PathBuf};

use cuda_worker::engine::{Backend, Engine, EngineOptions};
use cuda_worker::loader::{self, Source};
use cuda_worker::pool::ledger::Ledger;
use cuda_worker::scheduler::step_engine::{Sampled, StepBatch, StepEngine as _, Wanted};
use cuda_worker::weights_plan;
use generate::{Job, Plan, generate};
use orcd_shared::gguf::GgufFile;
use orcd_shared::protocol::message::Serve;
use orcd_shared::sampling::SamplingParams;

/// Sequences at once and tokens of a prompt in a step: around the limits of what one kernel or one graph takes; steps
/// of fewer rows follow as jobs end.
const PLANS: [(usize, usize); 8] = [
    (1, 512),
    (3, 7),
    (8, 64),
    (9, 20),
    (16, 30),
    (17, 3),
    (33, 64),
    (64, 90),
];

const OPTIONS: EngineOptions = EngineOptions {
    slots: 4,
    context: 512,
    max_batch_tokens: 512,
    threads: 0,
    kv_pages: 0,
    poison: true,
    float_activations: false,
};

/// The GPU, or `None` after saying why there is none.
fn gpu(test: &str) -> Option<Backend> {
    match Backend::cuda(0) {
        Ok(backend) => Some(backend),
        Err(e) => {
            let required = std::env::var("ORCD_REQUIRE_GPU").is_ok_and(|v| v == "1");
            assert!(!required, "ORCD_REQUIRE_GPU=1, but: {e}");
            println!("SKIPPED {test}: {e}");
            None
        }
    }
}

fn engine(backend: &Backend, path: &Path, context: u32, slots: u32) -> Engine {
    let file = GgufFile::open(path).unwrap();
    let plan = weights_plan::plan(file.header()).unwrap();
    let (weights, _) = loader::load(backend, &Source::of(&file, &plan).unwrap(), |_| ()).unwrap();
    let options = EngineOptions {
        slots,
        context: context.min(plan.context_length),
        ..OPTIONS
    };
    backend.engine(&plan, weights, &options).unwrap()
}

fn vocab(path: &Path) -> u32 {
    weights_plan::plan(GgufFile::open(path).unwrap().header())
        .unwrap()
        .shape
        .vocab
}

/// Jobs of many prompt lengths, greedy and sampled, with every filter, penalty and bias somewhere.
fn jobs(vocab: u32, count: u32, longest: u32, tokens: u32) -> Vec<Job> {
    (0..count)
        .map(|i| {
            let length = 1 + (i * i * 31 + i * 7) % longest;
            let prompt = (0..length)
                .map(|k| (k * 7919 + i * 40_503 + 17) % vocab)
                .collect();
            let mut sampling = SamplingParams::GREEDY;
            if i % 2 == 1 {
                sampling.temperature = 0.8;
                sampling.top_p = if i % 4 == 3 { 0.9 } else { 1.0 };
                sampling.top_k = if i % 8 == 5 { 40 } else { 0 };
                sampling.min_p = if i % 8 == 7 { 0.05 } else { 0.0 };
                sampling.repetition_penalty = if i % 3 == 2 { 1.2 } else { 1.0 };
                sampling.seed = u64::from(i).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            }
            // Of greedy and sampled ones, and beside each of the filters.
            if i % 5 > 2 {
                sampling.frequency_penalty = 0.4 * (i % 4) as f32 - 0.5;
                sampling.presence_penalty = if i % 3 == 0 { 0.6 } else { 0.0 };
            }
            // Up to all that there may be; some more likely, some less.
            let n_biases = if i % 4 < 2 {
                (i * 67 % 1025).min(vocab)
            } else {
                0
            };
            let biases = (0..n_biases).map(|k| (k, ((k * 37 + i) % 17) as f32 / 4.0 - 2.0));
            Job {
                prompt,
                sampling,
                biases: biases.collect(),
                tokens,
                // Steps with a mask and without one, each of them so often that they are recorded.
                masked: if i % 7 == 4 { tokens / 3 } else { 0 },
                vocab,
            }
        })
        .collect()
}

/// Compares both backends on one model: the CPU runs each job alone, the GPU in several mixes.
fn assert_same_bits(
    gpu: &Backend,
    path: &Path,
    jobs: &[Job],
    context: u32,
    plans: &[(usize, usize)],
) {
    let cpu = Backend::cpu().unwrap();
    let expected = generate(
        &mut engine(&cpu, path, context, 1),
        jobs,
        Plan {
            at_once: 1,
            chunk: 64,
        },
    );
    let distinct: std::collections::HashSet<_> = expected.iter().flatten().map(|d| d.id).collect();
    assert!(
        distinct.len() > 10,
        "the model says next to nothing: nothing would be compared"
    );
    let slots = plans.iter().map(|(at_once, _)| *at_once).max().unwrap();
    let mut on_gpu = engine(gpu, path, context, slots as u32);
    assert!(on_gpu.resident(), "a buffer is not device memory");
    for &(at_once, chunk) in plans {
        let plan = Plan { at_once, chunk };
        let got = generate(&mut on_gpu, jobs, plan);
        for (i, (e, g)) in expected.iter().zip(&got).enumerate() {
            assert_eq!(e, g, "{}: job {i} differs in {plan:?}", path.display());
        }
    }
}

fn models() -> PathBuf {
    std::env::var_os("ORCD_TEST_MODEL_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../models"),
        PathBuf::from,
    )
}

#[test]
fn haiku_nano_gives_the_bits_of_the_cpu() {
    let Some(gpu) = gpu("haiku_nano_gives_the_bits_of_the_cpu") else {
        return;
    };
    let path = models().join("haiku-nano-q4_k_m.gguf");
    assert_same_bits(&gpu, &path, &jobs(vocab(&path), 40, 300, 40), 1024, &PLANS);
}

/// Tiny models of every family: float weights, so operation by operation.
#[test]
fn every_family_gives_the_bits_of_the_cpu() {
    let Some(gpu) = gpu("every_family_gives_the_bits_of_the_cpu") else {
        return;
    };
    let folder = models().join("references");
    let files = std::fs::read_dir(&folder).unwrap();
    let mut paths: Vec<_> = files.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "gguf")
    });
    assert!(paths.len() > 15, "{} has too few models", folder.display());
    for path in paths {
        assert_same_bits(&gpu, &path, &jobs(vocab(&path), 20, 80, 12), 128, &PLANS);
    }
}

#[test]
fn every_weight_type_and_family_gives_the_bits_of_the_cpu() {
    let Some(gpu) = gpu("every_weight_type_and_family_gives_the_bits_of_the_cpu") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    for name in synth_model::Shape::VARIED
        .into_iter()
        .chain(synth_model::Shape::FAMILIES)
        .chain(["tiny-reference"])
    {
        let path = folder.path().join(name);
        let shape = synth_model::Shape::named(name).unwrap();
        let options = synth_model::Options::default();
        synth_model::write(&shape, &options, &path).unwrap();
        assert_same_bits(&gpu, &path, &jobs(vocab(&path), 70, 150, 12), 256, &PLANS);
    }
}

#[test]
fn reference_shape_gives_the_bits_of_the_cpu() {
    let test = "reference_shape_gives_the_bits_of_the_cpu";
    let Some(gpu) = gpu(test) else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("reference.gguf");
    let shape = synth_model::Shape::named("qwen2.5-0.5b-instruct-q4_k_m").unwrap();
    synth_model::write(&shape, &synth_model::Options::default(), &path).unwrap();
    assert_same_bits(&gpu, &path, &jobs(vocab(&path), 20, 200, 32), 512, &PLANS);
    // More than a chain of fused kernels takes, and more than a thread block of the widest products.
    let many = jobs(vocab(&path), 270, 30, 4);
    assert_same_bits(&gpu, &path, &many, 64, &[(65, 64), (140, 9), (270, 64)]);
}

/// Steps that draw from several rows of one sequence, of every length that kernels treat differently.
#[test]
fn rows_within_a_run_draw_what_the_cpu_draws() {
    let test = "rows_within_a_run_draw_what_the_cpu_draws";
    let Some(gpu) = gpu(test) else { return };
    let path = models().join("haiku-nano-q4_k_m.gguf");
    let jobs = jobs(vocab(&path), 8, 300, 1);
    let vocab = vocab(&path);
    let draw = |backend: &Backend| -> Vec<Vec<Sampled>> {
        let mut engine = engine(backend, &path, 512, 33);
        let mut of_job = |job: &Job| {
            let mut batch = StepBatch::default();
            batch.add_run(1, 0, &job.prompt).unwrap();
            batch.begin_output(40);
            for (i, row) in (0..job.prompt.len()).step_by(11).enumerate() {
                let sampling = SamplingParams {
                    repetition_penalty: if i % 2 == 0 { 1.5 } else { 1.0 },
                    frequency_penalty: if i % 5 < 2 { 0.8 } else { 0.0 },
                    presence_penalty: if i % 5 == 1 { -0.5 } else { 0.0 },
                    ..job.sampling
                };
                let mask: Vec<u32> = (0..vocab.div_ceil(32))
                    .map(|word| (word + i as u32).wrapping_mul(0x9e37_79b9))
                    .collect();
                let biased: Vec<_> = (0..vocab)
                    .step_by(7 + i)
                    .take(300)
                    .map(|id| (id, 1.5))
                    .collect();
                let wanted = Wanted {
                    biases: batch.add_biases(if i % 3 == 2 { &biased } else { &[] }),
                    mask: (i % 3 == 1).then(|| batch.add_mask(&mask)),
                    top_logprobs: (i % 4 > 1).then_some(7 * (i as u32 % 3)),
                    ..sampling.into()
                };
                batch.add_sample(row, wanted).unwrap();
            }
            engine.open(1, 512).unwrap();
            let sampled = engine.run(&batch).unwrap().to_vec();
            engine.close(1).unwrap();
            sampled
        };
        jobs.iter().map(&mut of_job).collect()
    };
    let expected = draw(&Backend::cpu().unwrap());
    assert!(expected.iter().any(|sampled| sampled.len() > 10));
    assert!(expected.iter().flatten().any(|s| s.top[13].logprob < 0.0));
    assert_eq!(draw(&gpu), expected);
}

#[test]
fn sequences_that_share_a_beginning_draw_what_the_cpu_draws() {
    let test = "sequences_that_share_a_beginning_draw_what_the_cpu_draws";
    let Some(gpu) = gpu(test) else { return };
    let path = models().join("haiku-nano-q4_k_m.gguf");
    let mut on_cpu = engine(&Backend::cpu().unwrap(), &path, 512, 1);
    let mut on_gpu = engine(&gpu, &path, 512, 4);
    for (length, job) in shares::LENGTHS.into_iter().zip(jobs(vocab(&path), 6, 2, 1)) {
        let prompt: Vec<u32> = (0..length as u32)
            .map(|i| (i * 7919 + job.prompt[0]) % vocab(&path))
            .collect();
        let expected = shares::alone(&mut on_cpu, &prompt);
        for round in 0..2 {
            let found = shares::shared(&mut on_gpu, &prompt, round > 0);
            shares::assert_begins(
                &expected,
                &found,
                &format!("{length} tokens, round {round}"),
            );
        }
        assert_eq!(shares::alone(&mut on_gpu, &prompt), expected);
    }
}

/// An engine on the memory of a pool that another engine has, made of what it shares; with its ledger, or without.
fn heir(gpu: &Backend, path: &Path, left: &Engine, with_ledger: bool) -> Engine {
    let file = GgufFile::open(path).unwrap();
    let plan = weights_plan::plan(file.header()).unwrap();
    let (weights, _) = loader::load(gpu, &Source::of(&file, &plan).unwrap(), |_| ()).unwrap();
    let options = EngineOptions {
        // It would take what is there for free.
        poison: false,
        ..OPTIONS
    };
    let [memory, ledger] = left.share_pool().unwrap();
    let bytes = gpu.kv_bytes(&plan, &options).unwrap();
    let memory = gpu.attach_kv(memory, bytes).unwrap();
    let mut engine = gpu.engine_on(&plan, weights, memory, &options).unwrap();
    if with_ledger {
        let ledger = Ledger::open(ledger, left.pages()).unwrap();
        engine.outlive([9; 32], 1, ledger);
        engine.take_over(serve(2)).unwrap();
    }
    engine
}

fn serve(epoch: u64) -> Serve {
    Serve {
        epoch,
        keep: true,
        settled: true,
        replays: 0,
    }
}

#[test]
fn a_pool_survives_its_engine_and_pages_that_have_changed_are_found_out() {
    let test = "a_pool_survives_its_engine_and_pages_that_have_changed_are_found_out";
    let Some(gpu) = gpu(test) else { return };
    let path = models().join("haiku-nano-q4_k_m.gguf");
    let tokens: Vec<u32> = (0..200).map(|i| (i * 7919 + 5) % vocab(&path)).collect();
    let process = |engine: &mut Engine, tokens: &[u32]| {
        let cached = engine.open_for(0, 300, shares::EVERYBODY, tokens).unwrap();
        let mut batch = StepBatch::default();
        batch
            .add_run(0, cached, &tokens[cached as usize..])
            .unwrap();
        batch.sample_last(SamplingParams::GREEDY).unwrap();
        engine.run(&batch).unwrap();
        (cached, engine.logits(0).unwrap())
    };
    let mut on_cpu = engine(&Backend::cpu().unwrap(), &path, 512, 4);
    let expected = process(&mut on_cpu, &tokens).1;
    // Somebody who knows nothing of the ledger writes to the first pages: to the first one, or to all four, of which the
    // last is not full.
    for (spoiled, found) in [(0, (199, 0)), (3, (0, 1)), (195, (0, 4))] {
        let mut one = engine(&gpu, &path, 512, 4);
        one.outlive([9; 32], 1, Ledger::create(one.pages()).unwrap());
        one.take_over(serve(1)).unwrap();
        assert!(process(&mut one, &tokens) == (0, expected.clone()));
        one.rest().unwrap();
        if spoiled > 0 {
            let other: Vec<u32> = (0..spoiled).collect();
            process(&mut heir(&gpu, &path, &one, false), &other);
        }
        let mut two = heir(&gpu, &path, &one, true);
        drop(one);
        let (cached, logits) = process(&mut two, &tokens);
        assert!(logits == expected, "spoiled: {spoiled}");
        let refused = two.counts().refused;
        assert_eq!((cached, refused), found, "spoiled: {spoiled}");
    }
}

#[test]
fn a_weights_image_survives_its_maker_and_reads_back_as_stored() {
    let test = "a_weights_image_survives_its_maker_and_reads_back_as_stored";
    let Some(gpu) = gpu(test) else { return };
    let path = models().join("haiku-nano-q4_k_m.gguf");
    let file = GgufFile::open(&path).unwrap();
    let plan = weights_plan::plan(file.header()).unwrap();
    let (first, _) = loader::load(&gpu, &Source::of(&file, &plan).unwrap(), |_| ()).unwrap();
    let shared = first.share().unwrap();
    drop(first);
    let second = gpu.attach(shared, plan.image_bytes).unwrap();
    for tensor in &plan.tensors {
        let mut raw = vec![0; usize::try_from(tensor.info.nbytes).unwrap()];
        second.read(tensor, 0, &mut raw).unwrap();
        assert!(
            raw == synth_model::tensor_data(&file, &tensor.info).unwrap(),
            "{} is not what the file holds",
            tensor.info.name
        );
    }
}

//! Speed of the engine alone: `bench_engine FILE.gguf [THREADS...]` prints a table of prefill and
//! decode, one line per number of threads (0 is one per core).

use std::path::PathBuf;
use std::time::Instant;

use cuda_worker::engine::{Backend, Engine, EngineOptions};
use cuda_worker::scheduler::step_engine::{Chunk, StepEngine as _};
use cuda_worker::{loader, weights_plan};
use orcd_shared::gguf::GgufFile;
use orcd_shared::sampling::SamplingParams;

type Failure = Box<dyn std::error::Error>;

/// Tokens of the prompt, and tokens generated behind it.
const PROMPT: u32 = 128;
const DECODE: u32 = 64;
/// Sequences that are generated together in the last column.
const BATCH: u32 = 4;

fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1);
    let path = PathBuf::from(args.next().ok_or("usage: bench_engine FILE.gguf [THREADS...]")?);
    let mut threads: Vec<u32> = args.map(|a| a.parse()).collect::<Result<_, _>>()?;
    if threads.is_empty() {
        threads = vec![1, 2];
    }
    let file = GgufFile::open(&path)?;
    let plan = weights_plan::plan(file.header())?;
    let backend = Backend::cpu()?;
    let begun = Instant::now();
    let weights = loader::load(&backend, &file, &plan, |_| ())?;
    let seconds = begun.elapsed().as_secs_f64();
    let megabytes = plan.image_bytes as f64 / 1e6;
    let out = &mut std::io::stdout().lock();
    report(out, &format!("{} {}, {}", plan.name, plan.quant_kind, backend.info()?.name))?;
    report(out, &format!("loaded {megabytes:.1} MB in {seconds:.2} s"))?;
    report(out, "threads | prefill tok/s | decode tok/s | step ms | batch of 4 tok/s | step ms")?;
    for threads in threads {
        let image = backend.attach(weights.share()?, plan.image_bytes)?;
        let options = EngineOptions {
            slots: BATCH,
            context: (PROMPT + DECODE).min(plan.context_length),
            max_batch_tokens: 512,
            threads,
            kv_limit_tokens: 0,
            float_activations: false,
            keep_logits: false,
        };
        let mut engine = backend.engine(&plan, image, &options)?;
        let (prefill, one) = run(&mut engine, 1)?;
        let (_, four) = run(&mut engine, BATCH)?;
        report(
            out,
            &format!(
                "{threads:7} | {:13.1} | {:12.1} | {:7.3} | {:16.1} | {:7.3}",
                f64::from(PROMPT) / prefill,
                1.0 / one,
                one * 1e3,
                f64::from(BATCH) / four,
                four * 1e3
            ),
        )?;
    }
    Ok(())
}

fn report(out: &mut impl std::io::Write, line: &str) -> std::io::Result<()> {
    writeln!(out, "{line}")
}

/// Seconds of the prefill of one sequence, and of one decoding step of `n`.
fn run(engine: &mut Engine, n: u32) -> Result<(f64, f64), Failure> {
    let prompt: Vec<u32> = (0..PROMPT).map(|i| 1 + i * 37 % 251).collect();
    let sample = Some(SamplingParams { temperature: 0.8, seed: 1, ..SamplingParams::GREEDY });
    let mut drawn = Vec::new();
    let mut tokens = Vec::new();
    let mut prefill = 0.0;
    for slot in 0..n {
        engine.open(slot, PROMPT + DECODE)?;
        let begun = Instant::now();
        engine.step(&[Chunk { slot, start: 0, tokens: &prompt, sample }], &mut drawn)?;
        prefill = begun.elapsed().as_secs_f64();
        tokens.extend_from_slice(&drawn);
    }
    let begun = Instant::now();
    for i in 0..DECODE {
        let last: Vec<[u32; 1]> = tokens.iter().map(|t| [*t]).collect();
        let chunks: Vec<Chunk<'_>> = (0..n)
            .zip(&last)
            .map(|(slot, tokens)| Chunk { slot, start: PROMPT + i, tokens, sample })
            .collect();
        engine.step(&chunks, &mut drawn)?;
        tokens.clone_from(&drawn);
    }
    let step = begun.elapsed().as_secs_f64() / f64::from(DECODE);
    for slot in 0..n {
        engine.close(slot)?;
    }
    Ok((prefill, step))
}

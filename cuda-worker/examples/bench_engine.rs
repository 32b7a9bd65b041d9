//! Speed of the engine alone, without sockets: prefill per prompt length and decoding per number of
//! sequences, medians over the steps.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Instant;

use clap::Parser;
use clap::builder::RangedI64ValueParser;
use cuda_worker::engine::{Backend, Engine, EngineOptions};
use cuda_worker::loader::{self, Source};
use cuda_worker::scheduler::step_engine::{StepBatch, StepEngine as _};
use cuda_worker::weights_plan;
use orcd_shared::gguf::GgufFile;
use orcd_shared::protocol::message::Device;
use orcd_shared::sampling::SamplingParams;

type Failure = Box<dyn std::error::Error>;

/// Decoding steps that are timed.
const STEPS: u32 = 64;
/// Times a prompt is processed.
const REPEATS: usize = 5;

/// Measures the engine on a model file: loading, prefill and decoding.
#[derive(Parser)]
#[command(
    after_help = "Example: bench_engine model.gguf --threads 1,2 --prompts 128 --batches 1,4"
)]
struct Arguments {
    /// Model file, GGUF
    #[arg(value_name = "FILE.gguf")]
    path: PathBuf,
    /// cpu or cuda:N
    #[arg(long, default_value = "cpu", value_parser = str::parse::<Device>)]
    device: Device,
    /// CPU backend: numbers of threads, 0 for one per core
    #[arg(long, value_delimiter = ',', default_value = "0")]
    threads: Vec<u32>,
    /// Lengths of prompts
    #[arg(long, value_delimiter = ',', default_value = "128", value_parser = positive())]
    prompts: Vec<u32>,
    /// Numbers of sequences that decode together
    #[arg(long, value_delimiter = ',', default_value = "1,4", value_parser = positive())]
    batches: Vec<u32>,
    /// Hash the file while it is loaded, not while the device starts: what does it cost there?
    #[arg(long)]
    hash_late: bool,
    /// Tokens before those that are timed
    #[arg(long, default_value_t = 128, value_parser = positive())]
    depth: u32,
}

fn positive() -> RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=1_048_576)
}

fn main() -> Result<(), Failure> {
    let args = Arguments::parse();
    let file = GgufFile::open(&args.path)?;
    let plan = weights_plan::plan(file.header())?;
    let source = Source::of(&file, &plan)?;
    let start_device = || match args.device {
        Device::Cpu => Backend::cpu(),
        Device::Cuda(ordinal) => Backend::cuda(ordinal),
    };
    let begun = Instant::now();
    let backend = if args.hash_late {
        start_device()
    } else {
        source.hash_during(start_device)
    }?;
    let device_ms = begun.elapsed().as_secs_f64() * 1e3;
    let out = &mut std::io::stdout().lock();
    let begun = Instant::now();
    let (weights, _) = loader::load(&backend, &source, |_| ())?;
    let seconds = begun.elapsed().as_secs_f64();
    let gigabytes = plan.image_bytes as f64 / 1e9;
    writeln!(
        out,
        "{} {}, {}",
        args.path.display(),
        plan.quant_kind,
        backend.info()?.name
    )?;
    writeln!(
        out,
        "device {device_ms:.0} ms; loaded {gigabytes:.3} GB in {seconds:.3} s, {:.1} GB/s",
        gigabytes / seconds
    )?;
    for &threads in &args.threads {
        let image = backend.attach(weights.share()?, plan.image_bytes)?;
        let longest = args
            .prompts
            .iter()
            .copied()
            .max()
            .unwrap_or(1)
            .max(args.depth + STEPS);
        let options = EngineOptions {
            slots: args.batches.iter().copied().max().unwrap_or(1),
            context: (longest + 1).min(plan.context_length),
            max_batch_tokens: longest.clamp(512, 2048),
            threads,
            kv_pages: 0,
            poison: false,
            float_activations: false,
        };
        let mut engine = backend.engine(&plan, image, &options)?;
        for &prompt in &args.prompts {
            let s = prefill(&mut engine, prompt, options.max_batch_tokens)?;
            let rate = f64::from(prompt) / s;
            writeln!(
                out,
                "threads {threads} | prefill {prompt:5} | {:9.3} ms | {rate:10.1} tok/s",
                s * 1e3
            )?;
        }
        for &batch in &args.batches {
            let s = decode(&mut engine, batch, args.depth)?;
            let rate = f64::from(batch) / s;
            writeln!(
                out,
                "threads {threads} | decode  {batch:5} | {:9.3} ms | {rate:10.1} tok/s",
                s * 1e3
            )?;
        }
    }
    Ok(())
}

const SAMPLE: SamplingParams = SamplingParams {
    temperature: 0.8,
    seed: 1,
    ..SamplingParams::GREEDY
};

fn prompt_of(length: u32) -> Vec<u32> {
    (0..length).map(|i| 1 + i * 37 % 251).collect()
}

fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

/// Processes a prompt in slot 0, in steps of at most `most` tokens; the last one samples.
fn feed(engine: &mut Engine, slot: u32, prompt: &[u32], most: u32) -> Result<u32, Failure> {
    let (mut batch, mut start) = (StepBatch::default(), 0);
    loop {
        let tokens = &prompt[start..prompt.len().min(start + most as usize)];
        batch.clear();
        batch.add_run(slot, start as u32, tokens)?;
        start += tokens.len();
        if start == prompt.len() {
            batch.sample_last(SAMPLE)?;
            return Ok(engine.run(&batch)?[0].token);
        }
        engine.run(&batch)?;
    }
}

/// Seconds for one prompt and its first token.
fn prefill(engine: &mut Engine, length: u32, most: u32) -> Result<f64, Failure> {
    let prompt = prompt_of(length);
    let mut seconds = Vec::new();
    for _ in 0..=REPEATS {
        engine.open(0, length)?;
        let begun = Instant::now();
        feed(engine, 0, &prompt, most)?;
        seconds.push(begun.elapsed().as_secs_f64());
        engine.close(0)?;
    }
    Ok(median(seconds.split_off(1))) // the first one warms up
}

/// Seconds of one step of `batch` sequences, each with `depth` tokens and more before it.
fn decode(engine: &mut Engine, batch: u32, depth: u32) -> Result<f64, Failure> {
    let mut tokens = Vec::new();
    for slot in 0..batch {
        engine.open(slot, depth + STEPS)?;
        tokens.push(feed(engine, slot, &prompt_of(depth), 512)?);
    }
    let (mut step, mut seconds) = (StepBatch::default(), Vec::new());
    for i in 0..STEPS {
        let begun = Instant::now();
        step.clear();
        for (slot, token) in (0..batch).zip(&tokens) {
            step.add_run(slot, depth + i, &[*token])?;
            step.sample_last(SAMPLE)?;
        }
        let sampled = engine.run(&step)?;
        seconds.push(begun.elapsed().as_secs_f64());
        tokens.clear();
        tokens.extend(sampled.iter().map(|s| s.token));
    }
    for slot in 0..batch {
        engine.close(slot)?;
    }
    Ok(median(seconds))
}

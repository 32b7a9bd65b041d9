//! The fuzz targets on their seeds and on mutations of them: a few in each run of the tests, for
//! `ORCD_FUZZ_SECONDS` each in `make fuzz`. `fuzz/README.md` says how to be guided by coverage.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)] // as in all tests
#![allow(unreachable_pub)] // the targets are modules of another program, too

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

#[path = "../../fuzz/targets/chat_template.rs"]
mod chat_template;
#[path = "../../fuzz/targets/execute_body.rs"]
mod execute_body;
#[path = "../../fuzz/targets/frames.rs"]
mod frames;
#[path = "../../fuzz/targets/gguf.rs"]
mod gguf;
#[path = "../../fuzz/targets/resume_header.rs"]
mod resume_header;
#[path = "../../fuzz/targets/tokenizer.rs"]
mod tokenizer;

/// Mutations of the seeds that every run of the tests tries.
const MUTATIONS: usize = 60;
/// Longest input.
const MAX_BYTES: usize = 4096;
/// Nothing that is this short may take longer, on a machine however busy.
const MAX_TIME: Duration = Duration::from_secs(60);

#[test]
fn chat_templates_end_whatever_they_are() {
    fuzz("chat_template", chat_template::run);
}

#[test]
fn bodies_are_refused_or_within_bounds() {
    fuzz("execute_body", execute_body::run);
}

#[test]
fn frames_are_refused_or_read() {
    fuzz("frames", frames::run);
}

#[test]
fn headers_of_models_are_refused_or_consistent() {
    fuzz("gguf", gguf::run);
}

#[test]
fn resume_headers_are_numbers_or_refused() {
    fuzz("resume_header", resume_header::run);
}

#[test]
fn vocabularies_are_refused_or_encode_every_text() {
    fuzz("tokenizer", tokenizer::run);
}

fn fuzz(name: &str, target: fn(&[u8])) {
    let seeds = seeds(name);
    let seconds = std::env::var("ORCD_FUZZ_SECONDS").ok();
    let limit = seconds.map(|s| Duration::from_secs(s.parse().expect("ORCD_FUZZ_SECONDS=N")));
    let start = Instant::now();
    let mut slowest = Duration::ZERO;
    let mut runs = 0;
    let mut run = |input: &[u8]| {
        let artifact = Artifact::new(name, input, limit.is_some());
        let start = Instant::now();
        target(input);
        slowest = slowest.max(start.elapsed());
        assert!(start.elapsed() < MAX_TIME, "{:?}", start.elapsed());
        artifact.passed();
        runs += 1;
    };
    seeds.iter().for_each(|seed| run(seed));
    let mut rng = Rng::new(name);
    let mut mutations = 0;
    loop {
        match limit {
            Some(limit) if start.elapsed() >= limit => break,
            None if mutations >= MUTATIONS => break,
            _ => mutations += 1,
        }
        run(&rng.mutated(&seeds));
    }
    println!(
        "{name}: {runs} inputs in {:.0?}, the slowest {slowest:.0?}",
        start.elapsed()
    );
}

/// The committed inputs of the target `name`, in the order of their names.
fn seeds(name: &str) -> Vec<Vec<u8>> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder("seeds").join(name))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "{name} has no seeds");
    paths
        .iter()
        .map(|path| std::fs::read(path).unwrap())
        .collect()
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fuzz")
        .join(name)
}

/// The input at hand, which is kept if the target does not come back from it.
struct Artifact<'i> {
    input: &'i [u8],
    /// None where only a panic is to be told.
    file: Option<PathBuf>,
}

impl<'i> Artifact<'i> {
    fn new(name: &str, input: &'i [u8], keep: bool) -> Self {
        let file = keep.then(|| {
            let folder = folder("artifacts").join(name);
            std::fs::create_dir_all(&folder).unwrap();
            let file = folder.join("last");
            std::fs::write(&file, input).unwrap();
            file
        });
        Self { input, file }
    }

    fn passed(mut self) {
        if let Some(file) = self.file.take() {
            std::fs::remove_file(file).unwrap();
        }
    }
}

impl Drop for Artifact<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("failed on {:?}", String::from_utf8_lossy(self.input));
            println!("which is {:02x?}", self.input);
        }
    }
}

/// Random numbers, the same in every run unless `ORCD_FUZZ_SEED` says otherwise (xorshift64*).
struct Rng(u64);

impl Rng {
    fn new(name: &str) -> Self {
        let seed = std::env::var("ORCD_FUZZ_SEED").ok();
        let seed: u64 = seed.map_or(1, |s| s.parse().expect("ORCD_FUZZ_SEED=N"));
        let mixed = name.bytes().fold(seed, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
        });
        Self(mixed | 1)
    }

    /// A number below `n`, or 0.
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let random = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16;
        (random % n.max(1) as u64) as usize
    }

    /// A range of at most `most` bytes in `bytes`.
    fn range(&mut self, bytes: &[u8], most: usize) -> std::ops::Range<usize> {
        let start = self.below(bytes.len() + 1);
        let len = self.below(most.min(bytes.len() - start) + 1);
        start..start + len
    }

    /// One of `seeds`, changed in one place to eight.
    fn mutated(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = seeds[self.below(seeds.len())].clone();
        for _ in 0..=self.below(8) {
            let at = self.below(bytes.len() + 1);
            match self.below(6) {
                0 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                1 if at < bytes.len() => bytes[at] = self.below(256) as u8,
                2 => bytes.insert(at, self.below(256) as u8),
                3 => drop(bytes.drain(self.range(&bytes.clone(), 16))),
                4 => {
                    let part = bytes[self.range(&bytes.clone(), 64)].to_vec();
                    let times = 1 + self.below(4) * self.below(20);
                    bytes.splice(at..at, part.repeat(times));
                }
                _ => {
                    let other = &seeds[self.below(seeds.len())];
                    let part = other[self.range(other, 64)].to_vec();
                    bytes.splice(at..at, part);
                }
            }
            bytes.truncate(MAX_BYTES);
        }
        bytes
    }
}

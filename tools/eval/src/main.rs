//! What the engine's arithmetic costs on a model and a text: KL divergence, perplexity and agreement of the most likely
//! token, against the same weights with float activations or against logits that another build has stored.

mod logits;
mod quality;

use std::error::Error;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read as _, Write as _};
use std::path::{Path, PathBuf};

use clap::Parser;
use clap::builder::RangedI64ValueParser;
use logits::{Reader, Setting};
use orcd_shared::gguf::GgufFile;
use orcd_shared::protocol::message::Device;
use orcd_supervisor::text::{Specials, Tokenizer};
use quality::Quality;

type Failure = Box<dyn Error>;

/// Measures the engine's arithmetic on a model and a text.
#[derive(Parser)]
#[command(
    after_help = "Two builds are compared by the float logits of one: eval model.gguf --text README.md --float \
                  --store exact.bin, then eval model.gguf --text README.md --exact exact.bin with each."
)]
struct Arguments {
    /// Model file, GGUF
    #[arg(value_name = "FILE.gguf")]
    path: PathBuf,
    /// Text files, read one after the other
    #[arg(long, required = true, num_args = 1..)]
    text: Vec<PathBuf>,
    /// Tokens of the text
    #[arg(long, default_value_t = 1024, value_parser = bounded(1_048_576))]
    tokens: u32,
    /// Tokens that see each other: the text is cut into so many
    #[arg(long, default_value_t = 512, value_parser = bounded(131_072))]
    window: u32,
    /// cpu or cuda:N
    #[arg(long, default_value = "cpu", value_parser = str::parse::<Device>)]
    device: Device,
    /// CPU backend: threads, 0 for one per core
    #[arg(long, default_value_t = 0)]
    threads: u32,
    /// The engine with float activations (CPU), which quantizes none
    #[arg(long)]
    float: bool,
    /// Write the logits to a file (binary32, a row for each position) and compare nothing
    #[arg(long, value_name = "FILE", conflicts_with = "exact")]
    store: Option<PathBuf>,
    /// Compare with such a file; without it with float activations, computed here
    #[arg(long, value_name = "FILE")]
    exact: Option<PathBuf>,
}

fn bounded(most: i64) -> RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(2..=most)
}

fn main() -> Result<(), Failure> {
    let args = Arguments::parse();
    let file = GgufFile::open(&args.path)?;
    let tokens = tokens_of(&args, &file)?;
    let setting = Setting {
        device: args.device,
        threads: args.threads,
        float_activations: args.float,
    };
    let mut reader = Reader::open(&file, setting, args.window)?;
    let windows = || tokens.chunks(args.window as usize);
    if let Some(path) = &args.store {
        return store(&mut reader, windows(), path);
    }
    let mut quality = Quality::default();
    let mut exact = match &args.exact {
        Some(path) => Exact::Stored(BufReader::new(File::open(path)?)),
        None => Exact::Computed(exact_reader(&file, setting, args.window)?),
    };
    for window in windows() {
        let mut rows = exact.rows(window)?;
        reader.read(window, |position, found| {
            let exact = rows.next(found.len())?;
            if let Some(next) = window.get(position + 1) {
                quality.add(&exact, &found, *next);
            }
            Ok(())
        })?;
    }
    print(&quality, &args.path)
}

/// The text's first tokens.
fn tokens_of(args: &Arguments, file: &GgufFile) -> Result<Vec<u32>, Failure> {
    let mut text = String::new();
    for path in &args.text {
        let part = std::fs::read_to_string(path);
        text.push_str(&part.map_err(|e| format!("{}: {e}", path.display()))?);
    }
    let tokenizer = Tokenizer::from_metadata(&file.header().metadata)?;
    let mut tokens = tokenizer.encode(&text, Specials::AsText)?;
    if tokens.len() < 2 {
        return Err("the text has fewer than two tokens".into());
    }
    tokens.truncate(args.tokens as usize);
    Ok(tokens)
}

fn exact_reader(file: &GgufFile, setting: Setting, window: u32) -> Result<Reader, Failure> {
    let setting = Setting {
        device: Device::Cpu,
        float_activations: true,
        ..setting
    };
    Reader::open(file, setting, window)
}

fn store<'a>(
    reader: &mut Reader,
    windows: impl Iterator<Item = &'a [u32]>,
    path: &Path,
) -> Result<(), Failure> {
    let mut out = BufWriter::new(File::create(path)?);
    for window in windows {
        reader.read(window, |_, logits| {
            let bytes: Vec<u8> = logits.iter().flat_map(|x| x.to_le_bytes()).collect();
            Ok(out.write_all(&bytes)?)
        })?;
    }
    Ok(out.flush()?)
}

/// Where the exact logits come from.
enum Exact {
    Stored(BufReader<File>),
    Computed(Reader),
}

/// Those of a window, in order.
enum ExactRows<'a> {
    Stored(&'a mut BufReader<File>),
    Computed(std::vec::IntoIter<Vec<f32>>),
}

impl Exact {
    fn rows(&mut self, window: &[u32]) -> Result<ExactRows<'_>, Failure> {
        match self {
            Self::Stored(file) => Ok(ExactRows::Stored(file)),
            Self::Computed(reader) => {
                let mut rows = Vec::with_capacity(window.len());
                reader.read(window, |_, logits| {
                    rows.push(logits);
                    Ok(())
                })?;
                Ok(ExactRows::Computed(rows.into_iter()))
            }
        }
    }
}

impl ExactRows<'_> {
    fn next(&mut self, vocab: usize) -> Result<Vec<f32>, Failure> {
        match self {
            Self::Stored(file) => {
                let mut bytes = vec![0; vocab * size_of::<f32>()];
                file.read_exact(&mut bytes)
                    .map_err(|e| format!("the stored logits end early: {e}"))?;
                let words = bytes.as_chunks().0.iter();
                Ok(words.map(|word| f32::from_le_bytes(*word)).collect())
            }
            Self::Computed(rows) => Ok(rows.next().ok_or("a window has too few rows")?),
        }
    }
}

fn print(quality: &Quality, path: &Path) -> Result<(), Failure> {
    let out = &mut std::io::stdout().lock();
    writeln!(out, "{}: {} positions", path.display(), quality.rows)?;
    writeln!(
        out,
        "KL divergence    {:.6} nats (± {:.6}, largest {:.4})",
        quality.divergence(),
        quality.divergence_error(),
        quality.largest_divergence()
    )?;
    writeln!(
        out,
        "perplexity       {:.5} (exact {:.5})",
        quality.perplexity(),
        quality.exact_perplexity()
    )?;
    writeln!(out, "argmax the same  {:.2} %", quality.agreement() * 100.0)?;
    Ok(())
}

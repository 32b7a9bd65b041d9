//! What the engine's arithmetic costs on a model and a text: KL divergence, perplexity and agreement of the most likely
//! token, against the same weights with float activations, against logits that another build has stored, and beside
//! another engine on the same tokens.

mod greedy;
mod logits;
mod measure;
mod peer;
mod quality;
mod report;
mod source;
mod stored;
mod text;

use std::error::Error;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::Parser;
use clap::builder::RangedI64ValueParser;
use logits::{Reader, Setting};
use measure::Measured;
use orcd_shared::gguf::GgufFile;
use orcd_shared::protocol::message::Device;
use peer::Peer;
use stored::Stored;
use text::{Extent, Windows};

type Failure = Box<dyn Error>;

/// Measures the engine's arithmetic on models and a text.
#[derive(Parser)]
#[command(
    after_help = "Two builds are compared by the float logits of one: eval model.gguf --text README.md --float \
                  --store exact.bin, then eval model.gguf --text README.md --exact exact.bin with each. \
                  tools/eval/run has eval compare with llama.cpp."
)]
struct Arguments {
    /// Model files, GGUF
    #[arg(value_name = "FILE.gguf", required = true)]
    models: Vec<PathBuf>,
    /// Text files, each of which gives as many tokens
    #[arg(long, required = true, num_args = 1..)]
    text: Vec<PathBuf>,
    /// Tokens of all texts together; a begin token in front of a window is one of them
    #[arg(long, default_value_t = 1024, value_parser = bounded(1_048_576))]
    tokens: u32,
    /// Tokens that see each other: texts are cut into so many. Each window begins with the begin token where the
    /// model's prompts do
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
    #[arg(long, value_name = "FILE", conflicts_with_all = ["exact", "peer"])]
    store: Option<PathBuf>,
    /// Compare with such a file; without it with float activations, computed here
    #[arg(long, value_name = "FILE", conflicts_with = "peer")]
    exact: Option<PathBuf>,
    /// Windows that float activations compute, spread evenly; they take a hundred times as long
    #[arg(long, value_name = "N", conflicts_with = "exact", value_parser = clap::value_parser!(u32).range(1..))]
    exact_windows: Option<u32>,
    /// Compare with another engine as well: a program with its arguments, at the end of the line. It gets the model's
    /// path, --context and --threads, and speaks as tools/eval/peer.py says
    #[arg(long, value_name = "PROGRAM", num_args = 1.., allow_hyphen_values = true)]
    peer: Option<Vec<String>>,
}

fn bounded(most: i64) -> RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(2..=most)
}

fn main() -> Result<(), Failure> {
    let args = Arguments::parse();
    if args.models.len() > 1 && (args.store.is_some() || args.exact.is_some()) {
        return Err("a file of logits is that of one model; give one FILE.gguf".into());
    }
    let mut files = Vec::new();
    for path in &args.models {
        let done = evaluate(&args, path).map_err(|e| format!("{}: {e}", path.display()))?;
        files.extend(done.map(|measured| (name_of(path), measured)));
    }
    if let Some(tables) = report::tables(&files) {
        writeln!(std::io::stdout(), "\n{tables}")?;
    }
    Ok(())
}

/// The file's name without folder and ending.
fn name_of(path: &Path) -> String {
    let name = path.file_stem().unwrap_or(path.as_os_str());
    name.to_string_lossy().into_owned()
}

/// Measures one model, or stores its logits.
fn evaluate(args: &Arguments, path: &Path) -> Result<Option<Measured>, Failure> {
    let file = GgufFile::open(path)?;
    let extent = Extent {
        tokens: args.tokens as usize,
        window: args.window as usize,
    };
    let text = Windows::read(&file, &args.text, extent)?;
    let mut reader = Reader::open(&file, setting(args), context(args)?)?;
    if let Some(path) = &args.store {
        return stored::store(&mut reader, &text.windows, path).map(|()| None);
    }
    let measured = measured(args, &file, &mut reader, &text)?;
    let paragraph = report::paragraph(&name_of(path), &text, &measured);
    writeln!(std::io::stdout(), "{paragraph}")?;
    Ok(Some(measured))
}

/// Compares the model of a reader with what the arguments name.
fn measured(
    args: &Arguments,
    file: &GgufFile,
    reader: &mut Reader,
    text: &Windows,
) -> Result<Measured, Failure> {
    if let Some(path) = &args.exact {
        let mut stored = Stored::open(path, reader.vocab())?;
        return measure::against(&mut stored, reader, text.windows.iter());
    }
    let exact_windows = args.exact_windows.unwrap_or(u32::MAX) as usize;
    let mut exact = Reader::open(file, exact_setting(args), context(args)?)?;
    let Some(command) = &args.peer else {
        let picked = text.spread(exact_windows).filter(|(_, picked)| *picked);
        return measure::against(&mut exact, reader, picked.map(|(window, _)| window));
    };
    let size = (context(args)?, args.threads);
    let mut peer = Peer::start(command, file.path(), size, reader.vocab())?;
    measure::beside(&mut exact, reader, &mut peer, text, exact_windows)
}

/// Tokens of the longest sequence: a window, or a prompt with what is generated.
fn context(args: &Arguments) -> Result<u32, Failure> {
    Ok(args.window.max(u32::try_from(greedy::CONTEXT)?))
}

fn setting(args: &Arguments) -> Setting {
    Setting {
        device: args.device,
        threads: args.threads,
        float_activations: args.float,
    }
}

fn exact_setting(args: &Arguments) -> Setting {
    Setting {
        device: Device::Cpu,
        float_activations: true,
        ..setting(args)
    }
}

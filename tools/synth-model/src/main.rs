//! Writes a GGUF file of a named shape with sound random weights.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use orcd_shared::gguf::TensorType;
use synth_model::{Options, Shape, Vocab, write};

/// Writes a GGUF file of a named shape with sound random weights.
///
/// The bytes follow from the arguments alone: the same on any machine.
#[derive(Parser)]
#[command(
    version,
    after_help = "Example: synth-model --shape tiny-qwen2 --out /tmp/tiny.gguf"
)]
struct Args {
    /// Lists the shapes and exits.
    #[arg(long)]
    list: bool,
    /// The shape to write; --list names them.
    #[arg(long, required_unless_present = "list")]
    shape: Option<String>,
    /// Stores every matrix as this type, such as Q5_1 or Q4_K.
    #[arg(long = "type", value_name = "TYPE", value_parser = tensor_type)]
    ty: Option<TensorType>,
    /// Takes the vocabulary of this GGUF file instead of the built-in one.
    #[arg(long, value_name = "FILE.gguf")]
    vocab: Option<PathBuf>,
    /// Takes the chat template from this file instead of the vocabulary's own.
    #[arg(long, value_name = "FILE.jinja")]
    template: Option<PathBuf>,
    /// What the weights follow from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Threads; 0 for one per core. They don't change the bytes.
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Spreads the tensors over this many files, PATH with -00001-of-0000N after its stem.
    #[arg(long, default_value_t = 1, value_name = "N")]
    shards: u32,
    /// The file to write.
    #[arg(long, value_name = "PATH", required_unless_present = "list")]
    out: Option<PathBuf>,
}

fn tensor_type(name: &str) -> Result<TensorType, String> {
    TensorType::from_name(name).ok_or_else(|| {
        let names: Vec<_> = TensorType::ALL.iter().map(|t| t.name()).collect();
        format!("unknown type; known are {}", names.join(", "))
    })
}

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            let _ = writeln!(std::io::stderr(), "error: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> Result<(), Box<dyn std::error::Error>> {
    let mut stdout = std::io::stdout().lock();
    // clap lets neither be missing unless the list is asked for.
    let (Some(name), Some(out)) = (args.shape, args.out) else {
        for name in Shape::names() {
            writeln!(stdout, "{name}")?;
        }
        return Ok(());
    };
    let mut shape =
        Shape::named(&name).ok_or_else(|| format!("unknown shape {name}; --list names them"))?;
    if let Some(ty) = args.ty {
        shape = shape.with_type(ty);
    }
    let start = Instant::now();
    let options = Options {
        vocab: args.vocab.as_deref().map(Vocab::read).transpose()?,
        template: args.template.map(std::fs::read_to_string).transpose()?,
        seed: args.seed,
        threads: args.threads,
        shards: args.shards,
    };
    let written = write(&shape, &options, &out)?;
    writeln!(
        stdout,
        "{}: {} bytes ({} of tensors), {} tensors, {} parameters, {:.2} s",
        out.display(),
        written.file_len,
        written.data_len,
        written.tensors,
        written.parameters,
        start.elapsed().as_secs_f64(),
    )?;
    Ok(())
}

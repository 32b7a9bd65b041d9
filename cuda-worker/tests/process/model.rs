//! Models with random weights, written once per run.

use std::path::PathBuf;
use std::sync::OnceLock;

use synth_model::{Options, Shape};

/// Microseconds per token.
pub fn tiny() -> PathBuf {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| write(Shape::named("tiny-qwen2").unwrap()))
        .clone()
}

/// A tiny model of another family, by its shape's name.
pub fn family(name: &str) -> PathBuf {
    write(Shape::named(name).unwrap())
}

/// Wide and deep enough for milliseconds per token: time to do something to a running job.
pub fn slow() -> PathBuf {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    let shape = || Shape {
        name: "slow-qwen2".into(),
        layers: 16,
        hidden: 512,
        ffn: 2048,
        heads: 8,
        ..Shape::named("tiny-qwen2").unwrap()
    };
    PATH.get_or_init(|| write(shape())).clone()
}

/// The model that ships, once it is there.
pub fn haiku() -> Option<PathBuf> {
    let path = PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../models/haiku-nano-q4_k_m.gguf"
    ));
    path.is_file().then_some(path)
}

/// Renamed into place, so that two runs at once don't see half a file.
fn write(shape: Shape) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let path = folder.join(format!("{}.gguf", shape.name));
    let draft = folder.join(format!("{}.{}", shape.name, std::process::id()));
    synth_model::write(&shape, &Options::default(), &draft).unwrap();
    std::fs::rename(draft, &path).unwrap();
    path
}

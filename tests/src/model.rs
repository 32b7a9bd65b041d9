//! The models that the tests run on.

use std::fs;
use std::path::{Path, PathBuf};

use orcd_shared::gguf::write::{TensorSpec, layout};
use orcd_shared::gguf::{Array, GgufFile, Metadata, Value};
use synth_model::{Options, Shape};

use crate::paths;

/// A model by what it is good for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Model {
    /// The trained model that ships. It chats.
    Haiku,
    /// Random weights, milliseconds per hundred tokens. Any token may follow any other, single
    /// bytes too, and it all but never stops by itself.
    Tiny,
    /// Random weights, some milliseconds per token: time to do something to a running job.
    Slow,
    /// Random weights, a millisecond or two per token: streams that last long enough to be hit and
    /// are over soon.
    Brisk,
    /// Random weights, architecture `llama`, every type with blocks of 32.
    Llama,
    /// As [`Tiny`](Self::Tiny), with words of two thousand characters and a context of 16384: fills any buffer.
    Verbose,
    /// Random weights of a tiny shape that `synth-model` knows by this name.
    Named(&'static str),
    /// A file.
    File(PathBuf),
}

impl Model {
    /// Path of the model's file; random ones are written into `folder` first.
    pub fn file(&self, folder: &Path) -> PathBuf {
        match self {
            Self::Haiku => {
                let path = paths::models().join("haiku-nano-q4_k_m.gguf");
                assert!(
                    path.is_file(),
                    "{} is missing; it is part of the sources",
                    path.display()
                );
                path
            }
            Self::Tiny => write(&named("tiny-qwen2"), folder),
            Self::Llama => write(&named("tiny-llama"), folder),
            Self::Named(name) => write(&named(name), folder),
            Self::Slow => write(&slow(), folder),
            Self::Brisk => write(&brisk(), folder),
            Self::Verbose => verbose(&write(&named("tiny-qwen2"), folder), folder),
            Self::File(path) => path.clone(),
        }
    }
}

fn named(name: &str) -> Shape {
    Shape::named(name).expect("a shape that synth-model knows")
}

/// Some milliseconds per token: by its width on the CPU, by its depth on a GPU, where width costs
/// little.
fn slow() -> Shape {
    let (layers, hidden, ffn) = match paths::device().as_str() {
        "cpu" => (16, 512, 2048),
        _ => (192, 256, 256),
    };
    let tiny = named("tiny-qwen2");
    Shape {
        name: "slow-qwen2".into(),
        layers,
        hidden,
        ffn,
        heads: hidden / 64,
        ..tiny
    }
}

/// As wide as the tiny one and deeper.
fn brisk() -> Shape {
    let layers = match paths::device().as_str() {
        "cpu" => 12,
        _ => 64,
    };
    Shape {
        name: "brisk-qwen2".into(),
        layers,
        ..named("tiny-qwen2")
    }
}

fn write(shape: &Shape, folder: &Path) -> PathBuf {
    let path = folder.join(format!("{}.gguf", shape.name));
    synth_model::write(shape, &Options::default(), &path).unwrap();
    path
}

/// Writes a model's file again with other metadata: `change` gives the new value of a key, or
/// `None` to leave it out.
pub fn rewrite(from: &Path, to: &Path, change: impl Fn(&str, &Value) -> Option<Value>) {
    let file = GgufFile::open(from).unwrap();
    let old = file.header();
    let mut metadata = Metadata::new();
    for (key, value) in old.metadata.iter() {
        if let Some(value) = change(key, value) {
            metadata.insert(key, value).unwrap();
        }
    }
    let spec = |t: &orcd_shared::gguf::TensorInfo| TensorSpec {
        name: t.name.clone(),
        ne: t.ne.clone(),
        ty: t.ty,
    };
    let specs: Vec<_> = old.tensors.iter().map(spec).collect();
    let mut bytes = layout(&metadata, &specs).unwrap().header;
    bytes.extend_from_slice(&file.bytes()[usize::try_from(old.data_offset).unwrap()..]);
    fs::write(to, bytes).unwrap();
}

/// Makes words long; what merges produce and the special tokens stay as they are.
fn verbose(tiny: &Path, folder: &Path) -> PathBuf {
    let lengthen = |token: &String| match token.starts_with('Ġ') && token.chars().count() > 4 {
        true => token.repeat(2000 / token.chars().count()),
        false => token.clone(),
    };
    let path = folder.join("verbose.gguf");
    rewrite(tiny, &path, |key, value| match (key, value) {
        ("tokenizer.ggml.tokens", Value::Array(Array::String(tokens))) => Some(Value::Array(
            Array::String(tokens.iter().map(lengthen).collect()),
        )),
        ("qwen2.context_length", _) => Some(Value::U32(16_384)),
        _ => Some(value.clone()),
    });
    path
}

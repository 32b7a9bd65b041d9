//! Models that can't be right: refused by name while they are loaded, and where a step computes
//! nonsense nevertheless, no token is made of it.

#![allow(clippy::unwrap_used)] // a panic is a failing test with a place

mod engine_support;

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use cuda_worker::engine::{Backend, Engine};
use cuda_worker::loader::{self, LoadError, Source};
use cuda_worker::scheduler::step_engine::{BROKEN_LOGITS, StepEngine as _};
use cuda_worker::weights_plan::{self, ModelPlan, PlannedTensor};
use engine_support::model::{Chunk, Model, of_many_chunks, options, prompt, run};
use engine_support::{FLOATS, block_formats};
use orcd_shared::gguf::{GgufFile, TensorType, shard_path};
use orcd_shared::sampling::SamplingParams;
use synth_model::{Options, Shape, write};

/// A file of random weights, changed by `damage`.
struct Damaged {
    _folder: tempfile::TempDir,
    file: GgufFile,
    plan: ModelPlan,
}

impl Damaged {
    fn new(shape: &Shape, damage: impl Fn(&File, &GgufFile)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        write(shape, &Options::default(), &path).unwrap();
        let open = File::options().write(true).open(&path).unwrap();
        damage(&open, &GgufFile::open(&path).unwrap());
        let file = GgufFile::open(&path).unwrap();
        let plan = weights_plan::plan(file.header()).unwrap();
        Self {
            _folder: folder,
            file,
            plan,
        }
    }

    fn load(&self) -> Result<(), LoadError> {
        let backend = Backend::cpu().unwrap();
        loader::load(&backend, &Source::of(&self.file, &self.plan)?, |_| ()).map(drop)
    }

    fn refusal(&self) -> String {
        self.load().unwrap_err().to_string()
    }
}

fn tiny() -> Shape {
    Shape::named("tiny-qwen2").unwrap()
}

/// Writes into a tensor's data.
fn put(open: &File, file: &GgufFile, tensor: &str, at: u64, bytes: &[u8]) -> u64 {
    let info = file.header().tensor(tensor).unwrap();
    let offset = file.header().file_range(info).start + at;
    open.write_all_at(bytes, offset).unwrap();
    offset
}

/// Fills a tensor's data.
fn fill(open: &File, file: &GgufFile, tensor: &str, byte: u8) {
    let info = file.header().tensor(tensor).unwrap();
    let bytes = vec![byte; usize::try_from(info.nbytes).unwrap()];
    put(open, file, tensor, 0, &bytes);
}

#[test]
fn a_norm_that_is_not_finite_is_refused_by_name_value_and_place() {
    for (value, name) in [(f32::NAN, "NaN"), (f32::NEG_INFINITY, "-inf")] {
        let offset = std::cell::Cell::new(0);
        let model = Damaged::new(&tiny(), |open, file| {
            let tensor = "blk.1.ffn_norm.weight";
            offset.set(put(open, file, tensor, 8, &value.to_le_bytes()));
        });
        let refusal = model.refusal();
        for part in [
            "blk.1.ffn_norm.weight",
            &format!("value of {name} "),
            &format!("byte {} ", offset.get()),
        ] {
            assert!(refusal.contains(part), "no {part:?} in {refusal}");
        }
    }
}

#[test]
fn a_block_scale_that_is_not_finite_is_refused_in_every_type() {
    for ty in block_formats() {
        for &at in ty.scales() {
            let model = Damaged::new(&tiny().with_type(ty), |open, file| {
                let block = ty.block_bytes() * 3;
                put(
                    open,
                    file,
                    "blk.0.ffn_up.weight",
                    block + at as u64,
                    &[0, 0x7c],
                );
            });
            let refusal = model.refusal();
            assert!(
                refusal.contains("blk.0.ffn_up.weight has a block scale of inf"),
                "{ty}: {refusal}"
            );
        }
    }
    for ty in FLOATS {
        let model = Damaged::new(&tiny().with_type(ty), |open, file| {
            put(open, file, "blk.0.ffn_up.weight", 8, &[0xff; 4]);
        });
        let refusal = model.refusal();
        assert!(
            refusal.contains("blk.0.ffn_up.weight has a value of NaN"),
            "{ty}: {refusal}"
        );
    }
}

#[test]
fn of_many_faults_the_first_in_the_file_is_told() {
    // Each reader meets several faults.
    let model = Damaged::new(&of_many_chunks(TensorType::F32), |open, file| {
        let data = file.header().data_offset;
        let length = open.metadata().unwrap().len();
        let bytes = vec![0xff; usize::try_from(length - data).unwrap()];
        open.write_all_at(&bytes, data).unwrap();
    });
    let first = model.file.header().tensors.iter().min_by_key(|t| t.offset);
    let first = first.unwrap().name.clone();
    let (sender, receiver) = std::sync::mpsc::channel();
    let loading = std::thread::spawn(move || {
        for _ in 0..20 {
            sender.send(model.refusal()).unwrap();
        }
    });
    for _ in 0..20 {
        let refusal = receiver.recv_timeout(Duration::from_secs(60)).unwrap();
        assert!(
            refusal.contains(&format!("tensor {first} has")),
            "{refusal}"
        );
    }
    loading.join().unwrap();
}

#[test]
fn of_a_split_model_the_damaged_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let options = Options {
        shards: 3,
        ..Options::default()
    };
    write(&tiny(), &options, &path).unwrap();
    let of = |no| shard_path(&path, no, 3);
    let whole = GgufFile::open(&of(0)).unwrap();
    let last = whole
        .header()
        .tensors
        .iter()
        .rfind(|t| t.shard == 2 && t.rows() > 1);
    let last = last.unwrap().clone();
    let at = whole.shards()[2].file_range(&last);
    let open = File::options().write(true).open(of(2)).unwrap();
    for fill in [0xff, 0] {
        let bytes = vec![fill; usize::try_from(last.nbytes).unwrap()];
        open.write_all_at(&bytes, at.start).unwrap();
        let file = GgufFile::open(&of(0)).unwrap();
        let plan = weights_plan::plan(file.header()).unwrap();
        let refusal = loader::load(
            &Backend::cpu().unwrap(),
            &Source::of(&file, &plan).unwrap(),
            |_| (),
        )
        .unwrap_err();
        let refusal = refusal.to_string();
        assert!(refusal.contains("model-00003-of-00003.gguf"), "{refusal}");
        assert!(refusal.contains(&last.name), "{refusal}");
    }
}

#[test]
fn a_matrix_of_zeros_is_refused_and_vectors_and_blocks_of_zeros_are_not() {
    for ty in TensorType::ALL {
        let model = Damaged::new(&tiny().with_type(ty), |open, file| {
            fill(open, file, "blk.1.attn_v.weight", 0);
        });
        let refusal = model.refusal();
        assert!(
            refusal.contains("blk.1.attn_v.weight") && refusal.contains("zero throughout"),
            "{ty}: {refusal}"
        );
        let model = Damaged::new(&tiny().with_type(ty), |open, file| {
            fill(open, file, "blk.1.attn_v.bias", 0);
            // All but one block.
            fill(open, file, "blk.1.attn_v.weight", 0);
            let size = usize::try_from(ty.block_bytes()).unwrap();
            put(open, file, "blk.1.attn_v.weight", 0, &vec![0x11; size]);
        });
        model.load().unwrap_or_else(|error| panic!("{ty}: {error}"));
    }
}

/// An engine on the model's weights, each tensor's bytes changed by `change`: past the loader, which
/// would refuse them.
fn engine_with(model: &Model, change: impl Fn(&PlannedTensor, &mut Vec<u8>)) -> Engine {
    let backend = Backend::cpu().unwrap();
    let mut weights = backend.allocate(model.plan.image_bytes).unwrap();
    for tensor in &model.plan.tensors {
        let mut raw = synth_model::tensor_data(&model.file, &tensor.info).unwrap();
        change(tensor, &mut raw);
        weights.write(tensor, 0, &raw).unwrap();
    }
    weights.seal().unwrap();
    backend.engine(&model.plan, weights, &options()).unwrap()
}

fn draw(engine: &mut Engine, sample: SamplingParams) -> u32 {
    let tokens = prompt(5, 1);
    engine.open(0, 16).unwrap();
    let chunk = Chunk {
        slot: 0,
        start: 0,
        tokens: &tokens,
        sample: Some(sample),
    };
    let sampled = run(engine, &[chunk]).unwrap();
    engine.close(0).unwrap();
    sampled[0]
}

#[test]
fn activations_that_are_not_finite_end_as_broken_logits_and_not_as_token_0() {
    let greedy = SamplingParams::GREEDY;
    let drawing = SamplingParams {
        temperature: 1.0,
        seed: 7,
        ..greedy
    };
    let filtering = SamplingParams {
        top_k: 40,
        top_p: 0.9,
        min_p: 0.05,
        ..drawing
    };
    // Beside floats, activations of NaN stay NaN. Quantized they become zeros, as heads do: of the last norm the
    // logits, of another one what its layer would have added, and that can't be told from a model's will.
    for (ty, norms) in [
        (TensorType::Q4_0, &["output_norm.weight"][..]),
        (
            TensorType::F16,
            &["output_norm.weight", "blk.0.ffn_norm.weight"],
        ),
    ] {
        let model = Model::with_type("tiny-qwen2", ty);
        for norm in norms {
            for value in [f32::NAN, f32::INFINITY] {
                let mut engine = engine_with(&model, |tensor, raw| {
                    if tensor.info.name == *norm {
                        let value = value.to_le_bytes();
                        raw.chunks_exact_mut(4)
                            .for_each(|x| x.copy_from_slice(&value));
                    }
                });
                for sample in [greedy, drawing, filtering] {
                    let found = draw(&mut engine, sample);
                    assert_eq!(found, BROKEN_LOGITS, "{ty} {norm} {value} {sample:?}");
                }
            }
        }
        let mut sound = engine_with(&model, |_, _| ());
        for sample in [greedy, drawing, filtering] {
            assert!(draw(&mut sound, sample) < model.plan.shape.vocab);
        }
    }
}

/// Heads that are too large are zeros. What a row sees of them depends on its position alone.
#[test]
fn values_that_are_too_large_do_not_reach_the_rows_before_them() {
    let model = Model::with_type("tiny-qwen2", TensorType::F32);
    let mut engine = engine_with(&model, |tensor, raw| {
        // Some columns make values of 2^50 and more.
        if tensor.info.name == "blk.0.attn_v.weight" {
            for (i, value) in raw.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                if i % 97 == 0 {
                    *value = (1e16 * f32::from_le_bytes(*value)).to_le_bytes();
                }
            }
        }
    });
    let tokens = prompt(150, 3);
    let bits = |rows: Vec<Vec<f32>>| -> Vec<Vec<u32>> {
        let of = |row: Vec<f32>| row.into_iter().map(f32::to_bits).collect();
        rows.into_iter().map(of).collect()
    };
    let single = bits(engine_support::model::one_by_one(&mut engine, 0, &tokens));
    for size in [7, 64, 65, 150] {
        let mut found = Vec::new();
        engine.open(1, 150).unwrap();
        for (n, chunk) in tokens.chunks(size).enumerate() {
            let start = u32::try_from(n * size).unwrap();
            found.push(engine_support::model::step(&mut engine, 1, start, chunk));
        }
        engine.close(1).unwrap();
        let ends = (0..found.len()).map(|n| ((n + 1) * size).min(150) - 1);
        let expected: Vec<_> = ends.map(|at| single[at].clone()).collect();
        assert!(bits(found) == expected, "chunks of {size}");
    }
}

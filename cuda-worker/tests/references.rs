//! Every family against another implementation: tiny random models of transformers' own classes, and the logits that it
//! computes with them in binary32 (`models/references`, made by `make references`).

#![allow(clippy::unwrap_used)] // a panic is a failing test with a place
#![allow(clippy::print_stdout)] // measured errors are worth seeing

mod engine_support;

use std::path::{Path, PathBuf};

use cuda_worker::engine::{Engine, EngineOptions};
use cuda_worker::scheduler::step_engine::StepEngine as _;
use cuda_worker::weights_plan;
use engine_support::model::{Chunk, Model, engine_of, in_chunks, options, prompt, run, step};
use engine_support::{argmax, assert_same};
use orcd_shared::gguf::{GgufFile, TensorType};
use orcd_shared::sampling::SamplingParams;
use serde_json::Value;

/// Largest error, relative to the row's largest logit.
const MOST: f32 = 1e-3;

struct Reference {
    name: String,
    model: PathBuf,
    ids: Vec<u32>,
    /// Position in the ids, and the logits after it.
    rows: Vec<(usize, Vec<f32>)>,
    /// By position: how close a choice of experts was to another one, up to there. Empty without experts.
    margins: Vec<f64>,
}

fn numbers(value: &Value) -> impl Iterator<Item = u64> + '_ {
    let all = value.as_array().unwrap();
    all.iter().map(|number| number.as_u64().unwrap())
}

impl Reference {
    fn all() -> Vec<Self> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/references");
        let index = std::fs::read_to_string(folder.join("index.json")).unwrap();
        let index: Value = serde_json::from_str(&index).unwrap();
        let all = index["references"].as_array().unwrap();
        all.iter().map(|entry| Self::of(&folder, entry)).collect()
    }

    fn of(folder: &Path, entry: &Value) -> Self {
        let n = entry["vocabulary"].as_u64().unwrap() as usize;
        let logits = std::fs::read(folder.join(entry["logits_file"].as_str().unwrap())).unwrap();
        let row = |offset: u64| -> Vec<f32> {
            let bytes = logits[offset as usize..][..4 * n].chunks(4);
            let floats = bytes.map(|b| f32::from_le_bytes(b.try_into().unwrap()));
            floats.collect()
        };
        let positions = numbers(&entry["positions"]).map(|p| p as usize);
        let margins = entry["router_margin"].as_array();
        Self {
            name: entry["name"].as_str().unwrap().to_owned(),
            model: folder.join(entry["model"].as_str().unwrap()),
            ids: numbers(&entry["ids"]).map(|id| id as u32).collect(),
            rows: positions.zip(numbers(&entry["offsets"]).map(row)).collect(),
            margins: margins.map_or_else(Vec::new, |all| {
                all.iter().map(|margin| margin.as_f64().unwrap()).collect()
            }),
        }
    }

    fn engine(&self, float_activations: bool) -> Engine {
        let file = GgufFile::open(&self.model).unwrap();
        let plan = weights_plan::plan(file.header()).unwrap();
        let options = EngineOptions {
            context: 128,
            float_activations,
            ..options()
        };
        engine_of(&file, &plan, &options)
    }

    /// The engine's rows at the reference's positions.
    fn ours(&self, float_activations: bool) -> Vec<Vec<f32>> {
        let mut engine = self.engine(float_activations);
        engine.open(0, self.ids.len() as u32).unwrap();
        let mut start = 0;
        let mut rows = Vec::new();
        for (position, _) in &self.rows {
            rows.push(step(
                &mut engine,
                0,
                start as u32,
                &self.ids[start..=*position],
            ));
            start = position + 1;
        }
        rows
    }
}

/// Largest difference, relative to the largest logit.
fn error(exact: &[f32], found: &[f32]) -> f32 {
    let top = exact.iter().fold(0f32, |m, v| m.max(v.abs()));
    let off = exact.iter().zip(found).map(|(e, f)| (e - f).abs());
    // f32::max would pass over what is no number.
    off.fold(0f32, |m, d| if d > m || d.is_nan() { d } else { m }) / top
}

/// How much larger the largest logit is than the next, relative to it.
fn margin(exact: &[f32]) -> f32 {
    let best = argmax(exact);
    let next = (0..exact.len()).filter(|i| *i != best).map(|i| exact[i]);
    (exact[best] - next.fold(f32::NEG_INFINITY, f32::max)) / exact[best].abs()
}

#[test]
fn float_activations_give_transformers_logits() {
    let mut wrong = Vec::new();
    for reference in Reference::all() {
        let ours = reference.ours(true);
        let (mut worst, mut argmaxes, mut left_out) = (0f32, 0, 0);
        for (i, ((_, exact), found)) in reference.rows.iter().zip(&ours).enumerate() {
            if reference.margins.get(i).is_some_and(|m| *m < 1e-3) {
                left_out += 1;
                continue;
            }
            worst = worst.max(error(exact, found));
            argmaxes += usize::from(margin(exact) > MOST && argmax(exact) != argmax(found));
        }
        println!(
            "{:22} off by {worst:.1e} of the largest logit, {argmaxes} other tokens, {left_out} left out",
            reference.name
        );
        if !(worst < MOST && argmaxes == 0 && left_out == 0) {
            wrong.push(reference.name);
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// Weights of these files are floats, so what service computes differs by the integers of attention's heads.
#[test]
fn what_is_served_stays_close_to_transformers() {
    for reference in Reference::all() {
        let ours = reference.ours(false);
        let rows = reference.rows.iter().zip(&ours);
        let errors: Vec<f32> = rows
            .map(|((_, exact), found)| error(exact, found))
            .collect();
        let worst = errors.iter().copied().fold(0f32, f32::max);
        let mean = errors.iter().sum::<f32>() / errors.len() as f32;
        println!(
            "{:22} off by {worst:.1e} of the largest logit, {mean:.1e} in the mean",
            reference.name
        );
        assert!(mean < 3e-2, "{}: {mean}", reference.name);
        // A row that takes another expert, the margins of which are as small as this, is further off.
        let most = if reference.margins.is_empty() {
            5e-2
        } else {
            0.3
        };
        assert!(worst < most, "{}: {worst}", reference.name);
    }
}

#[test]
fn chunks_cut_anywhere_give_the_same_bits() {
    for reference in Reference::all() {
        let mut engine = reference.engine(false);
        let whole = in_chunks(&mut engine, 0, &reference.ids, reference.ids.len());
        for (slot, size) in [(1, 1), (2, 7), (3, 31)] {
            let cut = in_chunks(&mut engine, slot, &reference.ids, size);
            assert_same(&cut, &whole, format!("{} by {size}", reference.name));
        }
    }
}

/// Of all bits below, computed by the version that the name says.
const BITS: (&str, &str) = ("arithmetic-1 k12v8 ", "be895df364ebfcd246f53147d45b27b1");

/// Services that say the same arithmetic go on with each other's streams, so whoever changes a bit has to say another.
#[test]
fn the_version_of_the_arithmetic_is_that_of_its_bits() {
    let mut hash = blake3::Hasher::new();
    let mut add = |row: &[f32]| {
        row.iter().for_each(|x| {
            hash.update(&x.to_bits().to_le_bytes());
        });
    };
    for reference in Reference::all() {
        reference.ours(false).iter().for_each(|row| add(row));
    }
    let ids = prompt(70, 3);
    for ty in [
        TensorType::Q4_0,
        TensorType::Q5_1,
        TensorType::Q8_0,
        TensorType::F16,
    ] {
        let model = Model::with_type("tiny-qwen2", ty);
        add(&in_chunks(&mut model.engine(&options()), 0, &ids, 33));
    }
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/haiku-nano-q4_k_m.gguf");
    let file = GgufFile::open(&shipped).unwrap();
    let plan = weights_plan::plan(file.header()).unwrap();
    let mut engine = engine_of(&file, &plan, &options());
    add(&in_chunks(&mut engine, 0, &ids, 70));
    engine.open(0, 70).unwrap();
    let mut drawn = Vec::new();
    for (start, token) in (0..).zip(&ids) {
        let sampling = SamplingParams {
            temperature: 1.5,
            top_p: 0.9,
            top_k: 40,
            min_p: 0.01,
            repetition_penalty: 1.2,
            frequency_penalty: 0.3,
            seed: u64::from(start),
            ..SamplingParams::GREEDY
        };
        let chunk = Chunk {
            slot: 0,
            start,
            tokens: &[*token],
            sample: Some(sampling),
        };
        drawn.extend(run(&mut engine, &[chunk]).unwrap());
    }
    drawn.iter().for_each(|id: &u32| {
        hash.update(&id.to_le_bytes());
    });
    let (name, bits) = BITS;
    let found = hash.finalize().to_hex();
    assert!(
        cuda_worker::arithmetic::name().starts_with(name) && found[..32] == *bits,
        "the bits are {}: if the arithmetic changed, raise its version in src/arithmetic.rs; if only the files did from which \
         they are computed, not",
        &found[..32]
    );
}

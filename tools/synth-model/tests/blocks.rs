//! The weights have the deviations they should have, in every type, as a reader that knows only
//! ggml's layouts sees them.

#![allow(clippy::unwrap_used)] // a panic is a failing test with a place

use half::{bf16, f16};
use orcd_shared::gguf::{GgufFile, TensorType};
use synth_model::{Options, Shape, write};

fn half_at(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

/// Low four bits of byte `i`, or the high ones for the second half of a block's elements.
fn nibble(bytes: &[u8], i: usize, high: bool) -> i32 {
    i32::from(if high { bytes[i] >> 4 } else { bytes[i] & 15 })
}

fn bit(bytes: &[u8], i: usize) -> i32 {
    i32::from(bytes[i / 8] >> (i % 8) & 1)
}

/// The values of a block of 32 with `five` bits or four, less `center`.
fn small_quants(qs: &[u8], qh: Option<&[u8]>, center: i32) -> Vec<f32> {
    let quant = |i: usize| {
        let high = qh.map_or(0, |qh| bit(qh, i) << 4);
        (nibble(qs, i % 16, i >= 16) | high) - center
    };
    (0..32).map(|i| quant(i) as f32).collect()
}

/// Scale and min number `j` of the eight packed into 12 bytes.
fn k_scale_min(packed: &[u8], j: usize) -> (f32, f32) {
    let (scale, min) = if j < 4 {
        (packed[j] & 63, packed[j + 4] & 63)
    } else {
        let scale = packed[j + 4] & 15 | (packed[j - 4] >> 6) << 4;
        (scale, packed[j + 4] >> 4 | (packed[j] >> 6) << 4)
    };
    (f32::from(scale), f32::from(min))
}

/// A block of 256 with eight sub-blocks of 32; two of them share 32 bytes of nibbles.
fn k_block(b: &[u8], qh: Option<&[u8]>, qs: &[u8]) -> Vec<f32> {
    let (d, dmin) = (half_at(b, 0), half_at(b, 2));
    let value = |i: usize| {
        let sub = i / 32;
        let (scale, min) = k_scale_min(&b[4..16], sub);
        let high = qh.map_or(0, |qh| i32::from(qh[i % 32] >> sub & 1) << 4);
        let q = nibble(qs, sub / 2 * 32 + i % 32, sub % 2 == 1) | high;
        d * scale * q as f32 - dmin * min
    };
    (0..256).map(value).collect()
}

/// A block of 256 in two halves; each has 64 bytes of nibbles, 32 of bit pairs and 8 scales.
fn q6_k_block(b: &[u8]) -> Vec<f32> {
    let d = half_at(b, 208);
    let value = |i: usize| {
        let (half, quarter, l) = (i / 128, i % 128 / 32, i % 32);
        let low = nibble(b, half * 64 + quarter % 2 * 32 + l, quarter >= 2);
        let high = i32::from(b[128 + half * 32 + l] >> (2 * quarter) & 3);
        let scale = b[192 + i / 16] as i8;
        d * f32::from(scale) * ((low | high << 4) - 32) as f32
    };
    (0..256).map(value).collect()
}

/// Two bits of value i: of each half, 32 bytes with those of four sub-blocks.
fn bit_pair(qs: &[u8], i: usize) -> i32 {
    i32::from(qs[i / 128 * 32 + i % 32] >> (2 * (i % 128 / 32)) & 3)
}

/// A block of 256 whose sub-blocks of 16 have a scale and a minimum of four bits each.
fn q2_k_block(b: &[u8]) -> Vec<f32> {
    let (d, dmin) = (half_at(b, 80), half_at(b, 82));
    let value = |i: usize| {
        let (scale, min) = (f32::from(b[i / 16] & 15), f32::from(b[i / 16] >> 4));
        d * scale * bit_pair(&b[16..80], i) as f32 - dmin * min
    };
    (0..256).map(value).collect()
}

/// A block of 256 whose sub-blocks of 16 have a scale of six bits; third bits are 0 where 4 is taken off.
fn q3_k_block(b: &[u8]) -> Vec<f32> {
    let (d, s) = (half_at(b, 108), &b[96..108]);
    let value = |i: usize| {
        let sub = i / 16;
        let low = s[sub % 8] >> (sub / 8 * 4) & 15;
        let high = s[8 + sub % 4] >> (sub / 4 * 2) & 3;
        let scale = i32::from(low | high << 4) - 32;
        let third = i32::from(b[i % 32] >> (i / 32) & 1);
        d * scale as f32 * (bit_pair(&b[32..96], i) + 4 * third - 4) as f32
    };
    (0..256).map(value).collect()
}

const UNEVEN: [i8; 16] = [
    -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113,
];
const FP4: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// 32 values whose first half lies in the low nibbles.
fn looked_up(table: [i8; 16], qs: &[u8]) -> Vec<f32> {
    let value = |i: usize| f32::from(table[nibble(qs, i % 16, i >= 16) as usize]);
    (0..32).map(value).collect()
}

/// A block of 256 whose sub-blocks of 32 have a scale of six bits.
fn iq4_xs_block(b: &[u8]) -> Vec<f32> {
    let d = half_at(b, 0);
    let sub_block = |j: usize| {
        let low = b[4 + j / 2] >> (j % 2 * 4) & 15;
        let high = b[2 + j / 4] >> (j % 4 * 2) & 3;
        let scale = (i32::from(low | high << 4) - 32) as f32;
        let values = looked_up(UNEVEN, &b[8 + 16 * j..]).into_iter();
        values.map(move |q| d * scale * q)
    };
    (0..8).flat_map(sub_block).collect()
}

fn block(ty: TensorType, b: &[u8]) -> Vec<f32> {
    let scaled = |quants: Vec<f32>, m: f32| {
        let d = half_at(b, 0);
        quants.into_iter().map(|q| d * q + m).collect()
    };
    match ty {
        TensorType::F32 => vec![f32::from_le_bytes(b.try_into().unwrap())],
        TensorType::F16 => vec![half_at(b, 0)],
        TensorType::BF16 => vec![bf16::from_le_bytes([b[0], b[1]]).to_f32()],
        TensorType::Q4_0 => scaled(small_quants(&b[2..], None, 8), 0.0),
        TensorType::Q4_1 => scaled(small_quants(&b[4..], None, 0), half_at(b, 2)),
        TensorType::Q5_0 => scaled(small_quants(&b[6..], Some(&b[2..6]), 16), 0.0),
        TensorType::Q5_1 => scaled(small_quants(&b[8..], Some(&b[4..8]), 0), half_at(b, 2)),
        TensorType::Q8_0 => scaled(b[2..].iter().map(|&q| f32::from(q as i8)).collect(), 0.0),
        TensorType::Q4K => k_block(b, None, &b[16..]),
        TensorType::Q5K => k_block(b, Some(&b[16..48]), &b[48..]),
        TensorType::Q6K => q6_k_block(b),
        TensorType::Q2K => q2_k_block(b),
        TensorType::Q3K => q3_k_block(b),
        TensorType::IQ4NL => scaled(looked_up(UNEVEN, &b[2..]), 0.0),
        TensorType::IQ4XS => iq4_xs_block(b),
        TensorType::MXFP4 => {
            let d = 2f32.powi(i32::from(b[0]) - 128);
            let values = looked_up(FP4, &b[1..]).into_iter();
            values.map(|q| d * q).collect()
        }
    }
}

fn values(ty: TensorType, data: &[u8]) -> Vec<f32> {
    data.chunks_exact(ty.block_bytes() as usize)
        .flat_map(|b| block(ty, b))
        .collect()
}

/// Mean and standard deviation.
fn moments(values: &[f32]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
    let variance = values
        .iter()
        .map(|&x| (f64::from(x) - mean).powi(2))
        .sum::<f64>()
        / n;
    (mean, variance.sqrt())
}

fn generate(shape: &Shape) -> (tempfile::TempDir, GgufFile) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    write(shape, &Options::default(), &path).unwrap();
    let file = GgufFile::open(&path).unwrap();
    (dir, file)
}

#[test]
fn every_type_has_mean_0_and_the_deviation_of_its_fan_in() {
    for ty in TensorType::ALL {
        let (_dir, file) = generate(&Shape::named("tiny-qwen2").unwrap().with_type(ty));
        for (name, gain) in [
            ("attn_q", 1.0),
            ("attn_k", 1.5),
            ("attn_v", 1.0),
            ("ffn_up", 1.0),
            ("ffn_down", 1.0),
        ] {
            let tensor = file
                .header()
                .tensor(&format!("blk.1.{name}.weight"))
                .unwrap();
            assert_eq!(tensor.ty, ty);
            let values = values(ty, &synth_model::tensor_data(&file, tensor).unwrap());
            assert_eq!(values.len() as u64, tensor.n_elements());
            let (mean, sigma) = moments(&values);
            let wanted = gain / (tensor.ne[0] as f64).sqrt();
            assert!(
                (sigma / wanted - 1.0).abs() < 0.05,
                "{ty} {name}: {sigma}, not {wanted}"
            );
            assert!(
                (mean / sigma).abs() < 0.02,
                "{ty} {name}: mean {mean}, deviation {sigma}"
            );
        }
    }
}

#[test]
fn every_value_of_every_shape_is_finite_and_moderate() {
    for name in Shape::names().filter(|name| name.starts_with("tiny")) {
        let (_dir, file) = generate(&Shape::named(name).unwrap());
        for tensor in &file.header().tensors {
            for x in values(tensor.ty, &synth_model::tensor_data(&file, tensor).unwrap()) {
                assert!(x.abs() <= 34.0, "{name} {}: {x}", tensor.name);
            }
        }
    }
}

#[test]
fn rows_of_special_tokens_are_weak() {
    let (_dir, file) = generate(&Shape::named("tiny-qwen2").unwrap());
    let output = file.header().tensor("output.weight").unwrap();
    let row = |i: u64| {
        let start = (i * output.row_bytes()) as usize;
        let data = &synth_model::tensor_data(&file, output).unwrap()
            [start..start + output.row_bytes() as usize];
        moments(&values(output.ty, data)).1
    };
    let eos = file
        .header()
        .metadata
        .u32("tokenizer.ggml.eos_token_id")
        .unwrap();
    assert!(row(eos.into()) * 4.0 < row(0));
    assert!(row(eos.into()) > 0.0);
}

#[test]
fn biases_and_norms_look_like_the_reference_models() {
    let (_dir, file) = generate(&Shape::named("tiny-reference").unwrap());
    let vector = |name: &str| {
        let tensor = file.header().tensor(name).unwrap();
        values(tensor.ty, &synth_model::tensor_data(&file, tensor).unwrap())
    };
    assert!(vector("blk.0.attn_q.bias").contains(&-34.0));
    let (mean, sigma) = moments(&vector("output_norm.weight"));
    assert!(
        (6.5..7.5).contains(&mean) && (0.8..1.5).contains(&sigma),
        "{mean} {sigma}"
    );
    assert!(vector("output_norm.weight").contains(&16.75));
    let (mean, sigma) = moments(&vector("blk.1.ffn_norm.weight"));
    assert!(
        (0.95..1.05).contains(&mean) && (0.08..0.12).contains(&sigma),
        "{mean} {sigma}"
    );
}

//! Every operation of the CPU backend but attention against the contract written once more in plain Rust, to the
//! bit.

#![allow(clippy::unwrap_used)] // a panic is a failing test with a place
#![allow(clippy::print_stdout)] // measured errors are worth seeing

mod engine_support;

use std::path::Path;

use cuda_worker::probe::{self, Form, Matrix};
use engine_support::{FLOATS, Rng, assert_same, block_formats, dequantized, dot, float_dot};
use engine_support::{product, quantized, quantized_super, random_matrix, tree};
use orcd_shared::gguf::TensorType;
use serde_json::Value;

/// Poison for outputs that must all be written.
fn poisoned(n: usize) -> Vec<f32> {
    vec![f32::from_bits(0x7fc0_dead); n]
}

/// Shapes with rows that fill no tile, columns that fill no segment, and row counts on each path.
fn shapes(ty: TensorType) -> Vec<(u32, u32, usize)> {
    let block = ty.block_len() as u32;
    let cols: &[u32] = match block {
        256 => &[256, 512, 1280],
        32 => &[32, 96, 128, 160, 896],
        _ => &[1, 31, 33, 128, 200, 896],
    };
    let counts = [1, 2, 3, 4, 5, 7, 64, 67, 131];
    let mut all = Vec::new();
    for (i, &cols) in cols.iter().enumerate() {
        for (j, &rows) in [1u32, 15, 16, 33, 70].iter().enumerate() {
            all.push((rows, cols, counts[(i * 5 + j) % counts.len()]));
        }
    }
    all
}

/// A form that is not found is neither tested nor used, and nothing else would say so.
#[cfg(target_arch = "x86_64")]
#[test]
fn the_widest_form_that_this_processor_can_run_is_found() {
    use std::arch::is_x86_feature_detected as has;
    let avx512 = has!("avx512f")
        && has!("avx512bw")
        && has!("avx512vl")
        && has!("avx512dq")
        && has!("avx512vnni");
    assert_eq!(Form::exact().contains(&Form::Avx512), avx512);
}

#[test]
fn every_form_of_the_product_equals_the_contract_for_every_type_and_shape() {
    let mut rng = Rng(1);
    let forms = Form::exact();
    println!("forms on this machine: {forms:?}");
    assert!(forms.len() >= 2);
    for ty in block_formats() {
        for (rows, cols, n) in shapes(ty) {
            let w = random_matrix(&mut rng, ty, rows, cols);
            let x = rng.floats(cols as usize * n);
            let expected = product(&w, &x, |row, x| dot(ty, row, x));
            for &form in &forms {
                for threads in [1, 3] {
                    let mut y = poisoned(expected.len());
                    probe::product(form, &w, &x, false, threads, &mut y);
                    let what = format!("{form:?} {ty} {rows}x{cols}, {n} rows, {threads} threads");
                    assert_same(&y, &expected, what);
                }
            }
        }
    }
}

#[test]
fn float_weights_follow_the_contract() {
    let mut rng = Rng(2);
    for ty in FLOATS {
        for (rows, cols, n) in shapes(ty) {
            let w = random_matrix(&mut rng, ty, rows, cols);
            let x = rng.floats(cols as usize * n);
            let expected = product(&w, &x, |row, x| dot(ty, row, x));
            let mut y = poisoned(expected.len());
            probe::product(Form::Portable, &w, &x, false, 2, &mut y);
            assert_same(&y, &expected, format!("{ty} {rows}x{cols}, {n} rows"));
        }
    }
}

#[test]
fn float_activations_multiply_the_dequantized_weights() {
    let mut rng = Rng(3);
    for ty in block_formats() {
        let w = random_matrix(&mut rng, ty, 35, 512);
        let x = rng.floats(512 * 2);
        let expected = product(&w, &x, |row, x| float_dot(&dequantized(ty, row), x));
        let mut y = poisoned(expected.len());
        probe::product(Form::FloatActivations, &w, &x, false, 2, &mut y);
        assert_same(&y, &expected, format!("{ty}"));
        let all: Vec<f32> = w
            .raw
            .chunks(w.raw.len() / 35)
            .flat_map(|r| dequantized(ty, r))
            .collect();
        assert_same(&probe::dequantize(&w), &all, format!("{ty}"));
    }
}

/// Blocks that llama.cpp quantized and what the Python package gguf makes of them (`models/formats.json`, made by
/// `make formats`).
#[test]
fn blocks_of_another_quantizer_are_dequantized_as_by_another_reader() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models");
    let index = std::fs::read_to_string(folder.join("formats.json")).unwrap();
    let index: Value = serde_json::from_str(&index).unwrap();
    let data = std::fs::read(folder.join("formats.bin")).unwrap();
    for ty in block_formats() {
        let number = |of: &Value| of.as_u64().unwrap();
        let (rows, cols) = (number(&index["rows"]), number(&index["cols"]));
        let of = |key: &str| number(&index["types"][ty.name()][key]) as usize;
        let values = &data[of("values")..][..4 * (rows * cols) as usize];
        let expected: Vec<f32> = values
            .as_chunks()
            .0
            .iter()
            .map(|b| f32::from_le_bytes(*b))
            .collect();
        let w = Matrix {
            ty,
            rows: rows as u32,
            cols: cols as u32,
            raw: data[of("blocks")..][..of("bytes")].to_vec(),
        };
        assert_same(&probe::dequantize(&w), &expected, ty.to_string());
        let ours = w.raw.chunks(w.raw.len() / rows as usize);
        let ours: Vec<f32> = ours.flat_map(|row| dequantized(ty, row)).collect();
        assert_same(&ours, &expected, format!("{ty} in Rust"));
    }
}

#[test]
fn the_residual_is_added_to_the_whole_product() {
    let mut rng = Rng(4);
    for ty in [TensorType::Q5_0, TensorType::Q6K, TensorType::F16] {
        let w = random_matrix(&mut rng, ty, 37, 256);
        for n in [1, 6] {
            let x = rng.floats(256 * n);
            let before = rng.floats(37 * n);
            let result = product(&w, &x, |row, x| dot(ty, row, x));
            let expected: Vec<f32> = before.iter().zip(result).map(|(x, y)| x + y).collect();
            let forms = if ty.block_len() > 1 {
                Form::exact()
            } else {
                vec![Form::Portable]
            };
            for form in forms {
                let mut y = before.clone();
                probe::product(form, &w, &x, true, 2, &mut y);
                assert_same(&y, &expected, format!("{ty} {form:?} {n} rows"));
            }
        }
    }
}

#[test]
fn extreme_weights_and_activations_do_not_overflow_any_form() {
    for ty in block_formats() {
        for fill in [0x00u8, 0x7f, 0x80, 0xff] {
            let size = ty.block_bytes() as usize;
            let mut w = Matrix {
                ty,
                rows: 16,
                cols: 512,
                raw: vec![fill; 16 * 512 / ty.block_len() as usize * size],
            };
            for block in w.raw.chunks_exact_mut(size) {
                for &at in ty.scales() {
                    block[at..at + 2].copy_from_slice(&0x3c00u16.to_le_bytes());
                }
                if ty == TensorType::MXFP4 {
                    block[0] = 128;
                }
            }
            let x: Vec<f32> = (0..512)
                .map(|k| if k % 64 < 32 { 1.0 } else { -1.0 })
                .collect();
            let x = [vec![1.0; 512], vec![-1.0; 512], x].concat();
            let expected = product(&w, &x, |row, x| dot(ty, row, x));
            for form in Form::exact() {
                let mut y = poisoned(expected.len());
                probe::product(form, &w, &x, false, 1, &mut y);
                assert_same(
                    &y,
                    &expected,
                    format!("{ty} {form:?} filled with {fill:#x}"),
                );
            }
        }
    }
}

#[test]
fn activations_are_quantized_by_the_contract() {
    for width in [32, 256] {
        let mut rng = Rng(5);
        let mut x = rng.floats(width * 200);
        let block = |i: usize| i * width..(i + 1) * width;
        x[block(0)].fill(0.0);
        x[block(1)].fill(2f32.powi(-101));
        x[block(2)].fill(2f32.powi(-100));
        x[3 * width + 4] = f32::NAN;
        x[4 * width + 2] = f32::INFINITY;
        x[5 * width + 10] = f32::MAX;
        // Ties: with amax 127 the scale is 1, and halves go to the even neighbor.
        block(6).for_each(|i| x[i] = (i % 128) as f32 - 63.5);
        x[6 * width] = 127.0;
        x[block(7)].fill(1.0);
        x[block(8)].fill(-1.0);
        // Blocks of 32 that are smaller than their super-block's largest value, by powers of two and a little more.
        for (j, part) in x[block(9)].chunks_mut(32).enumerate() {
            part.fill(0.5f32.powi(j as i32 / 2) * (1.0 + (j % 2) as f32 * f32::EPSILON));
        }
        let probe::Quantized { q, d, sum, shifts } = probe::quantize(width, &x);
        let shift = |at: usize| match shifts.get(at / 8) {
            Some(word) => word >> (at % 4 * 8 + at % 8 / 4 * 4) & 3,
            None => 0,
        };
        for (b, x) in x.chunks(width).enumerate() {
            let (expected, scale) = if width == 256 {
                quantized_super(x)
            } else {
                quantized(x)
            };
            let q = q[block(b)].iter().enumerate();
            let q: Vec<i32> = q
                .map(|(i, q)| i32::from(*q) << shift((b * width + i) / 32))
                .collect();
            assert_eq!(q, expected, "block {b} of {width}");
            assert_eq!(d[b].to_bits(), scale.to_bits(), "block {b} of {width}");
        }
        for (b, q) in q.chunks(32).enumerate() {
            let of = |q: &[i8]| q.iter().map(|q| i32::from(*q)).sum::<i32>();
            let halves = (of(&q[..16]), of(&q[16..]));
            let kept = if width == 32 {
                halves.0 + halves.1
            } else {
                let halves = (halves.0 << shift(b), halves.1 << shift(b));
                halves.0 & 0xffff | halves.1 << 16
            };
            assert_eq!(sum[b], kept, "sum of the 32 values {b}, blocks of {width}");
        }
    }
}

#[test]
fn rmsnorm_follows_the_contract() {
    let mut rng = Rng(6);
    for n in [1usize, 31, 128, 200, 896, 1000] {
        let (x, w) = (rng.floats(n), rng.floats(n));
        let mut s = vec![0f32; 128];
        x.iter()
            .enumerate()
            .for_each(|(k, v)| s[k % 128] = v.mul_add(*v, s[k % 128]));
        let inv = 1.0 / (tree(s) / n as f32 + 1e-6).sqrt();
        let expected: Vec<f32> = x.iter().zip(&w).map(|(x, w)| x * inv * w).collect();
        assert_same(
            &probe::rmsnorm(&x, &w, 1e-6),
            &expected,
            format!("{n} values"),
        );
    }
}

#[test]
fn swiglu_is_gate_times_its_sigmoid_times_up() {
    let mut rng = Rng(7);
    let (g, u) = (rng.floats(333), rng.floats(333));
    let s = probe::function("sigmoid", &g);
    let expected: Vec<f32> = g
        .iter()
        .zip(s)
        .zip(&u)
        .map(|((g, s), u)| g * s * u)
        .collect();
    assert_same(&probe::glu(false, &g, &u), &expected, "swiglu");
}

#[test]
fn geglu_is_gelu_of_gate_times_up() {
    let mut rng = Rng(8);
    let (g, u) = (rng.floats(333), rng.floats(333));
    let gelu = probe::function("gelu", &g);
    let expected: Vec<f32> = gelu.iter().zip(&u).map(|(g, u)| g * u).collect();
    assert_same(&probe::glu(true, &g, &u), &expected, "geglu");
}

/// Sampled evenly over all bit patterns; `keep` chooses the inputs, `error` measures.
fn worst(name: &str, keep: impl Fn(f32) -> bool, error: impl Fn(f64, f64) -> f64) -> f64 {
    let mut worst = 0f64;
    for chunk in (0..u32::MAX / 397).collect::<Vec<_>>().chunks(1 << 16) {
        let x: Vec<f32> = chunk
            .iter()
            .map(|i| f32::from_bits(i * 397))
            .filter(|x| keep(*x))
            .collect();
        for (x, y) in x.iter().zip(probe::function(name, &x)) {
            worst = worst.max(error(f64::from(*x), f64::from(y)));
        }
    }
    println!("{name}: largest error {worst:.3e}");
    worst
}

/// The error of `y`, of the exact value's size; of 1 where that is 0.
fn relative(y: f64, exact: f64) -> f64 {
    if exact == 0.0 {
        y.abs()
    } else {
        (y / exact - 1.0).abs()
    }
}

#[test]
fn exp2_log_and_sigmoid_are_as_exact_as_stated() {
    assert!(
        worst(
            "exp2",
            |x| (-126.0..128.0).contains(&x),
            |x, y| relative(y, x.exp2())
        ) < 8e-8
    );
    assert!(
        worst(
            "log",
            |x| x.is_normal() && x > 0.0,
            |x, y| relative(y, x.ln())
        ) < 9e-8
    );
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let finite = |x: f32| x.is_finite();
    assert!(worst("sigmoid", finite, |x, y| (y - sigmoid(x)).abs()) < 1e-7);
    assert!(
        worst(
            "sigmoid",
            |x| x > -69.0 && x.is_finite(),
            |x, y| relative(y, sigmoid(x))
        ) < 4e-6
    );
}

#[test]
fn tanh_gelu_and_the_soft_cap_are_as_exact_as_stated() {
    // Below, products of two inputs are no normal numbers.
    let normal = |x: f32| x.is_normal();
    assert!(worst("tanh", normal, |x, y| relative(y, x.tanh())) < 2.5e-7);
    let gelu = |x: f64| {
        let z = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
        x / (1.0 + (-2.0 * z).exp())
    };
    let finite = |x: f32| x.is_finite();
    let error = worst("gelu", finite, |x, y| {
        (y - gelu(x)).abs() / x.abs().max(1.0)
    });
    assert!(error < 3e-7);
    let capped = |x: f64| 30.0 * (x / 30.0).tanh();
    let scaled = |x: f32| x.abs() > 1e-30 && x.is_finite();
    assert!(worst("soft_cap_30", scaled, |x, y| relative(y, capped(x))) < 4e-7);
}

/// All significands, at the ends of what is promised and between.
#[test]
fn by_127_is_the_rounded_quotient() {
    for exponent in [27_u32, 100, 127, 254] {
        let x: Vec<f32> = (0..1 << 23)
            .map(|significand| f32::from_bits(exponent << 23 | significand))
            .collect();
        let y = probe::function("by_127", &x);
        let wrong = x.iter().zip(&y).find(|(x, y)| **x / 127.0 != **y);
        assert_eq!(wrong, None, "exponent {exponent}");
    }
}

#[test]
fn functions_keep_their_promises_at_the_edges() {
    let of = |name: &str, x: f32| probe::function(name, &[x])[0];
    assert_eq!(of("exp2", 0.0), 1.0);
    assert_eq!(of("exp2", -126.0), 2f32.powi(-126));
    assert_eq!(of("exp2", -126.1), 0.0);
    assert_eq!(of("exp2", f32::NEG_INFINITY), 0.0);
    assert_eq!(of("exp2", 127.0), 2f32.powi(127));
    assert!(of("exp2", 127.99).is_finite());
    assert_eq!(of("exp2", 128.0), f32::INFINITY);
    assert!(of("exp2", f32::NAN).is_nan());
    assert_eq!(of("log", 1.0), 0.0);
    assert_eq!(of("log", 0.0), f32::NEG_INFINITY);
    assert_eq!(of("log", f32::INFINITY), f32::INFINITY);
    assert_eq!(of("sigmoid", f32::NEG_INFINITY), 0.0);
    assert_eq!(of("sigmoid", f32::INFINITY), 1.0);
    assert_eq!(of("tanh", -0.0).to_bits(), (-0.0f32).to_bits());
    assert_eq!(of("tanh", f32::NEG_INFINITY), -1.0);
    assert_eq!(of("tanh", f32::MAX), 1.0);
    assert!(of("tanh", f32::NAN).is_nan());
    assert_eq!(of("gelu", f32::MAX), f32::MAX);
    assert_eq!(of("gelu", f32::MIN), 0.0);
    assert_eq!(of("gelu", 0.0), 0.0);
    assert_eq!(of("gumbel", f32::from_bits(u32::MAX)), f32::NEG_INFINITY);
    let smallest = of("gumbel", f32::from_bits(0));
    assert!((smallest - (33.0 * 2f32.ln())).abs() < 1e-4, "{smallest}");
}

#[test]
fn binary16_is_rounded_to_nearest_even_both_ways() {
    for h in 0..=u16::MAX {
        let exact = half::f16::from_bits(h);
        let ours = probe::from_f16(h);
        assert!(
            exact.is_nan() && ours.is_nan() || ours == exact.to_f32(),
            "{h:#x}"
        );
    }
    let x: Vec<f32> = (0..u32::MAX / 1009)
        .map(|i| f32::from_bits(i * 1009))
        .collect();
    let x: Vec<f32> = x.into_iter().filter(|x| !x.is_nan()).collect();
    for (x, h) in x.iter().zip(probe::to_f16(&x)) {
        assert_eq!(h, half::f16::from_f32(*x).to_bits(), "{x:e}");
    }
}

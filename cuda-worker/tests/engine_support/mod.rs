//! The arithmetic contract once more, in the plainest Rust: what the C++ is compared with.

#![allow(dead_code, unreachable_pub)] // each test file uses its part

pub mod model;
pub mod naive;

use cuda_worker::probe::Matrix;
use half::{bf16, f16};
use orcd_shared::gguf::TensorType;

/// Types with blocks.
pub fn block_formats() -> impl Iterator<Item = TensorType> {
    (TensorType::ALL.into_iter()).filter(|ty| ty.block_len() > 1)
}

/// Types without.
pub const FLOATS: [TensorType; 3] = [TensorType::F32, TensorType::F16, TensorType::BF16];

/// Splitmix64.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// Uniform in -1 .. 1.
    pub fn signed(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    /// Values of very different sizes.
    pub fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n)
            .map(|_| self.signed() * 2f32.powi(self.below(9) as i32 - 4))
            .collect()
    }

    pub fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.next() as u8).collect()
    }
}

/// Any bits in the blocks, but scales that are numbers.
pub fn random_matrix(rng: &mut Rng, ty: TensorType, rows: u32, cols: u32) -> Matrix {
    let values = rows as usize * cols as usize;
    let raw = match ty {
        TensorType::F32 => rng
            .floats(values)
            .iter()
            .flat_map(|x| x.to_le_bytes())
            .collect(),
        TensorType::F16 => rng
            .floats(values)
            .iter()
            .flat_map(|x| f16::from_f32(*x).to_le_bytes())
            .collect(),
        TensorType::BF16 => rng
            .floats(values)
            .iter()
            .flat_map(|x| bf16::from_f32(*x).to_le_bytes())
            .collect(),
        _ => {
            let size = ty.block_bytes() as usize;
            let mut raw = rng.bytes(values / ty.block_len() as usize * size);
            for block in raw.chunks_exact_mut(size) {
                for &at in ty.scales() {
                    let scale = f16::from_f32(rng.signed() * 0.01);
                    block[at..at + 2].copy_from_slice(&scale.to_le_bytes());
                }
                if ty == TensorType::MXFP4 {
                    block[0] = 112 + rng.below(16) as u8;
                }
            }
            raw
        }
    };
    Matrix {
        ty,
        rows,
        cols,
        raw,
    }
}

/// 32 weights d · w (⊕ m), with what belongs to each half of them; and those of a super-block as its products take
/// them.
pub struct Block {
    pub w: [i32; 32],
    pub d: [f32; 2],
    pub m: Option<[f32; 2]>,
    pub sc: [i32; 2],
    pub mn: [i32; 2],
}

impl Block {
    fn new(w: [i32; 32], d: f32, m: Option<f32>) -> Block {
        Block {
            w,
            d: [d; 2],
            m: m.map(|m| [m; 2]),
            sc: [1; 2],
            mn: [0; 2],
        }
    }

    /// With scales, and with minima if there is a `dmin`.
    fn scaled(w: [i32; 32], d: f32, sc: [i32; 2], dmin: Option<f32>, mn: [i32; 2]) -> Block {
        Block {
            w,
            d: sc.map(|sc| d * sc as f32),
            m: dmin.map(|dmin| mn.map(|mn| -(dmin * mn as f32))),
            sc,
            mn,
        }
    }
}

fn half_at(raw: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([raw[at], raw[at + 1]]).to_f32()
}

/// A row of a quantized matrix in blocks of 32.
pub fn blocks(ty: TensorType, row: &[u8]) -> Vec<Block> {
    row.chunks_exact(ty.block_bytes() as usize)
        .flat_map(|raw| file_block(ty, raw))
        .collect()
}

fn file_block(ty: TensorType, raw: &[u8]) -> Vec<Block> {
    let of_super = |block: fn(&[u8], usize) -> Block| (0..8).map(|j| block(raw, j)).collect();
    match ty {
        TensorType::Q4_0 => vec![small(raw, None, 2, None, 8)],
        TensorType::Q4_1 => vec![small(raw, Some(2), 4, None, 0)],
        TensorType::Q5_0 => vec![small(raw, None, 6, Some(2), 16)],
        TensorType::Q5_1 => vec![small(raw, Some(2), 8, Some(4), 0)],
        TensorType::Q8_0 => {
            let w = std::array::from_fn(|i| i32::from(raw[2 + i] as i8));
            vec![Block::new(w, half_at(raw, 0), None)]
        }
        TensorType::IQ4NL => vec![Block::new(
            looked_up(UNEVEN, &raw[2..]),
            half_at(raw, 0),
            None,
        )],
        TensorType::MXFP4 => {
            let d = 2f64.powi(i32::from(raw[0]) - 128) as f32;
            vec![Block::new(looked_up(FP4, &raw[1..]), d, None)]
        }
        TensorType::Q2K => of_super(q2_block),
        TensorType::Q3K => of_super(q3_block),
        TensorType::Q4K => of_super(|raw, j| k_block(raw, j, None, &raw[16..])),
        TensorType::Q5K => of_super(|raw, j| k_block(raw, j, Some(&raw[16..48]), &raw[48..])),
        TensorType::Q6K => of_super(q6_block),
        TensorType::IQ4XS => of_super(iq4_xs_block),
        _ => panic!("{ty} has no blocks"),
    }
}

fn small(raw: &[u8], m: Option<usize>, qs: usize, qh: Option<usize>, offset: i32) -> Block {
    let high = qh.map_or(0, |at| {
        u32::from_le_bytes(raw[at..at + 4].try_into().unwrap())
    });
    let w = std::array::from_fn(|i| {
        i32::from(nibble(&raw[qs..], i)) + 16 * ((high >> i & 1) as i32) - offset
    });
    Block::new(w, half_at(raw, 0), m.map(|at| half_at(raw, at)))
}

/// Value i of 32 whose first half lies in the low nibbles.
fn nibble(qs: &[u8], i: usize) -> u8 {
    let byte = qs[i % 16];
    if i < 16 { byte & 15 } else { byte >> 4 }
}

/// What the nibbles of IQ4 stand for.
const UNEVEN: [i32; 16] = [
    -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113,
];
/// What those of MXFP4 do, doubled.
const FP4: [i32; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

fn looked_up(table: [i32; 16], qs: &[u8]) -> [i32; 32] {
    std::array::from_fn(|i| table[usize::from(nibble(qs, i))])
}

/// Scale and minimum of sub-block j of a super-block.
fn sub_scales(raw: &[u8], j: usize) -> (u8, u8) {
    let s = &raw[4..16];
    if j < 4 {
        (s[j] & 63, s[j + 4] & 63)
    } else {
        (
            (s[j + 4] & 15) | (s[j - 4] >> 6) << 4,
            (s[j + 4] >> 4) | (s[j] >> 6) << 4,
        )
    }
}

fn k_block(raw: &[u8], j: usize, qh: Option<&[u8]>, qs: &[u8]) -> Block {
    let (sc, mn) = sub_scales(raw, j);
    let w = std::array::from_fn(|i| {
        let byte = qs[j / 2 * 32 + i];
        let low = if j.is_multiple_of(2) {
            byte & 15
        } else {
            byte >> 4
        };
        let high = qh.map_or(0, |qh| qh[i] >> j & 1);
        i32::from(low + 16 * high)
    });
    let (sc, mn) = ([i32::from(sc); 2], [i32::from(mn); 2]);
    Block::scaled(w, half_at(raw, 0), sc, Some(half_at(raw, 2)), mn)
}

/// Two bits of value i of sub-block j.
fn pair(qs: &[u8], j: usize, i: usize) -> u8 {
    qs[j / 4 * 32 + i] >> (2 * (j % 4)) & 3
}

fn q2_block(raw: &[u8], j: usize) -> Block {
    let w = std::array::from_fn(|i| i32::from(pair(&raw[16..80], j, i)));
    let scales = [raw[2 * j], raw[2 * j + 1]];
    let (sc, mn) = (
        scales.map(|s| i32::from(s & 15)),
        scales.map(|s| i32::from(s >> 4)),
    );
    Block::scaled(w, half_at(raw, 80), sc, Some(half_at(raw, 82)), mn)
}

fn q3_block(raw: &[u8], j: usize) -> Block {
    let w = std::array::from_fn(|i| {
        let less = if raw[i] >> j & 1 == 0 { 4 } else { 0 };
        i32::from(pair(&raw[32..96], j, i)) - less
    });
    let s = &raw[96..108];
    let sc = [2 * j, 2 * j + 1].map(|i| {
        let low = if i < 8 { s[i] & 15 } else { s[i - 8] >> 4 };
        let high = s[8 + i % 4] >> (2 * (i / 4)) & 3;
        i32::from(low + 16 * high) - 32
    });
    Block::scaled(w, half_at(raw, 108), sc, None, [0; 2])
}

fn q6_block(raw: &[u8], j: usize) -> Block {
    let (half, c) = (j / 4, j % 4);
    let w = std::array::from_fn(|i| {
        let low = raw[64 * half + 32 * (c % 2) + i];
        let low = if c < 2 { low & 15 } else { low >> 4 };
        let high = raw[128 + 32 * half + i] >> (2 * c) & 3;
        i32::from(low | high << 4) - 32
    });
    let sc = [0, 1].map(|h| i32::from(raw[192 + 2 * j + h] as i8));
    Block::scaled(w, half_at(raw, 208), sc, None, [0; 2])
}

fn iq4_xs_block(raw: &[u8], j: usize) -> Block {
    let high = u16::from_le_bytes([raw[2], raw[3]]) >> (2 * j) & 3;
    let low = raw[4 + j / 2] >> (4 * (j % 2)) & 15;
    let sc = i32::from(low) + 16 * i32::from(high) - 32;
    let w = looked_up(UNEVEN, &raw[8 + 16 * j..]);
    Block::scaled(w, half_at(raw, 0), [sc; 2], None, [0; 2])
}

/// Weights of a row.
pub fn dequantized(ty: TensorType, row: &[u8]) -> Vec<f32> {
    match ty {
        TensorType::F32 => row
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
            .collect(),
        TensorType::F16 => row
            .chunks_exact(2)
            .map(|b| f16::from_le_bytes(b.try_into().unwrap()).to_f32())
            .collect(),
        TensorType::BF16 => row
            .chunks_exact(2)
            .map(|b| bf16::from_le_bytes(b.try_into().unwrap()).to_f32())
            .collect(),
        _ => blocks(ty, row)
            .iter()
            .flat_map(|b| {
                let value = move |i: usize| {
                    let product = b.d[i / 16] * b.w[i] as f32;
                    b.m.map_or(product, |m| product + m[i / 16])
                };
                (0..32).map(value)
            })
            .collect(),
    }
}

/// A block of activations: values and scale.
pub fn quantized(x: &[f32]) -> (Vec<i32>, f32) {
    let amax = x.iter().fold(0f32, |m, v| m.max(v.abs()));
    if x.iter().any(|v| !v.is_finite()) || amax < 2f32.powi(-100) {
        return (vec![0; x.len()], 0.0);
    }
    let d = amax / 127.0;
    let r = 1.0 / d;
    let q = x.iter().map(|x| (x * r).round_ties_even() as i32);
    (q.collect(), d)
}

/// A super-block of 256 activations: values, shifted to one unit, and this.
pub fn quantized_super(x: &[f32]) -> (Vec<i32>, f32) {
    let (_, d) = quantized(x);
    let unit = d / 8.0;
    let top = x.iter().fold(0f32, |m, v| m.max(v.abs()));
    let of_block = |block: &[f32]| {
        let top_of_block = block.iter().fold(0f32, |m, v| m.max(v.abs()));
        let shift = (0..3)
            .find(|e| top_of_block <= top * 2f32.powi(e - 3))
            .unwrap_or(3);
        let r = 1.0 / d * 2f32.powi(3 - shift);
        let values = block
            .iter()
            .map(|x| ((x * r).round_ties_even() as i32) << shift);
        values.collect::<Vec<_>>()
    };
    if d == 0.0 {
        return (vec![0; x.len()], 0.0);
    }
    (x.chunks(32).flat_map(of_block).collect(), unit)
}

/// Tree(s, n) for a power of two n.
pub fn tree(mut s: Vec<f32>) -> f32 {
    while s.len() > 1 {
        let upper = s.split_off(s.len() / 2);
        s.iter_mut().zip(upper).for_each(|(a, b)| *a += b);
    }
    s[0]
}

/// A row of weights times a row of activations.
pub fn dot(ty: TensorType, row: &[u8], x: &[f32]) -> f32 {
    if ty.block_len() == 1 {
        return float_dot(&dequantized(ty, row), x);
    }
    if ty.block_len() == 256 {
        return super_dot(ty, row, x);
    }
    let mut y = 0f32;
    for (segment, x) in blocks(ty, row).chunks(4).zip(x.chunks(128)) {
        let mut acc = 0f32;
        for (block, x) in segment.iter().zip(x.chunks(32)) {
            let (q, da) = quantized(x);
            let a: i32 = q.iter().sum();
            let i: i32 = block.w.iter().zip(q).map(|(w, q)| w * q).sum();
            acc = (block.d[0] * da).mul_add(i as f32, acc);
            if let Some(m) = block.m {
                acc = (m[0] * da).mul_add(a as f32, acc);
            }
        }
        y += acc;
    }
    y
}

/// The form for k-quants: all of a super-block in integers, then one step of floats.
fn super_dot(ty: TensorType, row: &[u8], x: &[f32]) -> f32 {
    let supers = row.chunks_exact(ty.block_bytes() as usize);
    supers.zip(x.chunks(256)).fold(0f32, |y, (raw, x)| {
        let (q, da) = quantized_super(x);
        let (mut products, mut minima) = (0i32, 0i32);
        for (block, q) in file_block(ty, raw).iter().zip(q.chunks(32)) {
            for (h, q) in q.chunks(16).enumerate() {
                let w = &block.w[16 * h..];
                let i: i32 = w.iter().zip(q).map(|(w, q)| w * q).sum();
                products += block.sc[h] * i;
                minima += block.mn[h] * q.iter().sum::<i32>();
            }
        }
        let scales = ty.scales();
        let t = half_at(raw, scales[0]) * products as f32;
        let t = scales
            .get(1)
            .map_or(t, |&dmin| (-half_at(raw, dmin)).mul_add(minima as f32, t));
        y + da * t
    })
}

/// The form for float weights.
pub fn float_dot(w: &[f32], x: &[f32]) -> f32 {
    let mut y = 0f32;
    for (w, x) in w.chunks(128).zip(x.chunks(128)) {
        let mut s = vec![0f32; 32];
        w.iter()
            .zip(x)
            .enumerate()
            .for_each(|(k, (w, x))| s[k % 32] = w.mul_add(*x, s[k % 32]));
        y += tree(s);
    }
    y
}

/// y (n, rows) = w · x (n, cols).
pub fn product(w: &Matrix, x: &[f32], mut dot: impl FnMut(&[u8], &[f32]) -> f32) -> Vec<f32> {
    let row_bytes = w.raw.len() / w.rows as usize;
    let dots = x.chunks(w.cols as usize).flat_map(|x| {
        w.raw
            .chunks(row_bytes)
            .map(|row| dot(row, x))
            .collect::<Vec<_>>()
    });
    dots.collect()
}

/// Where the largest is, the first of them.
pub fn argmax(x: &[f32]) -> usize {
    (0..x.len()).fold(0, |best, i| if x[i] > x[best] { i } else { best })
}

/// Bit for bit; a failure shows the first difference, not thousands of numbers.
#[track_caller]
pub fn assert_same(found: &[f32], expected: &[f32], what: impl std::fmt::Display) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let differs = |i: &usize| found[*i].to_bits() != expected[*i].to_bits();
    if let Some(i) = (0..found.len()).find(differs) {
        let n = (0..found.len()).filter(differs).count();
        panic!(
            "{what}: {n} of {} differ, first at {i}: {:e}, expected {:e}",
            found.len(),
            found[i],
            expected[i]
        );
    }
}

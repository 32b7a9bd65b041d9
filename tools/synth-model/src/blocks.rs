//! Random blocks in ggml's formats, with mean 0 and a given standard deviation.
//!
//! The quants are uniform random bits; a block's scale is what sets the deviation. Scales vary by a
//! quarter either way and, where real files have both signs, in sign, so that a reader that mixes
//! up two blocks or two fields is found out.

use half::{bf16, f16};
use orcd_shared::gguf::TensorType;

use crate::rng::Rng;

/// Sub-block scales of Q4_K and Q5_K: 6 bits, kept away from 0.
const K_SCALE: std::ops::RangeInclusive<u8> = 8..=63;
/// Magnitudes of Q6_K's signed sub-block scales.
const Q6_SCALE: std::ops::RangeInclusive<u8> = 16..=127;

/// Sub-block scales of Q2_K: 4 bits, likewise.
const Q2_SCALE: std::ops::RangeInclusive<u8> = 4..=15;
/// Magnitudes of the signed sub-block scales of Q3_K and IQ4_XS.
const SIGNED_SCALE: std::ops::RangeInclusive<u8> = 8..=31;

/// What the nibbles of IQ4_NL and IQ4_XS stand for.
const UNEVEN: [f64; 16] = [
    -127.0, -104.0, -83.0, -65.0, -49.0, -35.0, -22.0, -10.0, 1.0, 13.0, 25.0, 38.0, 53.0, 69.0,
    89.0, 113.0,
];
/// What those of MXFP4 do, without their sign, doubled.
const FP4: [f64; 8] = [0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0];

/// Makes rows of one type.
pub(crate) struct Blocks {
    ty: TensorType,
    /// Mean scale of a block, or half the range of an unquantized value.
    scale: f32,
}

impl Blocks {
    /// Blocks of `ty` whose values have standard deviation `sigma`.
    pub(crate) fn new(ty: TensorType, sigma: f32) -> Blocks {
        // Deviation of a value at scale 1.
        let unit = match ty {
            TensorType::F32 | TensorType::F16 | TensorType::BF16 => (1.0f32 / 3.0).sqrt(),
            TensorType::Q4_0 => rms((-8..8).map(f64::from)),
            TensorType::Q5_0 => rms((-16..16).map(f64::from)),
            TensorType::Q8_0 => rms((-127..128).map(f64::from)),
            TensorType::Q4_1 => rms(centered(16)),
            TensorType::Q5_1 => rms(centered(32)),
            TensorType::Q4K => rms(centered(16)) * rms(K_SCALE.map(f64::from)),
            TensorType::Q5K => rms(centered(32)) * rms(K_SCALE.map(f64::from)),
            TensorType::Q6K => rms((-32..32).map(f64::from)) * rms(Q6_SCALE.map(f64::from)),
            TensorType::Q2K => rms(centered(4)) * rms(Q2_SCALE.map(f64::from)),
            TensorType::Q3K => rms((-4..4).map(f64::from)) * rms(SIGNED_SCALE.map(f64::from)),
            TensorType::IQ4NL => rms(UNEVEN.into_iter()),
            TensorType::IQ4XS => rms(UNEVEN.into_iter()) * rms(SIGNED_SCALE.map(f64::from)),
            TensorType::MXFP4 => rms(FP4.into_iter()),
        };
        Blocks {
            ty,
            scale: sigma / unit,
        }
    }

    /// Fills `out`, a whole number of blocks, with values multiplied by `gain`.
    pub(crate) fn fill(&self, rng: &mut Rng, gain: f32, out: &mut [u8]) {
        let scale = self.scale * gain;
        // Lossless: a block has at most 210 bytes.
        for block in out.chunks_exact_mut(self.ty.block_bytes() as usize) {
            self.block(rng, scale, block);
        }
    }

    fn block(&self, rng: &mut Rng, scale: f32, out: &mut [u8]) {
        match self.ty {
            TensorType::F32 => out.copy_from_slice(&(rng.signed() * scale).to_le_bytes()),
            TensorType::F16 => put_f16(out, rng.signed() * scale),
            TensorType::BF16 => {
                out.copy_from_slice(&bf16::from_f32(rng.signed() * scale).to_le_bytes());
            }
            TensorType::Q4_0 | TensorType::Q5_0 | TensorType::IQ4NL => {
                rng.fill(out);
                let d = varied(rng, scale);
                put_f16(&mut out[..2], either_sign(rng, d));
            }
            TensorType::Q8_0 => q8_0(rng, scale, out),
            TensorType::Q4_1 => affine(rng, scale, 7.5, out),
            TensorType::Q5_1 => affine(rng, scale, 15.5, out),
            TensorType::Q4K => k_affine(rng, scale, 7.5, out),
            TensorType::Q5K => k_affine(rng, scale, 15.5, out),
            TensorType::Q6K => q6_k(rng, scale, out),
            TensorType::Q2K => q2_k(rng, scale, out),
            TensorType::Q3K => q3_k(rng, scale, out),
            TensorType::IQ4XS => iq4_xs(rng, scale, out),
            TensorType::MXFP4 => mxfp4(rng, scale, out),
        }
    }
}

/// d, then 32 signed bytes. A quantizer never makes -128, so that magnitudes fit 7 bits.
fn q8_0(rng: &mut Rng, scale: f32, out: &mut [u8]) {
    rng.fill(out);
    for byte in &mut out[2..] {
        *byte = (*byte as i8).max(-127) as u8;
    }
    put_f16(&mut out[..2], varied(rng, scale));
}

/// d, m, then the quants: value = d * q + m. `center` is the mean of q.
fn affine(rng: &mut Rng, scale: f32, center: f32, out: &mut [u8]) {
    rng.fill(out);
    let d = varied(rng, scale);
    put_f16(&mut out[..2], d);
    put_f16(&mut out[2..4], -d * center * (1.0 + 0.1 * rng.signed()));
}

/// d, dmin, 12 bytes with eight 6-bit scales and mins, then the quants:
/// value = d * scale * q - dmin * min. `center` is the mean of q.
fn k_affine(rng: &mut Rng, scale: f32, center: f32, out: &mut [u8]) {
    rng.fill(out);
    let d = varied(rng, scale);
    put_f16(&mut out[..2], d);
    put_f16(&mut out[2..4], d * center);
    let mut scales = [0u8; 8];
    let mut mins = [0u8; 8];
    for (s, m) in scales.iter_mut().zip(&mut mins) {
        *s = uniform(rng, K_SCALE);
        // About the scale, so that the mean is about 0, but not equal to it: a reader that takes
        // one for the other is found out. No overflow: 8..=63 plus or minus 3.
        *m = (*s + rng.below(7) as u8 - 3).min(63);
    }
    out[4..16].copy_from_slice(&pack_k_scales(&scales, &mins));
}

/// Packs eight 6-bit scales and mins. Bytes 0–3 and 4–7 hold the first four scales and mins, and
/// in their upper two bits those of the last four, whose lower four bits are in bytes 8–11.
fn pack_k_scales(scales: &[u8; 8], mins: &[u8; 8]) -> [u8; 12] {
    let mut out = [0; 12];
    for j in 0..4 {
        let (s, m) = (scales[j + 4], mins[j + 4]);
        out[j] = scales[j] | (s >> 4) << 6;
        out[j + 4] = mins[j] | (m >> 4) << 6;
        out[j + 8] = (s & 15) | (m & 15) << 4;
    }
    out
}

/// 128 bytes of lower and 64 of upper bits, 16 signed scales, d: value = d * scale * (q - 32).
fn q6_k(rng: &mut Rng, scale: f32, out: &mut [u8]) {
    rng.fill(out);
    for byte in &mut out[192..208] {
        // Fits: at most 127.
        let magnitude = uniform(rng, Q6_SCALE) as i8;
        *byte = if rng.next() >> 63 == 0 {
            magnitude
        } else {
            -magnitude
        } as u8;
    }
    put_f16(&mut out[208..], varied(rng, scale));
}

/// 16 bytes with a 4-bit scale and min each, 64 bytes of bit pairs, d, dmin: value = d * scale * q - dmin * min.
fn q2_k(rng: &mut Rng, scale: f32, out: &mut [u8]) {
    rng.fill(out);
    for byte in &mut out[..16] {
        let s = uniform(rng, Q2_SCALE);
        // About the scale, as in k_affine: 3..=16, of which 4 bits hold 15.
        let m = (s + rng.below(3) as u8 - 1).min(15);
        *byte = s | m << 4;
    }
    let d = varied(rng, scale);
    put_f16(&mut out[80..82], d);
    put_f16(&mut out[82..], d * 1.5);
}

/// A 6-bit scale as it is stored: 32 more.
fn signed_scale(rng: &mut Rng) -> u8 {
    let magnitude = uniform(rng, SIGNED_SCALE);
    if rng.next() >> 63 == 0 {
        32 + magnitude
    } else {
        32 - magnitude
    }
}

/// 32 bytes of third bits, 64 of bit pairs, 12 bytes with 16 scales, d: value = d * scale * (q - 4).
fn q3_k(rng: &mut Rng, scale: f32, out: &mut [u8]) {
    rng.fill(out);
    // Scale i has four bits in byte i % 8 and two in byte 8 + i % 4.
    let mut packed = [0u8; 12];
    for i in 0..16 {
        let s = signed_scale(rng);
        packed[i % 8] |= (s & 15) << (i / 8 * 4);
        packed[8 + i % 4] |= (s >> 4) << (i / 4 * 2);
    }
    out[96..108].copy_from_slice(&packed);
    put_f16(&mut out[108..], varied(rng, scale));
}

/// d, two bytes and four with eight scales, 128 of nibbles: value = d * scale * table\[q\].
fn iq4_xs(rng: &mut Rng, scale: f32, out: &mut [u8]) {
    rng.fill(out);
    put_f16(&mut out[..2], varied(rng, scale));
    let mut packed = [0u8; 6];
    for j in 0..8 {
        let s = signed_scale(rng);
        packed[j / 4] |= (s >> 4) << (j % 4 * 2);
        packed[2 + j / 2] |= (s & 15) << (j % 2 * 4);
    }
    out[2..8].copy_from_slice(&packed);
}

/// A power of two's exponent, 16 bytes of nibbles: value = 2^(e - 128) * table\[q\].
fn mxfp4(rng: &mut Rng, scale: f32, out: &mut [u8]) {
    rng.fill(out);
    // The two powers around the scale, as often as makes its square on average.
    let below = scale.log2().floor();
    let more = (scale * (-below).exp2()).powi(2);
    let up = (more - 1.0) / 3.0 > rng.signed().midpoint(1.0);
    out[0] = (128 + below as i32 + i32::from(up)).clamp(0, 254) as u8;
}

/// `scale`, give or take a quarter.
fn varied(rng: &mut Rng, scale: f32) -> f32 {
    scale * (1.0 + 0.25 * rng.signed())
}

fn either_sign(rng: &mut Rng, x: f32) -> f32 {
    if rng.next() >> 63 == 0 { x } else { -x }
}

fn uniform(rng: &mut Rng, range: std::ops::RangeInclusive<u8>) -> u8 {
    let n = u32::from(range.end() - range.start()) + 1;
    // Fits: the result lies in the range.
    range.start() + rng.below(n) as u8
}

fn put_f16(out: &mut [u8], x: f32) {
    out.copy_from_slice(&f16::from_f32(x).to_le_bytes());
}

/// 0 to `n` - 1, less their mean.
fn centered(n: i32) -> impl Iterator<Item = f64> {
    (0..n).map(move |q| f64::from(q) - f64::from(n - 1) / 2.0)
}

fn rms(values: impl Iterator<Item = f64>) -> f32 {
    let (sum, n) = values.fold((0.0, 0.0), |(sum, n), x| (sum + x * x, n + 1.0));
    (sum / n).sqrt() as f32
}

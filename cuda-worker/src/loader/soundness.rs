//! What weights can't be, looked for while a chunk is in the processor's cache. A value that is not
//! finite, or a block's scale, makes NaN of all that it touches, or zero where that is quantized; and
//! a matrix of zeros is a download that was given its room but not its content.
//!
//! Single zeros and zero blocks are usual; biases are often zero throughout.

use orcd_shared::gguf::TensorType;

/// A value that makes a tensor useless.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotFinite {
    /// Where it is, from the start of what was looked at.
    pub(super) at: usize,
    /// "NaN", "inf" or "-inf".
    pub(super) value: &'static str,
}

/// Exponents: all of its bits set mean infinity or NaN.
const F16: u16 = 0x7c00;
const BF16: u16 = 0x7f80;
const F32: u32 = 0x7f80_0000;

/// Looks at whole rows of a type, of quantized ones at the blocks' scales. Says whether anything there
/// differs from zero.
///
/// # Errors
/// The first value that is not finite.
pub(super) fn look(ty: TensorType, raw: &[u8]) -> Result<bool, NotFinite> {
    // At most 210 bytes.
    let size = ty.block_bytes() as usize;
    match (ty, ty.scales()) {
        (TensorType::F32, _) => singles(raw),
        (TensorType::F16, _) => halves(raw, 2, [0], F16),
        (TensorType::BF16, _) => halves(raw, 2, [0], BF16),
        (TensorType::MXFP4, _) => powers(raw, size),
        (_, &[d, m]) => halves(raw, size, [d, m], F16),
        (_, places) => halves(raw, size, [places[0]], F16),
    }
}

/// The numbers at bytes `places` of each block of `size` bytes. Inlined: a known size makes it fast.
#[inline(always)]
fn halves<const N: usize>(
    raw: &[u8],
    size: usize,
    places: [usize; N],
    exponent: u16,
) -> Result<bool, NotFinite> {
    let blocks = raw.chunks_exact(size);
    let number = |block: &[u8], at: usize| u16::from_le_bytes([block[at], block[at + 1]]);
    // The lowest bit of the exponent carries into the sign if all others are set.
    let carry = exponent & exponent.wrapping_neg();
    let (mut all, mut carried) = (0, 0);
    for block in blocks.clone() {
        for at in places {
            let x = number(block, at);
            all |= x;
            carried |= (x & exponent).wrapping_add(carry);
        }
    }
    if carried >> 15 == 0 {
        return Ok(all << 1 != 0);
    }
    let mut numbers = (blocks.enumerate())
        .flat_map(|(n, block)| places.map(|at| (n * size + at, number(block, at))));
    let found = numbers.find(|(_, x)| x & exponent == exponent);
    found.map_or(Ok(true), |(at, x)| {
        Err(NotFinite {
            at,
            value: name(x >> 15 != 0, (x & !exponent) << 1 != 0),
        })
    })
}

/// Blocks that begin with a power of two's exponent, of which the largest means NaN.
fn powers(raw: &[u8], size: usize) -> Result<bool, NotFinite> {
    let mut exponents = raw.iter().step_by(size);
    let not_zero = exponents.clone().any(|&e| e != 0);
    exponents
        .position(|&e| e == u8::MAX)
        .map_or(Ok(not_zero), |n| {
            Err(NotFinite {
                at: n * size,
                value: "NaN",
            })
        })
}

fn singles(raw: &[u8]) -> Result<bool, NotFinite> {
    let values = raw.as_chunks::<4>().0;
    let carry = F32 & F32.wrapping_neg();
    let (mut all, mut carried) = (0, 0);
    for value in values {
        let x = u32::from_le_bytes(*value);
        all |= x;
        carried |= (x & F32).wrapping_add(carry);
    }
    if carried >> 31 == 0 {
        return Ok(all << 1 != 0);
    }
    let numbers = values.iter().map(|value| u32::from_le_bytes(*value));
    let found = numbers.enumerate().find(|(_, x)| x & F32 == F32);
    found.map_or(Ok(true), |(n, x)| {
        Err(NotFinite {
            at: n * 4,
            value: name(x >> 31 != 0, (x & !F32) << 1 != 0),
        })
    })
}

fn name(negative: bool, payload: bool) -> &'static str {
    match (payload, negative) {
        (true, _) => "NaN",
        (false, true) => "-inf",
        (false, false) => "inf",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes of a number of the type's floats.
    fn number(ty: TensorType, value: f32) -> Vec<u8> {
        match ty {
            TensorType::F32 => value.to_le_bytes().to_vec(),
            TensorType::BF16 => half::bf16::from_f32(value).to_le_bytes().to_vec(),
            _ => half::f16::from_f32(value).to_le_bytes().to_vec(),
        }
    }

    #[test]
    fn every_number_of_every_type_is_looked_at_and_nothing_else() {
        const BLOCKS: usize = 100;
        for ty in TensorType::ALL {
            if ty == TensorType::MXFP4 {
                continue; // below
            }
            let size = ty.block_bytes() as usize;
            // Quants of all ones are sound.
            let quant = if ty.block_len() > 1 { 0xff } else { 0 };
            let mut sound = vec![quant; BLOCKS * size];
            let places =
                || (0..BLOCKS).flat_map(|n| ty.scales().iter().map(move |at| n * size + at));
            for at in places() {
                let zero = number(ty, 0.0);
                sound[at..at + zero.len()].copy_from_slice(&zero);
            }
            assert_eq!(look(ty, &sound), Ok(false), "{ty}");
            for at in places() {
                for (value, name) in [
                    (f32::NAN, Some("NaN")),
                    (f32::INFINITY, Some("inf")),
                    (f32::NEG_INFINITY, Some("-inf")),
                    (65504.0, None),
                    (-65504.0, None),
                    (-0.5, None),
                ] {
                    let mut raw = sound.clone();
                    let bytes = number(ty, value);
                    raw[at..at + bytes.len()].copy_from_slice(&bytes);
                    let expected = match name {
                        Some(value) => Err(NotFinite { at, value }),
                        None => Ok(true),
                    };
                    assert_eq!(look(ty, &raw), expected, "{ty} at {at}: {value}");
                }
            }
        }
    }

    #[test]
    fn exponents_of_mxfp4_are_looked_at_and_nothing_else() {
        let mut raw = [0xff; 17 * 50];
        raw.iter_mut().step_by(17).for_each(|e| *e = 0);
        assert_eq!(look(TensorType::MXFP4, &raw), Ok(false));
        raw[17 * 49] = 254;
        assert_eq!(look(TensorType::MXFP4, &raw), Ok(true));
        for n in [49, 3] {
            raw[17 * n] = 255;
            let (at, value) = (17 * n, "NaN");
            assert_eq!(look(TensorType::MXFP4, &raw), Err(NotFinite { at, value }));
        }
    }

    #[test]
    fn the_first_of_several_is_named_and_minus_zero_is_zero() {
        let mut raw = vec![0; 4 * 50];
        raw[7] = 0x80;
        assert_eq!(look(TensorType::F32, &raw), Ok(false));
        raw[4 * 30..][..4].copy_from_slice(&f32::NAN.to_le_bytes());
        raw[4 * 20..][..4].copy_from_slice(&f32::INFINITY.to_le_bytes());
        let first = NotFinite {
            at: 80,
            value: "inf",
        };
        assert_eq!(look(TensorType::F32, &raw), Err(first));
    }
}

//! What a tensor's values are.

use std::ops::Range;
use std::sync::Arc;

use orcd_shared::gguf::TensorInfo;

use crate::blocks::Blocks;
use crate::rng::Rng;

/// Rows of tokens that a model should hardly ever say are this much weaker.
const RARE_GAIN: f32 = 0.125;

/// How a tensor is filled.
#[derive(Clone, Debug)]
pub(crate) enum Fill {
    /// Mean 0, standard deviation `sigma`.
    Matrix { sigma: f32 },
    /// As a matrix of one row per token, but weak where the token is `rare`: the logits of control
    /// and padding tokens stay near 0, so that a long generation doesn't end by chance.
    Tokens { sigma: f32, rare: Arc<[bool]> },
    /// Rows, or values of a vector, that belong to experts, F32: mean 0, standard deviation `sigma`. With `twins` every
    /// third is the one before once more.
    Experts { sigma: f32, twins: bool },
    /// These, F32.
    Values(Vec<f32>),
    /// Normally distributed about `mean`, F32; the value `peak` replaces a few.
    Vector {
        mean: f32,
        sigma: f32,
        peaks: Vec<f32>,
    },
}

impl Fill {
    /// Fills `out` with the rows `rows` of `tensor`.
    pub(crate) fn rows(&self, seed: u64, tensor: &TensorInfo, rows: Range<u64>, out: &mut [u8]) {
        // Lossless: a row fits in `out`.
        let row_bytes = tensor.row_bytes() as usize;
        let blocks = match self {
            Fill::Matrix { sigma } | Fill::Tokens { sigma, .. } => Blocks::new(tensor.ty, *sigma),
            // Not asked for.
            _ => Blocks::new(tensor.ty, 1.0),
        };
        for (row, out) in rows.zip(out.chunks_exact_mut(row_bytes)) {
            let mut rng = Rng::for_row(seed, &tensor.name, row);
            match self {
                Fill::Matrix { .. } => blocks.fill(&mut rng, 1.0, out),
                Fill::Tokens { rare, .. } => {
                    let gain = if rare[row as usize] { RARE_GAIN } else { 1.0 };
                    blocks.fill(&mut rng, gain, out);
                }
                Fill::Experts { sigma, twins } => {
                    experts(seed, tensor, row, *sigma, *twins, out);
                }
                Fill::Values(values) => {
                    for (value, out) in values.iter().zip(out.as_chunks_mut::<4>().0) {
                        *out = value.to_le_bytes();
                    }
                }
                Fill::Vector { mean, sigma, peaks } => {
                    vector(&mut rng, *mean, *sigma, peaks, out);
                }
            }
        }
    }
}

/// Whether expert `i` is the one before once more.
fn is_twin(i: u64) -> bool {
    i % 3 == 2
}

/// The row of an expert, or the vector of all of them.
fn experts(seed: u64, tensor: &TensorInfo, row: u64, sigma: f32, twins: bool, out: &mut [u8]) {
    let is_vector = tensor.ne.len() == 1;
    let of = row - u64::from(twins && is_twin(row));
    vector(
        &mut Rng::for_row(seed, &tensor.name, of),
        0.0,
        sigma,
        &[],
        out,
    );
    if is_vector && twins {
        let values = out.as_chunks_mut::<4>().0;
        for i in (0..values.len()).filter(|i| is_twin(*i as u64)) {
            values[i] = values[i - 1];
        }
    }
}

/// F32 values about `mean`, `peaks` at random places.
fn vector(rng: &mut Rng, mean: f32, sigma: f32, peaks: &[f32], out: &mut [u8]) {
    let values = out.as_chunks_mut::<4>().0;
    for value in values.iter_mut() {
        *value = (mean + sigma * rng.normal()).to_le_bytes();
    }
    // A vector has far fewer than 2^32 elements.
    let n = values.len() as u32;
    for peak in peaks {
        values[rng.below(n) as usize] = peak.to_le_bytes();
    }
}

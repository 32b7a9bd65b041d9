//! A checksum of some rows of an image. It tells an image that was packed otherwise than its manifest
//! says, or was written to by somebody else, before anything is computed with it.
//!
//! A checksum of the whole image would have to be computed again by whoever takes the image over, and
//! that is the moment in which clients wait. Of each type of tensor there are four rows, some
//! kilobytes: types are what layouts differ in.

use std::collections::BTreeMap;

use crate::engine::Weights;
use crate::scheduler::step_engine::EngineError;
use crate::weights_plan::{ModelPlan, PlannedTensor};

/// Reads rows back from a sealed image, as the file has them, and hashes them.
///
/// # Errors
/// The device failed.
pub(super) fn checksum(weights: &Weights, plan: &ModelPlan) -> Result<u64, EngineError> {
    let mut hasher = blake3::Hasher::new();
    for (tensor, row) in rows(plan) {
        // A row was held in memory when it was loaded.
        let mut raw = vec![0; usize::try_from(tensor.info.row_bytes()).unwrap_or(0)];
        weights.read(tensor, row, &mut raw)?;
        hasher.update(&raw);
    }
    let mut first = [0; 8];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    Ok(u64::from_le_bytes(first))
}

/// Of the first and the last tensor of each type a row in the middle, which lies in a whole tile, and
/// the last one, which may lie after them.
fn rows(plan: &ModelPlan) -> Vec<(&PlannedTensor, u64)> {
    let mut by_type: BTreeMap<u32, Vec<&PlannedTensor>> = BTreeMap::new();
    for tensor in &plan.tensors {
        by_type.entry(tensor.info.ty.id()).or_default().push(tensor);
    }
    let ends = by_type
        .values()
        .flat_map(|of_type| [of_type.first(), of_type.last()]);
    ends.flatten()
        .flat_map(|tensor| [tensor.rows / 2, tensor.rows - 1].map(|row| (*tensor, row)))
        .collect()
}

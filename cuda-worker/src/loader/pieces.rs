//! The model file cut into pieces that one reader reads at a time.

use crate::weights_plan::{ModelPlan, PlannedTensor};

/// Size of a piece, unless a row is longer: large enough that calls cost little beside the bytes, small
/// enough that all buffers together are a few megabytes to pin.
const PIECE_BYTES: u64 = 1 << 20;

/// Whole rows of a tensor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Piece<'a> {
    pub(super) tensor: &'a PlannedTensor,
    pub(super) first_row: u64,
    pub(super) rows: u64,
}

impl Piece<'_> {
    fn row_bytes(&self) -> u64 {
        self.tensor.info.nbytes / self.tensor.rows
    }

    /// Where it begins, from the start of the tensor.
    pub(super) fn offset(&self) -> u64 {
        self.first_row * self.row_bytes()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.rows * self.row_bytes()
    }
}

/// All pieces of all tensors, in the order of the plan.
pub(super) fn pieces(plan: &ModelPlan) -> Vec<Piece<'_>> {
    plan.tensors.iter().flat_map(pieces_of).collect()
}

fn pieces_of(tensor: &PlannedTensor) -> impl Iterator<Item = Piece<'_>> {
    let row_bytes = tensor.info.nbytes / tensor.rows;
    let at_once = (PIECE_BYTES / row_bytes).max(1);
    let starts = std::iter::successors(Some(0), move |row| Some(row + at_once));
    starts
        .take_while(|&row| row < tensor.rows)
        .map(move |first_row| Piece {
            tensor,
            first_row,
            rows: at_once.min(tensor.rows - first_row),
        })
}

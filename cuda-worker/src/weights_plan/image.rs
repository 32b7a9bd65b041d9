//! Where tensors lie in the weights image.

use std::collections::HashMap;

use orcd_shared::gguf::TensorInfo;

use super::architectures::{TensorRule, Width};
use super::tensors::{Expected, Found};
use super::{IMAGE_ALIGN, ModelShape, PlannedTensor, Role};

/// The image so far.
#[derive(Default)]
pub(super) struct Image {
    pub(super) placed: Vec<PlannedTensor>,
    /// Its size.
    pub(super) bytes: u64,
    /// First bytes of matrices whose experts are tensors of their own, by role and layer.
    matrices: HashMap<(Role, u32), u64>,
}

impl Image {
    /// Places a tensor of the file after those before it, or beside the others of its matrix.
    pub(super) fn place(&mut self, found: &Found<'_>, shape: &ModelShape) {
        let Expected {
            rule,
            layer,
            expert,
        } = found.expected;
        let cols = rule.ne(shape).first().copied().unwrap_or(1);
        for (role, info) in parts(rule, found.info, shape) {
            let (rows, bytes) = (info.rows(), info.nbytes);
            let (rows, first_row, offset) = if rule.per_expert {
                let n = u64::from(shape.n_experts);
                let begun = self.matrices.get(&(role, layer)).copied();
                let offset = begun.unwrap_or_else(|| self.take(n * bytes));
                self.matrices.insert((role, layer), offset);
                (n * rows, u64::from(expert) * rows, offset)
            } else {
                (rows, 0, self.take(bytes))
            };
            self.placed.push(PlannedTensor {
                role,
                layer,
                info,
                rows,
                first_row,
                cols,
                offset,
            });
        }
    }

    /// Where the next so many bytes begin. No overflow: they are those of tensors that are in the file, which together
    /// has less than 2^63 bytes of them, as the parser saw to, and each grows by less than the alignment.
    fn take(&mut self, bytes: u64) -> u64 {
        let offset = self.bytes;
        self.bytes = (offset + bytes).next_multiple_of(IMAGE_ALIGN);
        offset
    }
}

/// The tensors that one of the file holds, each with its place there: its rows lie one after the other.
fn parts(rule: &TensorRule, info: &TensorInfo, shape: &ModelShape) -> Vec<(Role, TensorInfo)> {
    if rule.parts.is_empty() {
        return vec![(rule.role, info.clone())];
    }
    // Whole: the shape was checked, and what a row takes divides what all take.
    let row_bytes = info.row_bytes();
    let mut offset = info.offset;
    let mut part = |&(role, width): &(Role, Width)| {
        let rows = width.of(shape);
        let mut of_it = info.clone();
        of_it.ne = vec![info.ne.first().copied().unwrap_or(1), rows];
        of_it.nbytes = rows * row_bytes;
        of_it.offset = offset;
        offset += of_it.nbytes;
        (role, of_it)
    };
    rule.parts.iter().map(&mut part).collect()
}

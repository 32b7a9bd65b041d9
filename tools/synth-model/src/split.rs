//! The same model in several files.

use std::path::Path;

use orcd_shared::gguf::{
    MAX_SHARDS, Metadata, SPLIT_COUNT_KEY, SPLIT_NO_KEY, SPLIT_TENSORS_KEY, Value, shard_path,
};

use crate::plan::Planned;
use crate::writer::{self, Written};
use crate::{Options, SynthError};

/// Writes the tensors in as many files as `options` says, each about as many; the sums of what was
/// written. All metadata is in the first file.
pub(crate) fn write(
    metadata: &Metadata,
    tensors: &[Planned],
    options: &Options,
    path: &Path,
) -> Result<Written, SynthError> {
    let count = options.shards;
    if count == 0 || count > MAX_SHARDS || count as usize > tensors.len() {
        return Err(SynthError::TooManyShards {
            shards: count,
            tensors: tensors.len(),
            most: MAX_SHARDS,
        });
    }
    let mut sum = Written::default();
    for no in 0..count {
        let start = |no: u32| no as usize * tensors.len() / count as usize;
        let part = &tensors[start(no)..start(no + 1)];
        let mut keys = if no == 0 {
            metadata.clone()
        } else {
            Metadata::new()
        };
        // As gguf-split types them; both fit, and so do the tensors.
        keys.insert(SPLIT_NO_KEY, Value::U16(no as u16))?;
        keys.insert(SPLIT_COUNT_KEY, Value::U16(count as u16))?;
        keys.insert(SPLIT_TENSORS_KEY, Value::I32(tensors.len() as i32))?;
        let written = writer::write(&keys, part, options, &shard_path(path, no, count))?;
        sum = Written {
            file_len: sum.file_len + written.file_len,
            data_len: sum.data_len + written.data_len,
            tensors: sum.tensors + written.tensors,
            parameters: sum.parameters + written.parameters,
        };
    }
    Ok(sum)
}

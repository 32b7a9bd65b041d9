//! The same model with a tensor for each expert, as converters wrote Mixtral before experts were merged.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use orcd_shared::gguf::write::{TensorSpec, Writer};
use orcd_shared::gguf::{GgufFile, TensorInfo};

use crate::{SynthError, tensor_data};

const MERGED: &str = "_exps.weight";

/// Writes the file `from` again to `to` with a tensor for each expert, `blk.N.ffn_gate.E.weight`. They follow after
/// all others, those of the last expert first: a reader has to go by their names.
///
/// # Errors
/// A file that can't be read or written.
pub fn separate_experts(from: &Path, to: &Path) -> Result<(), SynthError> {
    let file = GgufFile::open(from)?;
    let header = file.header();
    let is_merged = |tensor: &&TensorInfo| tensor.name.ends_with(MERGED);
    let (merged, others): (Vec<_>, Vec<_>) = header.tensors.iter().partition(is_merged);
    // Number of the expert, and its part of a tensor.
    let of = |tensor: &&'_ TensorInfo| tensor.ne.get(2).copied().unwrap_or(1);
    let count = merged.iter().map(of).max().unwrap_or(0);
    let parts = || {
        (0..count)
            .rev()
            .flat_map(|e| merged.iter().map(move |tensor| (e, *tensor)))
    };
    let whole = others
        .iter()
        .map(|tensor| spec(tensor, tensor.name.clone(), &tensor.ne));
    let separate = parts().map(|(expert, tensor)| {
        let name = tensor.name.trim_end_matches(MERGED);
        let ne = tensor.ne.get(..2).unwrap_or(&tensor.ne);
        spec(tensor, format!("{name}.{expert}.weight"), ne)
    });
    let specs: Vec<_> = whole.chain(separate).collect();
    let out = File::create(to).map_err(|source| SynthError::Write {
        path: to.to_owned(),
        source,
    })?;
    let mut writer = Writer::new(BufWriter::new(out), &header.metadata, &specs)?;
    for tensor in others {
        writer.data(&tensor_data(&file, tensor)?)?;
    }
    for (expert, tensor) in parts() {
        let part = tensor.nbytes / count;
        let mut data = vec![0; usize::try_from(part).unwrap_or(usize::MAX)];
        file.read_exact_at(tensor, expert * part, &mut data)?;
        writer.data(&data)?;
    }
    writer.finish()?;
    Ok(())
}

fn spec(tensor: &TensorInfo, name: String, ne: &[u64]) -> TensorSpec {
    TensorSpec {
        name,
        ne: ne.to_vec(),
        ty: tensor.ty,
    }
}

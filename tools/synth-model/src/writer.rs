//! Writing a planned file with several threads.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{io, thread};

use orcd_shared::gguf::write::{Layout, TensorSpec, layout};
use orcd_shared::gguf::{Metadata, TensorInfo};

use crate::fill::Fill;
use crate::plan::Planned;
use crate::{Options, SynthError};

/// Bytes made and written at once, about: small enough for a cache, large enough for a system call.
const CHUNK_BYTES: u64 = 1 << 20;

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Length of the file in bytes.
    pub file_len: u64,
    /// Bytes of it in the data section.
    pub data_len: u64,
    /// Number of tensors.
    pub tensors: usize,
    /// Number of weights.
    pub parameters: u64,
}

/// Some rows of a tensor: what a thread makes at a time.
struct Job<'a> {
    tensor: &'a TensorInfo,
    fill: &'a Fill,
    rows: Range<u64>,
}

pub(crate) fn write(
    metadata: &Metadata,
    tensors: &[Planned],
    options: &Options,
    path: &Path,
) -> Result<Written, SynthError> {
    let specs: Vec<TensorSpec> = tensors.iter().map(|t| t.spec.clone()).collect();
    let layout = layout(metadata, &specs)?;
    let jobs = jobs(&layout, tensors);
    // Beside the target, so that renaming it is atomic and a broken run leaves the old file alone.
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let result =
        write_all(&layout, &jobs, options, &partial).and_then(|()| std::fs::rename(&partial, path));
    if let Err(source) = result {
        // The error that matters is the first one.
        let _ = std::fs::remove_file(&partial);
        return Err(SynthError::Write {
            path: path.to_path_buf(),
            source,
        });
    }
    Ok(Written {
        file_len: layout.file_len,
        data_len: layout.file_len - layout.data_offset,
        tensors: layout.tensors.len(),
        parameters: layout.tensors.iter().map(TensorInfo::n_elements).sum(),
    })
}

/// Writes all but the weights, which are a hole: zeros that take no room.
pub(crate) fn outline(
    metadata: &Metadata,
    tensors: &[Planned],
    path: &Path,
) -> Result<(), SynthError> {
    let specs: Vec<TensorSpec> = tensors.iter().map(|t| t.spec.clone()).collect();
    let layout = layout(metadata, &specs)?;
    let write = || {
        let file = File::create(path)?;
        file.set_len(layout.file_len)?;
        file.write_all_at(&layout.header, 0)
    };
    write().map_err(|source| SynthError::Write {
        path: path.to_path_buf(),
        source,
    })
}

fn jobs<'a>(layout: &'a Layout, tensors: &'a [Planned]) -> Vec<Job<'a>> {
    let mut jobs = Vec::new();
    for (tensor, Planned { fill, .. }) in layout.tensors.iter().zip(tensors) {
        let rows = tensor.rows();
        let step = (CHUNK_BYTES / tensor.row_bytes()).max(1);
        let mut start = 0;
        while start < rows {
            let end = rows.min(start + step);
            jobs.push(Job {
                tensor,
                fill,
                rows: start..end,
            });
            start = end;
        }
    }
    jobs
}

fn write_all(layout: &Layout, jobs: &[Job<'_>], options: &Options, path: &Path) -> io::Result<()> {
    let file = File::create(path)?;
    file.set_len(layout.file_len)?;
    file.write_all_at(&layout.header, 0)?;
    let threads = match options.threads {
        0 => thread::available_parallelism().map_or(1, |n| n.get()),
        n => n,
    };
    let next = AtomicUsize::new(0);
    let work = || {
        let mut buf = Vec::new();
        while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            run(job, layout.data_offset, options.seed, &file, &mut buf)?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        running.into_iter().try_for_each(|t| match t.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })
}

fn run(
    job: &Job<'_>,
    data_offset: u64,
    seed: u64,
    file: &File,
    buf: &mut Vec<u8>,
) -> io::Result<()> {
    let row_bytes = job.tensor.row_bytes();
    let len = (job.rows.end - job.rows.start) * row_bytes;
    // Lossless: a chunk, or one row.
    buf.resize(len as usize, 0);
    job.fill.rows(seed, job.tensor, job.rows.clone(), buf);
    file.write_all_at(
        buf,
        data_offset + job.tensor.offset + job.rows.start * row_bytes,
    )
}

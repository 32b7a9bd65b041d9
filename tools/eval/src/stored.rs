//! Logits in a file: binary32, little-endian, a row (vocabulary) for each token of each window.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write as _};
use std::path::Path;

use crate::Failure;
use crate::source::{Rows, Source};

/// Such a file, read from its beginning to its end.
pub(crate) struct Stored {
    file: BufReader<File>,
    /// Logits of a row.
    vocab: usize,
}

impl Stored {
    /// Opens a file of rows with so many logits.
    ///
    /// # Errors
    /// It can't be opened.
    pub(crate) fn open(path: &Path, vocab: usize) -> Result<Self, Failure> {
        let file = File::open(path).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(Self {
            file: BufReader::new(file),
            vocab,
        })
    }
}

impl Source for Stored {
    fn rows<'a>(&'a mut self, window: &'a [u32]) -> Result<Rows<'a>, Failure> {
        let Self { file, vocab } = self;
        Ok(Box::new(window.iter().map(|_| {
            row(file, *vocab).map_err(|e| format!("the stored logits end early: {e}").into())
        })))
    }
}

/// The next row of `vocab` logits.
///
/// # Errors
/// There are not so many bytes.
pub(crate) fn row(source: &mut impl Read, vocab: usize) -> std::io::Result<Vec<f32>> {
    let mut bytes = vec![0; vocab * size_of::<f32>()];
    source.read_exact(&mut bytes)?;
    let words = bytes.as_chunks().0.iter();
    Ok(words.map(|word| f32::from_le_bytes(*word)).collect())
}

/// Writes the rows of all windows.
///
/// # Errors
/// What the source or the file system say.
pub(crate) fn store(
    source: &mut impl Source,
    windows: &[Vec<u32>],
    path: &Path,
) -> Result<(), Failure> {
    let file = File::create(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let mut out = BufWriter::new(file);
    for window in windows {
        for row in source.rows(window)? {
            let bytes: Vec<u8> = row?.iter().flat_map(|x| x.to_le_bytes()).collect();
            out.write_all(&bytes)?;
        }
    }
    Ok(out.flush()?)
}

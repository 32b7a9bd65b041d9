//! Writing GGUF files, for tools and tests.
//!
//! [`layout`] computes the header and the place of every tensor; [`Writer`] streams the data
//! after it. A tool that fills tensors in parallel uses the layout alone and writes at offsets.

use std::io::{Read, Write};

use super::tensor::checked_nbytes;
use super::value::write_string;
use super::{GgufError, MAGIC, Metadata, TensorInfo, TensorType, VERSION, header};

/// A tensor to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Name.
    pub name: String,
    /// Elements per dimension, fastest first.
    pub ne: Vec<u64>,
    /// How the elements are stored.
    pub ty: TensorType,
}

/// A file's header, ready to write, and the places of its tensors.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The bytes before the data section, padding included.
    pub header: Vec<u8>,
    /// The tensors; offsets count from the data section.
    pub tensors: Vec<TensorInfo>,
    /// Alignment in bytes.
    pub alignment: u64,
    /// First byte of the data section: the length of `header`.
    pub data_offset: u64,
    /// Length of the whole file; the last tensor is padded too.
    pub file_len: u64,
}

/// Lays out a file with these keys and tensors, both in this order.
///
/// # Errors
/// Impossible shapes and a `general.alignment` that isn't a power of two.
pub fn layout(metadata: &Metadata, specs: &[TensorSpec]) -> Result<Layout, GgufError> {
    let alignment = header::alignment(metadata)?;
    let (tensors, data_len) = place(specs, alignment)?;
    let mut out = Vec::new();
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&(tensors.len() as u64).to_le_bytes());
    out.extend_from_slice(&(metadata.len() as u64).to_le_bytes());
    for (key, value) in metadata.iter() {
        write_string(key, &mut out);
        out.extend_from_slice(&value.type_id().to_le_bytes());
        value.write(&mut out);
    }
    tensors.iter().for_each(|t| write_info(t, &mut out));
    out.resize(out.len().next_multiple_of(alignment as usize), 0);
    let data_offset = out.len() as u64;
    Ok(Layout {
        header: out,
        tensors,
        alignment,
        data_offset,
        file_len: data_offset + data_len,
    })
}

/// The tensors one after the other, each aligned, and the length of the data section.
fn place(specs: &[TensorSpec], alignment: u64) -> Result<(Vec<TensorInfo>, u64), GgufError> {
    let mut tensors = Vec::with_capacity(specs.len());
    let mut offset = 0u64;
    for spec in specs {
        let TensorSpec { name, ne, ty } = spec.clone();
        let nbytes = checked_nbytes(&name, &ne, ty, 0)?;
        let end = offset
            .checked_add(nbytes)
            .and_then(|e| e.checked_next_multiple_of(alignment));
        let Some(end) = end else {
            return Err(GgufError::Shape {
                tensor: name,
                offset: 0,
                ne,
            });
        };
        tensors.push(TensorInfo {
            name,
            ne,
            ty,
            offset,
            nbytes,
            shard: 0,
        });
        offset = end;
    }
    Ok((tensors, offset))
}

fn write_info(tensor: &TensorInfo, out: &mut Vec<u8>) {
    write_string(&tensor.name, out);
    out.extend_from_slice(&(tensor.ne.len() as u32).to_le_bytes());
    tensor
        .ne
        .iter()
        .for_each(|n| out.extend_from_slice(&n.to_le_bytes()));
    out.extend_from_slice(&tensor.ty.id().to_le_bytes());
    out.extend_from_slice(&tensor.offset.to_le_bytes());
}

/// Streams a file: the header at once, then the data of each tensor in order, in pieces of any
/// size that don't cross from one tensor to the next.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    layout: Layout,
    /// The tensor being written; `layout.tensors.len()` after the last.
    current: usize,
    /// Bytes of it written so far.
    written: u64,
}

impl<W: Write> Writer<W> {
    /// Writes the header of a file with these keys and tensors.
    ///
    /// # Errors
    /// As [`layout`], and [`GgufError::Write`].
    pub fn new(
        mut out: W,
        metadata: &Metadata,
        specs: &[TensorSpec],
    ) -> Result<Writer<W>, GgufError> {
        let layout = layout(metadata, specs)?;
        out.write_all(&layout.header)?;
        Ok(Writer {
            out,
            layout,
            current: 0,
            written: 0,
        })
    }

    /// Where everything goes.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Writes the next bytes of the current tensor; when it is complete, pads it and goes on to
    /// the next one.
    ///
    /// # Errors
    /// [`GgufError::WrongDataLength`] if they are more than the tensor has left, and
    /// [`GgufError::Write`].
    pub fn data(&mut self, bytes: &[u8]) -> Result<(), GgufError> {
        let Some(tensor) = self.layout.tensors.get(self.current) else {
            let (tensor, given) = ("(none left)".to_owned(), bytes.len() as u64);
            return Err(GgufError::WrongDataLength {
                tensor,
                given,
                nbytes: 0,
            });
        };
        let nbytes = tensor.nbytes;
        let given = self.written + bytes.len() as u64;
        if given > nbytes {
            let tensor = tensor.name.clone();
            return Err(GgufError::WrongDataLength {
                tensor,
                given,
                nbytes,
            });
        }
        self.out.write_all(bytes)?;
        self.written = given;
        if given == nbytes {
            let padding = nbytes.next_multiple_of(self.layout.alignment) - nbytes;
            std::io::copy(&mut std::io::repeat(0).take(padding), &mut self.out)?;
            self.current += 1;
            self.written = 0;
        }
        Ok(())
    }

    /// Flushes and gives the output back.
    ///
    /// # Errors
    /// [`GgufError::WrongDataLength`] if a tensor isn't complete, and [`GgufError::Write`].
    pub fn finish(mut self) -> Result<W, GgufError> {
        if let Some(tensor) = self.layout.tensors.get(self.current) {
            let (tensor, nbytes) = (tensor.name.clone(), tensor.nbytes);
            return Err(GgufError::WrongDataLength {
                tensor,
                given: self.written,
                nbytes,
            });
        }
        self.out.flush()?;
        Ok(self.out)
    }
}

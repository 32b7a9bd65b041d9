//! A reading position that cannot leave the file.

use std::fmt;

use super::GgufError;

/// What is being read, for error messages only: formatted when there is an error, so that reading
/// a hundred thousand strings costs no formatting.
#[derive(Clone, Copy)]
pub(super) enum What<'a> {
    /// A fixed field of the header.
    Field(&'static str),
    /// The name of the n-th key.
    KeyName(u64),
    /// The value of a key.
    Key(&'a str),
    /// One element of an array.
    Element(&'a str, u64),
    /// The name of the n-th tensor.
    TensorName(u64),
    /// A field of a tensor's description.
    Tensor(&'a str, &'static str),
}

impl fmt::Display for What<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            What::Field(name) => write!(f, "{name}"),
            What::KeyName(i) => write!(f, "name of key {i}"),
            What::Key(key) => write!(f, "key `{key}`"),
            What::Element(key, i) => write!(f, "key `{key}`, element {i}"),
            What::TensorName(i) => write!(f, "name of tensor {i}"),
            What::Tensor(name, field) => write!(f, "tensor `{name}`, {field}"),
        }
    }
}

/// Reads little-endian values from the bytes of a file, front to back.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    /// Never beyond `bytes.len()`.
    pos: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Cursor { bytes, pos: 0 }
    }

    /// File offset of the next byte.
    pub(super) fn offset(&self) -> u64 {
        self.pos as u64
    }

    /// Bytes left to the end of the file.
    pub(super) fn remaining(&self) -> u64 {
        (self.bytes.len() - self.pos) as u64
    }

    /// The next `len` bytes.
    pub(super) fn take(&mut self, len: u64, what: What<'_>) -> Result<&'a [u8], GgufError> {
        let rest = &self.bytes[self.pos..];
        let taken = usize::try_from(len).ok().and_then(|len| rest.get(..len));
        let Some(taken) = taken else {
            return Err(GgufError::Truncated {
                what: what.to_string(),
                offset: self.offset(),
                needed: len,
                remaining: self.remaining(),
            });
        };
        self.pos += taken.len();
        Ok(taken)
    }

    /// The next `N` bytes.
    pub(super) fn array<const N: usize>(&mut self, what: What<'_>) -> Result<[u8; N], GgufError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N as u64, what)?);
        Ok(out)
    }

    pub(super) fn u32(&mut self, what: What<'_>) -> Result<u32, GgufError> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    pub(super) fn u64(&mut self, what: What<'_>) -> Result<u64, GgufError> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// A count of entries that take at least `min_bytes` each: refused when the rest of the file
    /// cannot hold them, so that it is safe to allocate for that many.
    pub(super) fn count(&mut self, min_bytes: u64, what: What<'_>) -> Result<u64, GgufError> {
        let offset = self.offset();
        let count = self.u64(what)?;
        self.check_count(count, min_bytes, offset, what)?;
        Ok(count)
    }

    /// As [`count`](Self::count), for a count that was read before from `offset`.
    pub(super) fn check_count(
        &self,
        count: u64,
        min_bytes: u64,
        offset: u64,
        what: What<'_>,
    ) -> Result<(), GgufError> {
        let remaining = self.remaining();
        if count > remaining / min_bytes {
            let what = what.to_string();
            return Err(GgufError::Count {
                what,
                offset,
                count,
                min_bytes,
                remaining,
            });
        }
        Ok(())
    }

    /// A string: length as u64, then the bytes.
    pub(super) fn string(&mut self, what: What<'_>) -> Result<&'a str, GgufError> {
        let len = self.u64(what)?;
        self.utf8(len, what)
    }

    /// A string of 1 to `max` bytes.
    pub(super) fn name(&mut self, max: u64, what: What<'_>) -> Result<&'a str, GgufError> {
        let offset = self.offset();
        let len = self.u64(what)?;
        if len == 0 || len > max {
            return Err(GgufError::NameLength {
                what: what.to_string(),
                offset,
                len,
                max,
            });
        }
        self.utf8(len, what)
    }

    fn utf8(&mut self, len: u64, what: What<'_>) -> Result<&'a str, GgufError> {
        let offset = self.offset();
        let bytes = self.take(len, what)?;
        std::str::from_utf8(bytes).map_err(|e| GgufError::Utf8 {
            what: what.to_string(),
            offset,
            valid: e.valid_up_to() as u64,
        })
    }
}

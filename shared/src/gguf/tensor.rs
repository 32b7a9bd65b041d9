//! Tensor types and tensor descriptions.

use std::fmt;

use super::cursor::{Cursor, What};
use super::{GgufError, MAX_DIMS, MAX_TENSOR_NAME_BYTES};

/// How a tensor's elements are stored. Quantized types store blocks of elements of one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the variants are ggml's types, by their names
pub enum TensorType {
    F32,
    F16,
    BF16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
    IQ4NL,
    IQ4XS,
    MXFP4,
}

impl TensorType {
    /// Every supported type.
    pub const ALL: [TensorType; 16] = [
        TensorType::F32,
        TensorType::F16,
        TensorType::BF16,
        TensorType::Q4_0,
        TensorType::Q4_1,
        TensorType::Q5_0,
        TensorType::Q5_1,
        TensorType::Q8_0,
        TensorType::Q2K,
        TensorType::Q3K,
        TensorType::Q4K,
        TensorType::Q5K,
        TensorType::Q6K,
        TensorType::IQ4NL,
        TensorType::IQ4XS,
        TensorType::MXFP4,
    ];

    /// ggml's number, name, elements in a block, bytes in a block.
    const fn row(self) -> (u32, &'static str, u64, u64) {
        match self {
            TensorType::F32 => (0, "F32", 1, 4),
            TensorType::F16 => (1, "F16", 1, 2),
            TensorType::Q4_0 => (2, "Q4_0", 32, 18),
            TensorType::Q4_1 => (3, "Q4_1", 32, 20),
            TensorType::Q5_0 => (6, "Q5_0", 32, 22),
            TensorType::Q5_1 => (7, "Q5_1", 32, 24),
            TensorType::Q8_0 => (8, "Q8_0", 32, 34),
            TensorType::Q2K => (10, "Q2_K", 256, 84),
            TensorType::Q3K => (11, "Q3_K", 256, 110),
            TensorType::Q4K => (12, "Q4_K", 256, 144),
            TensorType::Q5K => (13, "Q5_K", 256, 176),
            TensorType::Q6K => (14, "Q6_K", 256, 210),
            TensorType::IQ4NL => (20, "IQ4_NL", 32, 18),
            TensorType::IQ4XS => (23, "IQ4_XS", 256, 136),
            TensorType::BF16 => (30, "BF16", 1, 2),
            TensorType::MXFP4 => (39, "MXFP4", 32, 17),
        }
    }

    /// Bytes of a block at which its scales are: binary16, which must be finite. Of a float type its one number. MXFP4
    /// has none: its scale is a power of two, by its exponent alone.
    pub const fn scales(self) -> &'static [usize] {
        match self {
            TensorType::Q4_1 | TensorType::Q5_1 | TensorType::Q4K | TensorType::Q5K => &[0, 2],
            TensorType::Q2K => &[80, 82],
            TensorType::Q3K => &[108],
            TensorType::Q6K => &[208],
            TensorType::MXFP4 => &[],
            _ => &[0],
        }
    }

    /// llama.cpp's number for a file that has most of its matrices in this type, the usual mix of it.
    pub fn file_type(self) -> Option<u32> {
        let mut mixes = FILE_TYPES.iter().rev();
        mixes.find(|mix| mix.2 == self).map(|mix| mix.0)
    }

    /// ggml's number of the type.
    pub const fn id(self) -> u32 {
        self.row().0
    }

    /// ggml's name of the type, such as `Q4_K`.
    pub const fn name(self) -> &'static str {
        self.row().1
    }

    /// Elements in one block.
    pub const fn block_len(self) -> u64 {
        self.row().2
    }

    /// Bytes in one block.
    pub const fn block_bytes(self) -> u64 {
        self.row().3
    }

    /// The supported type with ggml's number `id`.
    pub fn from_id(id: u32) -> Option<TensorType> {
        Self::ALL.into_iter().find(|t| t.id() == id)
    }

    /// The supported type with ggml's name `name`, in any case.
    pub fn from_name(name: &str) -> Option<TensorType> {
        Self::ALL
            .into_iter()
            .find(|t| t.name().eq_ignore_ascii_case(name))
    }
}

/// Mixes of types by llama.cpp's number (`general.file_type`) and name, with the type that most matrices have; of
/// several mixes of a type the usual one comes last.
pub const FILE_TYPES: [(u32, &str, TensorType); 21] = [
    (0, "F32", TensorType::F32),
    (1, "F16", TensorType::F16),
    (2, "Q4_0", TensorType::Q4_0),
    (3, "Q4_1", TensorType::Q4_1),
    (7, "Q8_0", TensorType::Q8_0),
    (8, "Q5_0", TensorType::Q5_0),
    (9, "Q5_1", TensorType::Q5_1),
    (21, "Q2_K_S", TensorType::Q2K),
    (10, "Q2_K", TensorType::Q2K),
    (11, "Q3_K_S", TensorType::Q3K),
    (13, "Q3_K_L", TensorType::Q3K),
    (12, "Q3_K_M", TensorType::Q3K),
    (14, "Q4_K_S", TensorType::Q4K),
    (15, "Q4_K_M", TensorType::Q4K),
    (16, "Q5_K_S", TensorType::Q5K),
    (17, "Q5_K_M", TensorType::Q5K),
    (18, "Q6_K", TensorType::Q6K),
    (25, "IQ4_NL", TensorType::IQ4NL),
    (30, "IQ4_XS", TensorType::IQ4XS),
    (32, "BF16", TensorType::BF16),
    (38, "MXFP4_MOE", TensorType::MXFP4),
];

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Name of a ggml type that isn't supported, for the error message.
fn unsupported_name(id: u32) -> &'static str {
    match id {
        4 => "Q4_2",
        5 => "Q4_3",
        9 => "Q8_1",
        15 => "Q8_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        21 => "IQ3_S",
        22 => "IQ2_S",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        29 => "IQ1_M",
        31 => "Q4_0_4_4",
        32 => "Q4_0_4_8",
        33 => "Q4_0_8_8",
        34 => "TQ1_0",
        35 => "TQ2_0",
        36 => "IQ4_NL_4_4",
        37 => "IQ4_NL_4_8",
        38 => "IQ4_NL_8_8",
        _ => "unknown to ggml",
    }
}

/// A tensor as the header describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Name, such as `blk.0.attn_q.weight`.
    pub name: String,
    /// Elements in each of 1 to 4 dimensions; `ne[0]` is the fastest, the length of a row.
    pub ne: Vec<u64>,
    /// How the elements are stored.
    pub ty: TensorType,
    /// First byte of the data, from the start of the data section.
    pub offset: u64,
    /// Bytes of data.
    pub nbytes: u64,
    /// Which of the model's files holds the data, from 0.
    pub shard: u32,
}

impl TensorInfo {
    /// Least bytes of a description: name length and one byte, dimension count, one dimension,
    /// type, offset.
    pub(super) const MIN_BYTES: u64 = 8 + 1 + 4 + 8 + 4 + 8;

    /// Number of elements.
    pub fn n_elements(&self) -> u64 {
        self.ne.iter().product()
    }

    /// Number of rows: all dimensions but the fastest.
    pub fn rows(&self) -> u64 {
        self.ne.iter().skip(1).product()
    }

    /// Bytes of one row.
    pub fn row_bytes(&self) -> u64 {
        self.nbytes / self.rows().max(1)
    }

    /// Reads the `i`-th description; its data's place isn't checked yet.
    pub(super) fn read(c: &mut Cursor<'_>, i: u64) -> Result<TensorInfo, GgufError> {
        let name = c.name(MAX_TENSOR_NAME_BYTES, What::TensorName(i))?;
        let (ne, ne_offset) = read_shape(c, name)?;
        let type_offset = c.offset();
        let id = c.u32(What::Tensor(name, "type"))?;
        let ty = TensorType::from_id(id).ok_or_else(|| GgufError::TensorType {
            tensor: name.to_owned(),
            offset: type_offset,
            id,
            name: unsupported_name(id),
        })?;
        let nbytes = checked_nbytes(name, &ne, ty, ne_offset)?;
        let offset = c.u64(What::Tensor(name, "data offset"))?;
        Ok(TensorInfo {
            name: name.to_owned(),
            ne,
            ty,
            offset,
            nbytes,
            shard: 0,
        })
    }
}

/// Reads the dimensions; also gives their file offset.
fn read_shape(c: &mut Cursor<'_>, name: &str) -> Result<(Vec<u64>, u64), GgufError> {
    let offset = c.offset();
    let n_dims = c.u32(What::Tensor(name, "dimension count"))?;
    if !(1..=MAX_DIMS).contains(&n_dims) {
        return Err(GgufError::DimCount {
            tensor: name.to_owned(),
            offset,
            found: n_dims,
        });
    }
    let offset = c.offset();
    let dims = (0..n_dims).map(|_| c.u64(What::Tensor(name, "dimensions")));
    Ok((dims.collect::<Result<_, _>>()?, offset))
}

/// Bytes of a tensor's data, if the shape is possible for the type. `offset` is for the message.
pub(super) fn checked_nbytes(
    name: &str,
    ne: &[u64],
    ty: TensorType,
    offset: u64,
) -> Result<u64, GgufError> {
    let bad_shape = || GgufError::Shape {
        tensor: name.to_owned(),
        offset,
        ne: ne.to_vec(),
    };
    let elements = ne
        .iter()
        .try_fold(1u64, |product, &n| product.checked_mul(n));
    // Within i64, so that C++ may use signed sizes for whatever passes here.
    let elements = elements
        .filter(|&n| n > 0 && n <= i64::MAX as u64)
        .ok_or_else(bad_shape)?;
    let block_len = ty.block_len();
    let ne0 = ne.first().copied().ok_or_else(bad_shape)?;
    if ne0 % block_len != 0 {
        let tensor = name.to_owned();
        return Err(GgufError::RowLength {
            tensor,
            offset,
            ne0,
            ty: ty.name(),
            block_len,
        });
    }
    let nbytes = (elements / block_len).checked_mul(ty.block_bytes());
    nbytes
        .filter(|&n| n <= i64::MAX as u64)
        .ok_or_else(bad_shape)
}

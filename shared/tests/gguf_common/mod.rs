//! Files for the tests of the GGUF reader: a sound one by the writer, and a builder of raw bytes
//! that will put anything anywhere.

#![allow(dead_code)] // each test file uses its part
#![allow(clippy::unwrap_used)] // only tests call this: a panic is a failing test with a place

use orcd_shared::gguf::write::{TensorSpec, Writer};
use orcd_shared::gguf::{Array, GgufError, Metadata, TensorType, Value, parse};

/// GGUF's numbers of value types.
pub(crate) const U32: u32 = 4;
pub(crate) const BOOL: u32 = 7;
pub(crate) const STRING: u32 = 8;
pub(crate) const ARRAY: u32 = 9;

pub(crate) fn metadata() -> Metadata {
    let strings =
        |s: &[&str]| Value::Array(Array::String(s.iter().map(|s| s.to_string()).collect()));
    let mut m = Metadata::new();
    for (key, value) in [
        ("general.architecture", Value::String("qwen2".into())),
        ("general.alignment", Value::U32(64)),
        ("a.u8", Value::U8(250)),
        ("a.i8", Value::I8(-3)),
        ("a.u16", Value::U16(65_000)),
        ("a.i16", Value::I16(-30_000)),
        ("a.i32", Value::I32(-5)),
        ("a.u64", Value::U64(1 << 40)),
        ("a.i64", Value::I64(-(1 << 40))),
        ("a.f32", Value::F32(1.5)),
        ("a.f64", Value::F64(0.1)),
        ("a.bool", Value::Bool(true)),
        ("tokens", strings(&["a", "", "Ġthe", "日本"])),
        ("types", Value::Array(Array::I32(vec![1, 3, -1]))),
        ("ids", Value::Array(Array::U64(vec![7, 8]))),
        ("scores", Value::Array(Array::F32(vec![0.5, -1.0]))),
        ("flags", Value::Array(Array::Bool(vec![true, false]))),
        ("bytes", Value::Array(Array::U8(vec![1, 2, 3]))),
    ] {
        m.insert(key, value).unwrap();
    }
    m
}

pub(crate) fn specs() -> Vec<TensorSpec> {
    let spec = |name: &str, ne: &[u64], ty| TensorSpec {
        name: name.into(),
        ne: ne.to_vec(),
        ty,
    };
    vec![
        spec("token_embd.weight", &[256, 3], TensorType::Q4K),
        spec("blk.0.attn_norm.weight", &[5], TensorType::F32),
        spec("blk.0.attn_q.weight", &[64, 2, 2], TensorType::Q5_0),
        spec("last", &[1, 1, 1, 7], TensorType::F16),
    ]
}

/// A sound file with every value type, several tensor types and an alignment of 64. The data of
/// each tensor is its number, repeated.
pub(crate) fn sound() -> Vec<u8> {
    let mut w = Writer::new(Vec::new(), &metadata(), &specs()).unwrap();
    let sizes: Vec<u64> = w.layout().tensors.iter().map(|t| t.nbytes).collect();
    for (i, nbytes) in (1..).zip(sizes) {
        w.data(&vec![i; nbytes as usize]).unwrap();
    }
    w.finish().unwrap()
}

/// A file built field by field; remembers where its length fields are.
#[derive(Clone, Default)]
pub(crate) struct Raw {
    pub(crate) bytes: Vec<u8>,
    /// File offsets of all u64 lengths and counts.
    pub(crate) lengths: Vec<usize>,
}

impl Raw {
    pub(crate) fn new(n_tensors: u64, n_keys: u64) -> Raw {
        let mut raw = Raw::default();
        raw.put(b"GGUF").u32(3);
        raw.length(n_tensors).length(n_keys);
        raw
    }

    pub(crate) fn put(&mut self, bytes: &[u8]) -> &mut Raw {
        self.bytes.extend_from_slice(bytes);
        self
    }

    pub(crate) fn u32(&mut self, x: u32) -> &mut Raw {
        self.put(&x.to_le_bytes())
    }

    pub(crate) fn u64(&mut self, x: u64) -> &mut Raw {
        self.put(&x.to_le_bytes())
    }

    pub(crate) fn length(&mut self, x: u64) -> &mut Raw {
        self.lengths.push(self.bytes.len());
        self.u64(x)
    }

    pub(crate) fn string(&mut self, s: impl AsRef<[u8]>) -> &mut Raw {
        let s = s.as_ref();
        self.length(s.len() as u64).put(s)
    }

    /// Key and type number of a value.
    pub(crate) fn key(&mut self, name: impl AsRef<[u8]>, ty: u32) -> &mut Raw {
        self.string(name).u32(ty)
    }

    pub(crate) fn tensor(
        &mut self,
        name: impl AsRef<[u8]>,
        ne: &[u64],
        ty: u32,
        offset: u64,
    ) -> &mut Raw {
        self.string(name).u32(ne.len() as u32);
        ne.iter().for_each(|&n| _ = self.u64(n));
        self.u32(ty).u64(offset)
    }

    /// Pads to the default alignment and appends `n` bytes of data.
    pub(crate) fn data(&mut self, n: usize) -> &mut Raw {
        let start = self.bytes.len().next_multiple_of(32);
        self.bytes.resize(start + n, 0);
        self
    }

    /// File offset of the next field.
    pub(crate) fn here(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn parse(&self) -> Result<(), GgufError> {
        parse(&self.bytes).map(drop)
    }

    /// The message of the error that parsing must give.
    #[track_caller]
    pub(crate) fn error(&self) -> String {
        self.parse().unwrap_err().to_string()
    }
}

/// Checks that a message holds all of `parts`.
#[track_caller]
pub(crate) fn assert_says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "{message:?} doesn't say {part:?}");
    }
}

//! Metadata values: their types, their reading and their writing.

use super::GgufError;
use super::cursor::{Cursor, What};

/// GGUF's number for an array; the numbers of the others stand in the tables below.
const ARRAY_ID: u32 = 9;

/// A metadata value.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)] // the variants are GGUF's value types, by their names
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    String(String),
    Array(Array),
    U64(u64),
    I64(i64),
    F64(f64),
}

/// A metadata array: elements of one type. Arrays of arrays are refused when read.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)] // the variants are GGUF's value types, by their names
pub enum Array {
    U8(Vec<u8>),
    I8(Vec<i8>),
    U16(Vec<u16>),
    I16(Vec<i16>),
    U32(Vec<u32>),
    I32(Vec<i32>),
    F32(Vec<f32>),
    Bool(Vec<bool>),
    String(Vec<String>),
    U64(Vec<u64>),
    I64(Vec<i64>),
    F64(Vec<f64>),
}

/// The types whose values are plain little-endian numbers: variant, Rust type, GGUF's type number.
macro_rules! for_each_number {
    ($apply:ident) => {
        $apply! {
            (U8, u8, 0), (I8, i8, 1), (U16, u16, 2), (I16, i16, 3), (U32, u32, 4), (I32, i32, 5),
            (F32, f32, 6), (U64, u64, 10), (I64, i64, 11), (F64, f64, 12)
        }
    };
}

const BOOL_ID: u32 = 7;
const STRING_ID: u32 = 8;

macro_rules! define {
    ($(($variant:ident, $rust:ident, $id:literal)),*) => {
        impl Value {
            /// The type's name as used in messages.
            pub fn type_name(&self) -> &'static str {
                match self {
                    $(Value::$variant(_) => stringify!($rust),)*
                    Value::Bool(_) => "bool",
                    Value::String(_) => "string",
                    Value::Array(_) => "array",
                }
            }

            /// GGUF's number of the type.
            pub fn type_id(&self) -> u32 {
                match self {
                    $(Value::$variant(_) => $id,)*
                    Value::Bool(_) => BOOL_ID,
                    Value::String(_) => STRING_ID,
                    Value::Array(_) => ARRAY_ID,
                }
            }

            /// Reads the value of `key`, its type first.
            pub(super) fn read(c: &mut Cursor<'_>, key: &str) -> Result<Value, GgufError> {
                let what = What::Key(key);
                let type_offset = c.offset();
                Ok(match c.u32(what)? {
                    $($id => Value::$variant($rust::from_le_bytes(c.array(what)?)),)*
                    BOOL_ID => {
                        let offset = c.offset();
                        Value::Bool(bool_from(c.array::<1>(what)?[0], offset, what)?)
                    }
                    STRING_ID => Value::String(c.string(what)?.to_owned()),
                    ARRAY_ID => Value::Array(Array::read(c, key)?),
                    found => return Err(GgufError::ValueType {
                        key: key.to_owned(), offset: type_offset, found,
                    }),
                })
            }

            /// Appends the value as it stands in a file, after its type number.
            pub(super) fn write(&self, out: &mut Vec<u8>) {
                match self {
                    $(Value::$variant(v) => out.extend_from_slice(&v.to_le_bytes()),)*
                    Value::Bool(v) => out.push(u8::from(*v)),
                    Value::String(v) => write_string(v, out),
                    Value::Array(v) => v.write(out),
                }
            }
        }

        impl Array {
            /// Number of elements.
            pub fn len(&self) -> usize {
                match self {
                    $(Array::$variant(v) => v.len(),)*
                    Array::Bool(v) => v.len(),
                    Array::String(v) => v.len(),
                }
            }

            /// The elements' type, as used in messages.
            pub fn element_type_name(&self) -> &'static str {
                match self {
                    $(Array::$variant(_) => stringify!($rust),)*
                    Array::Bool(_) => "bool",
                    Array::String(_) => "string",
                }
            }

            /// Reads the array of `key`: element type, count, elements.
            fn read(c: &mut Cursor<'_>, key: &str) -> Result<Array, GgufError> {
                let what = What::Key(key);
                let type_offset = c.offset();
                let id = c.u32(what)?;
                Ok(match id {
                    $($id => Array::$variant(read_numbers(c, what, $rust::from_le_bytes)?),)*
                    BOOL_ID => Array::Bool(read_bools(c, key)?),
                    STRING_ID => Array::String(read_strings(c, key)?),
                    ARRAY_ID => return Err(GgufError::NestedArray {
                        key: key.to_owned(), offset: type_offset,
                    }),
                    found => return Err(GgufError::ValueType {
                        key: key.to_owned(), offset: type_offset, found,
                    }),
                })
            }

            fn write(&self, out: &mut Vec<u8>) {
                let id = match self {
                    $(Array::$variant(_) => $id,)*
                    Array::Bool(_) => BOOL_ID,
                    Array::String(_) => STRING_ID,
                };
                out.extend_from_slice(&u32::to_le_bytes(id));
                out.extend_from_slice(&(self.len() as u64).to_le_bytes());
                match self {
                    $(Array::$variant(v) => {
                        v.iter().for_each(|x| out.extend_from_slice(&x.to_le_bytes()));
                    })*
                    Array::Bool(v) => out.extend(v.iter().map(|&x| u8::from(x))),
                    Array::String(v) => v.iter().for_each(|x| write_string(x, out)),
                }
            }
        }
    };
}

for_each_number!(define);

impl Array {
    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Value {
    /// Type and value for a message; long values are cut, arrays are given by type and length.
    pub fn describe(&self) -> String {
        /// Characters of a string that a message shows.
        const SHOWN: usize = 40;
        match self {
            Value::String(s) => match s.char_indices().nth(SHOWN) {
                Some((end, _)) => format!("string {:?}... of {} bytes", &s[..end], s.len()),
                None => format!("string {s:?}"),
            },
            Value::Array(a) => format!("array of {} {}", a.len(), a.element_type_name()),
            Value::Bool(v) => format!("bool {v}"),
            Value::F32(v) => format!("f32 {v}"),
            Value::F64(v) => format!("f64 {v}"),
            // The rest are the integers, all of which have a value as i128.
            _ => format!(
                "{} {}",
                self.type_name(),
                self.as_integer().unwrap_or_default()
            ),
        }
    }

    /// The value of any integer type.
    pub fn as_integer(&self) -> Option<i128> {
        Some(match *self {
            Value::U8(v) => v.into(),
            Value::I8(v) => v.into(),
            Value::U16(v) => v.into(),
            Value::I16(v) => v.into(),
            Value::U32(v) => v.into(),
            Value::I32(v) => v.into(),
            Value::U64(v) => v.into(),
            Value::I64(v) => v.into(),
            _ => return None,
        })
    }
}

/// Appends length and bytes of a string.
pub(super) fn write_string(s: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(&(s.len() as u64).to_le_bytes());
    out.extend_from_slice(s.as_bytes());
}

fn bool_from(byte: u8, offset: u64, what: What<'_>) -> Result<bool, GgufError> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        found => Err(GgufError::Bool {
            what: what.to_string(),
            offset,
            found,
        }),
    }
}

fn read_numbers<T, const N: usize>(
    c: &mut Cursor<'_>,
    what: What<'_>,
    from: fn([u8; N]) -> T,
) -> Result<Vec<T>, GgufError> {
    let count = c.count(N as u64, what)?;
    // No overflow: `count` elements of N bytes fit in the rest of the file.
    let bytes = c.take(count * N as u64, what)?;
    Ok(bytes
        .as_chunks::<N>()
        .0
        .iter()
        .map(|&chunk| from(chunk))
        .collect())
}

fn read_bools(c: &mut Cursor<'_>, key: &str) -> Result<Vec<bool>, GgufError> {
    let count = c.count(1, What::Key(key))?;
    let start = c.offset();
    let bytes = c.take(count, What::Key(key))?;
    let element = |(i, &b)| bool_from(b, start + i, What::Element(key, i));
    (0..).zip(bytes).map(element).collect()
}

fn read_strings(c: &mut Cursor<'_>, key: &str) -> Result<Vec<String>, GgufError> {
    /// A string's length field, its least size.
    const MIN_BYTES: u64 = 8;
    let count = c.count(MIN_BYTES, What::Key(key))?;
    let element = |i| c.string(What::Element(key, i)).map(str::to_owned);
    (0..count).map(element).collect()
}

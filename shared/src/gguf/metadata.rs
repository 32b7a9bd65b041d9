//! The key-value part of a file, with typed access.

use std::collections::HashMap;

use super::{Array, GgufError, Value};

/// A file's keys and values in file order.
///
/// The typed getters fail with [`GgufError::MissingKey`] or [`GgufError::WrongType`]; their `opt_`
/// forms turn a missing key into `None` but still refuse a wrong type.
#[derive(Clone, Debug, Default)]
pub struct Metadata {
    entries: Vec<Entry>,
    /// Key to its place in `entries`.
    index: HashMap<String, usize>,
}

#[derive(Clone, Debug)]
struct Entry {
    key: String,
    value: Value,
    /// File offset of the value's type, 0 where it comes from no file.
    offset: u64,
}

impl Metadata {
    /// No keys.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a key.
    ///
    /// # Errors
    /// [`GgufError::DuplicateKey`] if it is there already.
    pub fn insert(&mut self, key: impl Into<String>, value: Value) -> Result<(), GgufError> {
        self.insert_at(key.into(), value, 0)
    }

    pub(super) fn insert_at(
        &mut self,
        key: String,
        value: Value,
        offset: u64,
    ) -> Result<(), GgufError> {
        if self.index.contains_key(&key) {
            return Err(GgufError::DuplicateKey { key, offset });
        }
        self.index.insert(key.clone(), self.entries.len());
        self.entries.push(Entry { key, value, offset });
        Ok(())
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no keys.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The value of `key`, whatever its type.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.entry(key).map(|e| &e.value)
    }

    /// Whether `key` is there.
    pub fn contains(&self, key: &str) -> bool {
        self.index.contains_key(key)
    }

    /// Keys and values in file order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.entries.iter().map(|e| (e.key.as_str(), &e.value))
    }

    /// File offset of the type and value of `key`.
    pub(super) fn offset(&self, key: &str) -> Option<u64> {
        self.entry(key).map(|e| e.offset)
    }

    /// An integer of any type that fits.
    pub fn u32(&self, key: &str) -> Result<u32, GgufError> {
        required(key, self.opt_u32(key))
    }

    /// As [`u32`](Self::u32), `None` if missing.
    pub fn opt_u32(&self, key: &str) -> Result<Option<u32>, GgufError> {
        self.typed(key, "an integer that fits u32", |v| {
            v.as_integer()?.try_into().ok()
        })
    }

    /// An integer of any type that fits.
    pub fn u64(&self, key: &str) -> Result<u64, GgufError> {
        required(key, self.opt_u64(key))
    }

    /// As [`u64`](Self::u64), `None` if missing.
    pub fn opt_u64(&self, key: &str) -> Result<Option<u64>, GgufError> {
        self.typed(key, "an integer that fits u64", |v| {
            v.as_integer()?.try_into().ok()
        })
    }

    /// An f32, or an f64 rounded to one.
    pub fn f32(&self, key: &str) -> Result<f32, GgufError> {
        required(key, self.opt_f32(key))
    }

    /// As [`f32`](Self::f32), `None` if missing.
    pub fn opt_f32(&self, key: &str) -> Result<Option<f32>, GgufError> {
        self.typed(key, "f32", |v| match *v {
            Value::F32(x) => Some(x),
            Value::F64(x) => Some(x as f32),
            _ => None,
        })
    }

    /// A bool.
    pub fn bool(&self, key: &str) -> Result<bool, GgufError> {
        required(key, self.opt_bool(key))
    }

    /// As [`bool`](Self::bool), `None` if missing.
    pub fn opt_bool(&self, key: &str) -> Result<Option<bool>, GgufError> {
        self.typed(key, "bool", |v| {
            if let Value::Bool(x) = *v {
                Some(x)
            } else {
                None
            }
        })
    }

    /// A string.
    pub fn str(&self, key: &str) -> Result<&str, GgufError> {
        required(key, self.opt_str(key))
    }

    /// As [`str`](Self::str), `None` if missing.
    pub fn opt_str(&self, key: &str) -> Result<Option<&str>, GgufError> {
        self.typed(key, "string", |v| {
            if let Value::String(x) = v {
                Some(x.as_str())
            } else {
                None
            }
        })
    }

    /// An array of strings.
    pub fn strings(&self, key: &str) -> Result<&[String], GgufError> {
        required(key, self.opt_strings(key))
    }

    /// As [`strings`](Self::strings), `None` if missing.
    pub fn opt_strings(&self, key: &str) -> Result<Option<&[String]>, GgufError> {
        self.typed(key, "array of string", |v| match v {
            Value::Array(Array::String(x)) => Some(x.as_slice()),
            _ => None,
        })
    }

    /// An array of f32.
    pub fn f32s(&self, key: &str) -> Result<&[f32], GgufError> {
        required(key, self.opt_f32s(key))
    }

    /// As [`f32s`](Self::f32s), `None` if missing.
    pub fn opt_f32s(&self, key: &str) -> Result<Option<&[f32]>, GgufError> {
        self.typed(key, "array of f32", |v| match v {
            Value::Array(Array::F32(x)) => Some(x.as_slice()),
            _ => None,
        })
    }

    /// An array of integers of any type, all of which fit.
    pub fn i32s(&self, key: &str) -> Result<Vec<i32>, GgufError> {
        required(key, self.opt_i32s(key))
    }

    /// As [`i32s`](Self::i32s), `None` if missing.
    pub fn opt_i32s(&self, key: &str) -> Result<Option<Vec<i32>>, GgufError> {
        self.typed(key, "array of integers that fit i32", integers)
    }

    fn entry(&self, key: &str) -> Option<&Entry> {
        self.index.get(key).map(|&i| &self.entries[i])
    }

    /// The value of `key` through `get`, which gives `None` for a type that doesn't do.
    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &'static str,
        get: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, GgufError> {
        let Some(entry) = self.entry(key) else {
            return Ok(None);
        };
        match get(&entry.value) {
            Some(value) => Ok(Some(value)),
            None => Err(GgufError::WrongType {
                key: key.to_owned(),
                offset: entry.offset,
                expected,
                found: entry.value.describe(),
            }),
        }
    }
}

fn required<T>(key: &str, found: Result<Option<T>, GgufError>) -> Result<T, GgufError> {
    found?.ok_or_else(|| GgufError::MissingKey {
        key: key.to_owned(),
    })
}

/// The elements of an integer array, if `T` holds each of them.
fn integers<T>(value: &Value) -> Option<Vec<T>>
where
    T: TryFrom<u8> + TryFrom<i8> + TryFrom<u16> + TryFrom<i16>,
    T: TryFrom<u32> + TryFrom<i32> + TryFrom<u64> + TryFrom<i64>,
{
    fn all<S: Copy, T: TryFrom<S>>(v: &[S]) -> Option<Vec<T>> {
        v.iter().map(|&x| T::try_from(x).ok()).collect()
    }
    let Value::Array(array) = value else {
        return None;
    };
    match array {
        Array::U8(v) => all(v),
        Array::I8(v) => all(v),
        Array::U16(v) => all(v),
        Array::I16(v) => all(v),
        Array::U32(v) => all(v),
        Array::I32(v) => all(v),
        Array::U64(v) => all(v),
        Array::I64(v) => all(v),
        Array::F32(_) | Array::F64(_) | Array::Bool(_) | Array::String(_) => None,
    }
}

//! Long lists of token ids on the wire: one string of bytes, each id in four of them, little-endian. Both ways that is a copy,
//! where a list of numbers is read and written one by one. Formats for people have the list.
//!
//! For `#[serde(with = "token_ids")]`.

use std::fmt;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes of an id.
const ID_BYTES: usize = size_of::<u32>();

/// Writes ids.
///
/// # Errors
/// Those of the format.
pub fn serialize<S: Serializer>(ids: &[u32], serializer: S) -> Result<S::Ok, S::Error> {
    if serializer.is_human_readable() {
        return ids.serialize(serializer);
    }
    let mut bytes = vec![0; ids.len() * ID_BYTES];
    for (to, id) in bytes.as_chunks_mut().0.iter_mut().zip(ids) {
        *to = id.to_le_bytes();
    }
    serializer.serialize_bytes(&bytes)
}

/// Reads ids. No more memory is taken than for the bytes that are there.
///
/// # Errors
/// Those of the format, and bytes that are no whole number of ids.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u32>, D::Error> {
    if deserializer.is_human_readable() {
        return Vec::deserialize(deserializer);
    }
    deserializer.deserialize_bytes(Ids)
}

struct Ids;

impl Visitor<'_> for Ids {
    type Value = Vec<u32>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("token ids of four bytes each")
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
        match bytes.as_chunks() {
            (ids, []) => Ok(ids.iter().copied().map(u32::from_le_bytes).collect()),
            _ => Err(E::invalid_length(bytes.len(), &self)),
        }
    }
}

//! A JSON value that keeps what [`serde_json::Value`] loses: a key given twice.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// Whole numbers up to here have one f64 each, so that 5.0 can be taken for 5.
const MAX_EXACT: f64 = 9_007_199_254_740_992.0;

/// A JSON value as it was written.
#[derive(Debug, Clone, PartialEq)]
pub enum Json {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number without fraction or exponent, not negative.
    Unsigned(u64),
    /// Such a number that is negative.
    Negative(i64),
    /// Any other number; finite.
    Float(f64),
    /// A string.
    String(String),
    /// An array.
    Array(Vec<Json>),
    /// An object, its members in order, doubles included.
    Object(Vec<(String, Json)>),
}

impl Json {
    /// A whole number that is not negative: JSON has one kind of number, so 5.0 and 5e0 are 5.
    #[must_use]
    pub fn whole(&self) -> Option<u64> {
        match *self {
            Self::Unsigned(n) => Some(n),
            Self::Float(x) if x.fract() == 0.0 && (0.0..=MAX_EXACT).contains(&x) => Some(x as u64),
            _ => None,
        }
    }

    /// A number of any kind.
    #[must_use]
    pub fn number(&self) -> Option<f64> {
        match *self {
            Self::Unsigned(n) => Some(n as f64),
            Self::Negative(n) => Some(n as f64),
            Self::Float(x) => Some(x),
            _ => None,
        }
    }

    /// The id of a token of a vocabulary of so many.
    #[must_use]
    pub fn token_id(&self, vocab_size: u32) -> Option<u32> {
        let id = u32::try_from(self.whole()?).ok()?;
        (id < vocab_size).then_some(id)
    }

    /// Its type as an error names it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a bool",
            Self::Unsigned(_) | Self::Negative(_) | Self::Float(_) => "a number",
            Self::String(_) => "a string",
            Self::Array(_) => "an array",
            Self::Object(_) => "an object",
        }
    }
}

impl From<Json> for Value {
    /// Of a key given twice the last value counts, as in most languages.
    fn from(json: Json) -> Self {
        match json {
            Json::Null => Self::Null,
            Json::Bool(value) => value.into(),
            Json::Unsigned(value) => value.into(),
            Json::Negative(value) => value.into(),
            Json::Float(value) => value.into(),
            Json::String(value) => value.into(),
            Json::Array(items) => items.into_iter().map(Self::from).collect(),
            Json::Object(members) => {
                let members = members
                    .into_iter()
                    .map(|(name, value)| (name, value.into()));
                Self::Object(members.collect())
            }
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Unsigned(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(u64::try_from(value).map_or(Json::Negative(value), Json::Unsigned))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(Json::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Json, E> {
        Ok(Json::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Json, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Json::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Json::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Json, serde_json::Error> {
        serde_json::from_str(text)
    }

    #[test]
    fn doubles_and_whole_numbers_are_kept() {
        let object = parse(r#"{"a":1,"a":[null,true,-2,18446744073709551615,1.0]}"#).unwrap();
        let list = vec![
            Json::Null,
            Json::Bool(true),
            Json::Negative(-2),
            Json::Unsigned(u64::MAX),
            Json::Float(1.0),
        ];
        let expected = [
            ("a".into(), Json::Unsigned(1)),
            ("a".into(), Json::Array(list)),
        ];
        assert_eq!(object, Json::Object(expected.into()));
    }

    #[test]
    fn numbers_beyond_f64_and_endless_nesting_are_refused() {
        assert!(
            parse("1e999")
                .unwrap_err()
                .to_string()
                .contains("number out of range")
        );
        assert!(parse("NaN").is_err());
        assert!(parse(&"[".repeat(100_000)).is_err());
    }
}

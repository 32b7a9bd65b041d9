//! What clients send as JSON, as the template engine has it.

use minijinja::Value;
use serde_json::Value as Json;

/// The value of `json`.
pub(super) fn value(json: &Json) -> Value {
    match json {
        Json::Null => Value::from(()),
        Json::Bool(is) => Value::from(*is),
        Json::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
            (Some(natural), _, _) => Value::from(natural),
            (_, Some(integer), _) => Value::from(integer),
            (_, _, float) => Value::from(float.unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(items) => list(items),
        Json::Object(fields) => {
            Value::from_pairs(fields.iter().map(|(key, item)| (key.as_str(), value(item))))
        }
    }
}

/// The list of `items`.
pub(super) fn list(items: &[Json]) -> Value {
    Value::from(Vec::from_iter(items.iter().map(value)))
}

/// The value of `json`, or none.
pub(super) fn optional(json: Option<&Json>) -> Value {
    json.map_or_else(|| Value::from(()), value)
}

//! Where in a schema the reason lies for which it can't be compiled. Compilers don't say it, so parts are compiled alone.

use orcd_shared::constraint::SCHEMA_MAPS;
use serde_json::{Map, Value};

/// Keywords whose value is a schema, or an array of schemas; [`SCHEMA_MAPS`] have an object of them.
const ONE: [&str; 9] = [
    "items",
    "additionalProperties",
    "additionalItems",
    "contains",
    "propertyNames",
    "not",
    "if",
    "then",
    "else",
];
const LIST: [&str; 5] = ["anyOf", "oneOf", "allOf", "prefixItems", "items"];
/// Parts that references may name, which go along with a part that stands alone.
const DEFINITIONS: [&str; 2] = ["$defs", "definitions"];
/// Parts that are compiled at most: it is done for an error's text alone.
const MAX_TRIALS: usize = 256;

/// The smallest part of `schema` that fails alone, as a JSON pointer with `#` in front. `fails` says why a schema can't be
/// compiled; a part counts if its reason is part of `reason`, which is the whole schema's.
pub(super) fn of(schema: &Value, reason: &str, fails: impl Fn(&Value) -> Option<String>) -> String {
    let mut trials = MAX_TRIALS;
    let (mut at, mut pointer) = (schema, "#".to_owned());
    'deeper: loop {
        for (step, part) in parts(at) {
            if trials == 0 {
                return pointer;
            }
            trials -= 1;
            let alone = alone(schema, part);
            // With the part's own definitions in it a reason may name another place, so only that it is the same counts.
            if alone.is_some_and(|s| fails(&s).is_some_and(|why| reason.contains(why.as_str()))) {
                pointer.push_str(&step);
                at = part;
                continue 'deeper;
            }
        }
        return pointer;
    }
}

/// The schemas in a schema, and the way to each.
fn parts(schema: &Value) -> Vec<(String, &Value)> {
    let mut parts = Vec::new();
    let Some(members) = schema.as_object() else {
        return parts;
    };
    for (name, value) in members {
        let key = name.as_str();
        match value {
            Value::Array(items) if LIST.contains(&key) => {
                let items = items.iter().enumerate();
                parts.extend(items.map(|(i, item)| (format!("/{key}/{i}"), item)));
            }
            Value::Object(_) if ONE.contains(&key) => parts.push((format!("/{key}"), value)),
            Value::Object(map) if SCHEMA_MAPS.contains(&key) => {
                let escaped = |name: &str| name.replace('~', "~0").replace('/', "~1");
                let entries = map.iter();
                parts.extend(entries.map(|(n, part)| (format!("/{key}/{}", escaped(n)), part)));
            }
            _ => {}
        }
    }
    parts
}

/// A part of `schema` as one of its own, with the schema's definitions beside its own; `None` if it is no object.
fn alone(schema: &Value, part: &Value) -> Option<Value> {
    let mut alone = part.as_object()?.clone();
    for key in DEFINITIONS {
        let Some(definitions) = schema.get(key).and_then(Value::as_object) else {
            continue;
        };
        let own = alone
            .entry(key)
            .or_insert_with(|| Value::Object(Map::new()));
        let Some(own) = own.as_object_mut() else {
            continue;
        };
        for (name, definition) in definitions {
            own.entry(name).or_insert_with(|| definition.clone());
        }
    }
    Some(Value::Object(alone))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// As if schemas with the member `bad` anywhere couldn't be compiled.
    fn fails(schema: &Value) -> Option<String> {
        let is_bad = schema.to_string().contains(r#""bad""#);
        is_bad.then(|| "bad".to_owned())
    }

    #[test]
    fn a_part_with_definitions_of_its_own_keeps_those_of_the_whole() {
        let schema = json!({
            "$defs": {"f": {
                "$defs": {"t": {"type": "null"}},
                "properties": {"a": {"$ref": "#/$defs/f/$defs/t"}, "b": {"bad": 1}},
            }},
            "$ref": "#/$defs/f",
        });
        // Definitions are compiled where they are named; without the one that is, there is another reason.
        let strict = |schema: &Value| {
            if schema.pointer("/$defs/f/$defs/t").is_none() {
                return Some("dangling".to_owned());
            }
            let mut used = schema.clone();
            used.as_object_mut()?.remove("$defs");
            fails(&used)
        };
        assert_eq!(of(&schema, "bad", strict), "#/$defs/f/properties/b");
    }

    #[test]
    fn the_smallest_part_that_fails_is_the_place() {
        let schema = json!({
            "properties": {
                "a": {"type": "string"},
                "b/~": {"items": {"anyOf": [{"type": "null"}, {"bad": 1}]}},
            },
        });
        let place = of(&schema, "bad", fails);
        assert_eq!(place, "#/properties/b~1~0/items/anyOf/1");
        assert_eq!(of(&json!({"bad": {}}), "bad", fails), "#");
        let defined = json!({"$ref": "#/$defs/x", "$defs": {"x": {"not": {"bad": 1}}}});
        assert_eq!(of(&defined, "bad", fails), "#/$defs/x/not");
    }

    #[test]
    fn a_part_that_fails_for_another_reason_is_not_the_place() {
        let schema = json!({"items": {"bad": 1}});
        assert_eq!(of(&schema, "another", fails), "#");
    }

    #[test]
    fn a_wide_schema_is_searched_within_bounds() {
        let properties: serde_json::Map<_, _> = (0..10 * MAX_TRIALS)
            .map(|i| (i.to_string(), json!({})))
            .collect();
        let count = std::cell::Cell::new(0);
        let none = |_: &Value| {
            count.set(count.get() + 1);
            None
        };
        assert_eq!(of(&json!({"properties": properties}), "bad", none), "#");
        assert_eq!(count.get(), MAX_TRIALS);
    }
}

//! Schemas of our own making, from simple to recursive.

use serde_json::{Value, json};

use crate::engine_support::Rng;

/// A schema a line.
const WRITTEN: &str = r##"
{}
{"type": "null"}
{"type": "boolean"}
{"type": "integer"}
{"type": "number"}
{"type": "string"}
{"type": "object"}
{"type": "array"}
{"type": ["integer", "null"]}
{"type": ["string", "boolean", "array"]}
{"const": {"a": [1, null, "x\"y"]}}
{"const": "käse"}
{"enum": ["red", "green", "blue"]}
{"enum": [1, "1", null, true, [1], {"one": 1}]}
{"type": "integer", "minimum": 3, "maximum": 17}
{"type": "integer", "exclusiveMinimum": -5, "exclusiveMaximum": 5}
{"type": "integer", "minimum": 1000, "maximum": 123456}
{"type": "integer", "maximum": -20}
{"type": "number", "minimum": 0, "maximum": 1}
{"type": "number", "exclusiveMinimum": 0, "maximum": 75.5}
{"type": "number", "exclusiveMinimum": 0.25, "exclusiveMaximum": 0.75}
{"type": "number", "minimum": -12.5, "maximum": 99.25}
{"type": "integer", "multipleOf": 5, "minimum": 0, "maximum": 100}
{"type": "string", "minLength": 2, "maxLength": 5}
{"type": "string", "maxLength": 0}
{"type": "string", "minLength": 8, "maxLength": 8}
{"type": "string", "pattern": "^[A-Z]{2}[0-9]{3}$"}
{"type": "string", "pattern": "^(a|b)*c$"}
{"type": "string", "pattern": "^\\d+(\\.\\d+)?$"}
{"type": "string", "pattern": "^[^@ ]{1,8}@example\\.org$"}
{"type": "string", "pattern": "^x", "maxLength": 12}
{"type": "string", "format": "date"}
{"type": "string", "format": "time"}
{"type": "string", "format": "date-time"}
{"type": "string", "format": "ipv4"}
{"type": "string", "format": "uuid"}
{"type": "string", "format": "email", "maxLength": 40}
{"type": "string", "format": "hostname", "maxLength": 40}
{"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 3}
{"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 4, "maxItems": 4}
{"type": "array", "items": {"type": "array", "items": {"type": "boolean"}, "maxItems": 2}, "maxItems": 3}
{"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string", "maxLength": 4}], "items": false, "minItems": 2}
{"type": "array", "prefixItems": [{"const": 1}, {"const": 2}], "items": {"type": "null"}, "maxItems": 5}
{"type": "array", "maxItems": 0}
{"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "boolean"}}, "required": ["a", "b"], "additionalProperties": false}
{"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "boolean"}}, "additionalProperties": false}
{"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "boolean"}}, "required": ["b"], "additionalProperties": false}
{"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"], "additionalProperties": {"type": "boolean"}}
{"type": "object", "additionalProperties": {"type": "integer", "minimum": 0, "maximum": 9}}
{"type": "object", "additionalProperties": false}
{"type": "object", "properties": {"kind": {"const": "point"}, "x": {"type": "number"}, "y": {"type": "number"}}, "required": ["kind", "x", "y"], "additionalProperties": false}
{"type": "object", "properties": {"name": {"type": "string", "maxLength": 10}, "tags": {"type": "array", "items": {"type": "string", "maxLength": 4}, "maxItems": 3}}, "required": ["name", "tags"], "additionalProperties": false}
{"type": "object", "properties": {"a": {"type": "object", "properties": {"b": {"type": "object", "properties": {"c": {"type": "null"}}, "required": ["c"], "additionalProperties": false}}, "required": ["b"], "additionalProperties": false}}, "required": ["a"], "additionalProperties": false}
{"type": "object", "patternProperties": {"^n_": {"type": "integer"}, "^s_": {"type": "boolean"}}, "additionalProperties": false}
{"type": "object", "properties": {"with \"quotes\" and \\": {"type": "integer"}, "ü": {"type": "null"}}, "required": ["with \"quotes\" and \\", "ü"], "additionalProperties": false}
{"anyOf": [{"type": "integer"}, {"type": "boolean"}]}
{"anyOf": [{"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": false}, {"type": "object", "properties": {"b": {"type": "null"}}, "required": ["b"], "additionalProperties": false}]}
{"anyOf": [{"type": "string", "maxLength": 3}, {"type": "array", "items": {"type": "string", "maxLength": 3}, "maxItems": 2}]}
{"oneOf": [{"type": "string", "maxLength": 3}, {"type": "integer"}]}
{"oneOf": [{"const": "a"}, {"const": "b"}, {"type": "null"}]}
{"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 8}]}
{"allOf": [{"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}, {"type": "object", "properties": {"b": {"type": "boolean"}}, "required": ["b"]}]}
{"$defs": {"color": {"enum": ["red", "green"]}}, "type": "object", "properties": {"c": {"$ref": "#/$defs/color"}, "d": {"$ref": "#/$defs/color"}}, "required": ["c", "d"], "additionalProperties": false}
{"definitions": {"n": {"type": "integer", "minimum": 1, "maximum": 3}}, "type": "array", "items": {"$ref": "#/definitions/n"}, "minItems": 2, "maxItems": 4}
{"$defs": {"node": {"type": "object", "properties": {"v": {"type": "integer"}, "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}}, "required": ["v", "next"], "additionalProperties": false}}, "$ref": "#/$defs/node"}
{"$defs": {"tree": {"type": "object", "properties": {"kids": {"type": "array", "items": {"$ref": "#/$defs/tree"}, "maxItems": 2}}, "required": ["kids"], "additionalProperties": false}}, "$ref": "#/$defs/tree"}
{"type": "object", "properties": {"child": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}, "required": ["child"], "additionalProperties": false}
{"$defs": {"expr": {"anyOf": [{"type": "integer"}, {"type": "object", "properties": {"op": {"enum": ["+", "-"]}, "l": {"$ref": "#/$defs/expr"}, "r": {"$ref": "#/$defs/expr"}}, "required": ["op", "l", "r"], "additionalProperties": false}]}}, "$ref": "#/$defs/expr"}
{"$defs": {"a": {"type": "array", "items": {"$ref": "#/$defs/b"}, "maxItems": 2}, "b": {"anyOf": [{"$ref": "#/$defs/a"}, {"const": 0}]}}, "$ref": "#/$defs/a"}
{"type": "object", "properties": {"date": {"type": "string", "format": "date"}, "amount": {"type": "number", "minimum": 0, "maximum": 1000}, "currency": {"enum": ["EUR", "USD"]}, "paid": {"type": "boolean"}, "lines": {"type": "array", "minItems": 1, "maxItems": 2, "items": {"type": "object", "properties": {"sku": {"type": "string", "pattern": "^[A-Z]{3}-[0-9]{4}$"}, "count": {"type": "integer", "minimum": 1, "maximum": 99}}, "required": ["sku", "count"], "additionalProperties": false}}}, "required": ["date", "amount", "currency", "paid", "lines"], "additionalProperties": false}
{"title": "A person", "description": "As forms have it", "$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object", "properties": {"first": {"type": "string", "minLength": 1, "maxLength": 8, "examples": ["Ada"]}, "age": {"type": "integer", "minimum": 0, "maximum": 150, "default": 30}}, "required": ["first", "age"], "additionalProperties": false}
"##;

/// The written ones.
pub fn written() -> Vec<Value> {
    let lines = WRITTEN.lines().filter(|line| !line.is_empty());
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// So many schemas: the written ones, and as many put together of them as are missing.
pub fn some(count: usize) -> Vec<Value> {
    let mut schemas = written();
    // A part has no root of its own that it could refer to.
    let parts: Vec<Value> = schemas
        .iter()
        .filter(|schema| !schema.to_string().contains("$ref") && schema.get("$schema").is_none())
        .cloned()
        .collect();
    let mut rng = Rng(11);
    while schemas.len() < count {
        schemas.push(composed(&parts, &mut rng, 2));
    }
    schemas.truncate(count);
    schemas
}

fn composed(parts: &[Value], rng: &mut Rng, depth: u32) -> Value {
    let part = |rng: &mut Rng| match depth {
        0 => parts[rng.below(parts.len() as u64) as usize].clone(),
        _ => composed(parts, rng, depth - 1),
    };
    match rng.below(5) {
        0 => json!({"type": "array", "items": part(rng), "minItems": 1, "maxItems": 2}),
        1 => json!({"anyOf": [part(rng), part(rng)]}),
        2 => json!({"type": "object", "properties": {"a": part(rng), "b": part(rng)},
                    "required": ["a"], "additionalProperties": false}),
        3 => json!({"type": "object", "properties": {"x": part(rng)},
                    "required": ["x"], "additionalProperties": false}),
        _ => parts[rng.below(parts.len() as u64) as usize].clone(),
    }
}

#[test]
fn there_are_enough_of_them() {
    assert!(written().len() >= 60, "{}", written().len());
    assert_eq!(some(500).len(), 500);
}

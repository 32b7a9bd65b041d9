//! What an output has to be: `response_format`, and `text.format` of responses. What a schema or a grammar says only the
//! worker's program understands; here are its shape and its size.

use orcd_shared::constraint::{Constraint, MAX_CONSTRAINT_BYTES, MAX_SCHEMA_DEPTH};
use serde_json::Value;

use super::super::json::Json;
use super::fields::Fields;
use super::messages::Unknown;

const RULE: &str = "text, json_object, json_schema, regex or lark";
/// The schema of any object.
const ANY_OBJECT: &str = r#"{"type":"object"}"#;
/// Members of a format beside its type; of `json_schema` the schema's own may stand in an object of that name.
const MEMBERS: [&str; 8] = [
    "type",
    "schema",
    "json_schema",
    "pattern",
    "grammar",
    "name",
    "description",
    "strict",
];

/// Takes the field `name`; `None` if any text may come. Notes what is wrong, and `ignore_eos` beside it, with which an
/// output that is whole could not end.
pub(in crate::http) fn response_format(
    f: &mut Fields,
    name: &str,
    ignore_end: bool,
    unknown: Unknown,
) -> Option<Constraint> {
    let value = f.take(name)?;
    let constraint = constraint(f, name, value, unknown);
    if constraint.is_some() && ignore_end {
        no_ignored_end(f, name);
    }
    constraint
}

/// Notes that outputs which have to be something, as the field `name` says, could not end.
pub(in crate::http) fn no_ignored_end(f: &mut Fields, name: &str) {
    let message = format!("ignore_eos is true with {name}; the output could not end");
    f.fault("ignore_eos", "false with a format", message);
}

fn constraint(f: &mut Fields, name: &str, value: Json, unknown: Unknown) -> Option<Constraint> {
    let mut format = inside(f, name.to_owned(), value)?;
    let kind = format.required("type", RULE);
    let kind = kind.and_then(|kind| format.string("type", RULE, kind));
    let found = match kind.as_deref() {
        Some("json_object") => Some(Constraint::JsonSchema(ANY_OBJECT.to_owned())),
        Some("json_schema") => json_schema(&mut format, name, unknown).map(Constraint::JsonSchema),
        Some("regex") => text(&mut format, "pattern").map(Constraint::Regex),
        Some("lark") => text(&mut format, "grammar").map(Constraint::Lark),
        Some("text") | None => None,
        Some(_) => {
            let message = format!("{name}.type is no format; give {RULE}");
            format.fault("type", RULE, message);
            None
        }
    };
    close(f, format, unknown);
    found
}

/// The members of the object at `path`; notes what is none.
fn inside(f: &mut Fields, path: String, value: Json) -> Option<Fields> {
    let members = Fields::at(path, value);
    members.map_err(|fault| f.add_faults(vec![fault])).ok()
}

/// Passes on what is wrong with an object.
fn close(f: &mut Fields, object: Fields, unknown: Unknown) {
    let faults = match unknown {
        Unknown::Refused => object.finish(&MEMBERS).err(),
        Unknown::Ignored => object.finish_leniently().err(),
    };
    f.add_faults(faults.unwrap_or_default());
}

/// The text of the schema, which stands in the format or one object further in.
fn json_schema(format: &mut Fields, name: &str, unknown: Unknown) -> Option<String> {
    match format.take("json_schema") {
        None => schema(format),
        Some(value) => {
            let mut inner = inside(format, format!("{name}.json_schema"), value)?;
            let found = schema(&mut inner);
            close(format, inner, unknown);
            found
        }
    }
}

fn schema(f: &mut Fields) -> Option<String> {
    const RULE: &str = "a JSON Schema";
    // These say what the schema is for; it is heeded whatever `strict` says.
    for name in ["name", "description"] {
        if let Some(value) = f.take(name) {
            f.string(name, "string", value);
        }
    }
    f.flag("strict");
    let value = f.required("schema", RULE)?;
    if !matches!(value, Json::Object(_)) {
        return f.wrong_type("schema", RULE, &value, "an object");
    }
    checked_schema(f, "schema", &value.into())
}

/// The text of a schema that comes from the field `name`; notes one that is nested too deeply or too long.
pub(in crate::http) fn checked_schema(f: &mut Fields, name: &str, value: &Value) -> Option<String> {
    if !is_within(value, MAX_SCHEMA_DEPTH) {
        let message = format!("the schema is nested more deeply than {MAX_SCHEMA_DEPTH} levels");
        let rule = format!("at most {MAX_SCHEMA_DEPTH} levels");
        f.fault(name, &rule, message);
        return None;
    }
    bounded(f, name, value.to_string())
}

/// The text in `name`.
fn text(f: &mut Fields, name: &str) -> Option<String> {
    let value = f.required(name, "a string")?;
    let text = f.string(name, "string", value)?;
    bounded(f, name, text)
}

/// Notes a text that is empty or too long.
fn bounded(f: &mut Fields, name: &str, text: String) -> Option<String> {
    if (1..=MAX_CONSTRAINT_BYTES).contains(&text.len()) {
        return Some(text);
    }
    let rule = format!("1-{MAX_CONSTRAINT_BYTES} bytes");
    let message = format!("{name} has {} bytes; give {rule}", text.len());
    f.fault(name, &rule, message);
    None
}

/// Whether `value` is nested in no more than so many levels.
fn is_within(value: &Value, levels: usize) -> bool {
    let inner = |v: &Value| levels > 0 && is_within(v, levels - 1);
    match value {
        Value::Array(items) => items.iter().all(inner),
        Value::Object(members) => members.values().all(inner),
        _ => true,
    }
}

//! How deep data may be nested. What a template builds is printed, compared and freed by functions
//! that call themselves for each level, and no budget of instructions bounds those.

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, State, Value};

/// Deepest nesting of what a variable holds. JSON schemas, the deepest data in published
/// templates, stay below 20.
const MAX_DEPTH: usize = 64;

/// The value of a variable, if it is not nested too deep.
pub(super) fn variable(state: &State<'_, '_>, value: Value) -> Result<Value, Error> {
    Walk {
        state,
        attribute: false,
    }
    .visit(&value, 0)?;
    Ok(value)
}

/// The value of a namespace's attribute, which loops may set again and again. It holds no
/// namespace, which could hold itself, and nothing whose inside is not visible.
pub(super) fn attribute(state: &State<'_, '_>, value: Value) -> Result<Value, Error> {
    Walk {
        state,
        attribute: true,
    }
    .visit(&value, 0)?;
    Ok(value)
}

struct Walk<'s, 't, 'e> {
    state: &'s State<'t, 'e>,
    attribute: bool,
}

impl Walk<'_, '_, '_> {
    fn visit(&self, value: &Value, depth: usize) -> Result<(), Error> {
        let kind = value.kind();
        match kind {
            ValueKind::Seq | ValueKind::Iterable | ValueKind::Map => {}
            ValueKind::Plain if self.attribute => {
                return Err(refused(
                    "an attribute of a namespace can't hold such an object",
                ));
            }
            _ => return Ok(()),
        }
        if self.attribute && is_namespace(value) {
            return Err(refused("a namespace can't hold a namespace"));
        }
        if depth == MAX_DEPTH {
            return Err(refused("data is nested more than 64 levels deep"));
        }
        for item in value.try_iter()? {
            self.state.consume_fuel(1)?;
            if kind == ValueKind::Map {
                self.visit(&value.get_item(&item)?, depth + 1)?;
            }
            self.visit(&item, depth + 1)?;
        }
        Ok(())
    }
}

fn is_namespace(value: &Value) -> bool {
    value
        .as_object()
        .is_some_and(|object| object.type_name().ends_with("::Namespace"))
}

fn refused(reason: &'static str) -> Error {
    Error::new(ErrorKind::InvalidOperation, reason)
}

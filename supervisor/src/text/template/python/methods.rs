//! Methods of Python's strings, lists and dictionaries.
//!
//! Those that change a list or a dictionary are refused, as Hugging Face's renderer refuses them.

use minijinja::value::{ValueKind, from_args};
use minijinja::{Error, ErrorKind, State, Value};

use super::strings;

/// Calls `value.method(args)`.
pub(super) fn call(
    state: &mut State<'_, '_>,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    let own = match value.kind() {
        ValueKind::String => strings::method(state, value, method, args)?,
        ValueKind::Seq | ValueKind::Iterable => list(state, value, method, args)?,
        ValueKind::Map => dict(value, method, args)?,
        _ => None,
    };
    match own {
        Some(result) => Ok(result),
        None => minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args),
    }
}

/// Methods of lists and tuples; none for those that this does not know.
fn list(
    state: &State<'_, '_>,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Option<Value>, Error> {
    Ok(Some(match method {
        "index" => {
            let (wanted, start, stop): (&Value, Option<usize>, Option<usize>) = from_args(args)?;
            let (start, stop) = (start.unwrap_or(0), stop.unwrap_or(usize::MAX));
            for (at, item) in value.try_iter()?.enumerate() {
                state.consume_fuel(1)?;
                if (start..stop).contains(&at) && item == *wanted {
                    return Ok(Some(Value::from(at)));
                }
            }
            return Err(invalid("index: the value is not in the list"));
        }
        "copy" => {
            let () = from_args(args)?;
            value.clone()
        }
        "append" | "extend" | "insert" | "remove" | "pop" | "clear" | "sort" | "reverse" => {
            return Err(changes(method));
        }
        _ => return Ok(None),
    }))
}

/// Methods of dictionaries; none for those that this does not know.
fn dict(value: &Value, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    // An object of functions, as `{% import %}` makes one, has methods of its own.
    let has_own = || value.get_attr(method).is_ok_and(|own| !own.is_undefined());
    match method {
        "copy" if !has_own() => {
            let () = from_args(args)?;
            Ok(Some(value.clone()))
        }
        "pop" | "popitem" | "setdefault" | "update" | "clear" if !has_own() => Err(changes(method)),
        _ => Ok(None),
    }
}

fn changes(method: &str) -> Error {
    Error::new(
        ErrorKind::InvalidOperation,
        format!("{method} would change the value, which templates can't"),
    )
}

pub(super) fn invalid(reason: &'static str) -> Error {
    Error::new(ErrorKind::InvalidOperation, reason)
}

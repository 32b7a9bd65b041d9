//! The operator `%`: formatting of strings, and the remainder.

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, State, Value, context};

/// `left % right` as Python has it.
pub(super) fn percent(
    state: &mut State<'_, '_>,
    left: Value,
    right: Value,
) -> Result<Value, Error> {
    if left.as_str().is_none() {
        return remainder(state, left, right);
    }
    let named = right.kind() == ValueKind::Map && left.as_str().is_some_and(|s| s.contains("%("));
    let mut args = vec![left];
    if right.is_tuple() {
        for value in right.try_iter()? {
            args.push(value);
        }
    } else if named {
        let mut pairs = Vec::new();
        for key in right.try_iter()? {
            let value = right.get_item(&key)?;
            pairs.push((key.to_string(), value));
        }
        args.push(pairs.into_iter().collect::<Kwargs>().into());
    } else {
        args.push(right);
    }
    state.apply_filter("format", &args)
}

/// The remainder, with the sign of `right`.
fn remainder(state: &State<'_, '_>, left: Value, right: Value) -> Result<Value, Error> {
    // Nearly all of them are a loop's index modulo 2.
    if left.is_integer()
        && right.is_integer()
        && let (Some(a), Some(b)) = (left.as_i64(), right.as_i64())
        && let Some(rest) = a.checked_rem(b)
    {
        let other_sign = rest != 0 && (rest < 0) != (b < 0);
        return Ok(Value::from(if other_sign { rest + b } else { rest }));
    }
    let expression = state.env().compile_expression("left % right")?;
    expression.eval(context! { left, right })
}

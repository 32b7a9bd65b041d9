//! What templates written for Python expect beyond Jinja itself: functions, filters, methods.

mod bounded;
mod json;
mod methods;
pub(super) mod names;
mod percent;
mod strings;

use jiff::Zoned;
use jiff::fmt::strtime;
use minijinja::value::{Kwargs, Rest, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, Value};

use super::error::Rejection;

/// Adds everything but `strftime_now`, which is made for each rendering.
pub(super) fn install(env: &mut Environment<'_>) {
    minijinja_contrib::add_to_environment(env);
    env.set_unknown_method_callback(methods::call);
    env.add_function("raise_exception", raise_exception);
    env.add_function(names::function(names::PERCENT), percent::percent);
    env.add_function(names::function(names::BOUNDED), bounded::variable);
    env.add_function(
        names::function(names::BOUNDED_ATTRIBUTE),
        bounded::attribute,
    );
    env.add_function("cycler", cycler);
    env.add_filter("tojson", json::tojson);
    env.add_filter("trim", strings::trim);
    env.add_filter("center", strings::center);
    env.add_filter("wordwrap", wordwrap);
    env.add_filter("truncate", truncate);
    env.add_filter("forceescape", minijinja::filters::escape);
    env.add_test("callable", is_callable);
    env.add_test("iterable", is_iterable);
}

fn raise_exception(reason: String) -> Result<Value, Error> {
    let error = Error::new(ErrorKind::InvalidOperation, "raise_exception was called");
    Err(error.with_source(Rejection(reason)))
}

/// `cycler(*items)`.
fn cycler(items: Rest<Value>) -> Result<Value, Error> {
    minijinja_contrib::globals::cycler(items.0)
}

/// `value | wordwrap(width=79, break_long_words=True, wrapstring=None, break_on_hyphens=True)`.
fn wordwrap(value: &Value, args: Rest<Value>) -> Result<Value, Error> {
    const NAMES: [&str; 4] = [
        "width",
        "break_long_words",
        "wrapstring",
        "break_on_hyphens",
    ];
    minijinja_contrib::filters::wordwrap(value, named(&NAMES, &args)?)
}

/// `value | truncate(length=255, killwords=False, end='...', leeway=5)`.
fn truncate(state: &mut State<'_, '_>, value: &Value, args: Rest<Value>) -> Result<Value, Error> {
    const NAMES: [&str; 4] = ["length", "killwords", "end", "leeway"];
    minijinja_contrib::filters::truncate(state, value, named(&NAMES, &args)?)
}

/// Arguments by name, for functions that take no others: those without one have `names`, in order.
fn named(names: &[&'static str], args: &[Value]) -> Result<Kwargs, Error> {
    let (given, positional) = match args.split_last() {
        Some((last, others)) if last.is_kwargs() => (Kwargs::try_from(last.clone())?, others),
        _ => (Kwargs::from_iter::<[(String, Value); 0]>([]), args),
    };
    if positional.len() > names.len() {
        return Err(Error::from(ErrorKind::TooManyArguments));
    }
    let mut all = Vec::new();
    for (name, value) in names.iter().zip(positional) {
        all.push(((*name).to_owned(), value.clone()));
    }
    for name in given.args() {
        all.push((name.to_owned(), given.get::<Value>(name)?));
    }
    Ok(all.into_iter().collect())
}

/// Whether a value is a function or a macro.
fn is_callable(value: &Value) -> bool {
    value.kind() == ValueKind::Plain
}

/// Whether a value can be looped over: for the engine none can, for Python it can't.
fn is_iterable(value: &Value) -> bool {
    !value.is_none() && value.try_iter().is_ok()
}

/// `strftime_now(format)`: the time `now` in Python's notation.
pub(super) fn strftime(now: Zoned) -> Value {
    Value::from_function(move |format: &str| {
        strtime::format(format, &now)
            .map_err(|e| Error::new(ErrorKind::InvalidOperation, format!("strftime_now: {e}")))
    })
}

#[cfg(test)]
mod tests;

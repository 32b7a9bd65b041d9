//! What templates written for Python expect: functions, filters and methods of strings.

use jiff::Zoned;
use jiff::fmt::strtime;
use minijinja::value::Kwargs;
use minijinja::{Environment, Error, ErrorKind, Value};

use super::error::Refusal;

/// Adds everything but `strftime_now`, which is made for each rendering.
pub(super) fn install(env: &mut Environment<'_>) {
    env.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    env.add_function("raise_exception", raise_exception);
    env.add_filter("tojson", tojson);
}

fn raise_exception(reason: String) -> Result<Value, Error> {
    let error = Error::new(ErrorKind::InvalidOperation, "raise_exception was called");
    Err(error.with_source(Refusal(reason)))
}

/// `strftime_now(format)`: the time `now` in Python's notation.
pub(super) fn strftime(now: Zoned) -> Value {
    Value::from_function(move |format: &str| {
        strtime::format(format, &now)
            .map_err(|e| Error::new(ErrorKind::InvalidOperation, format!("strftime_now: {e}")))
    })
}

/// `tojson(indent=None, ensure_ascii=False)` as Hugging Face defines it: JSON as Python prints it,
/// where Jinja's own filter escapes `<`, `>`, `&` and `'` for HTML.
fn tojson(value: &Value, kwargs: Kwargs) -> Result<String, Error> {
    let indent: Option<Value> = kwargs.get("indent")?;
    if kwargs.get::<Option<bool>>("ensure_ascii")? == Some(true) {
        let reason = "tojson with ensure_ascii=True is not supported";
        return Err(Error::new(ErrorKind::InvalidOperation, reason));
    }
    kwargs.assert_all_used()?;
    let escaped = minijinja::filters::tojson(
        value,
        indent,
        std::iter::empty::<(String, Value)>().collect(),
    )?;
    Ok(unescape_html(escaped.as_str().unwrap_or_default()))
}

/// Takes back the escapes `\u003c`, `\u003e`, `\u0026` and `\u0027` in a JSON text.
fn unescape_html(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    let mut rest = json;
    while let Some(at) = rest.find('\\') {
        let (text, escape) = rest.split_at(at);
        out.push_str(text);
        // In JSON a backslash is never the last character, and what follows it is ASCII.
        let (c, len) = match escape.get(..6) {
            Some("\\u003c") => ("<", 6),
            Some("\\u003e") => (">", 6),
            Some("\\u0026") => ("&", 6),
            Some("\\u0027") => ("'", 6),
            _ => (escape.get(..2).unwrap_or(escape), escape.len().min(2)),
        };
        out.push_str(c);
        rest = escape.get(len..).unwrap_or_default();
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(source: &str) -> Result<String, Error> {
        let mut env = Environment::new();
        install(&mut env);
        let now: Zoned = "2024-03-09T08:07:06+00:00[UTC]".parse().unwrap();
        env.render_str(
            source,
            minijinja::context! { strftime_now => strftime(now) },
        )
    }

    #[test]
    fn json_is_what_python_prints() {
        let source = r#"{{ {"a": [1, 2.5, true, none], "é": "<b> & 'c'\n\\u003c \""} | tojson }}"#;
        let json = r#"{"a": [1, 2.5, true, null], "é": "<b> & 'c'\n\\u003c \""}"#;
        assert_eq!(render(source).unwrap(), json);
        assert_eq!(render("{{ [1]|tojson(indent=4) }}").unwrap(), "[\n    1\n]");
        assert_eq!(
            render("{{ [1]|tojson(ensure_ascii=false) }}").unwrap(),
            "[1]"
        );
        assert!(render("{{ [1]|tojson(ensure_ascii=true) }}").is_err());
    }

    #[test]
    fn time_is_formatted_as_python_does() {
        let date = render("{{ strftime_now('%Y-%m-%d %d %b %Y %H:%M') }}").unwrap();
        assert_eq!(date, "2024-03-09 09 Mar 2024 08:07");
        assert!(render("{{ strftime_now('%!') }}").is_err());
    }

    #[test]
    fn strings_have_pythons_methods() {
        let source = "{{ ' a,b '.strip().split(',')[-1].upper() }}{{ 'x'.startswith('x') }}";
        assert_eq!(render(source).unwrap(), "BTrue");
    }
}

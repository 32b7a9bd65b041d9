//! `tojson` as Hugging Face defines it: Python's `json.dumps`, where Jinja's own filter escapes
//! `<`, `>`, `&` and `'` for HTML.

use std::fmt::Write as _;

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, State, Value};

use super::names::UNESCAPED;

/// Deepest nesting that is written.
const MAX_DEPTH: usize = 128;
/// Widest indentation.
const MAX_INDENT: usize = 64;
/// Bytes that cost one unit of fuel.
const BYTES_PER_FUEL: usize = 4;

/// `value | tojson(ensure_ascii=False, indent=None, separators=None, sort_keys=False)`.
pub(super) fn tojson(
    state: &State<'_, '_>,
    value: &Value,
    ensure_ascii: Option<bool>,
    indent: Option<Value>,
    kwargs: Kwargs,
) -> Result<String, Error> {
    let flag = |name| Ok::<_, Error>(kwargs.get::<Option<bool>>(name)?.unwrap_or(false));
    let indent = match indent {
        Some(indent) => Some(indent),
        None => kwargs.get("indent")?,
    };
    let indent = indent.map(indentation).transpose()?.flatten();
    let separators = kwargs.get::<Option<Vec<String>>>("separators")?;
    let (between, colon) = match separators.as_deref() {
        None if indent.is_some() => (",".to_owned(), ": ".to_owned()),
        None => (", ".to_owned(), ": ".to_owned()),
        Some([between, colon]) => (between.clone(), colon.clone()),
        Some(_) => return Err(invalid("tojson: separators has two strings")),
    };
    let unescaped = state.lookup(UNESCAPED);
    let mut writer = Writer {
        out: String::new(),
        state,
        charged: 0,
        unescaped: unescaped.as_ref().and_then(Value::as_str).unwrap_or(""),
        ascii: match ensure_ascii {
            Some(ascii) => ascii,
            None => flag("ensure_ascii")?,
        },
        sort_keys: flag("sort_keys")?,
        indent,
        between,
        colon,
    };
    kwargs.assert_all_used()?;
    writer.value(value, 0)?;
    Ok(writer.out)
}

/// What each level is indented by; none if all stands on one line.
fn indentation(indent: Value) -> Result<Option<String>, Error> {
    if indent.is_none() || indent.is_undefined() {
        return Ok(None);
    }
    let text = match (indent.as_str(), indent.as_i64()) {
        (Some(text), _) => text.to_owned(),
        (None, Some(width)) => " ".repeat(usize::try_from(width).unwrap_or(0).min(MAX_INDENT + 1)),
        _ if indent.kind() == ValueKind::Bool => " ".repeat(usize::from(indent.is_true())),
        _ => return Err(invalid("tojson: indent is a number or a string")),
    };
    if text.len() > MAX_INDENT {
        return Err(invalid("tojson: indent is longer than 64 characters"));
    }
    Ok(Some(text))
}

struct Writer<'s, 't, 'e> {
    out: String,
    state: &'s State<'t, 'e>,
    /// Bytes of `out` that are paid for.
    charged: usize,
    ascii: bool,
    /// Characters that are not the text's own: they mark places in it, and are dropped later.
    unescaped: &'s str,
    sort_keys: bool,
    indent: Option<String>,
    between: String,
    colon: String,
}

impl Writer<'_, '_, '_> {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        match value.kind() {
            ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool => self
                .out
                .push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.out.push_str(&number(value)),
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => self.list(value, depth)?,
            ValueKind::Map => self.map(value, depth)?,
            kind => return Err(invalid_kind(kind)),
        }
        self.charge()
    }

    fn list(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        self.deeper(depth)?;
        self.out.push('[');
        let mut is_empty = true;
        for item in value.try_iter()? {
            self.separate(is_empty, depth + 1);
            is_empty = false;
            self.value(&item, depth + 1)?;
        }
        self.close(is_empty, depth, ']');
        Ok(())
    }

    fn map(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        self.deeper(depth)?;
        let mut entries = Vec::new();
        for key in value.try_iter()? {
            self.state.consume_fuel(1)?;
            entries.push((key_text(&key)?, value.get_item(&key)?));
        }
        if self.sort_keys {
            entries.sort_by(|a, b| a.0.cmp(&b.0));
        }
        self.out.push('{');
        for (i, (key, item)) in entries.iter().enumerate() {
            self.separate(i == 0, depth + 1);
            self.string(key);
            self.out.push_str(&self.colon);
            self.value(item, depth + 1)?;
        }
        self.close(entries.is_empty(), depth, '}');
        Ok(())
    }

    fn deeper(&self, depth: usize) -> Result<(), Error> {
        if depth == MAX_DEPTH {
            return Err(invalid("tojson: data is nested more than 128 levels deep"));
        }
        Ok(())
    }

    fn separate(&mut self, is_first: bool, depth: usize) {
        if !is_first {
            self.out.push_str(&self.between);
        }
        self.line(depth);
    }

    fn close(&mut self, is_empty: bool, depth: usize, bracket: char) {
        if !is_empty {
            self.line(depth);
        }
        self.out.push(bracket);
    }

    fn line(&mut self, depth: usize) {
        if let Some(indent) = &self.indent {
            self.out.push('\n');
            (0..depth).for_each(|_| self.out.push_str(indent));
        }
    }

    fn string(&mut self, text: &str) {
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                c if c < ' ' || (self.ascii && self.is_escaped(c)) => self.escape(c),
                c => self.out.push(c),
            }
        }
        self.out.push('"');
    }

    /// Whether `c` is escaped where all is to be ASCII.
    fn is_escaped(&self, c: char) -> bool {
        !c.is_ascii() && !self.unescaped.contains(c)
    }

    fn escape(&mut self, c: char) {
        for unit in c.encode_utf16(&mut [0; 2]) {
            // Writing to a String does not fail.
            let _ = write!(self.out, "\\u{unit:04x}");
        }
    }

    /// Pays for what was written since it was last called.
    fn charge(&mut self) -> Result<(), Error> {
        let fuel = (self.out.len() - self.charged) / BYTES_PER_FUEL + 1;
        self.charged = self.out.len();
        self.state.consume_fuel(fuel as u64)
    }
}

/// A key as Python writes it: JSON has strings only.
fn key_text(key: &Value) -> Result<String, Error> {
    match key.kind() {
        ValueKind::String => Ok(key.as_str().unwrap_or_default().to_owned()),
        ValueKind::None => Ok("null".to_owned()),
        ValueKind::Bool => Ok(if key.is_true() { "true" } else { "false" }.to_owned()),
        ValueKind::Number => Ok(number(key)),
        kind => Err(invalid_kind(kind)),
    }
}

/// A number as Python prints it.
fn number(value: &Value) -> String {
    if value.is_integer() {
        return value.to_string();
    }
    let Ok(float) = f64::try_from(value.clone()) else {
        return value.to_string();
    };
    match float {
        _ if float.is_nan() => "NaN".to_owned(),
        _ if float.is_infinite() => if float > 0.0 { "Infinity" } else { "-Infinity" }.to_owned(),
        0.0 => format!("{float:?}"),
        // Rust and Python agree on the shortest digits, but not on where exponents begin and how
        // they are written.
        _ if (1e-4..1e16).contains(&float.abs()) => format!("{float:?}"),
        _ => {
            let text = format!("{float:e}");
            let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
            let (sign, exponent) = match exponent.strip_prefix('-') {
                Some(exponent) => ('-', exponent),
                None => ('+', exponent),
            };
            format!("{digits}e{sign}{exponent:0>2}")
        }
    }
}

fn invalid(reason: &'static str) -> Error {
    Error::new(ErrorKind::InvalidOperation, reason)
}

fn invalid_kind(kind: ValueKind) -> Error {
    Error::new(
        ErrorKind::InvalidOperation,
        format!("tojson: JSON has no {kind}"),
    )
}

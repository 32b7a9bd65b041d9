//! Methods of Python's strings beyond what the engine's companion has, and those of its own whose
//! cost is not bounded by the engine's budget: each pays for what it makes before it makes it.

use std::collections::HashSet;

use minijinja::formatting::{FormatStyle, format};
use minijinja::value::{Kwargs, StringInput, Tuple, from_args};
use minijinja::{Error, State, Value};
use regex::Regex;

use super::methods::invalid;

/// Bytes that cost one unit of fuel.
const BYTES_PER_FUEL: usize = 64;

/// Pays for `bytes` that are about to be made.
fn charge(state: &State<'_, '_>, bytes: usize) -> Result<(), Error> {
    state.consume_fuel((bytes / BYTES_PER_FUEL) as u64)
}

/// Calls `value.method(args)`; none for a method that this does not know.
pub(super) fn method(
    state: &State<'_, '_>,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Option<Value>, Error> {
    let Some(s) = value.as_str() else {
        return Ok(None);
    };
    if let Some(result) = part(s, method, args)? {
        return Ok(Some(result));
    }
    Ok(Some(match method {
        "split" | "rsplit" => split(state, s, method == "rsplit", args)?,
        "splitlines" => splitlines(s, args)?,
        "join" => join(state, s, args)?,
        "replace" => replace(state, s, args)?,
        "format" => {
            charge(state, widths(s))?;
            format(FormatStyle::StrFormat, s, args)?.into()
        }
        "format_map" => {
            let (map,): (&Value,) = from_args(args)?;
            charge(state, widths(s))?;
            let pairs = map.try_iter()?.map(|key| {
                let value = map.get_item(&key)?;
                Ok((key.to_string(), value))
            });
            let pairs = pairs.collect::<Result<Vec<_>, Error>>()?;
            let named: Value = pairs.into_iter().collect::<Kwargs>().into();
            format(FormatStyle::StrFormat, s, &[named])?.into()
        }
        "center" | "ljust" | "rjust" => {
            let (width, fill): (usize, Option<char>) = from_args(args)?;
            pad(state, s, method, width, fill.unwrap_or(' '))?.into()
        }
        "zfill" => {
            let (width,): (usize,) = from_args(args)?;
            let sign = s.len() - s.trim_start_matches(['+', '-']).len();
            let (sign, digits) = s.split_at(sign.min(1));
            let digits = pad(
                state,
                digits,
                "rjust",
                width.saturating_sub(sign.len()),
                '0',
            )?;
            format!("{sign}{digits}").into()
        }
        "expandtabs" => expandtabs(state, s, args)?,
        "index" | "rindex" => {
            let (what,): (&str,) = from_args(args)?;
            let at = if method == "index" {
                s.find(what)
            } else {
                s.rfind(what)
            };
            let at = at.ok_or_else(|| invalid("index: the text is not in the string"))?;
            s[..at].chars().count().into()
        }
        _ => match is(s, method) {
            Some(answer) => {
                let () = from_args(args)?;
                answer.into()
            }
            None => return Ok(None),
        },
    }))
}

/// Methods that return a part of the string, or it in other letters.
fn part(s: &str, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    Ok(Some(match method {
        "strip" | "lstrip" | "rstrip" => {
            let (chars,): (Option<&str>,) = from_args(args)?;
            strip(s, method, chars).into()
        }
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            s.strip_prefix(prefix).unwrap_or(s).into()
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            s.strip_suffix(suffix).unwrap_or(s).into()
        }
        "partition" | "rpartition" => {
            let (separator,): (&str,) = from_args(args)?;
            partition(s, separator, method == "rpartition")?
        }
        "casefold" => {
            let () = from_args(args)?;
            s.to_lowercase().replace('ß', "ss").into()
        }
        "swapcase" => {
            let () = from_args(args)?;
            s.chars().map(swapped).collect::<String>().into()
        }
        _ => return Ok(None),
    }))
}

fn swapped(c: char) -> String {
    if c.is_uppercase() {
        c.to_lowercase().collect()
    } else {
        c.to_uppercase().collect()
    }
}

/// `value | trim(chars)`.
pub(super) fn trim(
    value: StringInput<'_>,
    chars: Option<&str>,
    kwargs: Kwargs,
) -> Result<String, Error> {
    let chars = match chars {
        Some(chars) => Some(chars),
        None => kwargs.get("chars")?,
    };
    kwargs.assert_all_used()?;
    Ok(strip(value.as_str(), "strip", chars).to_owned())
}

/// `s` without `chars`, or white space, at its ends.
fn strip<'s>(s: &'s str, method: &str, chars: Option<&str>) -> &'s str {
    // A set: a list of many characters would be looked through for each one of the text.
    let set: Option<HashSet<char>> = chars.map(|chars| chars.chars().collect());
    let goes = |c: char| match &set {
        Some(set) => set.contains(&c),
        None => c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c),
    };
    match method {
        "lstrip" => s.trim_start_matches(goes),
        "rstrip" => s.trim_end_matches(goes),
        _ => s.trim_matches(goes),
    }
}

fn partition(s: &str, separator: &str, from_right: bool) -> Result<Value, Error> {
    if separator.is_empty() {
        return Err(invalid("partition: the separator is empty"));
    }
    let found = if from_right {
        s.rsplit_once(separator)
    } else {
        s.split_once(separator)
    };
    let parts = match found {
        Some((before, after)) => [before, separator, after],
        None if from_right => ["", "", s],
        None => [s, "", ""],
    };
    Ok(Value::from(Tuple::from(parts.map(Value::from))))
}

/// `split(sep=None, maxsplit=-1)` and its mirror image.
fn split(state: &State<'_, '_>, s: &str, from_right: bool, args: &[Value]) -> Result<Value, Error> {
    let (separator, most, kwargs): (Option<&str>, Option<i64>, Kwargs) = from_args(args)?;
    let separator = match separator {
        Some(separator) => Some(separator),
        None => kwargs.get("sep")?,
    };
    let most = match most {
        Some(most) => Some(most),
        None => kwargs.get("maxsplit")?,
    };
    kwargs.assert_all_used()?;
    let most = most
        .and_then(|most| usize::try_from(most).ok())
        .unwrap_or(usize::MAX);
    let mut parts: Vec<&str> = match separator {
        Some("") => return Err(invalid("split: the separator is empty")),
        Some(separator) if from_right => s.rsplitn(most.saturating_add(1), separator).collect(),
        Some(separator) => s.splitn(most.saturating_add(1), separator).collect(),
        None => split_blanks(s, from_right, most),
    };
    charge(state, parts.len().saturating_mul(size_of::<Value>()))?;
    if from_right {
        parts.reverse();
    }
    Ok(parts.into_iter().map(Value::from).collect())
}

/// Words between runs of white space; the last has what is left after `most` cuts.
fn split_blanks(s: &str, from_right: bool, most: usize) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = if from_right {
        s.trim_end()
    } else {
        s.trim_start()
    };
    while !rest.is_empty() {
        let cut = if from_right {
            rest.rsplit_once(char::is_whitespace)
                .map(|(rest, word)| (word, rest.trim_end()))
        } else {
            rest.split_once(char::is_whitespace)
                .map(|(word, rest)| (word, rest.trim_start()))
        };
        match cut {
            Some((word, others)) if parts.len() < most => {
                parts.push(word);
                rest = others;
            }
            _ => {
                parts.push(rest);
                break;
            }
        }
    }
    parts
}

fn splitlines(s: &str, args: &[Value]) -> Result<Value, Error> {
    let (keep, kwargs): (Option<bool>, Kwargs) = from_args(args)?;
    let keep = match keep {
        Some(keep) => keep,
        None => kwargs.get::<Option<bool>>("keepends")?.unwrap_or(false),
    };
    kwargs.assert_all_used()?;
    let ends = |c: char| {
        matches!(
            c,
            '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' | '\u{2029}'
        ) || ('\u{1c}'..='\u{1e}').contains(&c)
    };
    let mut lines = Vec::new();
    let mut rest = s;
    while let Some(at) = rest.find(ends) {
        let mark = if rest[at..].starts_with("\r\n") {
            2
        } else {
            rest[at..].chars().next().map_or(1, char::len_utf8)
        };
        lines.push(Value::from(&rest[..if keep { at + mark } else { at }]));
        rest = &rest[at + mark..];
    }
    if !rest.is_empty() {
        lines.push(Value::from(rest));
    }
    Ok(Value::from(lines))
}

fn join(state: &State<'_, '_>, s: &str, args: &[Value]) -> Result<Value, Error> {
    let (values,): (&Value,) = from_args(args)?;
    let mut out = String::new();
    for (at, value) in values.try_iter()?.enumerate() {
        let text = value
            .as_str()
            .ok_or_else(|| invalid("join: an item is not a string"))?;
        charge(state, s.len() + text.len() + BYTES_PER_FUEL)?;
        if at > 0 {
            out.push_str(s);
        }
        out.push_str(text);
    }
    Ok(out.into())
}

fn replace(state: &State<'_, '_>, s: &str, args: &[Value]) -> Result<Value, Error> {
    let (old, new, most, kwargs): (&str, &str, Option<i64>, Kwargs) = from_args(args)?;
    let most = match most {
        Some(most) => Some(most),
        None => kwargs.get("count")?,
    };
    kwargs.assert_all_used()?;
    let most = most
        .and_then(|most| usize::try_from(most).ok())
        .unwrap_or(usize::MAX);
    let found = s.matches(old).take(most).count();
    charge(
        state,
        s.len().saturating_add(found.saturating_mul(new.len())),
    )?;
    Ok(s.replacen(old, new, most).into())
}

/// All widths and precisions in a format string together: what it may pad its values to.
fn widths(format: &str) -> usize {
    let numbers = format.split(|c: char| !c.is_ascii_digit());
    let widths = numbers
        .filter(|digits| !digits.is_empty())
        .map(|digits| digits.parse().unwrap_or(usize::MAX));
    widths.fold(format.len(), usize::saturating_add)
}

/// `value | center(width=80)`.
pub(super) fn center(
    state: &State<'_, '_>,
    value: StringInput<'_>,
    width: Option<usize>,
) -> Result<String, Error> {
    pad(state, value.as_str(), "center", width.unwrap_or(80), ' ')
}

/// `s` with `fill` beside it, `width` characters in all.
fn pad(
    state: &State<'_, '_>,
    s: &str,
    method: &str,
    width: usize,
    fill: char,
) -> Result<String, Error> {
    let missing = width.saturating_sub(s.chars().count());
    charge(state, missing.saturating_mul(fill.len_utf8()))?;
    let left = match method {
        "ljust" => 0,
        "rjust" => missing,
        // Python's own rounding: an odd one goes to the left if the width is odd.
        _ => missing / 2 + (missing & width & 1),
    };
    let mut out = String::new();
    out.extend(std::iter::repeat_n(fill, left));
    out.push_str(s);
    out.extend(std::iter::repeat_n(fill, missing - left));
    Ok(out)
}

fn expandtabs(state: &State<'_, '_>, s: &str, args: &[Value]) -> Result<Value, Error> {
    let (size, kwargs): (Option<usize>, Kwargs) = from_args(args)?;
    let size = match size {
        Some(size) => size,
        None => kwargs.get::<Option<usize>>("tabsize")?.unwrap_or(8),
    };
    kwargs.assert_all_used()?;
    charge(state, s.matches('\t').count().saturating_mul(size))?;
    let mut out = String::new();
    let mut column = 0;
    for c in s.chars() {
        match c {
            '\t' => {
                let blanks = if size == 0 { 0 } else { size - column % size };
                out.extend(std::iter::repeat_n(' ', blanks));
                column += blanks;
            }
            '\n' | '\r' => {
                out.push(c);
                column = 0;
            }
            c => {
                out.push(c);
                column += 1;
            }
        }
    }
    Ok(out.into())
}

/// The answer to `s.isdecimal()` and the like; none for other methods.
fn is(s: &str, method: &str) -> Option<bool> {
    Some(match method {
        "isdecimal" => Regex::new(r"^\p{Nd}+$").is_ok_and(|decimal| decimal.is_match(s)),
        "isidentifier" => {
            let starts = s.starts_with(|c: char| c == '_' || c.is_alphabetic());
            starts && s.chars().all(|c| c == '_' || c.is_alphanumeric())
        }
        "isprintable" => s
            .chars()
            .all(|c| c == ' ' || !(c.is_control() || c.is_whitespace())),
        "istitle" => is_title(s),
        _ => return None,
    })
}

/// Whether upper case stands at the beginning of words only, and everywhere there.
fn is_title(s: &str) -> bool {
    let mut in_word = false;
    let mut any = false;
    for c in s.chars() {
        if c.is_uppercase() && in_word || c.is_lowercase() && !in_word {
            return false;
        }
        in_word = c.is_uppercase() || c.is_lowercase();
        any |= in_word;
    }
    any
}

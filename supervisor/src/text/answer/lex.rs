//! The parts of JSON that calls are made of, as their characters come.

/// Finds the end of a value that is an object, an array or a string.
#[derive(Clone, Debug)]
pub(super) struct Nesting {
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl Nesting {
    /// Inside the value that begins with `c`.
    pub(super) fn opened(c: char) -> Self {
        Self {
            depth: usize::from(c != '"'),
            in_string: c == '"',
            escaped: false,
        }
    }

    pub(super) fn in_string(&self) -> bool {
        self.in_string
    }

    /// Takes the next character. True if it is the value's last.
    pub(super) fn push(&mut self, c: char) -> bool {
        if self.in_string {
            self.in_string = self.escaped || c != '"';
            self.escaped = !self.escaped && c == '\\';
        } else {
            match c {
                '"' => self.in_string = true,
                '{' | '[' => self.depth += 1,
                '}' | ']' => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
        }
        self.depth == 0 && !self.in_string
    }
}

/// What a string contains, from the characters between its quotes.
#[derive(Clone, Debug, Default)]
pub(super) struct JsonString {
    escape: Escape,
    /// The first half of a surrogate pair, whose second half may follow.
    high: Option<u16>,
}

#[derive(Clone, Copy, Debug, Default)]
enum Escape {
    #[default]
    None,
    /// After the backslash.
    Begun,
    /// Inside `\uXXXX`.
    Unicode { digits: u8, unit: u16 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StringStep {
    More,
    End,
    /// No escape is written like that.
    Invalid,
}

impl JsonString {
    /// Takes the next character, and appends what it completes to `out`.
    pub(super) fn push(&mut self, c: char, out: &mut String) -> StringStep {
        match (self.escape, c) {
            (Escape::None, '"') => {
                self.end_pair(out);
                return StringStep::End;
            }
            (Escape::None, '\\') => self.escape = Escape::Begun,
            (Escape::None, _) => self.add(c, out),
            (Escape::Begun, 'u') => self.escape = Escape::Unicode { digits: 0, unit: 0 },
            (Escape::Begun, _) => match escaped(c) {
                Some(c) => self.add(c, out),
                None => return StringStep::Invalid,
            },
            (Escape::Unicode { digits, unit }, _) => match hex_digit(c) {
                Some(digit) => self.add_digit(digits + 1, unit << 4 | digit, out),
                None => return StringStep::Invalid,
            },
        }
        StringStep::More
    }

    fn add(&mut self, c: char, out: &mut String) {
        self.end_pair(out);
        self.escape = Escape::None;
        out.push(c);
    }

    fn add_digit(&mut self, digits: u8, unit: u16, out: &mut String) {
        if digits < 4 {
            self.escape = Escape::Unicode { digits, unit };
            return;
        }
        self.escape = Escape::None;
        let pair = self
            .high
            .map(|high| char::decode_utf16([high, unit]).next());
        if let Some(Some(Ok(c))) = pair {
            self.high = None;
            out.push(c);
            return;
        }
        self.end_pair(out);
        match unit {
            0xD800..=0xDBFF => self.high = Some(unit),
            _ => out.push(char::from_u32(unit.into()).unwrap_or(char::REPLACEMENT_CHARACTER)),
        }
    }

    /// Half a pair stands for no character.
    fn end_pair(&mut self, out: &mut String) {
        if self.high.take().is_some() {
            out.push(char::REPLACEMENT_CHARACTER);
        }
    }
}

fn hex_digit(c: char) -> Option<u16> {
    u16::try_from(c.to_digit(16)?).ok()
}

fn escaped(c: char) -> Option<char> {
    Some(match c {
        '"' | '\\' | '/' => c,
        'b' => '\u{8}',
        'f' => '\u{C}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The content of a JSON string, quotes excluded from `text`.
    fn unescape(text: &str) -> Option<String> {
        let mut string = JsonString::default();
        let mut out = String::new();
        for c in text.chars() {
            if string.push(c, &mut out) == StringStep::Invalid {
                return None;
            }
        }
        string.end_pair(&mut out);
        Some(out)
    }

    #[test]
    fn escapes_become_characters() {
        assert_eq!(
            unescape(r#"a\n\"\\\/\u00e9\ud83e\uDD80é"#).unwrap(),
            "a\n\"\\/é🦀é"
        );
    }

    #[test]
    fn half_a_surrogate_pair_is_one_replacement() {
        assert_eq!(
            unescape(r"\ud83ex\ud83e\ud83e\udd80\udd80").unwrap(),
            "\u{FFFD}x\u{FFFD}🦀\u{FFFD}"
        );
    }

    #[test]
    fn unknown_escapes_are_invalid() {
        assert_eq!(unescape(r"\x41"), None);
        assert_eq!(unescape(r"\u00g0"), None);
    }

    #[test]
    fn a_value_ends_with_its_own_bracket() {
        let text = r#"{"a": [1, {"b": "}]\"}"}], "c\\": {}}"#;
        let mut nesting = Nesting::opened('{');
        let end = text.char_indices().skip(1).find(|&(_, c)| nesting.push(c));
        assert_eq!(end.unwrap().0, text.len() - 1);
    }

    proptest! {
        #[test]
        fn any_string_written_as_json_is_read_back(text in any::<String>()) {
            let json = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(unescape(&json[1..json.len() - 1]), Some(text));
        }
    }
}

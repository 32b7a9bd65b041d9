//! What a template's source is brought into before it is compiled.
//!
//! The engine has no hook for three things, so the source says them in other words:
//!
//! - `{% generation %}` marks the assistant's part for training and renders what is inside: `with`.
//! - `a % b` may be Python's formatting of a string: a call that looks at what `a` is.
//! - `{% set x = value %}` could nest data without end: a call that bounds how deep it is.
//!
//! Lines stay where they are, so errors name the line of the template as it was written. What is
//! no well-formed tag is left alone: the engine says what is wrong with it.

use super::python::names;

/// The source that is compiled in place of `source`.
pub(super) fn translate(source: &str) -> String {
    let mut out = String::with_capacity(source.len() + source.len() / 8);
    let mut rest = source;
    while let Some(at) = rest.find('{') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let taken = match rest.as_bytes().get(1) {
            Some(b'#') => copy(rest, rest.find("#}").map(|end| end + 2), &mut out),
            Some(b'{') => tag(rest, "}}", &mut out),
            Some(b'%') => match raw_block(rest) {
                Some(len) => copy(rest, Some(len), &mut out),
                None => tag(rest, "%}", &mut out),
            },
            _ => copy(rest, Some(1), &mut out),
        };
        rest = &rest[taken..];
    }
    out.push_str(rest);
    out
}

/// Writes `len` bytes of `text`, or all of it, and returns how many.
fn copy(text: &str, len: Option<usize>, out: &mut String) -> usize {
    let len = len.unwrap_or(text.len());
    out.push_str(&text[..len]);
    len
}

/// The length of `{% raw %}…{% endraw %}` at the start of `text`: all of it without an end.
fn raw_block(text: &str) -> Option<usize> {
    let mut at = bare_tag(text, "raw")?;
    while let Some(next) = text[at..].find("{%") {
        at += next;
        match bare_tag(&text[at..], "endraw") {
            Some(len) => return Some(at + len),
            None => at += 2,
        }
    }
    Some(text.len())
}

/// The length of the tag `{% name %}` at the start of `text`.
fn bare_tag(text: &str, name: &str) -> Option<usize> {
    let signed = |text: &'_ str| text.starts_with(['-', '+']);
    let mut rest = text.strip_prefix("{%")?;
    if signed(rest) {
        rest = &rest[1..];
    }
    rest = rest
        .trim_ascii_start()
        .strip_prefix(name)?
        .trim_ascii_start();
    if signed(rest) {
        rest = &rest[1..];
    }
    Some(text.len() - rest.strip_prefix("%}")?.len())
}

/// Writes the tag at the start of `text` and returns its length. If it does not end in `end`, all
/// of `text` goes over as it is.
fn tag(text: &str, end: &str, out: &mut String) -> usize {
    let Some((tokens, len)) = tokens(text, end) else {
        return copy(text, None, out);
    };
    let mut at = 0;
    for edit in edits(&tokens, end == "%}") {
        out.push_str(&text[at..edit.from]);
        out.push_str(edit.text);
        at = edit.to;
    }
    out.push_str(&text[at..len]);
    len
}

/// What a token is, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A name or a keyword.
    Word,
    /// A string or a number.
    Literal,
    Operator,
    Open,
    Close,
}

/// A token of a tag.
#[derive(Clone, Copy, Debug)]
struct Token<'s> {
    kind: Kind,
    text: &'s str,
    /// Where it starts, in bytes of the tag.
    start: usize,
}

impl Token<'_> {
    fn end(&self) -> usize {
        self.start + self.text.len()
    }
}

/// The tokens of the tag at the start of `text`, and the tag's length; none if it has no end.
fn tokens<'s>(text: &'s str, end: &str) -> Option<(Vec<Token<'s>>, usize)> {
    let mut tokens = Vec::new();
    let mut open = 0usize;
    let mut at = 2 + usize::from(text[2..].starts_with(['-', '+']));
    loop {
        let rest = &text[at..];
        let first = rest.chars().next()?;
        if open == 0 {
            let unsigned = rest.strip_prefix(['-', '+']).unwrap_or(rest);
            if unsigned.starts_with(end) {
                return Some((tokens, at + (rest.len() - unsigned.len()) + end.len()));
            }
        }
        let (kind, len) = match first {
            c if c.is_ascii_whitespace() => {
                at += 1;
                continue;
            }
            '\'' | '"' => (Kind::Literal, string(rest, first)?),
            '(' | '[' | '{' => (Kind::Open, 1),
            ')' | ']' | '}' => (Kind::Close, 1),
            c if c.is_ascii_digit() => (Kind::Literal, number(rest)),
            c if c == '_' || c.is_alphanumeric() => {
                let ends = |c: char| c != '_' && !c.is_alphanumeric();
                (Kind::Word, rest.find(ends).unwrap_or(rest.len()))
            }
            _ => (Kind::Operator, operator(rest)),
        };
        match kind {
            Kind::Open => open += 1,
            Kind::Close => open = open.checked_sub(1)?,
            _ => {}
        }
        tokens.push(Token {
            kind,
            text: &rest[..len],
            start: at,
        });
        at += len;
    }
}

/// The length of the string at the start of `text`, which begins with `quote`.
fn string(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// The length of the number at the start of `text`.
fn number(text: &str) -> usize {
    let ends = |c: char| c != '_' && !c.is_ascii_alphanumeric();
    let whole = text.find(ends).unwrap_or(text.len());
    // `1.5` is one number, `messages.0.content` none of those with a dot.
    match text[whole..].strip_prefix('.') {
        Some(rest) if rest.starts_with(|c: char| c.is_ascii_digit()) => {
            whole + 1 + rest.find(ends).unwrap_or(rest.len())
        }
        _ => whole,
    }
}

/// The length of the operator at the start of `text`, which is not empty.
fn operator(text: &str) -> usize {
    const TWO: [&str; 6] = ["//", "**", "==", "!=", "<=", ">="];
    if TWO.iter().any(|two| text.starts_with(two)) {
        return 2;
    }
    text.chars().next().map_or(1, char::len_utf8)
}

/// A part of a tag that is written otherwise.
struct Edit {
    from: usize,
    to: usize,
    text: &'static str,
}

/// The edits of a tag, in order.
fn edits(tokens: &[Token<'_>], is_block: bool) -> Vec<Edit> {
    let mut edits = Vec::new();
    let mut closing = None;
    let mut expressions = tokens;
    if is_block && let Some((word, rest)) = tokens.split_first() {
        expressions = rest;
        match word.text {
            "generation" if rest.is_empty() => edits.push(replace(word, "with")),
            "endgeneration" if rest.is_empty() => edits.push(replace(word, "endwith")),
            "set" => {
                if let Some((value, bounds)) = assigned(rest) {
                    edits.extend(value.first().map(|first| insert(first.start, bounds)));
                    closing = value.last().map(|last| insert(last.end(), "))"));
                }
            }
            _ => {}
        }
    }
    let mut percents = Percents::default();
    expressions.iter().for_each(|token| percents.push(token));
    edits.extend(percents.finish());
    // What stands at one place keeps its order: the value's call is outside of the operators'.
    edits.sort_by_key(|edit| edit.from);
    edits.extend(closing);
    edits
}

/// What `{% set … %}` assigns, and the call that bounds it: the tokens after the first `=` that is
/// not in brackets. There is none where the value is a block.
fn assigned<'t, 's>(tokens: &'t [Token<'s>]) -> Option<(&'t [Token<'s>], &'static str)> {
    let mut open = 0usize;
    let at = tokens.iter().position(|token| {
        match token.kind {
            Kind::Open => open += 1,
            Kind::Close => open -= 1,
            _ => {}
        }
        open == 0 && token.text == "="
    })?;
    let is_attribute = tokens[..at].iter().any(|token| token.text == ".");
    let bounds = if is_attribute {
        names::BOUNDED_ATTRIBUTE
    } else {
        names::BOUNDED
    };
    Some((&tokens[at + 1..], bounds))
}

fn insert(at: usize, text: &'static str) -> Edit {
    Edit {
        from: at,
        to: at,
        text,
    }
}

fn replace(token: &Token<'_>, text: &'static str) -> Edit {
    Edit {
        from: token.start,
        to: token.end(),
        text,
    }
}

/// Finds the operands of `%`, which binds like `*` and `/`, from the left.
#[derive(Default)]
struct Percents {
    /// What is between brackets, from the outside in.
    levels: Vec<Level>,
    current: Level,
    edits: Vec<Edit>,
}

/// The chain of factors that is being read within one pair of brackets.
#[derive(Default)]
struct Level {
    /// Where it starts.
    start: Option<usize>,
    /// Where its last token ends.
    end: usize,
    /// Whether that token ends an operand, so that a sign after it is an operator.
    has_operand: bool,
    /// Whether a call is open whose last operand is being read.
    in_call: bool,
}

impl Percents {
    fn push(&mut self, token: &Token<'_>) {
        match token.kind {
            Kind::Open => {
                self.current.start.get_or_insert(token.start);
                self.levels.push(std::mem::take(&mut self.current));
                return;
            }
            Kind::Close => {
                self.end_call();
                // There are never more closing brackets than opening ones: `tokens` has counted.
                self.current = self.levels.pop().unwrap_or_default();
                self.current.has_operand = true;
            }
            Kind::Word if is_keyword(token.text) => return self.end_chain(),
            Kind::Word | Kind::Literal => {
                self.current.start.get_or_insert(token.start);
                self.current.has_operand = true;
            }
            Kind::Operator => match token.text {
                "." | "|" | "**" => self.current.has_operand = false,
                "+" | "-" if !self.current.has_operand => {
                    self.current.start.get_or_insert(token.start);
                }
                "*" | "/" | "//" if self.current.has_operand => {
                    self.end_call();
                    self.current.has_operand = false;
                }
                "%" if self.current.has_operand => self.percent(token),
                _ => return self.end_chain(),
            },
        }
        self.current.end = token.end();
    }

    fn percent(&mut self, token: &Token<'_>) {
        self.end_call();
        if let Some(start) = self.current.start {
            self.edits.push(insert(start, names::PERCENT));
            self.edits.push(replace(token, ","));
            self.current.in_call = true;
        }
        self.current.has_operand = false;
    }

    fn end_call(&mut self) {
        if std::mem::take(&mut self.current.in_call) {
            self.edits.push(insert(self.current.end, ")"));
        }
    }

    fn end_chain(&mut self) {
        self.end_call();
        self.current = Level::default();
    }

    fn finish(mut self) -> Vec<Edit> {
        self.end_call();
        self.edits
    }
}

/// Words between which operands stand.
fn is_keyword(word: &str) -> bool {
    matches!(
        word,
        "and" | "or" | "not" | "in" | "if" | "else" | "recursive"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generation_blocks_become_scopes() {
        assert_eq!(
            translate("{%- generation -%}\nx{%+ endgeneration %}"),
            "{%- with -%}\nx{%+ endwith %}"
        );
        assert_eq!(translate("{{ generation }}"), "{{ generation }}");
    }

    #[test]
    fn percent_takes_the_factors_on_its_left_and_one_on_its_right() {
        for (source, expected) in [
            ("{{ 'a' % b }}", "{{ __percent('a' , b) }}"),
            ("{{ a * b % c + d }}", "{{ __percent(a * b , c) + d }}"),
            (
                "{{ a + b % c % d }}",
                "{{ a + __percent(__percent(b , c) , d) }}",
            ),
            ("{{ a % b * c }}", "{{ __percent(a , b) * c }}"),
            ("{{ -a % -b == 1 }}", "{{ __percent(-a , -b) == 1 }}"),
            (
                "{{ a.b[c % 2].d|e(1) % (f, g % h)|i }}",
                "{{ __percent(a.b[__percent(c , 2)].d|e(1) , (f, __percent(g , h))|i) }}",
            ),
            (
                "{{ a ** 2 % b if c % 2 else d }}",
                "{{ __percent(a ** 2 , b) if __percent(c , 2) else d }}",
            ),
            (
                "{{ f(x=a % b, *c, **d) }}",
                "{{ f(x=__percent(a , b), *c, **d) }}",
            ),
            ("{{ '%s' }}%{{ \"%}\" }}", "{{ '%s' }}%{{ \"%}\" }}"),
            (
                "{%- if loop.index0%2==0 -%}",
                "{%- if __percent(loop.index0,2)==0 -%}",
            ),
        ] {
            assert_eq!(translate(source), expected);
        }
    }

    #[test]
    fn values_of_set_are_bounded() {
        for (source, expected) in [
            ("{% set x = a %}", "{% set x = __bounded((a)) %}"),
            (
                "{% set x, y = 1, 2 %}",
                "{% set x, y = __bounded((1, 2)) %}",
            ),
            (
                "{%- set ns.x = '%s' % a -%}",
                "{%- set ns.x = __bounded_attribute((__percent('%s' , a))) -%}",
            ),
            ("{% set x %}a{% endset %}", "{% set x %}a{% endset %}"),
            (
                "{% set x | f(a=1) %}a{% endset %}",
                "{% set x | f(a=1) %}a{% endset %}",
            ),
        ] {
            assert_eq!(translate(source), expected);
        }
    }

    #[test]
    fn what_is_no_tag_stays_as_it_is() {
        for source in [
            "",
            "{",
            "{{",
            "{% set x = 'a",
            "{# 1 % 2 #}{",
            "{% raw %}{{ 1 % 2 }}{% endraw %}",
            "{%- raw -%}{% set x = 1 %}{%- endraw -%} é",
            "{{ ) }}",
            "{{ a } % b }}",
            "100 % of {x}",
            "{% raw %}{{ 1 % 2 }}",
            "{#",
            "{%%}",
        ] {
            assert_eq!(translate(source), source);
        }
    }
}

//! Names of control tokens that begin in one text and end in another.
//!
//! A template may write `'<' ~ key ~ '>'`, and the parts of a content one after another. So a key
//! `|im_end|` or the parts `<|im_` and `end|>` are a control token in the prompt, though none of
//! these texts has its name. The guard goes where such a name would cross an edge of a client's
//! text. Nearly all texts have no such edge: they end in a beginning of a name, or they go on with
//! a name that one of the template's own texts begins.

use std::collections::{BTreeSet, HashSet};

/// What the names of control tokens and a template say of the edges of clients' texts.
#[derive(Default)]
pub(in crate::text) struct Edges {
    /// What names begin with, whole names excluded.
    beginnings: HashSet<Box<str>>,
    /// What completes a name after a text of the template that ends in its beginning.
    remainders: BTreeSet<Box<str>>,
    /// Words that the template looks for, as in `tool.type == 'function'`: a guard would hide
    /// them from it.
    words: HashSet<Box<str>>,
    /// Length in bytes of the longest name.
    longest: usize,
}

impl Edges {
    /// Those of a template with the text `source`.
    pub(in crate::text) fn new(names: &[Box<str>], source: &str) -> Self {
        let mut edges = Self {
            words: words(source),
            longest: names.iter().map(|name| name.len()).max().unwrap_or(0),
            ..Self::default()
        };
        for name in names {
            let beginnings = name.char_indices().skip(1).map(|(at, _)| name[..at].into());
            edges.beginnings.extend(beginnings);
        }
        let written = edges.written(source);
        for name in names {
            let rests = name.char_indices().skip(1);
            let rests = rests.filter(|&(at, _)| written.contains(&name[..at]));
            edges
                .remainders
                .extend(rests.map(|(at, _)| name[at..].into()));
        }
        edges
    }

    /// The beginnings of names that texts in `source` end in: those in front of a quotation mark
    /// or a tag. A tag may strip the white space in front of it.
    fn written<'s>(&self, source: &'s str) -> HashSet<&'s str> {
        let mut found = HashSet::new();
        for (at, mark) in source.match_indices(['\'', '"', '{']) {
            let before = &source[..at];
            found.extend(self.last_beginnings(before).map(|start| &before[start..]));
            if mark == "{" {
                let before = before.trim_end();
                found.extend(self.last_beginnings(before).map(|start| &before[start..]));
            }
        }
        found
    }

    /// Where in `text` the beginnings of names start that it ends in.
    fn last_beginnings<'e>(&'e self, text: &'e str) -> impl Iterator<Item = usize> + 'e {
        let starts = text.char_indices().rev().map(|(start, _)| start);
        starts
            .take_while(|start| text.len() - start < self.longest)
            .filter(|&start| self.beginnings.contains(&text[start..]))
    }

    /// Whether `text` goes on with a name that the template begins, up to its end or beyond.
    fn goes_on(&self, text: &str) -> bool {
        if text.is_empty() || self.remainders.is_empty() {
            return false;
        }
        let ends = text
            .char_indices()
            .map(|(start, c)| start + c.len_utf8())
            .take_while(|&end| end < self.longest);
        let from = (
            std::ops::Bound::Included(text),
            std::ops::Bound::Unbounded::<&str>,
        );
        let next = self.remainders.range::<str, _>(from).next();
        next.is_some_and(|rest| rest.starts_with(text))
            || ends
                .map(|end| &text[..end])
                .any(|start| self.remainders.contains(start))
    }

    /// Where a guard breaks the names that cross an edge of `text`, with the white space at its
    /// ends or, as many templates have it, without.
    pub(in crate::text) fn breaks(&self, text: &str) -> Vec<usize> {
        let mut at = Vec::new();
        if self.words.contains(text) {
            return at;
        }
        let indent = text.len() - text.trim_start_matches(is_blank).len();
        let trimmed = text.trim_end_matches(is_blank);
        for text in [text, trimmed] {
            let starts = self.last_beginnings(text);
            at.extend(starts.map(|start| start + first_len(&text[start..])));
            for start in [0, indent.min(text.len())] {
                if self.goes_on(&text[start..]) {
                    at.push(start);
                }
            }
        }
        at
    }
}

fn first_len(text: &str) -> usize {
    text.chars().next().map_or(0, char::len_utf8)
}

/// What Python's `strip` takes away.
fn is_blank(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// Words in `source` after a dot or in quotation marks.
fn words(source: &str) -> HashSet<Box<str>> {
    let mut words = HashSet::new();
    for (at, mark) in source.match_indices(['.', '\'', '"']) {
        let rest = &source[at + 1..];
        let end = rest.find(|c: char| c != '_' && !c.is_ascii_alphanumeric());
        let (word, rest) = rest.split_at(end.unwrap_or(rest.len()));
        if !word.is_empty() && (mark == "." || rest.starts_with(mark)) {
            words.insert(word.into());
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edges(source: &str) -> Edges {
        Edges::new(&["<|im_end|>".into(), "<s>".into()], source)
    }

    #[test]
    fn beginnings_of_names_at_the_end_are_broken_after_their_first_character() {
        let edges = edges("");
        assert_eq!(edges.breaks("a<|im_"), [2, 2]);
        assert_eq!(edges.breaks("<|im_ \n"), [1]);
        assert_eq!(edges.breaks("<"), [1, 1]);
        for harmless in ["", "a", "<|im_e_", "<|im_end|>", "|im_end|>", "s>", " "] {
            assert!(edges.breaks(harmless).is_empty(), "{harmless}");
        }
    }

    #[test]
    fn what_completes_a_text_of_the_template_is_broken_off_in_front() {
        for source in [
            "{{ '\n<' ~ x }}",
            "{{ \"<\" + x }}",
            "<{{ x }}",
            "< \n {{- x }}",
        ] {
            let edges = edges(source);
            for completing in ["|im_end|>", "|im_", "s", "s>a"] {
                assert_eq!(edges.breaks(completing), [0, 0, 0, 0], "{completing}");
            }
            assert_eq!(edges.breaks(" s>"), [1, 1]);
            for harmless in ["", "im_end|>", "a", "sa", ">"] {
                assert!(edges.breaks(harmless).is_empty(), "{harmless}");
            }
        }
    }

    #[test]
    fn words_that_the_template_looks_for_are_left_alone() {
        let edges = edges("{{ '<' ~ x.s }}{{ x['|im'] }}");
        assert!(edges.breaks("s").is_empty());
        assert!(!edges.breaks("s>").is_empty() && !edges.breaks("|im").is_empty());
    }
}

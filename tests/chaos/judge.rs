//! What a stream brought against what it brings undisturbed.

use std::collections::BTreeSet;

/// A token event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    /// Its `i`.
    pub(crate) index: u64,
    /// The event as it came over the wire.
    pub(crate) raw: String,
}

/// How a stream ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ending {
    /// `end`: stop reason and stop sequence.
    End(String, Option<String>),
    /// `error`, with its code and message.
    Error(String, String),
    /// Without a terminal event.
    Cut(String),
}

/// The outcome of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Verdict {
    /// Tokens that are missing.
    pub(crate) lost: usize,
    /// Tokens that came again.
    pub(crate) duplicated: usize,
    /// Tokens with other bytes, or out of their order, or that should not be, and another ending.
    pub(crate) changed: usize,
}

impl Verdict {
    pub(crate) fn is_clean(self) -> bool {
        self == Self::default()
    }
}

/// Compares token for token, byte for byte.
pub(crate) fn compare(expected: (&[Token], &Ending), found: (&[Token], &Ending)) -> Verdict {
    let mut verdict = Verdict::default();
    let mut seen = BTreeSet::new();
    for token in found.0 {
        if !seen.insert(token.index) {
            verdict.duplicated += 1;
            continue;
        }
        let in_order = seen.last() == Some(&token.index);
        let due = expected.0.iter().find(|due| due.index == token.index);
        if !in_order || due.is_none_or(|due| due.raw != token.raw) {
            verdict.changed += 1;
        }
    }
    let is_lost = |due: &&Token| !seen.contains(&due.index);
    verdict.lost = expected.0.iter().filter(is_lost).count();
    verdict.changed += usize::from(expected.1 != found.1);
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(received: &[(u64, &str)]) -> Vec<Token> {
        let token = |&(index, raw): &(u64, &str)| Token {
            index,
            raw: raw.into(),
        };
        received.iter().map(token).collect()
    }

    #[test]
    fn each_kind_of_damage_is_told_from_the_others() {
        let end = Ending::End("EOS".into(), None);
        let expected = tokens(&[(0, "a"), (1, "b"), (2, "c")]);
        for (found, lost, duplicated, changed) in [
            (&[(0, "a"), (1, "b"), (2, "c")][..], 0, 0, 0),
            (&[(0, "a"), (2, "c")], 1, 0, 0),
            (&[], 3, 0, 0),
            (&[(0, "a"), (1, "b"), (1, "b"), (2, "c")], 0, 1, 0),
            (&[(0, "a"), (1, "x"), (2, "c")], 0, 0, 1),
            (&[(0, "a"), (2, "c"), (1, "b")], 0, 0, 1),
            (&[(0, "a"), (1, "b"), (2, "c"), (3, "d")], 0, 0, 1),
        ] {
            let wanted = Verdict {
                lost,
                duplicated,
                changed,
            };
            let verdict = compare((&expected, &end), (&tokens(found), &end));
            assert_eq!(verdict, wanted, "{found:?}");
        }
        let other = Ending::End("MAX_TOKENS".into(), None);
        assert_eq!(compare((&expected, &end), (&expected, &other)).changed, 1);
    }
}

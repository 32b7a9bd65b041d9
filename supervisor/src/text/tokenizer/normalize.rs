//! Unicode normalization, where a model's tokenizer.json asks for it.

use std::borrow::Cow;

use tokenizers::normalizers::NFC;
use tokenizers::{NormalizedString, Normalizer};

use super::TokenizerError;

/// The first character that NFC may change or join to the one before it: all below are composed, of combining class 0, and
/// nothing in front of them composes with them (UAX #15, quick check).
const FIRST_OPEN: char = '\u{300}';

/// `text` in the composed form (NFC), by the tables of the library whose tokenizer.json it is.
///
/// Most of a text is below [`FIRST_OPEN`], so it is cut there, and only what has others is normalized, each with the
/// character before it.
pub(super) fn nfc(text: &str) -> Result<Cow<'_, str>, TokenizerError> {
    let mut composed = String::new();
    let mut done = 0;
    let mut before = 0;
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if c < FIRST_OPEN {
            before = at;
            continue;
        }
        while chars.next_if(|&(_, c)| c >= FIRST_OPEN).is_some() {}
        let end = chars.peek().map_or(text.len(), |&(at, _)| at);
        composed.push_str(&text[done..before]);
        let mut normalized = NormalizedString::from(&text[before..end]);
        NFC.normalize(&mut normalized)
            .map_err(TokenizerError::Bpe)?;
        composed.push_str(normalized.get());
        (done, before) = (end, end);
    }
    if done == 0 {
        return Ok(Cow::Borrowed(text));
    }
    composed.push_str(&text[done..]);
    Ok(Cow::Owned(composed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn composed_and_decomposed_spellings_become_one() {
        for (decomposed, composed) in [
            ("\u{1112}\u{1161}\u{11AB}", "한"),
            ("e\u{301}", "é"),
            ("a\u{323}\u{302}", "ậ"),
            ("a\u{302}\u{323}", "ậ"),
            ("\u{212B}", "Å"),
            ("plain", "plain"),
            ("", ""),
        ] {
            assert_eq!(nfc(decomposed).unwrap(), composed);
            assert_eq!(nfc(composed).unwrap(), composed);
            let between = |text: &str| format!("é a{text}z \u{2014} {text}{text}");
            assert_eq!(nfc(&between(decomposed)).unwrap(), between(composed));
        }
    }

    /// Every character between neighbors that compose, or don't, against the library on all of the text.
    #[test]
    fn cutting_the_text_changes_nothing() {
        let whole = |text: &str| {
            let mut normalized = NormalizedString::from(text);
            NFC.normalize(&mut normalized).unwrap();
            normalized.get().to_owned()
        };
        let mut text = String::new();
        for c in '\0'..=char::MAX {
            for (before, after) in [
                ("", "a"),
                ("e", "\u{301}"),
                ("\u{1112}\u{1161}", "\u{323}o"),
            ] {
                text.extend([before, c.encode_utf8(&mut [0; 4]), after]);
            }
            if text.len() > 4096 {
                assert_eq!(nfc(&text).unwrap(), whole(&text), "up to {c:?}");
                text.clear();
            }
        }
        assert_eq!(nfc(&text).unwrap(), whole(&text));
    }
}

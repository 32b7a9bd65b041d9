//! Unicode normalization, where a model's tokenizer.json asks for it.

use std::borrow::Cow;

use tokenizers::normalizers::NFC;
use tokenizers::{NormalizedString, Normalizer};

use super::TokenizerError;

/// `text` in the composed form (NFC), by the tables of the library whose tokenizer.json it is.
pub(super) fn nfc(text: &str) -> Result<Cow<'_, str>, TokenizerError> {
    // Most texts are plain: ASCII is composed already.
    if text.is_ascii() {
        return Ok(Cow::Borrowed(text));
    }
    let mut normalized = NormalizedString::from(text);
    NFC.normalize(&mut normalized)
        .map_err(TokenizerError::Bpe)?;
    Ok(Cow::Owned(normalized.get().to_owned()))
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
        }
    }
}

//! Puts text together from bytes that arrive in pieces cut anywhere.

/// Turns bytes into text as they come.
///
/// What all pushes and the flush return, put together, is what `String::from_utf8_lossy` makes of
/// all the bytes: invalid ones become U+FFFD, and an unfinished code point waits for its rest.
#[derive(Clone, Debug, Default)]
pub struct Utf8Assembler {
    /// The beginning of a code point, at most 3 bytes between calls.
    held: Vec<u8>,
}

impl Utf8Assembler {
    /// An assembler that holds nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends to `out` the text that `bytes` completes.
    pub fn push(&mut self, bytes: &[u8], out: &mut String) {
        let joined;
        let mut rest = if self.held.is_empty() {
            bytes
        } else {
            self.held.extend_from_slice(bytes);
            joined = std::mem::take(&mut self.held);
            &joined
        };
        loop {
            let error = match std::str::from_utf8(rest) {
                Ok(text) => return out.push_str(text),
                Err(error) => error,
            };
            let (valid, tail) = rest.split_at(error.valid_up_to());
            // The valid part stays as it is; lossy conversion only spares an `unwrap`.
            out.push_str(&String::from_utf8_lossy(valid));
            let Some(invalid) = error.error_len() else {
                self.held.extend_from_slice(tail);
                return;
            };
            out.push(char::REPLACEMENT_CHARACTER);
            rest = &tail[invalid..];
        }
    }

    /// Appends what is left at the end of the bytes: U+FFFD for an unfinished code point.
    pub fn flush(&mut self, out: &mut String) {
        if !self.held.is_empty() {
            out.push(char::REPLACEMENT_CHARACTER);
            self.held.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn assemble<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<String> {
        let mut assembler = Utf8Assembler::new();
        let mut texts = Vec::new();
        for piece in pieces {
            let mut out = String::new();
            assembler.push(piece, &mut out);
            assert!(assembler.held.len() <= 3);
            texts.push(out);
        }
        let mut out = String::new();
        assembler.flush(&mut out);
        texts.push(out);
        texts
    }

    #[test]
    fn a_code_point_comes_out_with_its_last_byte() {
        let crab: Vec<&[u8]> = "🦀!".as_bytes().chunks(1).collect();
        assert_eq!(assemble(crab), ["", "", "", "🦀", "!", ""]);
    }

    #[test]
    fn text_in_front_of_an_unfinished_code_point_is_not_held() {
        assert_eq!(assemble([&b"ab\xC3"[..], b"\xA9c"]), ["ab", "éc", ""]);
    }

    #[test]
    fn an_unfinished_code_point_at_the_end_is_one_replacement() {
        assert_eq!(assemble([&b"a\xF0\x9F\xA6"[..]]), ["a", "\u{FFFD}"]);
    }

    #[test]
    fn a_code_point_cut_short_by_text_is_one_replacement() {
        assert_eq!(assemble([&b"\xF0\x9F"[..], b"a"]), ["", "\u{FFFD}a", ""]);
    }

    /// Bytes in which code points, whole and broken, are frequent.
    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            any::<char>().prop_map(|c| c.to_string().into_bytes()),
            any::<char>().prop_map(|c| c.to_string().as_bytes()[..c.len_utf8() - 1].to_vec()),
            vec(0x80u8..=0xFF, 1..4),
            Just(b"a".to_vec()),
        ];
        vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn any_chunking_equals_lossy_conversion(bytes in bytes(), cuts in vec(0usize..60, 0..8)) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces = cuts.windows(2).map(|w| &bytes[w[0]..w[1]]);
            prop_assert_eq!(assemble(pieces).concat(), String::from_utf8_lossy(&bytes));
        }
    }
}

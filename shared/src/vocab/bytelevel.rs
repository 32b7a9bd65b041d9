//! The byte-level alphabet: one printable character for each byte, in which vocabularies of the
//! model `gpt2` are written.

use std::sync::LazyLock;

/// The character that stands for each byte.
///
/// Printable bytes of Latin-1 stand for themselves; the others (control characters, space, DEL,
/// soft hyphen and the like) take the code points from U+0100 on, in the order of the bytes.
pub static BYTE_TO_CHAR: LazyLock<[char; 256]> = LazyLock::new(|| {
    let mut shifted = (0x100..).filter_map(char::from_u32);
    let mut next = || shifted.next().unwrap_or(char::REPLACEMENT_CHARACTER);
    std::array::from_fn(|byte| {
        let byte = byte as u8; // from_fn counts 0..256
        match byte {
            b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF => char::from(byte),
            _ => next(),
        }
    })
});

/// The inverse, for the code points 0 to 0x143 that the alphabet uses.
static CHAR_TO_BYTE: LazyLock<[Option<u8>; 0x144]> = LazyLock::new(|| {
    let mut table = [None; 0x144];
    for (byte, &c) in (0..=255u8).zip(BYTE_TO_CHAR.iter()) {
        if let Some(slot) = table.get_mut(c as usize) {
            *slot = Some(byte);
        }
    }
    table
});

/// Appends `bytes` to `out`, written in the alphabet.
pub fn write(bytes: &[u8], out: &mut String) {
    out.extend(bytes.iter().map(|&b| BYTE_TO_CHAR[usize::from(b)]));
}

/// Appends to `out` the bytes that `text` stands for. Characters outside the alphabet, which some
/// files have in tokens added later, stand for their own UTF-8.
pub fn read(text: &str, out: &mut Vec<u8>) {
    for c in text.chars() {
        match CHAR_TO_BYTE.get(c as usize).copied().flatten() {
            Some(byte) => out.push(byte),
            None => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_survives_the_round_trip() {
        let all: Vec<u8> = (0..=255).collect();
        let mut text = String::new();
        write(&all, &mut text);
        assert_eq!(text.chars().count(), 256);
        assert!(text.chars().all(|c| !c.is_whitespace() && !c.is_control()));
        let mut back = Vec::new();
        read(&text, &mut back);
        assert_eq!(back, all);
    }

    #[test]
    fn well_known_characters_are_where_vocabularies_expect_them() {
        for (byte, c) in [
            (b' ', 'Ġ'),
            (b'\n', 'Ċ'),
            (b'\t', 'ĉ'),
            (0, 'Ā'),
            (0x7F, 'ġ'),
            (0xAD, 'Ń'),
            (0xE9, 'é'),
        ] {
            assert_eq!(BYTE_TO_CHAR[usize::from(byte)], c, "byte {byte:#04x}");
        }
    }

    #[test]
    fn characters_outside_the_alphabet_stand_for_themselves() {
        let mut bytes = Vec::new();
        read("a b▁é", &mut bytes);
        assert_eq!(bytes, [b'a', b' ', b'b', 0xE2, 0x96, 0x81, 0xE9]);
    }
}

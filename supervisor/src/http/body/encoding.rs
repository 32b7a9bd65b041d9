//! What a body is written in. JSON is UTF-8 (RFC 8259); an error that merely says that the first
//! character is unexpected helps nobody whose editor writes UTF-16.

use super::super::error::ApiError;
use orcd_shared::error::ErrorCode;

/// `bytes` without a byte order mark.
///
/// # Errors
/// `INVALID_REQUEST` that names the encoding, or the first byte that is not UTF-8.
pub(super) fn utf8(bytes: &[u8]) -> Result<&str, ApiError> {
    if let Some(name) = other_encoding(bytes) {
        return Err(invalid(format!("the body is {name}; send JSON in UTF-8")));
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    std::str::from_utf8(bytes).map_err(|error| {
        let at = error.valid_up_to();
        let byte = bytes.get(at).copied().unwrap_or_default();
        invalid(format!(
            "the body is not UTF-8: byte 0x{byte:02X} at offset {at}; send JSON in UTF-8"
        ))
    })
}

/// The name of what `bytes` begin like, where it is not JSON in UTF-8. JSON begins with an ASCII
/// character, so zeros around the first one tell the width of the others.
fn other_encoding(bytes: &[u8]) -> Option<&'static str> {
    match *bytes {
        [0xff, 0xfe, 0, 0, ..] => Some("UTF-32, little-endian"),
        [0, 0, 0xfe, 0xff, ..] => Some("UTF-32, big-endian"),
        [c, 0, 0, 0, ..] if c != 0 => Some("UTF-32, little-endian"),
        [0, 0, 0, c, ..] if c != 0 => Some("UTF-32, big-endian"),
        [0xff, 0xfe, ..] => Some("UTF-16, little-endian"),
        [0xfe, 0xff, ..] => Some("UTF-16, big-endian"),
        [c, 0, ..] if c != 0 => Some("UTF-16, little-endian"),
        [0, c, ..] if c != 0 => Some("UTF-16, big-endian"),
        [0x1f, 0x8b, ..] => Some("compressed (gzip)"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Some("compressed (zstd)"),
        _ => None,
    }
}

fn invalid(message: String) -> ApiError {
    ApiError::new(ErrorCode::InvalidRequest, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(bytes: &[u8]) -> String {
        String::from_utf8(utf8(bytes).unwrap_err().body("id")).unwrap()
    }

    #[test]
    fn a_byte_order_mark_is_passed_over() {
        assert_eq!(utf8(b"\xef\xbb\xbf{}").unwrap(), "{}");
        for plain in ["", " ", "{}", "\"ä\"", "5"] {
            assert_eq!(utf8(plain.as_bytes()).unwrap(), plain);
        }
    }

    #[test]
    fn other_encodings_are_named() {
        let wide = |text: &str, little: bool| -> Vec<u8> {
            let unit = |u: u16| {
                if little {
                    u.to_le_bytes()
                } else {
                    u.to_be_bytes()
                }
            };
            text.encode_utf16().flat_map(unit).collect()
        };
        for (bytes, name) in [
            (wide("\u{feff}{}", true), "UTF-16, little-endian"),
            (wide("{\"a\":1}", true), "UTF-16, little-endian"),
            (wide("\u{feff}{}", false), "UTF-16, big-endian"),
            (wide("{}", false), "UTF-16, big-endian"),
            (b"\xff\xfe\0\0{\0\0\0".to_vec(), "UTF-32, little-endian"),
            (b"{\0\0\0}\0\0\0".to_vec(), "UTF-32, little-endian"),
            (b"\0\0\0{".to_vec(), "UTF-32, big-endian"),
            (b"\x1f\x8b\x08\0".to_vec(), "gzip"),
        ] {
            let message = message(&bytes);
            assert!(message.contains(name), "{message}");
        }
        // Latin-1 has no mark: the place is named.
        let latin = message(b"{\"prompt\":\"caf\xe9\"}");
        assert!(latin.contains("0xE9 at offset 14"), "{latin}");
        assert!(!latin.contains("caf"));
    }
}

//! A model of dice: what it would say is left to chance, with an inclination to come to an end.

use cuda_worker::constraint::{Matcher, Vocabulary};

use crate::engine_support::Rng;

/// The tokens that end an output.
pub const ENDS: [u32; 2] = [258, 256];
/// Beside the bytes: an end, a control token, another end, and texts of several bytes.
const TEXTS: [&str; 34] = [
    "", "", "", "{\"", "\":", "\": ", "\",", "\", \"", "\"}", "\"]", "}}", "]}", "[[", "[]", "{}",
    "true", "false", "null", " 1", "12", "0.", "e+", "\n ", "  ", "\\\"", "\\u00", "-", "é", "ß",
    "日本", "日", "abc", "an", "2024-",
];

/// All bytes, and some texts of several.
pub fn words() -> Vec<Vec<u8>> {
    let bytes = (0..=u8::MAX).map(|byte| vec![byte]);
    bytes
        .chain(TEXTS.iter().map(|text| text.as_bytes().to_vec()))
        .collect()
}

pub fn vocabulary() -> Vocabulary {
    Vocabulary::new(words(), &ENDS).unwrap()
}

/// The tokens of a mask.
pub fn allowed(mask: &[u32]) -> Vec<u32> {
    let tokens = 0..32 * mask.len() as u32;
    tokens
        .filter(|token| mask[*token as usize / 32] >> (token % 32) & 1 == 1)
        .collect()
}

/// One output.
#[derive(Debug)]
pub struct Output {
    pub tokens: Vec<u32>,
    pub bytes: Vec<u8>,
    /// It came to its end.
    pub is_whole: bool,
}

/// Draws an output of at most `most` tokens.
pub fn draw(matcher: &mut Matcher, rng: &mut Rng, most: usize) -> Output {
    let words = words();
    let mut output = Output {
        tokens: Vec::new(),
        bytes: Vec::new(),
        is_whole: false,
    };
    while output.tokens.len() < most {
        let token = choose(&allowed(matcher.mask().unwrap()), &words, rng);
        if ENDS.contains(&token) {
            output.is_whole = true;
            break;
        }
        assert!(!words[token as usize].is_empty(), "control token {token}");
        output.tokens.push(token);
        output.bytes.extend(&words[token as usize]);
        matcher.accept(token);
    }
    output
}

fn choose(tokens: &[u32], words: &[Vec<u8>], rng: &mut Rng) -> u32 {
    let ends: Vec<u32> = tokens
        .iter()
        .copied()
        .filter(|t| ENDS.contains(t))
        .collect();
    if !ends.is_empty() && rng.below(2) == 0 {
        return any(&ends, rng);
    }
    let closes = |token: &u32| {
        words[*token as usize]
            .iter()
            .any(|byte| b"\"}]".contains(byte))
    };
    let closing: Vec<u32> = tokens.iter().copied().filter(closes).collect();
    if !closing.is_empty() && rng.below(5) < 2 {
        return any(&closing, rng);
    }
    any(tokens, rng)
}

fn any(tokens: &[u32], rng: &mut Rng) -> u32 {
    tokens[rng.below(tokens.len() as u64) as usize]
}

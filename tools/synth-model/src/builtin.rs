//! The built-in byte-level vocabulary.

use std::collections::HashSet;

use orcd_shared::gguf::{Array, Value};

use crate::SynthError;
use crate::shape::Shape;
use crate::vocab::{Vocab, token_type};

/// ChatML, the form that the special tokens are for.
const TEMPLATE: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' \
    + message['content'] + '<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}\
    {{ '<|im_start|>assistant\\n' }}{% endif %}";

/// Merges of common pairs; `Ġ` is the space. Each makes a token.
const MERGES: [&str; 12] = [
    "Ġ t", "h e", "i n", "Ġ a", "r e", "Ġt he", "o n", "Ġ s", "a n", "Ġa n", "in g", "Ġan d",
];

/// The last tokens of the vocabulary.
const SPECIALS: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];

pub(crate) fn vocab(shape: &Shape) -> Result<Vocab, SynthError> {
    let wanted = shape.vocab_size;
    let least = 256 + MERGES.len() + SPECIALS.len();
    if wanted < least {
        return Err(SynthError::VocabTooSmall { least, wanted });
    }
    let mut tokens: Vec<String> = byte_alphabet();
    tokens.extend(MERGES.iter().map(|pair| pair.replace(' ', "")));
    let taken: HashSet<String> = tokens.iter().cloned().collect();
    let words = (0..).map(word).filter(|w| !taken.contains(w));
    tokens.extend(words.take(wanted - least));
    let mut types = vec![token_type::NORMAL; tokens.len()];
    tokens.extend(SPECIALS.map(str::to_owned));
    types.resize(tokens.len(), token_type::CONTROL);

    // Lossless: far fewer than 2^32 tokens.
    let id = |from_end: usize| Value::U32((wanted - from_end) as u32);
    let other = vec![
        ("model", Value::String("gpt2".to_owned())),
        ("pre", Value::String(shape.pre.to_owned())),
        (
            "merges",
            Value::Array(Array::String(MERGES.map(str::to_owned).to_vec())),
        ),
        ("eos_token_id", id(1)),
        ("padding_token_id", id(3)),
        ("bos_token_id", id(3)),
        ("add_bos_token", Value::Bool(false)),
    ];
    Ok(Vocab {
        tokens,
        types,
        other,
        template: Some(TEMPLATE.to_owned()),
    })
}

/// The printable stand-ins of the 256 bytes in the usual order: bytes that print as themselves
/// first, then the others as the characters from U+0100 on.
fn byte_alphabet() -> Vec<String> {
    let printable = |b: &u8| matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let themselves = (0..=255u8).filter(printable).map(char::from);
    let others = ('\u{100}'..).take(256 - themselves.clone().count());
    themselves.chain(others).map(String::from).collect()
}

/// The `i`-th made-up word, with a space in front: syllables by the digits of `i`.
fn word(mut i: usize) -> String {
    const CONSONANTS: &[u8] = b"bdfghjklmnprstvwyz";
    const VOWELS: &[u8] = b"aeiou";
    let mut word = String::from("Ġ");
    loop {
        let syllable = i % (CONSONANTS.len() * VOWELS.len());
        word.push(CONSONANTS[syllable / VOWELS.len()].into());
        word.push(VOWELS[syllable % VOWELS.len()].into());
        i /= CONSONANTS.len() * VOWELS.len();
        if i == 0 {
            return word;
        }
        // So that "ba" and "ba" with a leading zero digit are not the same word.
        i -= 1;
    }
}

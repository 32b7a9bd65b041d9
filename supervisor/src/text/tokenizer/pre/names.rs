//! The names that `tokenizer.ggml.pre` may have, and what each stands for.

use super::Split;

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::text::tokenizer) struct Rules {
    /// How a text is cut into pieces.
    pub(in crate::text::tokenizer) split: Split,
    /// Whether a piece that is a token as a whole is taken without looking at the merges.
    pub(in crate::text::tokenizer) whole_pieces: bool,
    /// Whether such vocabularies put a begin-of-sequence token in front where the file is silent.
    pub(in crate::text::tokenizer) add_bos: bool,
    /// Whether the model's tokenizer.json brings texts into Unicode's composed form (NFC) first.
    pub(in crate::text::tokenizer) nfc: bool,
}

impl Rules {
    const fn of(split: Split) -> Self {
        Self {
            split,
            whole_pieces: false,
            add_bos: false,
            nfc: false,
        }
    }
}

/// What a vocabulary without a name has: the format's first files were of that kind.
pub(super) const DEFAULT: &str = "default";

const QWEN2: Rules = Rules::of(Split::SingleDigits);
const LLAMA_3: Rules = Rules {
    whole_pieces: true,
    add_bos: true,
    ..Rules::of(Split::ThreeDigits)
};

const NAMES: [(&str, Rules); 18] = [
    // Qwen publishes `"normalizer": {"type": "NFC"}`. Of the three that share its split only that
    // much is known.
    ("qwen2", Rules { nfc: true, ..QWEN2 }),
    ("deepseek-r1-qwen", QWEN2),
    ("megrez", QWEN2),
    ("kormo", QWEN2),
    ("llama-bpe", LLAMA_3),
    ("llama3", LLAMA_3),
    ("llama-v3", LLAMA_3),
    ("falcon3", LLAMA_3),
    ("falcon-h1", LLAMA_3),
    ("pixtral", LLAMA_3),
    ("lfm2", LLAMA_3),
    ("midm-2.0", LLAMA_3),
    ("dbrx", Rules::of(Split::ThreeDigits)),
    ("smaug-bpe", Rules::of(Split::ThreeDigits)),
    ("smollm", Rules::of(Split::DigitsThenGpt2)),
    ("refact", Rules::of(Split::DigitsThenGpt2)),
    ("gpt-2", Rules::of(Split::Gpt2)),
    (DEFAULT, Rules::of(Split::Default)),
];

/// What `name` stands for.
pub(super) fn find(name: &str) -> Option<Rules> {
    let (_, rules) = NAMES.iter().find(|(known, _)| *known == name)?;
    Some(*rules)
}

/// The three names most like `name`, for the error of an unknown one.
pub(super) fn nearest(name: &str) -> [&'static str; 3] {
    let mut names = NAMES.map(|(known, _)| (strsim::jaro_winkler(name, known), known));
    names.sort_by(|a, b| b.0.total_cmp(&a.0));
    let [first, second, third, ..] = names;
    [first.1, second.1, third.1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_names_are_those_a_typo_could_mean() {
        assert_eq!(nearest("qwen")[0], "qwen2");
        assert!(nearest("llama-3").contains(&"llama3"));
        let near_falcon = nearest("falcon");
        assert_eq!(&near_falcon[..2], ["falcon3", "falcon-h1"]);
        assert_eq!(nearest("").len(), 3);
    }

    #[test]
    fn every_name_stands_for_itself_once() {
        for (i, (name, rules)) in NAMES.iter().enumerate() {
            assert_eq!(find(name), Some(*rules), "{name}");
            assert!(!NAMES[..i].iter().any(|(other, _)| other == name), "{name}");
        }
        assert_eq!(find("qwen"), None);
    }
}

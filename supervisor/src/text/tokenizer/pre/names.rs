//! The names that `tokenizer.ggml.pre` may have, and what each stands for.

use std::fmt;
use std::str::FromStr;

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

const DEFAULT: Rules = Rules::of(Split::Default);
const QWEN2: Rules = Rules::of(Split::SingleDigits);
const LLAMA_3: Rules = Rules {
    whole_pieces: true,
    add_bos: true,
    ..Rules::of(Split::ThreeDigits)
};

const TEKKEN: Rules = Rules {
    whole_pieces: true,
    add_bos: true,
    ..Rules::of(Split::Tekken)
};
const QWEN_3_5: Rules = Rules {
    nfc: true,
    ..Rules::of(Split::SingleDigitsMarked)
};

const NAMES: [(&str, Rules); 22] = [
    // Qwen publishes `"normalizer": {"type": "NFC"}`. Of the three that share its split only that
    // much is known.
    ("qwen2", Rules { nfc: true, ..QWEN2 }),
    ("deepseek-r1-qwen", QWEN2),
    ("megrez", QWEN2),
    ("kormo", QWEN2),
    ("qwen35", QWEN_3_5),
    ("llama-bpe", LLAMA_3),
    ("llama3", LLAMA_3),
    ("llama-v3", LLAMA_3),
    ("falcon3", LLAMA_3),
    ("falcon-h1", LLAMA_3),
    ("pixtral", LLAMA_3),
    ("lfm2", LLAMA_3),
    ("midm-2.0", LLAMA_3),
    ("tekken", TEKKEN),
    // The expression of cl100k, too.
    ("dbrx", Rules::of(Split::ThreeDigits)),
    ("smaug-bpe", Rules::of(Split::ThreeDigits)),
    ("gpt-4o", Rules::of(Split::O200k)),
    ("smollm", Rules::of(Split::DigitsThenGpt2)),
    ("refact", Rules::of(Split::DigitsThenGpt2)),
    ("gpt-2", Rules::of(Split::Gpt2)),
    ("granite-docling", Rules::of(Split::Gpt2)),
    ("default", DEFAULT),
];

/// A name that stands for a pre-tokenizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PreTokenizerName {
    name: &'static str,
    rules: Rules,
}

/// A name that stands for none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("pre-tokenizer `{name}` is not known; the nearest that are: `{}`", .nearest.join("`, `"))]
pub struct UnknownPreTokenizer {
    /// The name.
    pub name: String,
    /// The names most like it.
    pub nearest: [&'static str; 3],
}

impl PreTokenizerName {
    /// What a vocabulary without a name has: the format's first files were of that kind.
    pub(in crate::text::tokenizer) const DEFAULT: Self = Self {
        name: "default",
        rules: DEFAULT,
    };

    /// As files write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.name
    }

    pub(super) fn rules(self) -> Rules {
        self.rules
    }
}

impl fmt::Display for PreTokenizerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl FromStr for PreTokenizerName {
    type Err = UnknownPreTokenizer;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = NAMES.iter().find(|(known, _)| *known == text);
        let found = found.map(|&(name, rules)| Self { name, rules });
        found.ok_or_else(|| UnknownPreTokenizer {
            name: text.to_owned(),
            nearest: nearest(text),
        })
    }
}

/// The three names most like `name`.
fn nearest(name: &str) -> [&'static str; 3] {
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
        assert_eq!(nearest("gpt-4")[0], "gpt-4o");
        assert_eq!(nearest("").len(), 3);
    }

    #[test]
    fn every_name_stands_for_itself_once() {
        for (i, (name, rules)) in NAMES.iter().enumerate() {
            let parsed: PreTokenizerName = name.parse().unwrap();
            assert_eq!((parsed.as_str(), parsed.rules()), (*name, *rules));
            assert!(!NAMES[..i].iter().any(|(other, _)| other == name), "{name}");
        }
        assert_eq!("default".parse(), Ok(PreTokenizerName::DEFAULT));
        assert!("qwen".parse::<PreTokenizerName>().is_err());
    }
}

use std::convert::Infallible;

use proptest::prelude::*;

use super::*;

fn cut<'t>(name: &str, text: &'t str) -> Vec<&'t str> {
    let mut pieces = Vec::new();
    let pre = PreTokenizer::new(name.parse().unwrap()).unwrap();
    let Ok(()) = pre.cut(text, &mut |piece| {
        pieces.push(piece);
        Ok::<_, Infallible>(())
    });
    pieces
}

#[test]
fn words_take_the_space_in_front() {
    assert_eq!(
        cut("qwen2", "Hello  world's\tend"),
        ["Hello", " ", " world", "'s", "\tend"]
    );
    assert_eq!(
        cut("qwen2", "a   \n\n  b \n"),
        ["a", "   \n\n", " ", " b", " \n"]
    );
    assert_eq!(cut("qwen2", "end   "), ["end", "   "]);
    assert_eq!(cut("qwen2", "  5"), [" ", " ", "5"]);
    assert_eq!(cut("qwen2", " ..\n\nx"), [" ..\n\n", "x"]);
}

#[test]
fn digits_stand_alone_or_in_threes() {
    for name in [
        "qwen2",
        "deepseek-r1-qwen",
        "megrez",
        "kormo",
        "smollm",
        "qwen35",
        "tekken",
    ] {
        assert_eq!(cut(name, "1234"), ["1", "2", "3", "4"], "{name}");
    }
    for name in [
        "llama-bpe",
        "llama3",
        "llama-v3",
        "falcon3",
        "falcon-h1",
        "pixtral",
        "lfm2",
        "midm-2.0",
        "dbrx",
        "smaug-bpe",
        "gpt-4o",
        "default",
    ] {
        assert_eq!(cut(name, "1234"), ["123", "4"], "{name}");
    }
    assert_eq!(cut("gpt-2", "a 1234"), ["a", " 1234"]);
}

#[test]
fn only_tekken_and_names_of_the_llama_3_family_take_whole_pieces_and_begin_tokens() {
    let rules = |name: &str| PreTokenizer::new(name.parse().unwrap()).unwrap().rules;
    for name in [
        "llama-bpe",
        "falcon3",
        "pixtral",
        "lfm2",
        "falcon-h1",
        "midm-2.0",
        "tekken",
    ] {
        assert!(rules(name).whole_pieces && rules(name).add_bos, "{name}");
    }
    for name in [
        "dbrx",
        "smaug-bpe",
        "qwen2",
        "kormo",
        "smollm",
        "refact",
        "granite-docling",
        "gpt-4o",
        "qwen35",
        "default",
    ] {
        assert!(!rules(name).whole_pieces && !rules(name).add_bos, "{name}");
    }
    assert!(
        rules("qwen2").nfc
            && rules("qwen35").nfc
            && !rules("llama-bpe").nfc
            && !rules("smollm").nfc
    );
}

#[test]
fn smollm_cuts_digits_out_before_anything_else_looks() {
    // GPT-2 alone would keep the space with the number, and the run of blanks would leave its last
    // one to a word.
    assert_eq!(cut("smollm", "a  5 b"), ["a", "  ", "5", " b"]);
    assert_eq!(cut("smollm", "x²½5"), ["x", "²", "½", "5"]);
    // GPT-2 knows contractions in small letters only, and no branch for line breaks.
    assert_eq!(cut("smollm", "I'M it's"), ["I", "'", "M", " it", "'s"]);
    assert_eq!(cut("smollm", "a\n\nb"), ["a", "\n", "\n", "b"]);
    assert_eq!(cut("smollm", "x, y"), cut("refact", "x, y"));
}

#[test]
fn the_formats_first_files_cut_punctuation_out_first() {
    assert_eq!(
        cut("default", "a=1, it's 12345!\n"),
        [
            "a", "=", "1", ",", " it", "'", "s", " ", "123", "45", "!", "\n"
        ]
    );
}

#[test]
fn words_of_tekken_and_o200k_end_in_front_of_a_capital() {
    for name in ["tekken", "gpt-4o"] {
        assert_eq!(cut(name, "!\n/x"), ["!\n/", "x"], "{name}");
        assert_eq!(
            cut(name, "helloWorld ABCdef"),
            ["hello", "World", " ABCdef"],
            "{name}"
        );
        assert_eq!(cut(name, "a/b //\nc"), ["a", "/b", " //\n", "c"], "{name}");
        assert_eq!(
            cut(name, "e\u{301}te\u{301} 日本"),
            ["e\u{301}te\u{301}", " 日本"],
            "{name}"
        );
        assert_eq!(cut(name, "x  \n  y"), ["x", "  \n", " ", " y"], "{name}");
    }
    assert_eq!(
        cut("tekken", "it's 1234"),
        ["it", "'s", " ", "1", "2", "3", "4"]
    );
    assert_eq!(
        cut("gpt-4o", "it's IT'S 1234"),
        ["it's", " IT'S", " ", "123", "4"]
    );
}

#[test]
fn marks_belong_to_words_of_qwen_3_5() {
    assert_eq!(cut("qwen2", "नी \u{301}"), ["न", "ी", " \u{301}"]);
    assert_eq!(cut("qwen35", "नी \u{301}"), ["नी", " \u{301}"]);
    assert_eq!(
        cut("qwen35", "I'm 12 !\u{301}"),
        ["I", "'m", " ", "1", "2", " !", "\u{301}"]
    );
}

/// Letters, digits and marks that Unicode 16 has and 15.1 has not.
#[test]
fn classes_are_those_of_unicode_16() {
    for letter in ["\u{1C89}", "\u{105C0}", "\u{A7CB}"] {
        assert_eq!(cut("qwen2", &format!("!{letter}")), [&format!("!{letter}")]);
        assert_eq!(
            cut("qwen2", &format!("a{letter}b")),
            [format!("a{letter}b")]
        );
    }
    assert_eq!(cut("qwen2", "a\u{10D40}b"), ["a", "\u{10D40}", "b"]);
    assert_eq!(cut("qwen35", "a\u{113B8}b"), ["a\u{113B8}b"]);
    // Capital Garay letter, then small ones.
    assert_eq!(
        cut("tekken", "\u{10D70}\u{10D50}"),
        ["\u{10D70}", "\u{10D50}"]
    );
}

proptest! {
    #[test]
    fn no_character_is_lost(text in r"[ \n\t a-c0-2'é\u{1F980}\u{3000}.]{0,40}|\PC{0,40}") {
        for name in [
            "qwen2", "qwen35", "llama-bpe", "tekken", "gpt-4o", "smollm", "gpt-2", "default",
        ] {
            prop_assert_eq!(cut(name, &text).concat(), text.as_str());
            prop_assert!(cut(name, &text).iter().all(|piece| !piece.is_empty()));
        }
    }

    #[test]
    fn a_piece_of_white_space_never_hides_the_space_of_a_word(text in r"[ \t\na'.]{0,30}") {
        let pieces = cut("qwen2", &text);
        for pair in pieces.windows(2) {
            // As the look-ahead has it: in front of a non-space the run kept its last blank
            // out, unless that blank is all there is.
            let blank = pair[0].chars().all(|c| c == ' ' || c == '\t');
            if blank && pair[0].len() > 1 {
                prop_assert!(pair[1].starts_with([' ', '\t']), "{:?}", pieces);
            }
        }
    }
}

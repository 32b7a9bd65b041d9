use std::convert::Infallible;

use proptest::prelude::*;

use super::*;

fn cut<'t>(name: &str, text: &'t str) -> Vec<&'t str> {
    let mut pieces = Vec::new();
    let pre = PreTokenizer::new(Some(name)).unwrap();
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
    for name in ["qwen2", "deepseek-r1-qwen", "megrez", "kormo", "smollm"] {
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
        "default",
    ] {
        assert_eq!(cut(name, "1234"), ["123", "4"], "{name}");
    }
    assert_eq!(cut("gpt-2", "a 1234"), ["a", " 1234"]);
}

#[test]
fn only_names_of_the_llama_3_family_take_whole_pieces_and_begin_tokens() {
    let rules = |name| PreTokenizer::new(Some(name)).unwrap().rules;
    for name in [
        "llama-bpe",
        "falcon3",
        "pixtral",
        "lfm2",
        "falcon-h1",
        "midm-2.0",
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
        "default",
    ] {
        assert!(!rules(name).whole_pieces && !rules(name).add_bos, "{name}");
    }
    assert!(rules("qwen2").nfc && !rules("llama-bpe").nfc && !rules("smollm").nfc);
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
fn without_a_name_a_text_is_cut_as_the_formats_first_files_were() {
    let pre = PreTokenizer::new(None).unwrap();
    assert_eq!(pre.rules, PreTokenizer::new(Some("default")).unwrap().rules);
    assert_eq!(
        cut("default", "a=1, it's 12345!\n"),
        [
            "a", "=", "1", ",", " it", "'", "s", " ", "123", "45", "!", "\n"
        ]
    );
}

#[test]
fn an_unknown_name_is_an_error_that_says_it_and_its_neighbors() {
    let error = PreTokenizer::new(Some("falcon")).err().unwrap().to_string();
    assert!(
        error.contains("`falcon`") && error.contains("`falcon3`"),
        "{error}"
    );
}

proptest! {
    #[test]
    fn no_character_is_lost(text in r"[ \n\t a-c0-2'é\u{1F980}\u{3000}.]{0,40}|\PC{0,40}") {
        for name in ["qwen2", "llama-bpe", "smollm", "gpt-2", "default"] {
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

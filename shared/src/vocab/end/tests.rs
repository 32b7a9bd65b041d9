#![allow(clippy::unwrap_used)] // a panic is a failing test with a place

use super::*;
use crate::gguf::{Array, Value};

const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;

/// The end tokens of a vocabulary of these texts and types, with keys that name ids.
fn ends(tokens: &[(&str, i32)], keys: &[(&str, u32)]) -> Vec<u32> {
    let mut metadata = Metadata::new();
    let texts = tokens.iter().map(|(text, _)| (*text).to_owned()).collect();
    let types = tokens.iter().map(|&(_, ty)| ty).collect();
    let mut insert = |key: &str, value| metadata.insert(key, value).unwrap();
    insert("tokenizer.ggml.tokens", Value::Array(Array::String(texts)));
    insert("tokenizer.ggml.token_type", Value::Array(Array::I32(types)));
    for &(key, id) in keys {
        insert(key, Value::U32(id));
    }
    end_tokens(&metadata).unwrap()
}

fn control<'t>(names: &[&'t str]) -> Vec<(&'t str, i32)> {
    names.iter().map(|&name| (name, CONTROL)).collect()
}

#[test]
fn every_name_ends_where_it_is_a_control_token() {
    for name in NAMES.iter().chain(&FILL_NAMES) {
        assert_eq!(ends(&[("a", NORMAL), (name, CONTROL)], &[]), [1], "{name}");
        assert!(
            ends(&[("a", NORMAL), (name, NORMAL)], &[]).is_empty(),
            "{name}"
        );
    }
    assert!(
        ends(
            &control(&["<|im_start|>", "<s>", "</s>", "<fim_prefix>"]),
            &[]
        )
        .is_empty()
    );
}

#[test]
fn the_tokens_that_keys_name_end_whatever_they_are() {
    let tokens = [("a", NORMAL), ("b", USER_DEFINED), ("c", CONTROL)];
    for (id, key) in (0..).zip(KEYS) {
        assert_eq!(ends(&tokens, &[(key, id)]), [id], "{key}");
    }
    for key in FILL_KEYS {
        assert!(ends(&tokens, &[(key, 0)]).is_empty(), "{key}");
        assert_eq!(ends(&tokens, &[(key, 2)]), [2], "{key}");
    }
}

#[test]
fn the_end_of_a_message_is_none_where_a_turn_has_several() {
    assert_eq!(ends(&control(&["<|end|>", "<|endoftext|>"]), &[]), [0, 1]);
    assert_eq!(ends(&control(&["<|end|>", "<|return|>"]), &[]), [0, 1]);
    for names in TURN_ENDS {
        let tokens = control(&["<|end|>", names[0], names[1]]);
        assert_eq!(ends(&tokens, &[]), [1, 2]);
        assert_eq!(ends(&tokens, &[("tokenizer.ggml.eos_token_id", 0)]), [1, 2]);
    }
}

#[test]
fn a_tag_of_html_ends_nothing_and_a_control_token_typed_as_text_does() {
    let tokens = [
        ("</s>", USER_DEFINED),
        ("<end_of_turn>", USER_DEFINED),
        ("<|im_end|>", USER_DEFINED),
        ("<fim_pad>", USER_DEFINED),
        ("<|fim_pad|>", USER_DEFINED),
    ];
    assert_eq!(ends(&tokens, &[]), [1, 2, 4]);
}

//! The vocabulary of the tests' model files.
#![allow(unreachable_pub)] // a module of test binaries

use orcd_shared::gguf::{Array, Metadata, Value};

/// The token that ends generation; all below it stand for the byte of their number.
pub const END: u32 = 256;

/// What a model file says of a vocabulary of all bytes and an end token.
pub fn metadata() -> Metadata {
    let mut next = 255;
    let spelled = |byte: u8| match byte {
        b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => char::from(byte),
        _ => {
            next += 1;
            char::from_u32(next).unwrap()
        }
    };
    let mut tokens: Vec<String> = (0..=255).map(spelled).map(String::from).collect();
    tokens.push("<|im_end|>".into());
    let mut types = vec![1; 256];
    types.push(3);
    let mut metadata = Metadata::new();
    for (key, value) in [
        ("tokenizer.ggml.model", Value::String("gpt2".into())),
        ("tokenizer.ggml.pre", Value::String("qwen2".into())),
        ("tokenizer.ggml.tokens", Value::Array(Array::String(tokens))),
        ("tokenizer.ggml.token_type", Value::Array(Array::I32(types))),
        ("tokenizer.ggml.merges", Value::Array(Array::String(vec![]))),
        ("tokenizer.ggml.eos_token_id", Value::U32(END)),
    ] {
        metadata.insert(key, value).unwrap();
    }
    metadata
}

//! A vocabulary of a hostile file, with arbitrary text: it is refused or it works. Ids are those of
//! tokens, and whatever they are, they become text.

use orcd_shared::gguf::{Array, Metadata, Value};
use orcd_supervisor::text::{Guard, GuardedText, Specials, TokenText, Tokenizer};

const PRE: [&str; 20] = [
    "qwen2",
    "deepseek-r1-qwen",
    "megrez",
    "kormo",
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
    "smollm",
    "refact",
    "gpt-2",
    "default",
    "falcon",
    "",
];

/// Takes two bytes for choices, then lines of tokens, of merges and a text, a byte 1 between them.
pub fn run(bytes: &[u8]) {
    let [flags, pre, rest @ ..] = bytes else {
        return;
    };
    let rest = String::from_utf8_lossy(rest);
    let mut parts = rest.splitn(3, '\u{1}');
    let mut part = || parts.next().unwrap_or_default();
    let (tokens, merges, text) = (part(), part(), part());
    let Ok(metadata) = metadata(*flags, *pre, tokens, merges) else {
        return;
    };
    match Tokenizer::from_metadata(&metadata) {
        Ok(tokenizer) => exercise(&tokenizer, text),
        Err(error) => {
            // For people, from the file's own strings and numbers.
            let _ = error.to_string();
        }
    }
}

fn exercise(tokenizer: &Tokenizer, text: &str) {
    let guard = Guard::new(tokenizer, [text].into_iter()).map(|g| g.seal(g.apply(text)));
    let prompts = [Ok(GuardedText::trusted(text)), guard];
    let mut all = Vec::new();
    for prompt in prompts.into_iter().flatten() {
        all.push(tokenizer.encode_prompt(&prompt));
    }
    all.push(tokenizer.encode(text, Specials::AsText));
    for ids in all {
        let ids = ids.expect("a vocabulary that was built encodes every text");
        assert!(ids.iter().all(|&id| (id as usize) < tokenizer.vocab_size()));
        let mut output = TokenText::new(vec!["a".to_owned(), "\u{FFFD}b".to_owned()]);
        for &id in &ids {
            let _ = output.push(id, tokenizer);
        }
        let _ = output.finish();
        let _ = tokenizer.decode(&ids);
    }
}

fn metadata(flags: u8, pre: u8, tokens: &str, merges: &str) -> Result<Metadata, impl Sized> {
    let flag = |bit: u8| flags >> bit & 1 == 1;
    let is_bpe = flag(0);
    let mut list: Vec<String> = match (flag(1), is_bpe) {
        (true, true) => alphabet(),
        (true, false) => (0..=255u8).map(|b| format!("<0x{b:02X}>")).collect(),
        (false, _) => Vec::new(),
    };
    let bytes = list.len();
    list.extend(tokens.split('\n').map(str::to_owned));
    let byte_type = if is_bpe { 1 } else { 6 };
    // The first letter of a token decides what it is.
    let type_of = |token: &String| match token.bytes().next() {
        Some(b'<') => 3,
        Some(b'[') => 4,
        Some(b'?') => 2,
        Some(b'!') => 5,
        _ => 1,
    };
    let types = (0..list.len()).map(|id| {
        if id < bytes {
            byte_type
        } else {
            type_of(&list[id])
        }
    });
    let types = Value::Array(Array::I32(types.collect()));
    let scores = list
        .iter()
        .enumerate()
        .map(|(id, token)| token.len() as f32 - id as f32 / 7.0);
    let scores = Value::Array(Array::F32(scores.collect()));
    let merges = merges.split('\n').map(str::to_owned).collect();
    let last = list.len() as u32 - 1;
    let mut all = Metadata::new();
    let model = if is_bpe { "gpt2" } else { "llama" };
    let mut put = |key: &str, value| all.insert(format!("tokenizer.ggml.{key}"), value);
    put("model", Value::String(model.to_owned()))?;
    put("tokens", Value::Array(Array::String(list)))?;
    put("merges", Value::Array(Array::String(merges)))?;
    put("eos_token_id", Value::U32(last))?;
    if !flag(2) {
        put("token_type", types)?;
    }
    if !flag(3) {
        put("scores", scores)?;
    }
    if !flag(4) {
        let name = PRE[usize::from(pre) % PRE.len()];
        put("pre", Value::String(name.to_owned()))?;
    }
    if flag(5) {
        put("unknown_token_id", Value::U32(u32::from(pre)))?;
    }
    if flag(6) {
        put("bos_token_id", Value::U32(u32::from(pre)))?;
        put("add_bos_token", Value::Bool(true))?;
    }
    if flag(7) {
        put("add_space_prefix", Value::Bool(false))?;
    }
    Ok::<_, orcd_shared::gguf::GgufError>(all)
}

/// The character of each byte in the byte-level alphabet.
fn alphabet() -> Vec<String> {
    let printable = |b: u32| matches!(b, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
    let mut shifted = 0xFF;
    (0..256)
        .filter_map(|b| {
            shifted += u32::from(!printable(b));
            char::from_u32(if printable(b) { b } else { shifted })
        })
        .map(String::from)
        .collect()
}

//! The tokenizer against published vocabularies and the ids that their own tokenizers give.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // a panic is a failing test with a place

use std::path::PathBuf;
use std::time::{Duration, Instant};

use orcd_shared::gguf::GgufFile;
use orcd_shared::vocab::end_tokens;
use orcd_supervisor::text::{GuardedText, Specials, Tokenizer, TokenizerKind};

const SEPARATOR: &str = "\n__ggml_vocab_test__\n";

/// A published vocabulary with its cases.
struct Published {
    tokenizer: Tokenizer,
    end_tokens: Vec<u32>,
    texts: Vec<String>,
    /// Per text.
    ids: Vec<Vec<u32>>,
}

/// The vocabulary `name`, or `None` with the reason printed where it is missing.
fn published(name: &str) -> Option<Published> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../shared/tokenizers")
        .join(name);
    let file = dir.join(format!("ggml-vocab-{name}.gguf"));
    if !file.exists() {
        println!("SKIPPED: {} is not there", file.display());
        return None;
    }
    let gguf = GgufFile::open(&file).unwrap();
    let start = Instant::now();
    let tokenizer = Tokenizer::from_metadata(&gguf.header().metadata).unwrap();
    println!("{name}: built in {:?}", start.elapsed());
    let read = |ext: &str| std::fs::read_to_string(file.with_extension(ext)).unwrap();
    let texts = read("gguf.inp");
    let ids = read("gguf.out");
    let numbers = |line: &str| {
        line.split_whitespace()
            .map(|id| id.parse().unwrap())
            .collect()
    };
    Some(Published {
        tokenizer,
        end_tokens: end_tokens(&gguf.header().metadata).unwrap(),
        // Every text has the separator after it, the last one too.
        texts: texts
            .split_inclusive(SEPARATOR)
            .map(|t| t.replace(SEPARATOR, ""))
            .collect(),
        ids: ids.lines().map(numbers).collect(),
    })
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

/// Fails unless every published case has its ids, but for those of `normalized`, whose texts the
/// model's own tokenizer.json brings into another form first and the published ids do not.
fn check_vectors_but(name: &str, normalized: &[(&str, &str)]) {
    let Some(Published {
        tokenizer,
        texts,
        ids,
        ..
    }) = published(name)
    else {
        return;
    };
    assert_eq!(texts.len(), ids.len());
    assert!(texts.len() > 40, "only {} cases", texts.len());
    let mut differing = Vec::new();
    for (case, expected) in texts.iter().zip(&ids) {
        let ids = tokenizer.encode(case, Specials::AsText).unwrap();
        let decoded = text(tokenizer.decode(&ids));
        if &decoded == case {
            assert_eq!(&ids, expected, "{name}: {case:?}");
        } else {
            differing.push((case.as_str(), decoded));
        }
    }
    let differing: Vec<(&str, &str)> = differing.iter().map(|(a, b)| (*a, b.as_str())).collect();
    assert_eq!(differing, normalized, "{name}");
}

fn check_vectors(name: &str) {
    check_vectors_but(name, &[]);
}

#[test]
fn refact_gives_the_published_ids() {
    check_vectors("refact");
}

#[test]
fn llama_spm_gives_the_published_ids() {
    check_vectors("llama-spm");
}

#[test]
fn qwen2_takes_composed_and_decomposed_hangul_for_the_same() {
    let Some(Published { tokenizer, .. }) = published("qwen2") else {
        return;
    };
    let ids = |text: &str| tokenizer.encode(text, Specials::AsText).unwrap();
    let (composed, decomposed) = ("한글", "\u{1112}\u{1161}\u{11AB}\u{1100}\u{1173}\u{11AF}");
    assert_eq!(ids(composed), ids(decomposed));
    assert_eq!(ids("café"), ids("cafe\u{301}"));
}

#[test]
fn qwen2_gives_the_published_ids() {
    check_vectors("qwen2");
}

#[test]
fn llama_bpe_gives_the_published_ids() {
    check_vectors("llama-bpe");
}

#[test]
fn qwen35_gives_the_published_ids() {
    // The published ids are those of llama.cpp, which composes nothing; Qwen's tokenizer.json does.
    let (decomposed, composed) = ("a\u{300}".repeat(200), "à".repeat(200));
    check_vectors_but(
        "qwen35",
        &[
            ("e\u{301}", "é"),
            ("re\u{301}sume\u{301}", "résumé"),
            (&decomposed, &composed),
        ],
    );
}

#[test]
fn phi_3_gives_the_published_ids() {
    check_vectors("phi-3");
}

#[test]
fn qwen2_reads_its_special_tokens() {
    let Some(published) = published("qwen2") else {
        return;
    };
    let tokenizer = &published.tokenizer;
    assert_eq!(tokenizer.kind(), TokenizerKind::GgufBpe);
    assert_eq!(tokenizer.vocab_size(), 151_936);
    assert_eq!(tokenizer.bos_text(), "<|endoftext|>");
    // This file calls the tokens 151662 to 151664 by other names than the released model.
    assert_eq!(published.end_tokens, [151_643, 151_645]);

    let turn = "<|im_start|>user\nWrite a haiku about GPU computing<|im_end|>";
    let ids = tokenizer.encode(turn, Specials::Parse).unwrap();
    let haiku = [7985, 264, 6386, 38242, 911, 22670, 24231];
    assert_eq!(ids[..3], [151_644, 872, 198]);
    assert_eq!(ids[3..10], haiku);
    assert_eq!(ids[10..], [151_645]);
    assert_eq!(
        tokenizer.token_bytes(151_645),
        b"",
        "control tokens are not shown"
    );

    let as_text = tokenizer.encode(turn, Specials::AsText).unwrap();
    assert!(as_text.iter().all(|&id| id < 151_643), "{as_text:?}");
    assert_eq!(text(tokenizer.decode(&as_text)), turn);

    let user_defined = tokenizer.encode("a[PAD151646]b", Specials::AsText).unwrap();
    assert_eq!(user_defined, [64, 151_646, 65]);
    assert_eq!(tokenizer.token_bytes(151_646), b"[PAD151646]");
    assert_eq!(tokenizer.token_bytes(u32::MAX), b"");
}

#[test]
fn prompts_start_with_the_begin_token_where_the_file_wants_it() {
    for (name, hello) in [
        ("qwen2", vec![9707]),
        ("llama-bpe", vec![128_000, 9906]),
        ("phi-3", vec![1, 15_043]),
    ] {
        let Some(Published { tokenizer, .. }) = published(name) else {
            return;
        };
        let ids = tokenizer
            .encode_prompt(&GuardedText::trusted("Hello"))
            .unwrap();
        assert_eq!(ids, hello, "{name}");
        let bos = if name == "qwen2" {
            ""
        } else {
            tokenizer.bos_text()
        };
        let with_bos = GuardedText::trusted(format!("{bos}Hello"));
        assert_eq!(tokenizer.encode_prompt(&with_bos).unwrap(), hello, "{name}");
    }
}

#[test]
fn sentence_piece_text_never_spells_a_control_token() {
    let Some(published) = published("phi-3") else {
        return;
    };
    let tokenizer = &published.tokenizer;
    assert_eq!(tokenizer.kind(), TokenizerKind::GgufSpm);
    for name in ["<s>", "<unk>", "<|end|>", "<|assistant|>"] {
        let ids = tokenizer.encode(name, Specials::AsText).unwrap();
        assert!(
            ids.iter().all(|&id| (3..32_000).contains(&id)),
            "{name}: {ids:?}"
        );
    }
    assert_eq!(tokenizer.encode("<s>", Specials::Parse).unwrap(), [1]);
    // After a special token a word starts anew.
    assert_eq!(
        tokenizer.encode("<|user|>Hello", Specials::Parse).unwrap(),
        [32_010, 15_043]
    );
    // `</s>`, typed as text, is none.
    assert_eq!(published.end_tokens, [32_000, 32_007]);
}

#[test]
fn special_tokens_of_phi_3_take_the_white_space_after_them() {
    let Some(Published { tokenizer, .. }) = published("phi-3") else {
        return;
    };
    let encode = |text: &str| tokenizer.encode(text, Specials::Parse).unwrap();
    let hello = 15_043;
    for (name, id) in [("<|user|>", 32_010), ("<|end|>", 32_007), ("</s>", 2)] {
        for space in ["", " ", "\n", " \t\r\n\u{3000}"] {
            assert_eq!(
                encode(&format!("{name}{space}Hello")),
                [id, hello],
                "{name}{space:?}"
            );
        }
        assert_eq!(encode(&format!("{name}\n{name} ")), [id, id]);
    }
    for (name, id) in [("<unk>", 0), ("<s>", 1), ("<|endoftext|>", 32_000)] {
        assert_eq!(
            encode(&format!("{name}\nHello")),
            [&[id], &encode("\nHello")[..]].concat()
        );
    }
    // What stands in front of one stays.
    assert_eq!(
        encode("Hello <|end|>"),
        [&encode("Hello ")[..], &[32_007]].concat()
    );
    // Typed as text, `</s>` is one wherever it stands.
    let as_text = tokenizer.encode("</s>\n<|end|>", Specials::AsText).unwrap();
    assert_eq!(as_text[0], 2);
    assert_eq!(
        as_text[1..],
        tokenizer.encode("<|end|>", Specials::AsText).unwrap()
    );
}

/// Texts made to keep a tokenizer busy, of 32,768 characters, the longest prompt.
fn hostile_texts() -> Vec<String> {
    let n = 32_768;
    let fill = |unit: &str| unit.chars().cycle().take(n).collect::<String>();
    let units = [
        "a", " ", "\n", "\t", " \n", "\u{3000}", "<", "<|", "'", "'s", "é", "🦀", "ab",
    ];
    let mut texts = Vec::from_iter(units.map(fill));
    texts.extend(["1", ".", "\0", "<|im_end|", "word ", "\u{301}"].map(fill));
    texts.push(fill(" ") + "x");
    texts.push(fill(" ") + "\n");
    texts.push(format!("\n{}x", fill(" ")));
    texts.push(
        (0..n as u32)
            .filter_map(|i| char::from_u32(0x4E00 + i % 0x5000))
            .collect(),
    );
    texts
}

#[test]
fn no_text_keeps_a_tokenizer_busy_for_long() {
    for name in ["qwen2", "llama-bpe", "phi-3"] {
        let Some(Published { tokenizer, .. }) = published(name) else {
            return;
        };
        let mut worst = (Duration::ZERO, String::new());
        for case in hostile_texts() {
            let start = Instant::now();
            let ids = tokenizer.encode(&case, Specials::Parse).unwrap();
            let took = start.elapsed();
            assert_eq!(text(tokenizer.decode(&ids)), case);
            worst = worst.max((took, case.chars().take(8).collect()));
        }
        println!("{name}: the worst text took {worst:?}");
        assert!(worst.0 < Duration::from_secs(1), "{name}: {worst:?}");
    }
}

//! The files are deterministic, and the reference shape is the published file's.

#![allow(clippy::unwrap_used)] // a panic is a failing test with a place
#![allow(clippy::print_stdout)] // a skipped test says so

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use orcd_shared::gguf::{GgufFile, TensorType, shard_path};
use synth_model::{Options, Shape, SynthError, Vocab, write};

const REFERENCE: &str = "qwen2.5-0.5b-instruct-q4_k_m";

fn bytes(shape: &Shape, options: &Options) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    let written = write(shape, options, &path).unwrap();
    let bytes = fs::read(&path).unwrap();
    assert_eq!(bytes.len() as u64, written.file_len);
    assert_eq!(
        fs::read_dir(dir.path()).unwrap().count(),
        1,
        "something was left behind"
    );
    bytes
}

fn open(shape: &Shape, options: &Options) -> (tempfile::TempDir, GgufFile) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    write(shape, options, &path).unwrap();
    let file = GgufFile::open(&path).unwrap();
    (dir, file)
}

/// A file of the reference material beside the repository, `None` with a note where it isn't.
fn material(path: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../../shared")
        .join(path);
    let found = path.is_file();
    if !found {
        println!("SKIPPED: {} is not there", path.display());
    }
    found.then_some(path)
}

#[test]
fn bytes_follow_from_the_seed_and_not_from_the_threads() {
    let shape = Shape::named("tiny-reference").unwrap();
    let options = |seed, threads| Options {
        seed,
        threads,
        ..Options::default()
    };
    let one = bytes(&shape, &options(1, 1));
    assert!(one == bytes(&shape, &options(1, 5)));
    let other = bytes(&shape, &options(2, 0));
    assert_eq!(one.len(), other.len());
    assert!(one != other);
}

/// The same numbers on every machine: a change of this hash is a change of every synthetic model.
#[test]
fn bytes_are_those_of_every_other_machine() {
    let bytes = bytes(&Shape::named("tiny-qwen2").unwrap(), &Options::default());
    let fnv = |hash: u64, &byte: &u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325, fnv);
    assert_eq!(hash, 0x5d45_7f92_f775_ce60, "{hash:#018x}");
}

#[test]
fn tensors_differ_from_each_other() {
    let (_dir, file) = open(&Shape::named("tiny-llama").unwrap(), &Options::default());
    let starts: HashSet<Vec<u8>> = file
        .header()
        .tensors
        .iter()
        .map(|t| synth_model::tensor_data(&file, t).unwrap()[..64].to_vec())
        .collect();
    assert_eq!(starts.len(), file.header().tensors.len());
}

#[test]
fn every_shape_has_what_its_architecture_needs() {
    for name in Shape::names().filter(|name| name.starts_with("tiny")) {
        let shape = Shape::named(name).unwrap();
        let (_dir, file) = open(&shape, &Options::default());
        let header = file.header();
        let m = &header.metadata;
        let arch = m.str("general.architecture").unwrap();
        let features = &shape.features;
        assert_eq!(m.u32(&format!("{arch}.block_count")).unwrap(), shape.layers);
        let rotated = m.opt_u32(&format!("{arch}.rope.dimension_count")).unwrap();
        let is_said = shape.redundant_keys || features.rotated.is_some();
        assert_eq!(rotated, is_said.then_some(shape.rotated()));
        let key_length = m.opt_u32(&format!("{arch}.attention.key_length"));
        assert_eq!(key_length.unwrap(), shape.key_length);
        let (q, kv) = (
            u64::from(shape.heads * shape.head_dim()),
            u64::from(shape.kv_heads * shape.head_dim()),
        );
        let rows = match features.fused {
            true => ("blk.0.attn_qkv.weight", q + 2 * kv),
            false => ("blk.0.attn_q.weight", q),
        };
        assert_eq!(header.tensor(rows.0).unwrap().ne[1], rows.1);
        assert_eq!(header.tensor("output.weight").is_none(), shape.tied);
        let has = |name: &str| header.tensor(name).is_some();
        assert_eq!(has("blk.0.attn_q.bias"), shape.qkv_bias);
        assert_eq!(
            has("blk.1.ffn_down.bias"),
            shape.more_biases.contains(&"ffn_down")
        );
        assert_eq!(has("blk.1.attn_k_norm.weight"), features.qk_norms);
        assert_eq!(has("blk.1.post_ffw_norm.weight"), features.post_norms);
        assert_eq!(has("blk.1.attn_sinks.weight"), features.sinks);
        let is_mixed = features.experts.is_some();
        assert_eq!(has("blk.1.ffn_up_exps.weight"), is_mixed);
        assert_eq!(has("blk.1.ffn_up.weight"), !is_mixed);
        let embedding = header.tensor("token_embd.weight").unwrap();
        assert_eq!(embedding.ne, [u64::from(shape.hidden), 512]);
        assert_eq!(m.strings("tokenizer.ggml.tokens").unwrap().len(), 512);
        assert_eq!(m.i32s("tokenizer.ggml.token_type").unwrap().len(), 512);
        assert!(
            m.str("tokenizer.chat_template")
                .unwrap()
                .contains("<|im_start|>")
        );
    }
}

/// By block and name, those outside of blocks first: as a sorted map of names would not have them from block 10 on.
#[test]
fn tensors_of_a_sorted_file_stand_by_block_and_name() {
    let shape = Shape {
        layers: 12,
        ..Shape::named("tiny-qwen3").unwrap()
    };
    let (_dir, file) = open(&shape, &Options::default());
    let tensors = &file.header().tensors;
    let names: Vec<&str> = tensors.iter().map(|t| t.name.as_str()).collect();
    assert_eq!(names[..2], ["output_norm.weight", "token_embd.weight"]);
    let of_block = [
        "attn_k",
        "attn_k_norm",
        "attn_norm",
        "attn_output",
        "attn_q",
        "attn_q_norm",
        "attn_v",
        "ffn_down",
        "ffn_gate",
        "ffn_norm",
        "ffn_up",
    ];
    for (i, name) in names[2..].iter().enumerate() {
        let (block, part) = (i / of_block.len(), of_block[i % of_block.len()]);
        assert_eq!(*name, format!("blk.{block}.{part}.weight"));
    }
}

/// Experts 1 and 2, 4 and 5, and so on have the same rows, and the same biases.
#[test]
fn experts_of_tiny_shapes_tie() {
    for name in ["tiny-qwen3moe", "tiny-mixtral", "tiny-gpt-oss"] {
        let (_dir, file) = open(&Shape::named(name).unwrap(), &Options::default());
        for part in ["ffn_gate_inp.weight", "ffn_gate_inp.bias"] {
            let Some(router) = file.header().tensor(&format!("blk.1.{part}")) else {
                continue;
            };
            let data = synth_model::tensor_data(&file, router).unwrap();
            let experts = *router.ne.last().unwrap() as usize;
            let rows: Vec<&[u8]> = data.chunks(data.len() / experts).collect();
            for (i, row) in rows.iter().enumerate() {
                let before: Vec<usize> = (0..i).filter(|j| rows[*j] == *row).collect();
                let expected = if i % 3 == 2 { vec![i - 1] } else { vec![] };
                assert_eq!(before, expected, "{name} {part} {i}");
            }
        }
    }
}

#[test]
fn the_varied_shapes_use_every_type() {
    let types = |name: &str| -> HashSet<TensorType> {
        let (_dir, file) = open(&Shape::named(name).unwrap(), &Options::default());
        file.header().tensors.iter().map(|t| t.ty).collect()
    };
    let all: HashSet<_> = Shape::VARIED.into_iter().flat_map(types).collect();
    assert_eq!(all.len(), TensorType::ALL.len());
}

#[test]
fn the_builtin_vocabulary_is_sound() {
    for name in ["tiny-qwen2", REFERENCE] {
        // Small matrices: this is about the tokens.
        let shape = Shape {
            layers: 0,
            hidden: 32,
            heads: 1,
            ..Shape::named(name).unwrap()
        };
        let (_dir, file) = open(&shape.with_type(TensorType::Q8_0), &Options::default());
        let m = &file.header().metadata;
        let tokens = m.strings("tokenizer.ggml.tokens").unwrap();
        let unique: HashSet<&String> = tokens.iter().collect();
        assert_eq!(unique.len(), tokens.len());
        for merge in m.strings("tokenizer.ggml.merges").unwrap() {
            let (left, right) = merge.split_once(' ').unwrap();
            for token in [left, right, &format!("{left}{right}")] {
                assert!(unique.contains(&token.to_owned()), "{token}");
            }
        }
        let eos = m.u32("tokenizer.ggml.eos_token_id").unwrap();
        assert_eq!(tokens[eos as usize], "<|im_end|>");
        assert_eq!(&tokens[..2], ["!", "\""]);
        assert_eq!(tokens[220], "Ġ");
    }
}

#[test]
fn errors_say_what_does_not_fit() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    let error = |shape: Shape, options: &Options, path: &Path| {
        write(&shape, options, path).unwrap_err().to_string()
    };
    let reference = Shape::named(REFERENCE).unwrap();
    let small = Vocab::builtin(&Shape::named("tiny-qwen2").unwrap()).unwrap();
    let options = Options {
        vocab: Some(small),
        ..Options::default()
    };
    let message = error(reference.clone(), &options, &path);
    assert!(
        message.contains("151936") && message.contains("512"),
        "{message}"
    );
    let message = error(
        reference.with_type(TensorType::Q4K),
        &Options::default(),
        &path,
    );
    assert!(
        message.contains("output.weight") && message.contains("896"),
        "{message}"
    );
    let tiny = Shape {
        vocab_size: 100,
        ..Shape::named("tiny-qwen2").unwrap()
    };
    let e = write(&tiny, &Options::default(), &path).unwrap_err();
    assert!(matches!(e, SynthError::VocabTooSmall { wanted: 100, .. }));
    let tiny = Shape::named("tiny-qwen2").unwrap();
    let message = error(tiny, &Options::default(), &dir.path().join("none/m.gguf"));
    assert!(message.contains("none/m.gguf"), "{message}");
    assert!(!path.exists());
}

/// Sizes, types and order as published; the header has the published length too when vocabulary
/// and template are the published ones.
#[test]
fn the_reference_shape_is_the_published_file() {
    let Some(vocab) = material("tokenizers/qwen2/ggml-vocab-qwen2.gguf") else {
        return;
    };
    let Some(template) = material("templates/Qwen-Qwen2.5-7B-Instruct.jinja") else {
        return;
    };
    let options = Options {
        vocab: Some(Vocab::read(&vocab).unwrap()),
        template: Some(fs::read_to_string(template).unwrap()),
        ..Options::default()
    };
    let (_dir, file) = open(&Shape::named(REFERENCE).unwrap(), &options);
    let header = file.header();
    assert_eq!(file.bytes().len(), 491_400_032);
    assert_eq!(header.data_offset, 5_947_744);
    assert_eq!(header.tensors.len(), 291);
    assert_eq!(keys(&file), REFERENCE_KEYS);
    assert_reference_tensors(&file);
    let m = &header.metadata;
    assert_eq!(m.u32("tokenizer.ggml.eos_token_id").unwrap(), 151_645);
    let tokens = m.strings("tokenizer.ggml.tokens").unwrap();
    assert_eq!(tokens[151_664], "<|file_sep|>");
    assert_eq!(tokens[7985], "Write");
}

/// Ids from 151643 on: what the published file calls them, and whether as control tokens.
const SPECIALS: [(&str, bool); 22] = [
    ("<|endoftext|>", true),
    ("<|im_start|>", true),
    ("<|im_end|>", true),
    ("<|object_ref_start|>", true),
    ("<|object_ref_end|>", true),
    ("<|box_start|>", true),
    ("<|box_end|>", true),
    ("<|quad_start|>", true),
    ("<|quad_end|>", true),
    ("<|vision_start|>", true),
    ("<|vision_end|>", true),
    ("<|vision_pad|>", true),
    ("<|image_pad|>", true),
    ("<|video_pad|>", true),
    ("<tool_call>", false),
    ("</tool_call>", false),
    ("<|fim_prefix|>", false),
    ("<|fim_middle|>", false),
    ("<|fim_suffix|>", false),
    ("<|fim_pad|>", false),
    ("<|repo_name|>", false),
    ("<|file_sep|>", false),
];

#[test]
fn the_reference_shape_names_its_special_tokens_in_any_vocabulary() {
    let shape = Shape {
        layers: 0,
        hidden: 32,
        heads: 1,
        ..Shape::named(REFERENCE).unwrap()
    };
    let (_dir, file) = open(&shape.with_type(TensorType::Q8_0), &Options::default());
    let m = &file.header().metadata;
    let tokens = m.strings("tokenizer.ggml.tokens").unwrap();
    let types = m.i32s("tokenizer.ggml.token_type").unwrap();
    for (id, (token, control)) in (151_643..).zip(SPECIALS) {
        assert_eq!(
            (tokens[id].as_str(), types[id]),
            (token, if control { 3 } else { 4 }),
            "{id}"
        );
    }
    for id in 151_665..151_936 {
        assert_eq!((&tokens[id], types[id]), (&format!("[PAD{id}]"), 5));
    }
}

const REFERENCE_KEYS: [&str; 26] = [
    "general.architecture=string \"qwen2\"",
    "general.type=string \"model\"",
    "general.name=string \"qwen2.5-0.5b-instruct\"",
    "general.version=string \"v0.1\"",
    "general.finetune=string \"qwen2.5-0.5b-instruct\"",
    "general.size_label=string \"630M\"",
    "qwen2.block_count=u32 24",
    "qwen2.context_length=u32 32768",
    "qwen2.embedding_length=u32 896",
    "qwen2.feed_forward_length=u32 4864",
    "qwen2.attention.head_count=u32 14",
    "qwen2.attention.head_count_kv=u32 2",
    "qwen2.rope.freq_base=f32 1000000",
    "qwen2.attention.layer_norm_rms_epsilon=f32 0.000001",
    "general.file_type=u32 15",
    "tokenizer.ggml.model=string \"gpt2\"",
    "tokenizer.ggml.pre=string \"qwen2\"",
    "tokenizer.ggml.tokens=array of 151936 string",
    "tokenizer.ggml.token_type=array of 151936 i32",
    "tokenizer.ggml.merges=array of 151387 string",
    "tokenizer.ggml.eos_token_id=u32 151645",
    "tokenizer.ggml.padding_token_id=u32 151643",
    "tokenizer.ggml.bos_token_id=u32 151643",
    "tokenizer.ggml.add_bos_token=bool false",
    "tokenizer.chat_template=string",
    "general.quantization_version=u32 2",
];

fn keys(file: &GgufFile) -> Vec<String> {
    let describe = |(key, value): (&str, &orcd_shared::gguf::Value)| {
        let value = value.describe();
        // The template is known by its length.
        let value = if key.ends_with("chat_template") {
            "string"
        } else {
            &value
        };
        format!("{key}={value}")
    };
    file.header().metadata.iter().map(describe).collect()
}

fn assert_reference_tensors(file: &GgufFile) {
    const MORE_BITS: [u32; 12] = [0, 1, 3, 6, 7, 8, 9, 10, 13, 16, 19, 21];
    let tensors = &file.header().tensors;
    let names: Vec<&str> = tensors.iter().map(|t| t.name.as_str()).collect();
    assert_eq!(
        names[..3],
        [
            "output.weight",
            "token_embd.weight",
            "blk.0.attn_norm.weight"
        ]
    );
    assert_eq!(names[290], "output_norm.weight");
    let is = |name: &str, ne: &[u64], ty: &str| {
        let tensor = file.header().tensor(name).unwrap();
        assert_eq!((&tensor.ne[..], tensor.ty.name()), (ne, ty), "{name}");
    };
    is("output.weight", &[896, 151_936], "Q8_0");
    is("token_embd.weight", &[896, 151_936], "Q5_0");
    is("output_norm.weight", &[896], "F32");
    for layer in 0..24 {
        let more = MORE_BITS.contains(&layer);
        let is = |part: &str, ne: &[u64], ty: &str| is(&format!("blk.{layer}.{part}"), ne, ty);
        is("attn_q.weight", &[896, 896], "Q5_0");
        is("attn_output.weight", &[896, 896], "Q5_0");
        is("attn_k.weight", &[896, 128], "Q5_0");
        is(
            "attn_v.weight",
            &[896, 128],
            if more { "Q8_0" } else { "Q5_0" },
        );
        is("ffn_gate.weight", &[896, 4864], "Q5_0");
        is("ffn_up.weight", &[896, 4864], "Q5_0");
        is(
            "ffn_down.weight",
            &[4864, 896],
            if more { "Q6_K" } else { "Q4_K" },
        );
        is("attn_norm.weight", &[896], "F32");
        is("ffn_norm.weight", &[896], "F32");
        is("attn_q.bias", &[896], "F32");
        is("attn_k.bias", &[128], "F32");
        is("attn_v.bias", &[128], "F32");
    }
}

#[test]
fn a_sentencepiece_vocabulary_is_taken_over() {
    let Some(path) = material("tokenizers/phi-3/ggml-vocab-phi-3.gguf") else {
        return;
    };
    let vocab = Vocab::read(&path).unwrap();
    let options = Options {
        vocab: Some(vocab.clone()),
        ..Options::default()
    };
    let (_dir, file) = open(&Shape::named("tiny-llama").unwrap(), &options);
    let m = &file.header().metadata;
    let original = GgufFile::open(&path).unwrap();
    let tokenizer_keys = original
        .header()
        .metadata
        .iter()
        .filter(|(k, _)| k.contains("tokenizer"));
    for (key, value) in tokenizer_keys {
        assert_eq!(m.get(key), Some(value), "{key}");
    }
    assert_eq!(m.u32("llama.vocab_size").unwrap() as usize, vocab.len());
}

#[test]
fn shards_hold_the_same_model() {
    let shape = Shape::named("tiny-llama").unwrap();
    let (_dir, whole) = open(&shape, &Options::default());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    let options = |shards| Options {
        shards,
        ..Options::default()
    };
    let written = write(&shape, &options(3), &path).unwrap();
    assert_eq!(written.tensors, whole.header().tensors.len());
    let split = GgufFile::open(&shard_path(&path, 2, 3)).unwrap();
    assert_eq!(split.shards().len(), 3);
    for (a, b) in whole.header().tensors.iter().zip(&split.header().tensors) {
        assert_eq!((&a.name, &a.ne, a.ty), (&b.name, &b.ne, b.ty));
        assert!(
            synth_model::tensor_data(&whole, a).unwrap()
                == synth_model::tensor_data(&split, b).unwrap(),
            "{}",
            a.name
        );
    }
    let keys = |file: &GgufFile| file.header().metadata.len();
    assert_eq!(keys(&split), keys(&whole) + 3);
    let error = write(&shape, &options(1000), &path)
        .unwrap_err()
        .to_string();
    assert!(error.contains("1000 shards"), "{error}");
}

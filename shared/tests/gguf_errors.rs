//! Each fault is found, and its message names the key or tensor, the file offset and the value.

mod gguf_common;

use gguf_common::{ARRAY, BOOL, Raw, STRING, U32, assert_says, metadata, sound};
use orcd_shared::gguf::{GgufError, parse};

/// One F32 tensor `t` of eight elements, and its data.
fn one_tensor() -> Raw {
    let mut raw = Raw::new(1, 0);
    raw.tensor("t", &[8], 0, 0).data(32);
    raw
}

/// One tensor with these fields and 4 KiB of data; also gives the offset of its description.
fn tensor(name: &str, ne: &[u64], ty: u32, offset: u64) -> (Raw, String) {
    let mut raw = Raw::new(1, 0);
    let at = format!("offset {}", raw.here());
    raw.tensor(name, ne, ty, offset).data(4096);
    (raw, at)
}

#[test]
fn the_raw_builder_makes_sound_files() {
    one_tensor().parse().unwrap();
    assert!(parse(&sound()).is_ok());
}

#[test]
fn wrong_magic() {
    let mut raw = one_tensor();
    raw.bytes[..4].copy_from_slice(b"GGML");
    assert_says(&raw.error(), &["not a GGUF file", "GGML"]);
    assert_says(&parse(b"\x7fE").unwrap_err().to_string(), &["\\x7fE"]);
    assert_says(&parse(b"").unwrap_err().to_string(), &["not a GGUF file"]);
}

#[test]
fn other_versions() {
    for version in [0u32, 1, 4, 2 << 24, 3 << 24] {
        let mut raw = one_tensor();
        raw.bytes[4..8].copy_from_slice(&version.to_le_bytes());
        assert_says(
            &raw.error(),
            &[&format!("version {version} at offset 4"), "only 2 and 3"],
        );
        let big_endian = raw.error().contains("big-endian");
        assert_eq!(big_endian, version >= 2 << 24);
        assert_eq!(raw.error().contains("32 bits"), version == 1);
    }
}

#[test]
fn version_2_has_the_layout_of_version_3() {
    let mut file = sound();
    let three = parse(&file).unwrap();
    file[4..8].copy_from_slice(&2u32.to_le_bytes());
    let two = parse(&file).unwrap();
    assert_eq!(two.tensors, three.tensors);
    assert_eq!(two.data_offset, three.data_offset);
    assert!(two.metadata.iter().eq(three.metadata.iter()));
}

#[test]
fn counts_that_the_file_cannot_hold() {
    let raw = Raw::new(1 << 63, 0);
    assert_says(
        &raw.error(),
        &["tensor count at offset 8", "9223372036854775808"],
    );
    let raw = Raw::new(0, 1 << 63);
    assert_says(
        &raw.error(),
        &["key count at offset 16", "9223372036854775808"],
    );
    // One entry more than the bytes after the counts can hold.
    let mut raw = Raw::new(0, 8);
    raw.put(&[0; 8 * 14 - 1]);
    assert_says(
        &raw.error(),
        &["key count", "8 entries of at least 14", "111 bytes remain"],
    );
}

#[test]
fn every_length_field_refuses_huge_values() {
    let mut raw = Raw::new(1, 3);
    raw.key("s", STRING).string("value");
    raw.key("a", ARRAY)
        .u32(STRING)
        .length(2)
        .string("x")
        .string("y");
    raw.key("n", ARRAY).u32(U32).length(2).u32(1).u32(2);
    raw.tensor("t", &[8], 0, 0).data(32);
    raw.parse().unwrap();
    assert_eq!(raw.lengths.len(), 2 + 3 + 1 + 2 + 2 + 1);
    for &at in &raw.lengths {
        for huge in [
            1u64 << 63,
            u64::MAX,
            u64::MAX - 7,
            1 << 61,
            (1 << 62) + 1,
            1 << 32,
        ] {
            let mut bad = raw.clone();
            bad.bytes[at..at + 8].copy_from_slice(&huge.to_le_bytes());
            assert_says(&bad.error(), &[&huge.to_string(), "offset"]);
        }
    }
}

#[test]
fn keys_of_no_length_too_long_twice() {
    let mut raw = Raw::new(0, 1);
    raw.key("", U32).u32(1).put(&[0; 8]);
    assert_says(
        &raw.error(),
        &["name of key 0 at offset 24", "0 bytes long", "65535"],
    );
    let mut raw = Raw::new(0, 1);
    raw.key(vec![b'k'; 65_536], U32).u32(1);
    assert_says(
        &raw.error(),
        &["name of key 0 at offset 24", "65536 bytes long"],
    );
    let mut raw = Raw::new(0, 1);
    raw.key(vec![b'k'; 65_535], U32).u32(1);
    raw.parse().unwrap();
    let mut raw = Raw::new(0, 2);
    raw.key("twin", U32).u32(1).string("twin");
    let at = format!("offset {}", raw.here());
    raw.u32(U32).u32(2);
    assert_says(&raw.error(), &["key `twin`", &at, "twice"]);
}

#[test]
fn strings_that_are_no_utf8() {
    let mut raw = Raw::new(0, 1);
    raw.key(b"k\xff", U32).u32(1);
    assert_says(
        &raw.error(),
        &["name of key 0 at offset 32", "UTF-8", "byte 1"],
    );
    let mut raw = Raw::new(0, 1);
    raw.key("bad", STRING);
    let at = format!("offset {}", raw.here() + 8);
    raw.string(b"ab\xc3");
    assert_says(&raw.error(), &["key `bad`", &at, "byte 2"]);
    let mut raw = Raw::new(0, 1);
    raw.key("list", ARRAY).u32(STRING).length(2).string("fine");
    let at = format!("offset {}", raw.here() + 8);
    raw.string(b"\x80");
    assert_says(&raw.error(), &["key `list`, element 1", &at, "byte 0"]);
    let mut raw = Raw::new(1, 0);
    raw.tensor(b"\xfft", &[8], 0, 0).data(32);
    assert_says(&raw.error(), &["name of tensor 0 at offset 32", "UTF-8"]);
}

#[test]
fn unknown_value_types_nested_arrays_and_bad_bools() {
    for id in [13u32, 255, u32::MAX] {
        let mut raw = Raw::new(0, 1);
        raw.string("k");
        let at = format!("offset {}", raw.here());
        raw.u32(id).u64(0);
        assert_says(&raw.error(), &["key `k`", &at, &format!("value type {id}")]);
        let mut raw = Raw::new(0, 1);
        raw.key("k", ARRAY).u32(id).length(0);
        assert_says(&raw.error(), &["key `k`", &format!("value type {id}")]);
    }
    let mut raw = Raw::new(0, 1);
    raw.key("deep", ARRAY);
    let at = format!("offset {}", raw.here());
    raw.u32(ARRAY).length(1).u32(U32).length(0);
    assert_says(&raw.error(), &["key `deep`", &at, "arrays of arrays"]);
    let mut raw = Raw::new(0, 1);
    raw.key("b", BOOL);
    let at = format!("offset {}", raw.here());
    raw.put(&[2]);
    assert_says(&raw.error(), &["key `b`", &at, "2 is not a bool"]);
    let mut raw = Raw::new(0, 1);
    raw.key("flags", ARRAY).u32(BOOL).length(3);
    let at = format!("offset {}", raw.here() + 1);
    raw.put(&[1, 7, 0]);
    assert_says(
        &raw.error(),
        &["key `flags`, element 1", &at, "7 is not a bool"],
    );
}

#[test]
fn alignments_that_are_none() {
    for found in [0u32, 1, 4, 24, 33, u32::MAX] {
        let mut raw = Raw::new(0, 1);
        raw.string("general.alignment");
        let at = format!("offset {}", raw.here());
        raw.u32(U32).u32(found);
        assert_says(
            &raw.error(),
            &["key `general.alignment`", &at, &found.to_string()],
        );
    }
    let mut raw = Raw::new(0, 1);
    raw.key("general.alignment", STRING).string("32");
    assert_says(&raw.error(), &["key `general.alignment`", "string \"32\""]);
    let mut raw = Raw::new(0, 1);
    raw.key("general.alignment", U32).u32(8);
    raw.parse().unwrap();
}

#[test]
fn tensor_names_of_no_length_too_long_twice() {
    let (raw, at) = tensor("", &[8], 0, 0);
    assert_says(&raw.error(), &["name of tensor 0", &at, "0 bytes long"]);
    let (raw, at) = tensor(&"n".repeat(65), &[8], 0, 0);
    assert_says(
        &raw.error(),
        &["name of tensor 0", &at, "65 bytes long", "64"],
    );
    let mut raw = Raw::new(2, 0);
    raw.tensor("twin", &[8], 0, 0);
    let at = format!("offset {}", raw.here());
    raw.tensor("twin", &[8], 0, 32).data(64);
    assert_says(&raw.error(), &["tensor `twin`", &at, "twice"]);
}

#[test]
fn impossible_shapes() {
    for dims in [0usize, 5] {
        let (raw, _) = tensor("t", &vec![1; dims], 0, 0);
        assert_says(
            &raw.error(),
            &["tensor `t` at offset 33", &format!("{dims} dimensions")],
        );
    }
    let (mut raw, _) = tensor("t", &[1], 0, 0);
    raw.bytes[33..37].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_says(&raw.error(), &["tensor `t`", "4294967295 dimensions"]);
    for ne in [
        &[0u64][..],
        &[8, 0],
        &[0, u64::MAX],
        &[1 << 63],
        &[u64::MAX, u64::MAX],
        &[1 << 32, 1 << 32],
        &[1 << 16, 1 << 16, 1 << 16, 1 << 16],
        &[1 << 62], // fits as a count, not as bytes of F32
    ] {
        let (raw, _) = tensor("big", ne, 0, 0);
        assert_says(
            &raw.error(),
            &["tensor `big` at offset 39", "shape", &format!("{ne:?}")],
        );
    }
}

#[test]
fn rows_that_are_no_whole_number_of_blocks() {
    let (raw, _) = tensor("t", &[48], 2, 0);
    assert_says(
        &raw.error(),
        &["tensor `t` at offset 37", "48", "32", "Q4_0"],
    );
    let (raw, _) = tensor("t", &[896, 2], 12, 0);
    assert_says(&raw.error(), &["tensor `t`", "896", "256", "Q4_K"]);
    // Two rows of half a block are no block.
    let (raw, _) = tensor("t", &[128, 2], 14, 0);
    assert_says(&raw.error(), &["tensor `t`", "128", "Q6_K"]);
}

#[test]
fn unsupported_tensor_types_are_named() {
    for (id, name) in [(16, "IQ2_XXS"), (26, "I32"), (28, "F64")] {
        let (raw, _) = tensor("odd", &[256], id, 0);
        let says = format!("type {id} ({name})");
        assert_says(&raw.error(), &["tensor `odd` at offset 47", &says]);
    }
    for id in [40u32, 255, u32::MAX] {
        let (raw, _) = tensor("odd", &[256], id, 0);
        assert_says(
            &raw.error(),
            &["tensor `odd`", &format!("type {id} (unknown to ggml)")],
        );
    }
}

#[test]
fn data_that_is_misaligned_or_outside() {
    let (raw, at) = tensor("t", &[8], 0, 16);
    assert_says(
        &raw.error(),
        &["tensor `t`", &at, "data offset 16", "alignment 32"],
    );
    for offset in [4096, 1 << 62, u64::MAX - 31] {
        let (raw, at) = tensor("t", &[8], 0, offset);
        let says = format!("data offset {offset}");
        assert_says(
            &raw.error(),
            &["tensor `t`", &at, &says, "beyond the end of the file"],
        );
    }
    // The last byte is missing.
    let mut raw = one_tensor();
    raw.bytes.pop();
    assert_says(
        &raw.error(),
        &["tensor `t`", "32 bytes", "beyond the end of the file"],
    );
}

#[test]
fn data_that_two_tensors_share() {
    let mut raw = Raw::new(3, 0);
    raw.tensor("late", &[8], 0, 64)
        .tensor("a", &[24], 0, 0)
        .tensor("b", &[8], 0, 96)
        .data(128);
    assert_says(
        &raw.error(),
        &[
            "tensor `late`",
            "data offset 64",
            "tensor `a`",
            "ends at 96",
        ],
    );
    // In any order in the file, as long as they are apart.
    let mut raw = Raw::new(2, 0);
    raw.tensor("late", &[8], 0, 32)
        .tensor("early", &[8], 0, 0)
        .data(64);
    raw.parse().unwrap();
}

#[test]
fn typed_getters_name_key_and_what_they_found() {
    let m = metadata();
    assert_says(
        &m.u32("nope").unwrap_err().to_string(),
        &["key `nope` is missing"],
    );
    let wrong = |e: GgufError, key: &str, parts: &[&str]| {
        assert!(matches!(e, GgufError::WrongType { .. }), "{e}");
        assert_says(&e.to_string(), &[&format!("key `{key}`")]);
        assert_says(&e.to_string(), parts);
    };
    wrong(
        m.u32("a.i32").unwrap_err(),
        "a.i32",
        &["fits u32", "i32 -5"],
    );
    wrong(
        m.u32("a.u64").unwrap_err(),
        "a.u64",
        &["fits u32", "u64 1099511627776"],
    );
    wrong(m.opt_u32("a.f32").unwrap_err(), "a.f32", &["f32 1.5"]);
    wrong(
        m.f32("a.u8").unwrap_err(),
        "a.u8",
        &["expected f32", "u8 250"],
    );
    wrong(
        m.opt_bool("a.u8").unwrap_err(),
        "a.u8",
        &["expected bool", "u8 250"],
    );
    wrong(
        m.str("a.bool").unwrap_err(),
        "a.bool",
        &["expected string", "bool true"],
    );
    wrong(
        m.strings("types").unwrap_err(),
        "types",
        &["array of 3 i32"],
    );
    wrong(
        m.f32s("tokens").unwrap_err(),
        "tokens",
        &["array of 4 string"],
    );
    wrong(
        m.opt_str("tokens").unwrap_err(),
        "tokens",
        &["array of 4 string"],
    );
}

#[test]
fn a_wrong_type_is_reported_with_its_file_offset() {
    let mut raw = Raw::new(0, 1);
    raw.string("llama.block_count");
    let at = format!("offset {}", raw.here());
    raw.u32(STRING).string("x".repeat(100));
    let header = parse(&raw.bytes).unwrap();
    let message = header
        .metadata
        .u32("llama.block_count")
        .unwrap_err()
        .to_string();
    assert_says(&message, &["key `llama.block_count`", &at, "of 100 bytes"]);
    assert!(message.len() < 200, "{message}");
}

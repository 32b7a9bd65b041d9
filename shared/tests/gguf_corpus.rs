//! Damage of every kind: the reader answers with an error or with something consistent, and never
//! panics. The corpus that the fuzzer starts from is made here too.

mod gguf_common;

use gguf_common::{Raw, STRING, metadata, sound, specs};
use orcd_shared::gguf::write::layout;
use orcd_shared::gguf::{Header, parse};
use proptest::prelude::*;

/// What holds for every file that is accepted.
fn assert_consistent(header: &Header, len: usize) {
    assert!(header.alignment.is_power_of_two());
    assert_eq!(header.data_offset % header.alignment, 0);
    for t in &header.tensors {
        let range = header.file_range(t);
        assert!(range.end <= len as u64);
        assert_eq!(range.end - range.start, t.nbytes);
        assert_eq!(range.start % header.alignment, 0);
        assert_eq!(
            t.n_elements() / t.ty.block_len() * t.ty.block_bytes(),
            t.nbytes
        );
        assert_eq!(t.rows() * t.row_bytes(), t.nbytes);
    }
}

fn parse_and_check(bytes: &[u8]) {
    if let Ok(header) = parse(bytes) {
        assert_consistent(&header, bytes.len());
        // Messages must not panic either.
        for (key, value) in header.metadata.iter() {
            let _ = (
                header.metadata.u32(key).map_err(|e| e.to_string()),
                value.describe(),
            );
        }
    }
}

#[test]
fn truncated_at_every_offset_is_an_error() {
    let file = sound();
    let end_of_data = {
        let layout = layout(&metadata(), &specs()).unwrap();
        layout
            .tensors
            .iter()
            .map(|t| layout.data_offset + t.offset + t.nbytes)
            .max()
            .unwrap()
    };
    for len in 0..=file.len() {
        let parsed = parse(&file[..len]);
        // Only padding is left to cut off after the last tensor.
        assert_eq!(
            parsed.is_ok(),
            len as u64 >= end_of_data,
            "cut to {len} of {}",
            file.len()
        );
        if let Err(e) = parsed {
            assert!(!e.to_string().is_empty());
        }
    }
}

#[test]
fn a_flipped_byte_anywhere_never_panics() {
    let mut file = sound();
    for at in 0..file.len() {
        for flip in [0x01, 0x80, 0xff] {
            file[at] ^= flip;
            parse_and_check(&file);
            file[at] ^= flip;
        }
    }
}

#[test]
fn a_word_of_ones_or_zeros_anywhere_never_panics() {
    let file = sound();
    for at in 0..file.len() - 8 {
        for word in [0u64, u64::MAX, 1 << 63, 1 << 32, u64::from(u32::MAX)] {
            let mut bad = file.clone();
            bad[at..at + 8].copy_from_slice(&word.to_le_bytes());
            parse_and_check(&bad);
        }
    }
}

#[test]
fn a_vocabulary_without_tensors_is_accepted() {
    let mut raw = Raw::new(0, 1);
    raw.key("k", STRING).string("v");
    let header = parse(&raw.bytes).unwrap();
    assert!(header.tensors.is_empty());
    assert_eq!(header.metadata.str("k").unwrap(), "v");
}

/// A description of a tensor that is nearly right, to get past the first checks.
fn nearly_a_tensor() -> impl Strategy<Value = (String, Vec<u64>, u32, u64)> {
    let dim = prop_oneof![Just(32u64), Just(256), Just(1), any::<u64>()];
    let ty = prop_oneof![0u32..16, Just(30), any::<u32>()];
    let offset = prop_oneof![(0u64..64).prop_map(|n| n * 32), any::<u64>()];
    ("[ab]{1,2}", prop::collection::vec(dim, 0..5), ty, offset)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        parse_and_check(&bytes);
        let mut with_start = b"GGUF\x03\0\0\0".to_vec();
        with_start.extend_from_slice(&bytes);
        parse_and_check(&with_start);
    }

    #[test]
    fn small_counts_before_random_bytes_never_panic(
        tensors in 0u64..4,
        keys in 0u64..4,
        bytes in prop::collection::vec(prop_oneof![Just(0u8), 0u8..13, any::<u8>()], 0..512),
    ) {
        let mut raw = Raw::new(tensors, keys);
        raw.put(&bytes);
        parse_and_check(&raw.bytes);
    }

    #[test]
    fn nearly_right_tensors_never_panic(
        tensors in prop::collection::vec(nearly_a_tensor(), 0..5),
        data in 0usize..4096,
    ) {
        let mut raw = Raw::new(tensors.len() as u64, 0);
        for (name, ne, ty, offset) in &tensors {
            raw.tensor(name, ne, *ty, *offset);
        }
        raw.data(data);
        parse_and_check(&raw.bytes);
    }

    #[test]
    fn a_sound_file_with_random_damage_never_panics(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut file = sound();
        for (at, byte) in damage {
            let at = at.index(file.len());
            file[at] = byte;
        }
        parse_and_check(&file);
    }
}

/// Writes the fuzzer's first inputs; see fuzz/README.md.
#[test]
#[ignore = "writes files: run with ORCD_FUZZ_CORPUS set, as fuzz/README.md says"]
fn write_fuzz_corpus() {
    let dir = std::env::var_os("ORCD_FUZZ_CORPUS").expect("ORCD_FUZZ_CORPUS names a folder");
    let dir = std::path::PathBuf::from(dir);
    std::fs::create_dir_all(&dir).unwrap();
    let mut small = Raw::new(1, 1);
    small
        .key("k", STRING)
        .string("v")
        .tensor("t", &[32], 8, 0)
        .data(34);
    let mut arrays = Raw::new(0, 2);
    arrays
        .key("a", 9)
        .u32(STRING)
        .length(2)
        .string("x")
        .string("yz");
    arrays.key("b", 9).u32(7).length(3).put(&[0, 1, 1]);
    for (name, bytes) in [
        ("sound", sound()),
        ("small", small.bytes),
        ("arrays", arrays.bytes),
    ] {
        std::fs::write(dir.join(name), bytes).unwrap();
    }
}

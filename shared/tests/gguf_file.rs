//! What is written is read back, from memory and from disk.

#![allow(clippy::unwrap_used)] // a panic is a failing test with a place

mod gguf_common;

use std::fs;
use std::path::{Path, PathBuf};

use gguf_common::{assert_says, metadata, sound, specs};
use orcd_shared::gguf::write::Writer;
use orcd_shared::gguf::{Array, GgufError, GgufFile, Metadata, TensorType, Value, parse};

fn on_disk(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    fs::write(&path, bytes).unwrap();
    (dir, path)
}

#[test]
fn what_is_written_is_read_back() {
    let header = parse(&sound()).unwrap();
    let written = metadata();
    assert!(header.metadata.iter().eq(written.iter()));
    assert_eq!(header.metadata.len(), written.len());
    assert_eq!(header.alignment, 64);
    let read = header
        .tensors
        .iter()
        .map(|t| (t.name.as_str(), &t.ne, t.ty));
    let specs = specs();
    assert!(read.eq(specs.iter().map(|s| (s.name.as_str(), &s.ne, s.ty))));
    assert_eq!(header.tensor("last").unwrap().nbytes, 14);
    assert!(header.tensor("lost").is_none());
}

#[test]
fn getters_take_any_integer_type_that_fits() {
    let m = metadata();
    assert_eq!(m.u32("a.u8").unwrap(), 250);
    assert_eq!(m.u32("a.u16").unwrap(), 65_000);
    assert_eq!(m.u64("a.u64").unwrap(), 1 << 40);
    assert_eq!(m.f32("a.f32").unwrap(), 1.5);
    assert_eq!(m.f32("a.f64").unwrap(), 0.1);
    assert!(m.bool("a.bool").unwrap());
    assert_eq!(m.str("general.architecture").unwrap(), "qwen2");
    assert_eq!(m.strings("tokens").unwrap(), ["a", "", "Ġthe", "日本"]);
    assert_eq!(m.i32s("types").unwrap(), [1, 3, -1]);
    assert_eq!(m.i32s("ids").unwrap(), [7, 8]);
    assert_eq!(m.i32s("bytes").unwrap(), [1, 2, 3]);
    assert_eq!(m.f32s("scores").unwrap(), [0.5, -1.0]);
    assert_eq!(
        m.get("flags"),
        Some(&Value::Array(Array::Bool(vec![true, false])))
    );
    assert_eq!(m.opt_u32("none").unwrap(), None);
    assert_eq!(m.opt_f32("none").unwrap(), None);
    assert_eq!(m.opt_bool("none").unwrap(), None);
    assert_eq!(m.opt_str("none").unwrap(), None);
    assert_eq!(m.opt_strings("none").unwrap(), None);
}

#[test]
fn a_key_cannot_be_inserted_twice() {
    let mut m = Metadata::new();
    m.insert("k", Value::U32(1)).unwrap();
    let e = m.insert("k", Value::U32(2)).unwrap_err();
    assert!(matches!(e, GgufError::DuplicateKey { .. }));
    assert_eq!(m.u32("k").unwrap(), 1);
}

#[test]
fn types_are_found_by_number_and_by_name() {
    for t in TensorType::ALL {
        assert_eq!(TensorType::from_id(t.id()), Some(t));
        assert_eq!(TensorType::from_name(&t.name().to_lowercase()), Some(t));
    }
}

#[test]
fn data_is_read_by_tensor() {
    let (_dir, path) = on_disk(&sound());
    let file = GgufFile::open(&path).unwrap();
    assert_eq!(file.path(), path);
    assert_eq!(file.bytes(), sound());
    for (i, t) in (1u8..).zip(&file.header().tensors) {
        let mut whole = vec![0; t.nbytes as usize];
        file.read_exact_at(t, 0, &mut whole).unwrap();
        assert_eq!(whole, vec![i; t.nbytes as usize]);
        let mut last = [0; 2];
        file.read_exact_at(t, t.nbytes - 2, &mut last).unwrap();
        assert_eq!(last, [i, i]);
    }
}

#[test]
fn reads_beyond_a_tensor_are_refused() {
    let (_dir, path) = on_disk(&sound());
    let file = GgufFile::open(&path).unwrap();
    let t = &file.header().tensors[0];
    for offset in [t.nbytes - 1, t.nbytes, u64::MAX] {
        let e = file.read_exact_at(t, offset, &mut [0; 2]).unwrap_err();
        assert_says(
            &e.to_string(),
            &["tensor `token_embd.weight`", "432 bytes", "m.gguf"],
        );
    }
}

#[test]
fn a_file_truncated_after_opening_gives_an_error_not_a_signal() {
    let (_dir, path) = on_disk(&sound());
    let file = GgufFile::open(&path).unwrap();
    fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(100)
        .unwrap();
    let t = &file.header().tensors[1];
    let e = file.read_exact_at(t, 0, &mut [0; 4]).unwrap_err();
    assert_says(
        &e.to_string(),
        &["tensor `blk.0.attn_norm.weight`", "offset"],
    );
}

#[test]
fn paths_without_a_model_are_named() {
    let (dir, path) = on_disk(b"");
    let error = |path: &Path| GgufFile::open(path).unwrap_err();
    assert!(matches!(error(&path), GgufError::Empty { .. }));
    assert_says(&error(&path).to_string(), &["m.gguf", "empty"]);
    assert!(matches!(error(dir.path()), GgufError::NotAFile { .. }));
    assert_says(
        &error(Path::new("/dev/null")).to_string(),
        &["/dev/null", "not a regular file"],
    );
    let missing = dir.path().join("missing.gguf");
    assert_says(
        &error(&missing).to_string(),
        &["missing.gguf", "cannot open", "No such file"],
    );
}

#[test]
fn the_writer_takes_data_in_pieces_and_refuses_what_does_not_fit() {
    let mut w = Writer::new(Vec::new(), &metadata(), &specs()).unwrap();
    let sizes: Vec<u64> = w.layout().tensors.iter().map(|t| t.nbytes).collect();
    for (i, nbytes) in (1u8..).zip(sizes) {
        (0..nbytes).for_each(|_| w.data(&[i]).unwrap());
    }
    let e = w.data(&[0]).unwrap_err();
    assert!(matches!(e, GgufError::WrongDataLength { .. }));
    assert_eq!(w.finish().unwrap(), sound());

    let mut w = Writer::new(Vec::new(), &metadata(), &specs()).unwrap();
    let e = w.data(&[0; 433]).unwrap_err();
    assert_says(
        &e.to_string(),
        &["tensor `token_embd.weight`", "433", "432"],
    );
    let e = w.finish().unwrap_err();
    assert_says(
        &e.to_string(),
        &["tensor `token_embd.weight`", "0 bytes written", "432"],
    );
}

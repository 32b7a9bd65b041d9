//! Models in several files: all shards are found from any of them, and what doesn't fit is named.

#![allow(clippy::unwrap_used)] // a panic is a failing test with a place
#![allow(clippy::print_stdout)] // a skipped test says so

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use orcd_shared::gguf::write::{TensorSpec, Writer};
use orcd_shared::gguf::{
    GgufFile, MAX_SHARDS, Metadata, SPLIT_COUNT_KEY, SPLIT_NO_KEY, SPLIT_TENSORS_KEY, TensorInfo,
    TensorType, Value, shard_path, shards_by_name,
};
use orcd_shared::weights::FileStamp;
use proptest::prelude::*;

/// What a shard says, for a test to damage.
#[derive(Clone)]
struct Shard {
    name: String,
    keys: Vec<(&'static str, Value)>,
    /// Name, and the byte that its data is made of.
    tensors: Vec<(String, u8)>,
}

/// All bytes of a tensor.
fn data(file: &GgufFile, tensor: &TensorInfo) -> Vec<u8> {
    let mut data = vec![0; tensor.nbytes as usize];
    file.read_exact_at(tensor, 0, &mut data).unwrap();
    data
}

/// Three shards with two, no and one tensors.
fn shards() -> Vec<Shard> {
    let tensors = [vec![("a", 1), ("b", 2)], vec![], vec![("c", 3)]];
    let shard = |(no, tensors): (usize, &Vec<(&str, u8)>)| Shard {
        name: format!("m-{:05}-of-00003.gguf", no + 1),
        keys: vec![
            (SPLIT_NO_KEY, Value::U16(no as u16)),
            (SPLIT_COUNT_KEY, Value::U16(3)),
            (SPLIT_TENSORS_KEY, Value::I32(3)),
        ],
        tensors: tensors.iter().map(|&(n, b)| (n.to_owned(), b)).collect(),
    };
    tensors.iter().enumerate().map(shard).collect()
}

impl Shard {
    fn set(&mut self, key: &'static str, value: Value) {
        self.keys.retain(|(k, _)| *k != key);
        self.keys.push((key, value));
    }

    fn write(&self, dir: &Path) -> PathBuf {
        let mut metadata = Metadata::new();
        for (key, value) in &self.keys {
            metadata.insert(*key, value.clone()).unwrap();
        }
        let first = self.name.contains("00001");
        let name = Value::String(if first { "first" } else { "not the first" }.into());
        metadata.insert("general.name", name).unwrap();
        let specs: Vec<_> = self
            .tensors
            .iter()
            .map(|(name, _)| TensorSpec {
                name: name.clone(),
                ne: vec![100],
                ty: TensorType::F32,
            })
            .collect();
        let path = dir.join(&self.name);
        let mut writer = Writer::new(Vec::new(), &metadata, &specs).unwrap();
        for (_, byte) in &self.tensors {
            writer.data(&[*byte; 400]).unwrap();
        }
        fs::write(&path, writer.finish().unwrap()).unwrap();
        path
    }
}

fn write_all(shards: &[Shard]) -> (tempfile::TempDir, Vec<PathBuf>) {
    let dir = tempfile::tempdir().unwrap();
    let paths = shards.iter().map(|shard| shard.write(dir.path())).collect();
    (dir, paths)
}

/// The error of opening shard `open`, which must hold all of `parts`.
#[track_caller]
fn refused(shards: &[Shard], open: usize, parts: &[&str]) {
    let (_dir, paths) = write_all(shards);
    let error = GgufFile::open(&paths[open]).unwrap_err().to_string();
    for part in parts {
        assert!(error.contains(part), "{error:?} doesn't say {part:?}");
    }
}

#[test]
fn any_shard_opens_all() {
    let (_dir, paths) = write_all(&shards());
    let first = FileStamp::of_model(&GgufFile::open(&paths[0]).unwrap()).unwrap();
    for path in &paths {
        let file = GgufFile::open(path).unwrap();
        let header = file.header();
        assert_eq!(header.metadata.str("general.name").unwrap(), "first");
        let found: Vec<_> = header
            .tensors
            .iter()
            .map(|t| (t.name.as_str(), t.shard))
            .collect();
        assert_eq!(found, [("a", 0), ("b", 0), ("c", 2)]);
        for (tensor, byte) in header.tensors.iter().zip([1u8, 2, 3]) {
            assert_eq!(data(&file, tensor), [byte; 400]);
            let mut read = [0; 100];
            file.read_exact_at(tensor, 300, &mut read).unwrap();
            assert_eq!(read, [byte; 100]);
            file.read_exact_at(tensor, 301, &mut read).unwrap_err();
        }
        let opened: Vec<_> = file.shards().iter().map(|s| s.path().to_owned()).collect();
        assert_eq!(opened, paths);
        assert_eq!(shards_by_name(path), paths);
        assert_eq!(FileStamp::of_model(&file).unwrap(), first);
    }
}

#[test]
fn a_model_in_one_file_is_what_it_was() {
    for count in [None, Some(0u16), Some(1)] {
        let mut only = shards().swap_remove(0);
        only.keys.clear();
        if let Some(count) = count {
            only.set(SPLIT_COUNT_KEY, Value::U16(count));
        }
        for name in ["m.gguf", "m-00001-of-00003.gguf"] {
            only.name = name.into();
            let (_dir, paths) = write_all(std::slice::from_ref(&only));
            let file = GgufFile::open(&paths[0]).unwrap();
            assert_eq!((file.shards().len(), file.header().tensors.len()), (1, 2));
        }
    }
}

#[test]
fn stamps_cover_every_shard() {
    let (_dir, paths) = write_all(&shards());
    let stamps = || FileStamp::of_model(&GgufFile::open(&paths[0]).unwrap()).unwrap();
    let before = stamps();
    let sizes = paths.iter().map(|p| fs::metadata(p).unwrap().len());
    assert!(before.iter().map(|stamp| stamp.bytes).eq(sizes));
    let last = fs::File::options().write(true).open(&paths[2]).unwrap();
    last.set_modified(std::time::UNIX_EPOCH).unwrap();
    let same: Vec<_> = before.iter().zip(stamps()).map(|(a, b)| *a == b).collect();
    assert_eq!(same, [true, true, false]);
}

#[test]
fn a_missing_shard_is_named() {
    for (missing, open) in [(0, 1), (1, 0), (2, 0), (2, 1)] {
        let (_dir, paths) = write_all(&shards());
        fs::remove_file(&paths[missing]).unwrap();
        let error = GgufFile::open(&paths[open]).unwrap_err().to_string();
        let path = paths[missing].display().to_string();
        let number = format!("shard {} of 3 is missing", missing + 1);
        assert!(error.contains(&path) && error.contains(&number), "{error}");
    }
}

#[test]
fn what_is_in_a_shards_place_is_named() {
    let (dir, paths) = write_all(&shards());
    fs::write(&paths[1], "no model").unwrap();
    let error = GgufFile::open(&paths[0]).unwrap_err().to_string();
    assert!(
        error.contains("m-00002") && error.contains("not a GGUF file"),
        "{error}"
    );
    fs::remove_file(&paths[1]).unwrap();
    fs::create_dir(&paths[1]).unwrap();
    let error = GgufFile::open(&paths[0]).unwrap_err().to_string();
    assert!(
        error.contains("m-00002") && error.contains("not a regular file"),
        "{error}"
    );
    drop(dir);
}

#[test]
fn a_number_or_count_that_disagrees_is_named() {
    let change = |of: usize, key, value| {
        let mut all = shards();
        all[of].set(key, value);
        all
    };
    let cases: [(usize, &'static str, u16, &str); 5] = [
        (0, SPLIT_COUNT_KEY, 4, "name says 3"),
        (1, SPLIT_COUNT_KEY, 4, "another shard says 3"),
        (0, SPLIT_NO_KEY, 1, "name says 0"),
        (2, SPLIT_NO_KEY, 1, "name says 2"),
        (0, SPLIT_NO_KEY, 3, "there are 3 shards"),
    ];
    for (of, key, value, reason) in cases {
        let found = format!("`{key}` is {value}");
        refused(&change(of, key, Value::U16(value)), 0, &[&found, reason]);
    }
    // Alone, it can't be shard 1.
    let alone = change(1, SPLIT_COUNT_KEY, Value::U16(1));
    refused(
        &alone,
        0,
        &["m-00002", "`split.no` is 1", "there are 1 shards"],
    );
    let tensors = |of, n| change(of, SPLIT_TENSORS_KEY, Value::I32(n));
    refused(
        &tensors(2, 4),
        0,
        &["m-00003", "`split.tensors.count` is 4", "says 3"],
    );
    let mut all = shards();
    all.iter_mut()
        .for_each(|s| s.set(SPLIT_TENSORS_KEY, Value::I32(4)));
    refused(&all, 1, &["`split.tensors.count` is 4", "3 tensors"]);
    refused(&tensors(0, -1), 0, &["split.tensors.count", "u64", "-1"]);
    let huge = change(0, SPLIT_COUNT_KEY, Value::U32(70_000));
    refused(
        &huge,
        0,
        &["`split.count` is 70000", &MAX_SHARDS.to_string()],
    );
    let text = change(0, SPLIT_COUNT_KEY, Value::String("three".into()));
    refused(&text, 0, &["split.count", "three"]);
    let mut single = shards();
    single[1].keys.clear();
    refused(
        &single,
        0,
        &["m-00002", "`split.count` is 1", "another shard says 3"],
    );
}

#[test]
fn a_tensor_in_two_shards_is_named() {
    let mut all = shards();
    all[2].tensors[0].0 = "a".into();
    refused(&all, 0, &["`a`", "shard 1", "shard 3"]);
}

#[test]
fn a_shard_that_lost_its_name_is_told_which_it_needs() {
    let mut all = shards();
    all[1].name = "renamed.gguf".into();
    refused(
        &all,
        1,
        &["renamed.gguf", "shard 2 of 3", "-00002-of-00003.gguf"],
    );
}

/// Tensors in sparse files may be of any length; sums over them must not overflow.
#[test]
fn shards_longer_together_than_any_memory_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("m.gguf");
    for no in 0..3u16 {
        let mut metadata = Metadata::new();
        metadata.insert(SPLIT_NO_KEY, Value::U16(no)).unwrap();
        metadata.insert(SPLIT_COUNT_KEY, Value::U16(3)).unwrap();
        let spec = TensorSpec {
            name: format!("t{no}"),
            ne: vec![1 << 60],
            ty: TensorType::F32,
        };
        let layout = orcd_shared::gguf::write::layout(&metadata, &[spec]).unwrap();
        let mut file = fs::File::create(shard_path(&whole, no.into(), 3)).unwrap();
        file.write_all(&layout.header).unwrap();
        if file.set_len(layout.file_len).is_err() {
            println!("SKIPPED: files of this file system are shorter");
            return;
        }
    }
    // Mapping so much may be refused by the system before.
    let first = shard_path(&whole, 0, 3);
    let error = GgufFile::open(&first).unwrap_err().to_string();
    assert!(
        error.contains("bytes together") || error.contains("cannot map"),
        "{error}"
    );
}

/// Keys with values that a careless or hostile writer may give them.
fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<u16>().prop_map(Value::U16),
        (0u16..5).prop_map(Value::U16),
        any::<i32>().prop_map(Value::I32),
        any::<u64>().prop_map(Value::U64),
        any::<i64>().prop_map(Value::I64),
        any::<bool>().prop_map(Value::Bool),
        "[a-z/.]{0,8}".prop_map(Value::String),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever the keys of whichever shard say: an answer, no panic, and no other file than those
    /// whose names follow from the given one.
    #[test]
    fn any_keys_get_an_answer(
        changes in prop::collection::vec((0usize..3, 0usize..3, any_value()), 0..4),
        open in 0usize..3,
    ) {
        let mut all = shards();
        let keys = [SPLIT_NO_KEY, SPLIT_COUNT_KEY, SPLIT_TENSORS_KEY];
        for (shard, key, value) in changes {
            all[shard].set(keys[key], value);
        }
        let (dir, paths) = write_all(&all);
        match GgufFile::open(&paths[open]) {
            Ok(file) => {
                for shard in file.shards() {
                    prop_assert_eq!(shard.path().parent(), Some(dir.path()));
                    prop_assert!(paths.iter().any(|path| path == shard.path()));
                }
                for tensor in &file.header().tensors {
                    data(&file, tensor);
                }
            }
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }

    /// Whatever a shard is called, the names derived from it stay in its folder.
    #[test]
    fn any_name_stays_in_its_folder(stem in "[a-z.%\\\\ -]{0,12}") {
        let folder = Path::new("/models");
        let given = folder.join(format!("{stem}-00001-of-00003.gguf"));
        let files = shards_by_name(&given);
        prop_assert_eq!(files.len(), 3);
        prop_assert_eq!(&files[0], &given);
        for file in files {
            prop_assert_eq!(file.parent(), Some(folder));
        }
    }
}

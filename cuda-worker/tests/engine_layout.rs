//! The image's layout: its bytes are pinned, and its version is made of them.

#![allow(clippy::unwrap_used)] // a panic is a failing test with a place

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use cuda_worker::engine::Backend;
use cuda_worker::probe::golden_hash;
use cuda_worker::weights_plan::{PlannedTensor, Role};
use orcd_shared::gguf::{TensorInfo, TensorType};

/// ggml's numbers rise as the version's samples come.
fn types() -> Vec<TensorType> {
    let mut types = TensorType::ALL.to_vec();
    types.sort_by_key(|ty| ty.id());
    types
}

/// The version that follows from the packed samples of all types.
const GOLDEN_VERSION: u32 = 0x7fb6_4d7d;

/// As in `cuda/engine/layout_version.h`.
const ROWS: u64 = 19;
const BLOCKS: u64 = 9;
const EMPTY: u64 = 0xcbf2_9ce4_8422_2325;

fn hash(bytes: &[u8], from: u64) -> u64 {
    let add = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(from, add)
}

fn sample(ty: TensorType, bytes: u64) -> Vec<u8> {
    let mut x = ty.id() + 1;
    let next = || {
        x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (x >> 24) as u8
    };
    std::iter::repeat_with(next).take(bytes as usize).collect()
}

/// The sample of a type as the backend packs it.
fn packed(backend: &Backend, ty: TensorType) -> Vec<u8> {
    let cols = BLOCKS
        * if ty.block_len() == 1 {
            32
        } else {
            ty.block_len()
        };
    let nbytes = ROWS * cols / ty.block_len() * ty.block_bytes();
    let tensor = PlannedTensor {
        role: Role::Output,
        layer: 0,
        info: TensorInfo {
            name: "sample".into(),
            ne: vec![cols, ROWS],
            ty,
            offset: 0,
            nbytes,
            shard: 0,
        },
        rows: ROWS,
        first_row: 0,
        cols,
        offset: 0,
    };
    let mut weights = backend.allocate(nbytes).unwrap();
    weights.write(&tensor, 0, &sample(ty, nbytes)).unwrap();
    weights.seal().unwrap();
    let mut bytes = vec![0; nbytes as usize];
    let image = File::from(weights.share().unwrap());
    image.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

#[test]
fn packed_bytes_of_every_type_are_pinned_and_another_layout_has_another_version() {
    let backend = Backend::cpu().unwrap();
    let samples: Vec<_> = types().into_iter().map(|ty| packed(&backend, ty)).collect();
    let hashes = samples.iter().map(|bytes| hash(bytes, EMPTY));
    let version = backend.layout_version();
    let changed: Vec<_> = (types().into_iter().zip(hashes))
        .filter(|&(ty, found)| golden_hash(ty) != found)
        .map(|(ty, found)| format!("{ty}: {found:#018x}"))
        .collect();
    let changed = changed.join(", ");
    if !changed.is_empty() {
        assert_ne!(
            version, GOLDEN_VERSION,
            "the layout changed and its version did not: workers of this build would take images of \
             older ones for theirs ({changed})"
        );
        panic!(
            "the layout changed, and its version with it: if that is meant, commit the new hashes \
             ({changed}) and the new version, {version:#010x}"
        );
    }
    assert_eq!(version, GOLDEN_VERSION, "the layout is as before");
    let all = samples.iter().fold(EMPTY, |h, bytes| hash(bytes, h));
    assert_eq!(
        version,
        (all ^ (all >> 32)) as u32,
        "made of the bytes alone"
    );
}

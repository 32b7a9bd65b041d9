use std::io::Write as _;
use std::os::unix::net::UnixDatagram;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use orcd_shared::weights::{ContentHash, ModelIdentity};

use super::*;

fn manifest() -> WeightsManifest {
    WeightsManifest {
        model: ModelIdentity {
            hash: ContentHash([0xfe; 32]),
            stamps: vec![FileStamp {
                device: u64::MAX,
                inode: u64::MAX,
                bytes: u64::MAX,
                modified_ns: i64::MIN,
                changed_ns: 1_763_000_000_123_456_789,
            }],
        },
        layout_version: 3,
        backend: "cpu".into(),
        image_bytes: 485_452_288,
        sample_checksum: u64::MAX,
    }
}

fn record() -> Record {
    Record {
        place: ImageLocation::of(Device::Cpu),
        weights: manifest(),
    }
}

fn passed(name: &str, fd: impl Into<OwnedFd>) -> Passed {
    Passed {
        name: name.into(),
        fd: fd.into(),
    }
}

/// A memfd that can still be written.
fn writable(content: &[u8]) -> File {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let mut file = File::from(memfd_create("test", flags).unwrap());
    file.write_all(content).unwrap();
    let seals = SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).unwrap();
    file
}

fn image() -> File {
    sealed::create("test", b"weights").unwrap()
}

#[test]
fn a_record_comes_back_whole_and_nobody_can_change_it() {
    let mut file = seal(&record()).unwrap();
    assert!(file.write_all(b"x").is_err());
    // What systemd passes is another descriptor of the same open file, its position at the end.
    assert_eq!(read(file.into()).unwrap(), record());
}

#[test]
fn images_are_found_in_any_order_and_the_rest_is_named() {
    let sealed = || seal(&record()).unwrap();
    let damaged = || sealed::create("test", b"{\"place\"").unwrap();
    let spaces = vec![b' '; MAX_RECORD_BYTES as usize + 1];
    let huge = || sealed::create("test", &spaces).unwrap();
    let mut all = vec![
        passed("orcd-record-a", sealed()),
        passed("orcd-weights-b", image()),
        passed("orcd-weights-a", image()),
        passed("orcd-weights-half", image()),
        passed("orcd-weights-twice", image()),
        passed("orcd-weights-twice", image()),
        passed("orcd-record-damaged", damaged()),
        passed("orcd-weights-damaged", image()),
        passed("orcd-record-huge", huge()),
        passed("orcd-weights-huge", image()),
        passed("orcd-record-b", sealed()),
        passed("unknown", image()),
    ];
    for _ in 0..all.len() {
        all.rotate_left(1);
        let again = all
            .iter()
            .map(|p| passed(&p.name, p.fd.try_clone().unwrap()));
        let mut sorted = sort(again.collect());
        let mut tags: Vec<_> = sorted.images.iter().map(|i| i.tag.as_str()).collect();
        tags.sort_unstable();
        assert_eq!(tags, ["a", "b"]);
        sorted.rest.sort_unstable();
        assert_eq!(
            sorted.rest,
            [
                "orcd-record-damaged",
                "orcd-record-huge",
                "orcd-weights-damaged",
                "orcd-weights-half",
                "orcd-weights-huge",
                "orcd-weights-twice",
                "orcd-weights-twice",
                "unknown"
            ]
        );
    }
}

#[test]
fn what_somebody_may_still_change_is_not_taken() {
    let bytes = serde_json::to_vec(&record()).unwrap();
    let file = || {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        file
    };
    let pairs = [
        (image(), writable(&bytes)),
        (image(), file()),
        (writable(b"weights"), seal(&record()).unwrap()),
        (file(), seal(&record()).unwrap()),
    ];
    for (image, record) in pairs {
        let pair = vec![
            passed("orcd-weights-a", image),
            passed("orcd-record-a", record),
        ];
        let sorted = sort(pair);
        assert!(sorted.images.is_empty(), "{:?}", sorted.images);
        assert_eq!(sorted.rest.len(), 2);
    }
}

/// A store whose messages are read one by one.
fn store() -> (FdStore, impl FnMut() -> Option<String>, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let double = UnixDatagram::bind(&path).unwrap();
    double.set_nonblocking(true).unwrap();
    let store = FdStore {
        notifier: Notifier::new(Some(path.as_os_str())),
        place: ImageLocation::of(Device::Cpu),
        stored: None,
    };
    let next = move || {
        let mut buffer = [0; 4096];
        let n = double.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..n]).into_owned())
    };
    (store, next, dir)
}

#[tokio::test]
async fn other_weights_replace_the_stored_ones_and_none_remove_them() {
    let (mut store, mut next, _dir) = store();
    let weights = WeightsHandle::new(manifest(), image().into());
    store.hold(Some(weights.clone())).await;
    for kind in ["record", "weights"] {
        let message = next().unwrap();
        let start = format!("FDSTORE=1\nFDNAME=orcd-{kind}-");
        assert!(message.starts_with(&start), "{message}");
    }
    store.hold(Some(weights)).await;
    assert_eq!(next(), None, "stored already");
    let other = WeightsHandle::new(manifest(), image().into());
    store.hold(Some(other)).await;
    let kinds: Vec<_> = std::iter::from_fn(&mut next)
        .map(|m| m.split('=').next().unwrap().to_owned())
        .collect();
    assert_eq!(
        kinds,
        ["FDSTOREREMOVE", "FDSTOREREMOVE", "FDSTORE", "FDSTORE"]
    );
    store.hold(None).await;
    assert_eq!(std::iter::from_fn(&mut next).count(), 2);
    assert!(store.weights().is_none());
}

#[tokio::test]
async fn weights_of_another_model_file_are_removed_before_anything_is_loaded() {
    let (store, mut next, dir) = store();
    let record = seal(&record()).unwrap();
    let passed = vec![
        passed("orcd-weights-a", image()),
        passed("orcd-record-a", record),
    ];
    let model = dir.path().join("no-such-model.gguf");
    let store = FdStore::open(store.notifier, store.place, passed, &model).await;
    assert!(store.weights().is_none());
    for kind in ["weights", "record"] {
        let wanted = format!("FDSTOREREMOVE=1\nFDNAME=orcd-{kind}-a\n");
        assert_eq!(next(), Some(wanted));
    }
    assert_eq!(next(), None);
}

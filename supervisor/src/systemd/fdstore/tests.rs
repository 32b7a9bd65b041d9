use std::ffi::OsStr;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::sync::mpsc;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use orcd_shared::claim::Reserved;
use orcd_shared::kv::PoolManifest;
use orcd_shared::protocol::message::{Device, KvSize};
use orcd_shared::sealed;
use orcd_shared::weights::{ContentHash, ModelIdentity, WeightsManifest};

use super::record::MAX_RECORD_BYTES;
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

fn record() -> WeightsRecord {
    WeightsRecord {
        place: ImageLocation::of(Device::Cpu),
        weights: manifest(),
    }
}

/// Sizes that a record has to bring back exactly.
fn sizing() -> PoolSizing {
    PoolSizing {
        context: Some(4096),
        parallel: None,
        kv: Some(KvSize::Share(0.85)),
        standby: true,
    }
}

fn pool_record() -> PoolRecord {
    PoolRecord {
        place: ImageLocation::of(Device::Cpu),
        sizing: sizing(),
        program: FileStamp::of(&File::open("/proc/self/exe").unwrap()).unwrap(),
        model: manifest().model.hash,
        pool: PoolManifest {
            id: [7; 16],
            backend: "cpu".into(),
            pages: 300,
            bytes: u64::MAX,
            fingerprint: [0xfe; 32],
        },
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

fn weights() -> WeightsHandle {
    WeightsHandle::new(manifest(), image().into())
}

fn pool() -> PoolHandle {
    let file = || writable(b"pages").into();
    PoolHandle::new(pool_record().pool, file(), file())
}

#[test]
fn a_record_comes_back_whole_and_nobody_can_change_it() {
    let mut file = seal(&record()).unwrap();
    assert!(file.write_all(b"x").is_err());
    // What systemd passes is another descriptor of the same open file, its position at the end.
    assert_eq!(
        record::read::<WeightsRecord>(file.into()).unwrap(),
        record()
    );
    let file = seal(&pool_record()).unwrap();
    let read = record::read::<PoolRecord>(file.into()).unwrap();
    assert_eq!(read, pool_record());
}

#[test]
fn what_belongs_together_is_found_in_any_order_and_the_rest_is_named() {
    let sealed = || seal(&record()).unwrap();
    let of_pool = || seal(&pool_record()).unwrap();
    let pages = || writable(b"pages");
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
        // A tag means nothing beyond its kind.
        passed("orcd-kv-record-a", of_pool()),
        passed("orcd-kv-memory-a", pages()),
        passed("orcd-kv-ledger-a", pages()),
        passed("orcd-kv-record-half", of_pool()),
        passed("orcd-kv-memory-half", pages()),
        passed("orcd-kv-record-strange", sealed()),
        passed("orcd-kv-memory-strange", pages()),
        passed("orcd-kv-ledger-strange", pages()),
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
        let pools: Vec<_> = sorted.pools.iter().map(|i| i.tag.as_str()).collect();
        assert_eq!(pools, ["a"]);
        sorted.rest.sort_unstable();
        assert_eq!(
            sorted.rest,
            [
                "orcd-kv-ledger-strange",
                "orcd-kv-memory-half",
                "orcd-kv-memory-strange",
                "orcd-kv-record-half",
                "orcd-kv-record-strange",
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
    let store = FdStore {
        notifier: Notifier::new(Some(path.as_os_str())),
        terms: StoreTerms {
            place: ImageLocation::of(Device::Cpu),
            model: dir.path().join("no-such-model.gguf"),
            pool: Some(PoolTerms {
                sizing: sizing(),
                program: "/proc/self/exe".into(),
            }),
        },
        weights: None,
        pool: None,
    };
    (store, messages(double), dir)
}

/// Reads as systemd does: all the time. It closes what comes with a message.
fn messages(double: UnixDatagram) -> impl FnMut() -> Option<String> {
    let (sender, received) = mpsc::channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(n) = double.recv(&mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..n]).into_owned();
            if sender.send(text).is_err() {
                return;
            }
        }
    });
    move || received.recv_timeout(Duration::from_millis(200)).ok()
}

/// What each message asks for, and of which kind of descriptor.
fn asked(messages: impl Iterator<Item = String>) -> Vec<String> {
    messages
        .map(|message| {
            let mut lines = message.lines();
            let what = lines.next().unwrap().trim_end_matches("=1").to_owned();
            match lines.next().and_then(|line| line.strip_prefix("FDNAME=")) {
                Some(name) => {
                    let kind = name.rsplit_once('-').map_or(name, |(kind, _)| kind);
                    format!("{what} {kind}")
                }
                None => what,
            }
        })
        .collect()
}

const ADD_WEIGHTS: [&str; 2] = ["FDSTORE orcd-record", "FDSTORE orcd-weights"];
const ADD_POOL: [&str; 3] = [
    "FDSTORE orcd-kv-record",
    "FDSTORE orcd-kv-memory",
    "FDSTORE orcd-kv-ledger",
];
const REMOVE_WEIGHTS: [&str; 2] = ["FDSTOREREMOVE orcd-weights", "FDSTOREREMOVE orcd-record"];
const REMOVE_POOL: [&str; 3] = [
    "FDSTOREREMOVE orcd-kv-memory",
    "FDSTOREREMOVE orcd-kv-ledger",
    "FDSTOREREMOVE orcd-kv-record",
];

#[tokio::test(flavor = "multi_thread")]
async fn the_store_has_what_is_held_and_nothing_else() {
    let (mut store, mut next, _dir) = store();
    let (one, first) = (weights(), pool());
    let with = |weights: &WeightsHandle, pool: Option<&PoolHandle>| Handover {
        weights: Some(weights.clone()),
        pool: pool.cloned(),
    };
    let (other, second) = (weights(), pool());
    let steps = [
        (with(&one, None), ADD_WEIGHTS.to_vec()),
        (with(&one, Some(&first)), ADD_POOL.to_vec()),
        (with(&one, Some(&first)), vec![]),
        (
            with(&other, Some(&first)),
            [REMOVE_WEIGHTS, ADD_WEIGHTS].concat(),
        ),
        (
            with(&other, Some(&second)),
            [REMOVE_POOL, ADD_POOL].concat(),
        ),
        (with(&other, None), REMOVE_POOL.to_vec()),
        (with(&other, Some(&second)), ADD_POOL.to_vec()),
        // Without its weights nobody could tell whose it is.
        (
            Handover {
                weights: None,
                pool: Some(second.clone()),
            },
            [&REMOVE_POOL[..], &REMOVE_WEIGHTS].concat(),
        ),
        (Handover::nothing(), vec![]),
    ];
    for (step, (held, expected)) in steps.into_iter().enumerate() {
        store.hold(held).await;
        assert_eq!(asked(std::iter::from_fn(&mut next)), expected, "{step}");
    }
    assert!(store.handles().is_nothing());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_nobody_will_look_into_is_not_stored() {
    let (mut store, mut next, _dir) = store();
    store.terms.pool = None;
    let held = Handover {
        weights: Some(weights()),
        pool: Some(pool()),
    };
    store.hold(held).await;
    assert_eq!(asked(std::iter::from_fn(&mut next)), ADD_WEIGHTS);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_of_another_model_file_is_removed_before_anything_is_loaded() {
    let (store, mut next, _dir) = store();
    let passed = vec![
        passed("orcd-weights-a", image()),
        passed("orcd-record-a", seal(&record()).unwrap()),
        passed("orcd-kv-memory-b", writable(b"pages")),
        passed("orcd-kv-ledger-b", writable(b"ledger")),
        passed("orcd-kv-record-b", seal(&pool_record()).unwrap()),
    ];
    let store = FdStore::open(store.notifier, store.terms, passed).await;
    assert!(store.handles().is_nothing());
    let removed = [&REMOVE_WEIGHTS[..], &REMOVE_POOL, &["BARRIER"]].concat();
    assert_eq!(asked(std::iter::from_fn(&mut next)), removed);
}

/// What a store that has these weights makes of a pool that came back.
async fn verdict(
    change: impl FnOnce(&mut StoreTerms, &mut PoolRecord),
    ledger: impl Into<OwnedFd>,
) -> bool {
    let (mut store, mut next, _dir) = store();
    let mut record = pool_record();
    change(&mut store.terms, &mut record);
    store.weights = Some(Stored {
        tag: "a".into(),
        handle: weights(),
    });
    let memory = writable(b"pages").into();
    let handle = PoolHandle::new(record.pool.clone(), memory, ledger.into());
    let tag = "b".into();
    let taken = store
        .take_pool(Found {
            tag,
            record,
            handle,
        })
        .await;
    assert_eq!(store.handles().pool.is_some(), taken);
    let expected = if taken { vec![] } else { REMOVE_POOL.to_vec() };
    assert_eq!(asked(std::iter::from_fn(&mut next)), expected);
    taken
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_is_taken_if_all_that_it_depends_on_is_as_it_was() {
    let ledger = || writable(b"ledger");
    assert!(verdict(|_, _| (), ledger()).await);
    let changes: [fn(&mut StoreTerms, &mut PoolRecord); 8] = [
        |terms, _| terms.pool = None,
        |_, record| record.model = ContentHash([1; 32]),
        |_, record| record.place = ImageLocation::of(Device::Cuda(1)),
        |_, record| record.program.inode += 1,
        |_, record| record.sizing.context = None,
        |_, record| record.sizing.parallel = Some(1),
        |_, record| record.sizing.kv = Some(KvSize::Share(0.84)),
        |_, record| record.sizing.standby = false,
    ];
    for (at, change) in changes.into_iter().enumerate() {
        assert!(!verdict(change, ledger()).await, "{at}");
    }
    let no_program = |terms: &mut StoreTerms, _: &mut PoolRecord| {
        terms.pool.as_mut().unwrap().program = "/nonexistent".into();
    };
    assert!(!verdict(no_program, ledger()).await);
    assert!(!verdict(|_, _| (), tempfile::tempfile().unwrap()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_is_taken_once_the_last_worker_that_had_it_is_gone() {
    let ledger = writable(b"ledger");
    let claim = Reserved::new().unwrap().claim(&ledger).unwrap();
    let kept = ledger.try_clone().unwrap();
    assert!(!verdict(|_, _| (), kept).await, "it stays");
    tokio::spawn(async move {
        sleep(Duration::from_millis(300)).await;
        drop(claim);
    });
    let begun = Instant::now();
    assert!(verdict(|_, _| (), ledger).await);
    assert!(begun.elapsed() >= Duration::from_millis(300));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_of_two_pools_leaves_the_store() {
    let (mut store, mut next, _dir) = store();
    store.weights = Some(Stored {
        tag: "a".into(),
        handle: weights(),
    });
    for (tag, is_first) in [("b", true), ("c", false)] {
        let found = Found {
            tag: tag.into(),
            record: pool_record(),
            handle: pool(),
        };
        assert_eq!(store.take_pool(found).await, is_first);
    }
    assert_eq!(asked(std::iter::from_fn(&mut next)), REMOVE_POOL);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_barrier_waits_until_systemd_has_read_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let double = UnixDatagram::bind(&path).unwrap();
    let notifier = Notifier::new(Some(OsStr::new(&path)));
    let begun = Instant::now();
    let reading = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        double.recv(&mut [0; 64]).unwrap();
        double
    });
    notifier.barrier().await;
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(300), "{took:?}");
    assert!(took < PREDECESSOR_LEAVES, "{took:?}");
    reading.join().unwrap();
    Notifier::new(None).barrier().await;
}

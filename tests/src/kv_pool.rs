//! The pool of KV memory as the supervisor holds it, for tests that damage it. Its two files are reached through the
//! supervisor's descriptors; `cuda-worker/src/pool/ledger.rs` and `cuda/cpu/kv_cache.h` say what lies where.
//!
//! Whoever damages a pool has to see to it that no worker computes with it at the time: what a worker has looked at
//! once it believes.

use std::fs::{File, OpenOptions, read_dir, read_link};
use std::os::unix::fs::FileExt as _;

use crate::WorkerHarness;

/// Where the ledger's states begin, and bytes of a page's name and of its tokens.
const STATES_AT: u64 = 4096;
const NAME_BYTES: u64 = 32;
const TOKENS_BYTES: u64 = 256;
/// Where the ledger says how many pages there are.
const PAGES_AT: u64 = 16;
/// Sums of each page, behind all pages.
const SUM_BYTES: u64 = 8 * 64;

/// The files of a pool in the CPU's memory.
#[derive(Debug)]
pub struct PoolFiles {
    memory: File,
    ledger: File,
    pages: u64,
}

impl PoolFiles {
    /// Those that the supervisor holds.
    #[track_caller]
    pub fn of(service: &WorkerHarness) -> Self {
        let (memory, ledger) = (held(service, "orcd-kv"), held(service, "orcd-kv-ledger"));
        let mut pages = [0; 4];
        ledger.read_exact_at(&mut pages, PAGES_AT).unwrap();
        Self {
            memory,
            ledger,
            pages: u32::from_le_bytes(pages).into(),
        }
    }

    /// Pages that are not free, from the first on.
    pub fn used(&self) -> Vec<u64> {
        let mut states = vec![0; usize::try_from(self.pages).unwrap() * 4];
        self.ledger.read_exact_at(&mut states, STATES_AT).unwrap();
        let states = states.chunks_exact(4);
        let used = (0..).zip(states).filter(|(_, state)| **state != [0; 4]);
        used.map(|(page, _)| page).collect()
    }

    /// Flips a bit in each page that is used; how many there are.
    pub fn flip_bits(&self) -> usize {
        let length = self.memory.metadata().unwrap().len();
        let page_bytes = length / self.pages - SUM_BYTES;
        let used = self.used();
        for page in &used {
            let at = page * page_bytes + 1;
            let mut byte = [0];
            self.memory.read_exact_at(&mut byte, at).unwrap();
            self.memory.write_all_at(&[byte[0] ^ 4], at).unwrap();
        }
        used.len()
    }

    /// Writes noise over some of what the ledger says of pages that are used: their states, names, and tokens. `random`
    /// gives a number below another.
    pub fn tear_ledger(&self, mut random: impl FnMut(u64) -> u64) {
        let used = self.used();
        let last = used.last().map_or(1, |last| last + 1);
        let names_at = STATES_AT + 4 * self.pages;
        let afters_at = names_at + NAME_BYTES * self.pages;
        let tokens_at = afters_at + NAME_BYTES * self.pages;
        for (at, bytes) in [
            (STATES_AT, 4),
            (names_at, NAME_BYTES),
            (afters_at, NAME_BYTES),
            (tokens_at, TOKENS_BYTES),
        ] {
            for _ in 0..random(4) {
                let from = at + random(last * bytes);
                let noise: Vec<u8> = (0..1 + random(2 * bytes))
                    .map(|_| u8::try_from(random(256)).unwrap())
                    .collect();
                let end = (at + self.pages * bytes).min(from + noise.len() as u64);
                let length = usize::try_from(end - from).unwrap();
                self.ledger.write_all_at(&noise[..length], from).unwrap();
            }
        }
    }
}

/// The only file of this name in memory that the supervisor has open.
#[track_caller]
fn held(service: &WorkerHarness, name: &str) -> File {
    let target = format!("/memfd:{name} (deleted)");
    let folder = format!("/proc/{}/fd", service.supervisor().pid);
    let entries = read_dir(folder).unwrap().flatten();
    let mut found = entries
        .map(|entry| entry.path())
        .filter(|path| read_link(path).is_ok_and(|to| to.as_os_str() == target.as_str()));
    let path = found.next();
    let path = path.unwrap_or_else(|| panic!("the supervisor holds no {name}"));
    assert_eq!(found.next(), None, "the supervisor holds {name} twice");
    let file = OpenOptions::new().read(true).write(true).open(path);
    file.unwrap_or_else(|error| panic!("{name}: {error}"))
}

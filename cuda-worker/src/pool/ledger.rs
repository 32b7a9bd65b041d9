//! What is in each page of a pool, in a file that outlives the process: write-ahead, so that a page is never believed
//! which a step may have been writing to.
//!
//! A page is marked dirty before a step is launched that may write to it, and full only when it will not be written to
//! again, its sums lie in the pool and the errors of the steps that wrote it were checked. Of a dirty one the ledger has
//! the tokens of which as much is known: they can be copied out of it. It is read and written by calls of the system:
//! each is over when it returns, whatever kills the process afterwards.
//!
//! ```text
//! 0     magic, number of pages, epoch       one page of the system
//! 4096  state of each page                  4 bytes each
//!       name of each full page              32 bytes each
//!       name of the page before each        32 bytes each
//!       tokens of each page                 256 bytes each; the first that is none ends them
//! ```

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;

use nix::sys::memfd::{MFdFlags, memfd_create};
use orcd_shared::claim::{Claim, Reserved};

use super::names::{PageName, PageTokens, TOKENS};
use super::pages::{Begun, Found};

/// Also says which form this is.
const MAGIC: &[u8; 16] = b"orcd kv ledger 2";
const PAGES_AT: u64 = 16;
const EPOCH_AT: u64 = 24;
const STATES_AT: u64 = 4096;

/// States differ in many bits. What is none of them is taken for dirty.
const FREE: u32 = 0;
const DIRTY: u32 = 0x9d5a_37c1;
const FULL: u32 = 0x62a5_c83e;

const NAME_BYTES: u64 = 32;
const TOKENS_BYTES: u64 = 4 * TOKENS as u64;
/// Pages whose tokens are read at once, at most.
const PAGES_READ: usize = 256;
/// In place of a token. No vocabulary has as many.
const NO_TOKEN: u32 = u32::MAX;

/// The ledger of a pool.
#[derive(Debug)]
pub struct Ledger {
    file: File,
    pages: u32,
    /// Shows others that this process is there.
    claim: Option<Claim>,
}

impl Ledger {
    /// A new one, in which every page is free.
    ///
    /// # Errors
    /// The system gives no memory for it.
    pub fn create(pages: u32) -> io::Result<Self> {
        let file = File::from(memfd_create("orcd-kv-ledger", MFdFlags::MFD_CLOEXEC)?);
        file.set_len(size(pages))?;
        let ledger = Self {
            file,
            pages,
            claim: None,
        };
        ledger.file.write_all_at(&pages.to_le_bytes(), PAGES_AT)?;
        ledger.file.write_all_at(MAGIC, 0)?;
        Ok(ledger)
    }

    /// The one that another worker has left for a pool of so many pages.
    ///
    /// # Errors
    /// It is none, or that of another pool.
    pub fn open(fd: OwnedFd, pages: u32) -> io::Result<Self> {
        let file = File::from(fd);
        let mut magic = [0; MAGIC.len()];
        let mut count = [0; 4];
        file.read_exact_at(&mut magic, 0)?;
        file.read_exact_at(&mut count, PAGES_AT)?;
        let found = u32::from_le_bytes(count);
        if magic != *MAGIC || found != pages || file.metadata()?.len() != size(pages) {
            let message = format!("this is no ledger of {pages} KV pages");
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        Ok(Self {
            file,
            pages,
            claim: None,
        })
    }

    /// Whoever is given this ledger later can find out that this process is still there.
    ///
    /// # Errors
    /// As those of [`Reserved::claim`].
    pub fn claim(&mut self, reserved: Reserved) -> io::Result<()> {
        self.claim = Some(reserved.claim(&self.file)?);
        Ok(())
    }

    /// A descriptor of it, for the process that keeps it.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn share(&self) -> io::Result<OwnedFd> {
        Ok(self.file.try_clone()?.into())
    }

    /// The pool belongs to this epoch from now on.
    ///
    /// # Errors
    /// As those of a file.
    pub fn begin_epoch(&self, epoch: u64) -> io::Result<()> {
        self.file.write_all_at(&epoch.to_le_bytes(), EPOCH_AT)
    }

    /// The epoch that the pool belongs to.
    ///
    /// # Errors
    /// As those of a file.
    pub fn epoch(&self) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.file.read_exact_at(&mut bytes, EPOCH_AT)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// A step may write to a page from now on, and nothing is known to be there.
    ///
    /// # Errors
    /// As those of a file.
    pub fn mark_dirty(&self, page: u32) -> io::Result<()> {
        // In this order: what was full is not, before its tokens go.
        self.set(page, DIRTY)?;
        let none = [NO_TOKEN.to_ne_bytes(); TOKENS];
        self.file
            .write_all_at(none.as_flattened(), self.tokens_at(page))
    }

    /// What a dirty page has of these tokens, from its `from`-th on, was written without an error, and its sums are noted.
    /// Those before were told. It is the page behind the one named `after`.
    ///
    /// # Errors
    /// As those of a file.
    pub fn note(&self, page: u32, after: &PageName, from: usize, tokens: &[u32]) -> io::Result<()> {
        if from == 0 {
            let at = self.afters_at() + u64::from(page) * NAME_BYTES;
            self.file.write_all_at(&after.0, at)?;
        }
        let at = self.tokens_at(page) + 4 * from as u64;
        self.file.write_all_at(&bytes_of(tokens), at)
    }

    /// There is nothing in a page, and nobody writes to it.
    ///
    /// # Errors
    /// As those of a file.
    pub fn mark_free(&self, page: u32) -> io::Result<()> {
        self.set(page, FREE)
    }

    /// A page is full, its sum is noted, and it will not be written to again.
    ///
    /// # Errors
    /// As those of a file.
    pub fn mark_full(&self, page: u32, name: &PageName, tokens: &PageTokens) -> io::Result<()> {
        self.file
            .write_all_at(&bytes_of(tokens), self.tokens_at(page))?;
        let at = self.names_at() + u64::from(page) * NAME_BYTES;
        self.file.write_all_at(&name.0, at)?;
        self.set(page, FULL)
    }

    /// What each page is that was not free, in pages' order. Full pages are left out unless `keep`, and so is what dirty
    /// ones have. All of these but full ones that are kept are free from now on; dirty ones only unless `bars`, which says
    /// that somebody may be writing to them.
    ///
    /// # Errors
    /// As those of a file.
    pub fn take_over(&self, keep: bool, bars: bool) -> io::Result<Vec<(u32, Found)>> {
        let mut states = self.read(STATES_AT, self.pages as usize * 4)?;
        let words = states.as_chunks_mut::<4>().0;
        // Pages are used from the first on: what was never used is not looked at.
        let used = words.iter().rposition(|state| *state != [0; 4]);
        let used = used.map_or(0, |last| last + 1);
        let names = self.read(self.names_at(), used * 32)?;
        let mut found = Vec::new();
        let of_pages = words.iter_mut().zip(names.as_chunks::<32>().0);
        for (number, (state, name)) in (0..).zip(of_pages) {
            match u32::from_le_bytes(*state) {
                FREE => {}
                FULL if keep => found.push((number, Found::Full(PageName(*name)))),
                FULL => *state = FREE.to_le_bytes(),
                _ => {
                    let begun = if keep { self.begun(number)? } else { None };
                    if bars {
                        found.push((number, Found::Barred(begun)));
                    } else {
                        *state = FREE.to_le_bytes();
                        found.extend(begun.map(|begun| (number, Found::Begun(begun))));
                    }
                }
            }
        }
        self.file.write_all_at(&states[..4 * used], STATES_AT)?;
        Ok(found)
    }

    /// Whether each of these pages, full ones, has these tokens.
    ///
    /// # Errors
    /// As those of a file.
    pub fn have(&self, pages: &[(u32, &PageTokens)]) -> io::Result<Vec<bool>> {
        let mut have = Vec::with_capacity(pages.len());
        // Those whose numbers follow each other with one call.
        let runs = pages.chunk_by(|(a, _), (b, _)| a + 1 == *b);
        for run in runs.flat_map(|run| run.chunks(PAGES_READ)) {
            let at = self.tokens_at(run[0].0);
            let bytes = self.read(at, run.len() * 4 * TOKENS)?;
            let found = bytes.chunks_exact(4 * TOKENS).zip(run);
            have.extend(found.map(|(bytes, (_, tokens))| {
                let words = bytes.as_chunks::<4>().0.iter();
                words
                    .zip(*tokens)
                    .all(|(word, token)| u32::from_le_bytes(*word) == *token)
            }));
        }
        Ok(have)
    }

    fn tokens(&self, page: u32) -> io::Result<PageTokens> {
        let bytes = self.read(self.tokens_at(page), 4 * TOKENS)?;
        let words = bytes.as_chunks::<4>().0;
        Ok(std::array::from_fn(|i| u32::from_le_bytes(words[i])))
    }

    /// What a dirty page has.
    fn begun(&self, page: u32) -> io::Result<Option<Begun>> {
        let tokens = self.tokens(page)?;
        let tokens = tokens.iter().take_while(|token| **token != NO_TOKEN);
        let tokens: Vec<u32> = tokens.copied().collect();
        if tokens.is_empty() {
            return Ok(None);
        }
        let at = self.afters_at() + u64::from(page) * NAME_BYTES;
        let mut after = [0; 32];
        self.file.read_exact_at(&mut after, at)?;
        Ok(Some(Begun {
            after: PageName(after),
            tokens,
            sound: 0,
        }))
    }

    fn set(&self, page: u32, state: u32) -> io::Result<()> {
        let at = STATES_AT + u64::from(page) * 4;
        self.file.write_all_at(&state.to_le_bytes(), at)
    }

    fn read(&self, at: u64, bytes: usize) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; bytes];
        self.file.read_exact_at(&mut buffer, at)?;
        Ok(buffer)
    }

    fn names_at(&self) -> u64 {
        STATES_AT + u64::from(self.pages) * 4
    }

    fn afters_at(&self) -> u64 {
        self.names_at() + u64::from(self.pages) * NAME_BYTES
    }

    fn tokens_at(&self, page: u32) -> u64 {
        let all = self.afters_at() + u64::from(self.pages) * NAME_BYTES;
        all + u64::from(page) * TOKENS_BYTES
    }
}

/// As they are in the file.
fn bytes_of(tokens: &[u32]) -> Vec<u8> {
    tokens.iter().flat_map(|t| t.to_le_bytes()).collect()
}

/// Bytes of a ledger.
fn size(pages: u32) -> u64 {
    STATES_AT + u64::from(pages) * (4 + 2 * NAME_BYTES + TOKENS_BYTES)
}

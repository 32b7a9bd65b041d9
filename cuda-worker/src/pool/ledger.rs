//! What is in each page of a pool, in a file that outlives the process: write-ahead, so that a page is never believed
//! which a step may have been writing to.
//!
//! A page is marked dirty before a step is launched that may write to it, and full only when it will not be written to
//! again, its sum lies in the pool and the errors of the steps that wrote it were checked. It is read and written by calls
//! of the system: each is over when it returns, whatever kills the process afterwards.
//!
//! ```text
//! 0     magic, number of pages, epoch       one page of the system
//! 4096  state of each page                  4 bytes each
//!       name of each page                   32 bytes each
//!       tokens of each page                 256 bytes each
//! ```

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;

use nix::sys::memfd::{MFdFlags, memfd_create};
use orcd_shared::claim::{Claim, Reserved};

use super::names::{PageName, PageTokens, TOKENS};
use super::pages::Found;

/// Also says which form this is.
const MAGIC: &[u8; 16] = b"orcd kv ledger 1";
const PAGES_AT: u64 = 16;
const EPOCH_AT: u64 = 24;
const STATES_AT: u64 = 4096;

/// States differ in many bits. What is none of them is taken for dirty.
const FREE: u32 = 0;
const DIRTY: u32 = 0x9d5a_37c1;
const FULL: u32 = 0x62a5_c83e;

const NAME_BYTES: u64 = 32;
const TOKENS_BYTES: u64 = 4 * TOKENS as u64;

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

    /// A step may write to a page from now on.
    ///
    /// # Errors
    /// As those of a file.
    pub fn mark_dirty(&self, page: u32) -> io::Result<()> {
        self.set(page, DIRTY)
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
        let (names_at, tokens_at) = self.places();
        let bytes: Vec<u8> = tokens
            .iter()
            .flat_map(|token| token.to_le_bytes())
            .collect();
        let number = u64::from(page);
        self.file
            .write_all_at(&bytes, tokens_at + number * TOKENS_BYTES)?;
        self.file
            .write_all_at(&name.0, names_at + number * NAME_BYTES)?;
        self.set(page, FULL)
    }

    /// What each page is that is not free, in pages' order. Full pages are left out, and free from now on, unless `keep`;
    /// so are dirty ones unless `bars`, which says that somebody may be writing to them.
    ///
    /// # Errors
    /// As those of a file.
    pub fn take_over(&self, keep: bool, bars: bool) -> io::Result<Vec<(u32, Found)>> {
        let mut states = self.read(STATES_AT, self.pages as usize * 4)?;
        let words = states.as_chunks_mut::<4>().0;
        // Pages are used from the first on: what was never used is not looked at.
        let used = words.iter().rposition(|state| *state != [0; 4]);
        let used = used.map_or(0, |last| last + 1);
        let names = self.read(self.places().0, used * 32)?;
        let mut found = Vec::new();
        let of_pages = words.iter_mut().zip(names.as_chunks::<32>().0);
        for (number, (state, name)) in (0..).zip(of_pages) {
            match u32::from_le_bytes(*state) {
                FREE => {}
                FULL if keep => found.push((number, Found::Full(PageName(*name)))),
                FULL => *state = FREE.to_le_bytes(),
                _ if bars => found.push((number, Found::Barred)),
                _ => *state = FREE.to_le_bytes(),
            }
        }
        self.file.write_all_at(&states[..4 * used], STATES_AT)?;
        Ok(found)
    }

    /// The tokens of a page that is full.
    ///
    /// # Errors
    /// As those of a file.
    pub fn tokens(&self, page: u32) -> io::Result<PageTokens> {
        let at = self.places().1 + u64::from(page) * TOKENS_BYTES;
        let bytes = self.read(at, 4 * TOKENS)?;
        let words = bytes.as_chunks::<4>().0;
        Ok(std::array::from_fn(|i| u32::from_le_bytes(words[i])))
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

    /// Where names and tokens begin.
    fn places(&self) -> (u64, u64) {
        let names = STATES_AT + u64::from(self.pages) * 4;
        (names, names + u64::from(self.pages) * NAME_BYTES)
    }
}

/// Bytes of a ledger.
fn size(pages: u32) -> u64 {
    STATES_AT + u64::from(pages) * (4 + NAME_BYTES + TOKENS_BYTES)
}

//! The pages of each sequence, from its beginning to its end, and what the ledger is told of them.

use std::io;

use orcd_shared::job::{CacheScope, JobKey};
use orcd_shared::kv::{self, PageCounts};
use orcd_shared::protocol::message::Serve;

use super::ledger::Ledger;
use super::names::{PageName, PageTokens, TOKENS, full_pages};
use super::notes::Notes;
use super::pages::{Hit, Pages, Returned};
use crate::failpoints::{self, Failpoint};
use crate::ffi::types::shared::PageRows;

/// Whose a sequence is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The job.
    pub key: JobKey,
    /// Who may use its pages.
    pub scope: CacheScope,
}

/// A sequence in a slot.
#[derive(Debug)]
struct Sequence {
    /// The name of its last full page, or of its beginning; `None`: nobody is to find its pages.
    last: Option<PageName>,
    /// Its pages are kept behind its end.
    keep: bool,
    /// Tokens that were processed since then.
    rest: Vec<u32>,
    /// Of these, how many the ledger was told of, or will be.
    told: usize,
    /// Its pages, also those for tokens to come.
    pages: Vec<u32>,
    /// Of these, how many are full.
    full: usize,
    /// Pages that it may come to have.
    most: u64,
}

/// What a sequence may begin with.
#[derive(Debug, Default)]
pub struct Beginning {
    /// Full pages of its tokens, from the first on.
    pub hits: Vec<Hit>,
    /// The page of another worker that has tokens behind these, and how many of them.
    begun: Option<(u32, usize)>,
    /// The name of each of its tokens' full pages, as far as the hits go.
    names: Vec<PageName>,
    root: Option<PageName>,
    keep: bool,
}

impl Beginning {
    /// No page from number `at` on is of use.
    pub fn end_at(&mut self, at: usize) {
        self.hits.truncate(at);
        self.names.truncate(at);
        self.begun = None;
    }
}

/// All sequences' pages.
#[derive(Debug)]
pub struct Sequences {
    pages: Pages,
    total: u32,
    slots: Vec<Option<Sequence>>,
    ledger: Option<Ledger>,
    /// That in which the pool is this worker's; 0: it is not.
    epoch: u64,
    /// Of steps that have ended, whose sums were begun.
    summing: Notes,
    /// Of those whose sums are there.
    summed: Notes,
    /// Pages found not to be what their names say.
    refused: u32,
    /// Free pages whose memory stays.
    warm: usize,
}

impl Sequences {
    /// No sequence yet, in a pool of so many pages that nobody else knows of.
    #[must_use]
    pub fn new(pages: u32, slots: u32, warm: usize) -> Self {
        Self {
            pages: Pages::new(pages),
            total: pages,
            slots: (0..slots).map(|_| None).collect(),
            ledger: None,
            epoch: 0,
            summing: Notes::default(),
            summed: Notes::default(),
            refused: 0,
            warm,
        }
    }

    /// From now on a ledger is kept of the pool. Until it is taken over no page of it is used.
    pub fn keep_ledger(&mut self, ledger: Ledger) {
        self.ledger = Some(ledger);
    }

    /// The ledger, if one is kept.
    #[must_use]
    pub fn ledger(&self) -> Option<&Ledger> {
        self.ledger.as_ref()
    }

    /// The pool is this worker's. What the ledger says of its pages holds, as far as `serve` says.
    ///
    /// # Errors
    /// As those of a file.
    pub fn take_over(&mut self, serve: Serve) -> io::Result<()> {
        let Some(ledger) = &self.ledger else {
            return Ok(());
        };
        ledger.begin_epoch(serve.epoch)?;
        failpoints::pass(Failpoint::Adopt);
        let found = ledger.take_over(serve.keep, !serve.settled)?;
        self.pages.inherit(found);
        self.epoch = serve.epoch;
        Ok(())
    }

    /// Nobody else writes to the pool any more.
    ///
    /// # Errors
    /// As those of a file.
    pub fn settled(&mut self) -> io::Result<()> {
        let freed = self.pages.unbar();
        self.mark_free(&freed)
    }

    /// Whether there is a sequence in `slot`.
    #[must_use]
    pub fn is_open(&self, slot: u32) -> bool {
        matches!(self.slots.get(slot as usize), Some(Some(_)))
    }

    /// Whether the pool is still this worker's.
    ///
    /// # Errors
    /// As those of a file.
    pub fn is_mine(&self) -> io::Result<bool> {
        match &self.ledger {
            Some(ledger) => Ok(self.epoch != 0 && ledger.epoch()? == self.epoch),
            None => Ok(true),
        }
    }

    /// What of `tokens` is in pages already. The last token never counts: what comes after it is to be drawn.
    #[must_use]
    pub fn look_up(&self, root: PageName, owner: Owner, tokens: &[u32]) -> Beginning {
        let mut beginning = Beginning {
            root: Some(root),
            keep: matches!(owner.scope, CacheScope::Salt(_)),
            ..Beginning::default()
        };
        let mut name = root;
        for page in full_pages(tokens) {
            name = name.next(page);
            let Some(hit) = self.pages.find(&name, page) else {
                break;
            };
            beginning.hits.push(hit);
            beginning.names.push(name);
        }
        let after = beginning.names.last().copied().unwrap_or(root);
        let rest = tokens.get(beginning.hits.len() * TOKENS..).unwrap_or_default();
        // A whole page would have a name.
        let wanted = rest.len().saturating_sub(1).min(TOKENS - 1);
        beginning.begun = self.pages.find_begun(&after, &rest[..wanted]);
        beginning
    }

    /// Whether the ledger says of an inherited page that it has these tokens.
    ///
    /// # Errors
    /// As those of a file.
    pub fn ledger_says(&self, page: u32, tokens: &PageTokens) -> io::Result<bool> {
        match &self.ledger {
            Some(ledger) => Ok(ledger.tokens(page)? == *tokens),
            None => Ok(false),
        }
    }

    /// An inherited page is sound: its sum and its tokens are what they have to be.
    pub fn found_sound(&mut self, page: u32, tokens: &PageTokens) {
        self.pages.found_sound(page, tokens);
    }

    /// A page is not what its name says: nobody finds it again.
    ///
    /// # Errors
    /// As those of a file.
    pub fn refuse(&mut self, page: u32) -> io::Result<()> {
        self.refused = self.refused.saturating_add(1);
        if self.pages.refuse(page) {
            self.mark_free(&[page])?;
        }
        Ok(())
    }

    /// Begins a sequence of at most `most` tokens in `slot` with the pages found for it; the pages, and a page that is to
    /// be copied into another one before, because the sequence will write to the copy. So many of `tokens` are in them.
    ///
    /// # Errors
    /// As those of a file.
    pub fn open(
        &mut self,
        slot: u32,
        most: u64,
        beginning: &Beginning,
        tokens: &[u32],
    ) -> io::Result<Opened> {
        let mut pages: Vec<u32> = beginning.hits.iter().map(|hit| hit.page).collect();
        pages.iter().for_each(|&page| self.pages.share(page));
        let mut full = pages.len();
        let mut cached = full * TOKENS;
        let mut copy = None;
        let mut inherited = 0;
        // The last token is to be processed, and writes to its page.
        if cached == tokens.len() && full > 0 {
            let shared = pages.pop();
            full -= 1;
            let fresh = self.take()?;
            match (shared, fresh) {
                (Some(from), Some(to)) => {
                    copy = Some((from, to));
                    pages.push(to);
                    cached -= 1;
                }
                _ => cached -= TOKENS,
            }
            if let Some(from) = shared {
                // Others' pages stay as they were; a page that was the job's alone is not needed any more.
                if self.pages.give_back(from, beginning.keep) == Returned::Free {
                    self.mark_free(&[from])?;
                }
            }
        }
        if let Some((from, begun)) = beginning.begun
            && let Some(to) = self.take()?
        {
            copy = Some((from, to));
            pages.push(to);
            cached += begun;
            inherited = begun;
        }
        let last = match full {
            0 => beginning.root,
            n => beginning.names.get(n - 1).copied(),
        };
        if let Some(place) = self.slots.get_mut(slot as usize) {
            *place = Some(Sequence {
                last,
                keep: beginning.keep,
                rest: tokens[full * TOKENS..cached].to_vec(),
                // What is in a copy is known only with the next step.
                told: 0,
                pages: pages.clone(),
                full,
                most: kv::pages(most),
            });
        }
        Ok(Opened {
            pages,
            copy,
            inherited,
            cached,
        })
    }

    /// What the last page of a sequence that was just opened is a copy of was not what the ledger says: it begins with its
    /// full pages alone.
    ///
    /// # Errors
    /// As those of a file.
    pub fn refuse_begun(&mut self, slot: u32, opened: &mut Opened) -> io::Result<()> {
        let sequence = self.slots.get_mut(slot as usize).and_then(Option::as_mut);
        let (Some(sequence), Some((from, to))) = (sequence, opened.copy.take()) else {
            return Ok(());
        };
        self.refused = self.refused.saturating_add(1);
        self.pages.forget_begun(from);
        sequence.rest.clear();
        sequence.pages.pop();
        opened.pages.pop();
        opened.cached -= std::mem::take(&mut opened.inherited);
        self.pages.give_back(to, false);
        self.mark_free(&[to])
    }

    /// Pages that a sequence needs for `end` tokens in all and does not have; no more than it may have.
    #[must_use]
    pub fn lacking(&self, slot: u32, end: u64) -> u64 {
        let sequence = self.slots.get(slot as usize).and_then(Option::as_ref);
        sequence.map_or(0, |s| {
            kv::pages(end)
                .min(s.most)
                .saturating_sub(s.pages.len() as u64)
        })
    }

    /// Pages that a sequence could get now.
    #[must_use]
    pub fn available(&self) -> u64 {
        self.pages.available().into()
    }

    /// Gives a sequence so many pages more, for tokens to come; there have to be as many.
    ///
    /// # Errors
    /// As those of a file.
    pub fn grow(&mut self, slot: u32, wanted: u64) -> io::Result<Vec<u32>> {
        let mut grown = Vec::new();
        for _ in 0..wanted {
            grown.extend(self.take()?);
        }
        if let Some(sequence) = self.slots.get_mut(slot as usize).and_then(Option::as_mut) {
            sequence.pages.extend(&grown);
        }
        Ok(grown)
    }

    fn take(&mut self) -> io::Result<Option<u32>> {
        let Some(taken) = self.pages.take() else {
            return Ok(None);
        };
        if taken.evicted {
            failpoints::pass(Failpoint::Evict);
        }
        if let Some(ledger) = &self.ledger {
            ledger.mark_dirty(taken.page)?;
        }
        Ok(Some(taken.page))
    }

    /// A step has processed the next tokens of a sequence without an error. What it has written, and what sums are to be
    /// noted of, if a ledger is kept, goes to `written`.
    pub fn processed(&mut self, slot: u32, tokens: &[u32], written: &mut Vec<PageRows>) {
        let Some(sequence) = self.slots.get_mut(slot as usize).and_then(Option::as_mut) else {
            return;
        };
        let Some(mut last) = sequence.last else {
            return;
        };
        let before = sequence.rest.len();
        sequence.rest.extend_from_slice(tokens);
        let filled = sequence.full;
        let numbers = sequence.pages.iter().skip(filled);
        for (at, (page, &number)) in sequence.rest.chunks(TOKENS).zip(numbers).enumerate() {
            // Of what was there before this page takes part no more than it has tokens.
            let here = |n: usize| n.saturating_sub(at * TOKENS).min(page.len());
            if self.ledger.is_some() {
                written.extend(rows(number, here(before), page.len()));
                let told = here(sequence.told);
                self.summing.add(
                    (number, self.pages.taken(number)),
                    last,
                    (told, &page[told..]),
                    page.len() == TOKENS,
                );
            }
            if let Ok(page) = <&PageTokens>::try_from(page) {
                last = last.next(page);
                self.pages.name(number, last, page);
                sequence.full += 1;
            }
        }
        sequence.rest.drain(..(sequence.full - filled) * TOKENS);
        sequence.told = sequence.rest.len();
        sequence.last = Some(last);
    }

    /// The sums of all that was processed are there.
    pub fn summed(&mut self) {
        self.summed.append(&mut self.summing);
    }

    /// Tells the ledger of all whose sums are there.
    ///
    /// # Errors
    /// As those of a file.
    pub fn tell(&mut self) -> io::Result<()> {
        let Some(ledger) = &self.ledger else {
            return Ok(());
        };
        if self.summed.iter().any(|(note, _)| note.is_full) {
            failpoints::pass(Failpoint::Ledger);
        }
        for (note, tokens) in self.summed.iter() {
            // It is somebody else's by now.
            if self.pages.taken(note.page) != note.taken {
                continue;
            }
            if !note.is_full {
                ledger.note(note.page, &note.after, note.from, tokens)?;
            } else if let Some((name, tokens)) = self.pages.content_of(note.page) {
                ledger.mark_full(note.page, name, tokens)?;
            }
        }
        self.summed.clear();
        Ok(())
    }

    /// Whether there is something that the ledger does not know of.
    #[must_use]
    pub fn has_to_tell(&self) -> bool {
        !(self.summing.is_empty() && self.summed.is_empty())
    }

    /// Ends a sequence. Pages whose memory is not needed any more.
    ///
    /// # Errors
    /// As those of a file.
    pub fn close(&mut self, slot: u32) -> io::Result<Vec<u32>> {
        let sequence = self.slots.get_mut(slot as usize).and_then(Option::take);
        let Some(sequence) = sequence else {
            return Ok(Vec::new());
        };
        // The last page first: of a prompt that is kept its end goes before its beginning.
        let pages = sequence.pages.iter().rev();
        let freed =
            pages.filter(|&&page| self.pages.give_back(page, sequence.keep) == Returned::Free);
        let freed: Vec<u32> = freed.copied().collect();
        self.mark_free(&freed)?;
        Ok(self.pages.cool(self.warm))
    }

    fn mark_free(&self, pages: &[u32]) -> io::Result<()> {
        let Some(ledger) = &self.ledger else {
            return Ok(());
        };
        pages.iter().try_for_each(|&page| ledger.mark_free(page))
    }

    /// What the pages are in use for.
    #[must_use]
    pub fn counts(&self) -> PageCounts {
        PageCounts {
            used: self.pages.held(),
            cached: self.pages.kept(),
            refused: self.refused,
        }
    }

    /// Pages that all sequences together may come to hold, one that several share counted for each of them.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        let open = self.slots.iter().flatten();
        let counted: usize = open.map(|sequence| sequence.pages.len()).sum();
        let shared = u32::try_from(counted)
            .unwrap_or(u32::MAX)
            .saturating_sub(self.pages.held());
        (self.total - self.pages.barred()).saturating_add(shared)
    }
}

/// A sequence that was begun.
#[derive(Debug, PartialEq, Eq)]
pub struct Opened {
    /// Its pages.
    pub pages: Vec<u32>,
    /// What is in the first of these is to be put into the second, which is the sequence's last page.
    pub copy: Option<(u32, u32)>,
    /// So many tokens of the copy are another worker's, and are to be looked at.
    pub inherited: usize,
    /// So many of its tokens are there.
    pub cached: usize,
}

/// Positions of a page, if there are any.
fn rows(page: u32, from: usize, to: usize) -> Option<PageRows> {
    // Lossless: a page has 64.
    (from < to).then_some(PageRows {
        page,
        from: from as u32,
        to: to as u32,
    })
}

//! The pages of each sequence, from its beginning to its end, and what the ledger is told of them.

use std::io;

use orcd_shared::job::{CacheScope, JobKey};
use orcd_shared::kv::{self, PageCounts};
use orcd_shared::protocol::message::Serve;

use super::chains::Chain;
use super::ledger::Ledger;
use super::names::{PageName, PageTokens, TOKENS, full_pages};
use super::notes::Notes;
use super::pages::{BegunHit, Hit, Pages, Returned};
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
    /// What another worker has left of the page behind these.
    pub begun: Option<BegunHit>,
    keep: bool,
}

impl Beginning {
    /// Whether nobody has to look at any of it.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let begun = self.begun.iter().map(|hit| hit.inherited);
        !self
            .hits
            .iter()
            .map(|hit| hit.inherited)
            .chain(begun)
            .any(|inherited| inherited)
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

    /// What of a sequence is in pages already. Its last token never counts: what comes after it is to be drawn.
    #[must_use]
    pub fn look_up(&self, chain: &Chain, owner: Owner) -> Beginning {
        let pages = chain.names.iter().zip(full_pages(&chain.tokens));
        let hits = pages.map_while(|(name, page)| self.pages.find(name, page));
        let hits: Vec<Hit> = hits.collect();
        let rest = chain.tokens.get(hits.len() * TOKENS..).unwrap_or_default();
        // A whole page would have a name.
        let wanted = rest.len().saturating_sub(1).min(TOKENS - 1);
        Beginning {
            begun: self
                .pages
                .find_begun(&chain.before(hits.len()), &rest[..wanted]),
            hits,
            keep: matches!(owner.scope, CacheScope::Salt(_)),
        }
    }

    /// Whether the ledger says of inherited pages that they have these tokens.
    ///
    /// # Errors
    /// As those of a file.
    pub fn ledger_says(&self, pages: &[(u32, &PageTokens)]) -> io::Result<Vec<bool>> {
        match &self.ledger {
            Some(ledger) => ledger.have(pages),
            None => Ok(vec![false; pages.len()]),
        }
    }

    /// An inherited page is sound: its sums and its tokens are what they have to be.
    pub fn found_sound(&mut self, page: u32, tokens: &PageTokens) {
        self.pages.found_sound(page, tokens);
    }

    /// So many first tokens of a page that another worker has begun are what their sums say.
    pub fn found_begun_sound(&mut self, page: u32, tokens: usize) {
        self.pages.found_begun_sound(page, tokens);
    }

    /// A page is not what the ledger says: nobody finds it again.
    ///
    /// # Errors
    /// As those of a file.
    pub fn refuse(&mut self, page: u32) -> io::Result<()> {
        self.refused = self.refused.saturating_add(1);
        self.pages.forget_begun(page);
        if self.pages.refuse(page) {
            self.mark_free(&[page])?;
        }
        Ok(())
    }

    /// Begins a sequence of at most `most` tokens in `slot` with the pages found for it; the pages, a page that is to be
    /// copied into another one before, because the sequence will write to the copy, and how many of its tokens are in them.
    /// Without a chain nobody finds its pages.
    ///
    /// # Errors
    /// As those of a file.
    pub fn open(
        &mut self,
        slot: u32,
        most: u64,
        beginning: &Beginning,
        chain: Option<&Chain>,
    ) -> io::Result<Opened> {
        let tokens = chain.map_or(&[][..], |chain| &chain.tokens);
        let mut pages: Vec<u32> = beginning.hits.iter().map(|hit| hit.page).collect();
        pages.iter().for_each(|&page| self.pages.share(page));
        let mut full = pages.len();
        let mut cached = full * TOKENS;
        let mut copy = None;
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
        if let Some(begun) = beginning.begun
            && let Some(to) = self.take()?
        {
            copy = Some((begun.page, to));
            pages.push(to);
            cached += begun.tokens;
        }
        if let Some(place) = self.slots.get_mut(slot as usize) {
            *place = Some(Sequence {
                last: chain.map(|chain| chain.before(full)),
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
            cached,
        })
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

//! Which pages are whose. Pure: it hands out numbers and knows no memory.
//!
//! A page is free, held by sequences, kept (nobody holds it, but what is in it may be of use again), or barred (a worker
//! that is not known to be gone may still write to it).

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::names::{PageName, PageTokens};

/// What is in a page.
#[derive(Debug)]
struct Content {
    name: PageName,
    /// `None`: another worker has computed it, and nobody has looked since whether it is what the ledger says.
    tokens: Option<Box<PageTokens>>,
}

#[derive(Debug, Default)]
struct Page {
    holders: u32,
    /// How often it was taken.
    taken: u64,
    content: Option<Content>,
    /// What another worker has left in it that nobody has taken since.
    begun: Option<Begun>,
    /// Its place among those that are kept.
    kept: Option<u64>,
}

/// A page that a sequence gets for tokens to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// Its number.
    pub page: u32,
    /// Something was kept there until now.
    pub evicted: bool,
}

/// What became of a page that a holder gave back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Returned {
    /// Others hold it, or it is kept.
    Stays,
    /// It is free.
    Free,
}

/// All pages of a pool.
#[derive(Debug)]
pub struct Pages {
    pages: Vec<Page>,
    /// Free pages that were in use a short time ago: their memory is there. The next one to take is the last.
    warm: VecDeque<u32>,
    /// The other free ones, likewise.
    cold: Vec<u32>,
    /// Pages that are kept, by when they were given back: the one that was of use last comes last.
    kept: BTreeMap<u64, u32>,
    /// The page of each name. Of pages with the same content only one is found.
    named: HashMap<PageName, u32>,
    /// Pages that another worker has begun behind the page of each name.
    begun: HashMap<PageName, Vec<u32>>,
    barred: Vec<u32>,
    clock: u64,
    held: u32,
}

impl Pages {
    /// `count` free pages.
    #[must_use]
    pub fn new(count: u32) -> Self {
        Self {
            pages: (0..count).map(|_| Page::default()).collect(),
            warm: VecDeque::new(),
            cold: (0..count).rev().collect(),
            kept: BTreeMap::new(),
            named: HashMap::new(),
            begun: HashMap::new(),
            barred: Vec::new(),
            clock: 0,
            held: 0,
        }
    }

    /// Takes over what another worker has left, while nobody holds a page. `found` says of each page that was not free what
    /// is in it, or that it is barred, in pages' order.
    pub fn inherit(&mut self, found: Vec<(u32, Found)>) {
        let mut begun = Vec::new();
        // Sequences took them in rising order: of those that are kept ends go before beginnings.
        let count = self.pages.len();
        let mut is_taken = vec![false; count];
        let known = (found.into_iter().rev()).filter(|(number, _)| (*number as usize) < count);
        for (number, found) in known {
            match found {
                Found::Barred(of) => {
                    self.barred.push(number);
                    if let Some(of) = of {
                        self.begin_inherited(number, of);
                    }
                }
                Found::Begun(of) => {
                    self.begin_inherited(number, of);
                    begun.push(number);
                }
                Found::Full(name) if self.keep_inherited(number, name) => {}
                // The same content twice: one of them is enough.
                Found::Full(_) => continue,
            }
            is_taken[number as usize] = true;
        }
        self.cold.retain(|page| !is_taken[*page as usize]);
        // They are taken last: those whose they were have not come yet.
        self.cold.splice(..0, begun);
    }

    fn begin_inherited(&mut self, number: u32, begun: Begun) {
        self.begun.entry(begun.after).or_default().push(number);
        self.pages[number as usize].begun = Some(begun);
    }

    fn keep_inherited(&mut self, number: u32, name: PageName) -> bool {
        if self.named.contains_key(&name) {
            return false;
        }
        self.named.insert(name, number);
        let stamp = self.tick();
        let page = &mut self.pages[number as usize];
        page.content = Some(Content { name, tokens: None });
        page.kept = Some(stamp);
        self.kept.insert(stamp, number);
        true
    }

    /// Pages that a sequence could get now.
    #[must_use]
    pub fn available(&self) -> u32 {
        // No more than there are.
        let available = self.warm.len() + self.cold.len() + self.kept.len();
        u32::try_from(available).unwrap_or(u32::MAX)
    }

    /// Pages that nobody may use at present.
    #[must_use]
    pub fn barred(&self) -> u32 {
        u32::try_from(self.barred.len()).unwrap_or(u32::MAX)
    }

    /// Free pages in use a short time ago, but for `most` of them: their memory may go. Those that were free longest.
    pub fn cool(&mut self, most: usize) -> Vec<u32> {
        let cooled: Vec<u32> = self
            .warm
            .drain(..self.warm.len().saturating_sub(most))
            .collect();
        self.cold.extend(&cooled);
        cooled
    }

    /// Pages that some sequence holds.
    #[must_use]
    pub fn held(&self) -> u32 {
        self.held
    }

    /// Pages that are kept.
    #[must_use]
    pub fn kept(&self) -> u32 {
        u32::try_from(self.kept.len()).unwrap_or(u32::MAX)
    }

    /// Nobody writes to barred pages any more: they are free. Which these were.
    pub fn unbar(&mut self) -> Vec<u32> {
        let barred = std::mem::take(&mut self.barred);
        self.warm.extend(&barred);
        barred
    }

    /// The page with this name and these tokens.
    #[must_use]
    pub fn find(&self, name: &PageName, tokens: &PageTokens) -> Option<Hit> {
        let page = *self.named.get(name)?;
        let content = self.pages.get(page as usize)?.content.as_ref()?;
        match &content.tokens {
            Some(own) if **own != *tokens => None,
            own => Some(Hit {
                page,
                inherited: own.is_none(),
            }),
        }
    }

    /// The page behind `after` that another worker has begun with most of `tokens`.
    #[must_use]
    pub fn find_begun(&self, after: &PageName, tokens: &[u32]) -> Option<BegunHit> {
        let numbers = self.begun.get(after)?.iter();
        let hits = numbers.filter_map(|&page| {
            let begun = self.pages.get(page as usize)?.begun.as_ref()?;
            let same = begun.tokens.iter().zip(tokens).take_while(|(a, b)| a == b);
            let tokens = same.count();
            Some(BegunHit {
                page,
                tokens,
                inherited: tokens > begun.sound,
            })
        });
        hits.max_by_key(|hit| hit.tokens)
            .filter(|hit| hit.tokens > 0)
    }

    /// So many of the first tokens that another worker has left in a page are what their sums say.
    pub fn found_begun_sound(&mut self, page: u32, tokens: usize) {
        let page = self.pages.get_mut(page as usize);
        if let Some(begun) = page.and_then(|page| page.begun.as_mut()) {
            begun.sound = begun.sound.max(tokens);
        }
    }

    /// A page that was inherited has these tokens, and is what the ledger says.
    pub fn found_sound(&mut self, page: u32, tokens: &PageTokens) {
        let content = self.pages.get_mut(page as usize);
        if let Some(content) = content.and_then(|page| page.content.as_mut()) {
            content.tokens = Some(Box::new(*tokens));
        }
    }

    /// A page is not what its name says: nobody gets it by that any more. Whether it is free now.
    pub fn refuse(&mut self, number: u32) -> bool {
        self.forget(number);
        let page = &mut self.pages[number as usize];
        let Some(stamp) = page.kept.take() else {
            return false;
        };
        self.kept.remove(&stamp);
        self.warm.push_back(number);
        true
    }

    /// A further sequence holds a page.
    pub fn share(&mut self, number: u32) {
        let page = &mut self.pages[number as usize];
        if let Some(stamp) = page.kept.take() {
            self.kept.remove(&stamp);
        }
        if page.holders == 0 {
            self.held += 1;
        }
        page.holders += 1;
    }

    /// Gives a page to a sequence that will write to it: a free one, or the one that was kept longest without use.
    pub fn take(&mut self) -> Option<Taken> {
        let (number, evicted) = match self.warm.pop_back().or_else(|| self.cold.pop()) {
            Some(page) => (page, false),
            None => (self.kept.pop_first()?.1, true),
        };
        self.forget(number);
        self.forget_begun(number);
        let page = &mut self.pages[number as usize];
        page.kept = None;
        page.holders = 1;
        page.taken += 1;
        self.held += 1;
        Some(Taken {
            page: number,
            evicted,
        })
    }

    /// How often a page was taken: what is known of it holds until it is taken again.
    #[must_use]
    pub fn taken(&self, number: u32) -> u64 {
        self.pages.get(number as usize).map_or(0, |page| page.taken)
    }

    /// A page that some sequence holds is full.
    pub fn name(&mut self, number: u32, name: PageName, tokens: &PageTokens) {
        self.named.entry(name).or_insert(number);
        self.pages[number as usize].content = Some(Content {
            name,
            tokens: Some(Box::new(*tokens)),
        });
    }

    /// What is in a page, if that is known.
    #[must_use]
    pub fn content_of(&self, number: u32) -> Option<(&PageName, &PageTokens)> {
        let content = self.pages.get(number as usize)?.content.as_ref()?;
        Some((&content.name, content.tokens.as_deref()?))
    }

    /// A sequence holds a page no longer. With `keep` it stays for whoever begins alike.
    pub fn give_back(&mut self, number: u32, keep: bool) -> Returned {
        let page = &mut self.pages[number as usize];
        page.holders = page.holders.saturating_sub(1);
        if page.holders > 0 {
            return Returned::Stays;
        }
        self.held -= 1;
        let name = page.content.as_ref().map(|content| content.name);
        let is_found = name.is_some_and(|name| self.named.get(&name) == Some(&number));
        if keep && is_found {
            let stamp = self.tick();
            self.pages[number as usize].kept = Some(stamp);
            self.kept.insert(stamp, number);
            return Returned::Stays;
        }
        self.forget(number);
        self.warm.push_back(number);
        Returned::Free
    }

    fn forget(&mut self, number: u32) {
        if let Some(content) = self.pages[number as usize].content.take()
            && self.named.get(&content.name) == Some(&number)
        {
            self.named.remove(&content.name);
        }
    }

    /// What another worker has left in a page that was not full is of no use.
    pub fn forget_begun(&mut self, number: u32) {
        let Some(begun) = self.pages[number as usize].begun.take() else {
            return;
        };
        if let Some(others) = self.begun.get_mut(&begun.after) {
            others.retain(|other| *other != number);
            if others.is_empty() {
                self.begun.remove(&begun.after);
            }
        }
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }
}

/// What the ledger says of a page that was not free.
#[derive(Debug, Clone)]
pub enum Found {
    /// Somebody may be writing there, behind what has been written.
    Barred(Option<Begun>),
    /// It is free, and this was written there.
    Begun(Begun),
    /// It is full.
    Full(PageName),
}

/// What was written to a page that is not full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begun {
    /// The page before it in its sequence.
    pub after: PageName,
    /// Its tokens.
    pub tokens: Vec<u32>,
    /// So many of them are what their sums say: somebody has looked.
    pub sound: usize,
}

/// A page that has what a sequence begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hit {
    /// Its number.
    pub page: u32,
    /// Another worker has computed it: somebody has to look whether it is what the ledger says of it.
    pub inherited: bool,
}

/// A page that is not full and has what a sequence goes on with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BegunHit {
    /// Its number.
    pub page: u32,
    /// So many tokens.
    pub tokens: usize,
    /// Somebody has to look whether they are what their sums say.
    pub inherited: bool,
}

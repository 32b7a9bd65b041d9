//! What the ledger is to be told of pages, from the end of the step that wrote it until it may be believed.

use std::ops::Range;

use super::names::PageName;

/// What a step has written to a page.
#[derive(Debug)]
pub(super) struct Note {
    pub(super) page: u32,
    /// [`Pages::taken`](super::pages::Pages::taken) of the page at that time.
    pub(super) taken: u64,
    /// The page before it in its sequence.
    pub(super) after: PageName,
    /// Place in the page of the first of its tokens.
    pub(super) from: usize,
    /// The page is full now.
    pub(super) is_full: bool,
    tokens: Range<usize>,
}

/// Notes of one stage. It keeps its memory: there is one for each sequence in each step.
#[derive(Debug, Default)]
pub(super) struct Notes {
    notes: Vec<Note>,
    tokens: Vec<u32>,
}

impl Notes {
    /// Adds a note whose tokens are these.
    pub(super) fn add(
        &mut self,
        (page, taken): (u32, u64),
        after: PageName,
        (from, tokens): (usize, &[u32]),
        is_full: bool,
    ) {
        let begin = self.tokens.len();
        self.tokens.extend_from_slice(tokens);
        self.notes.push(Note {
            page,
            taken,
            after,
            from,
            is_full,
            tokens: begin..self.tokens.len(),
        });
    }

    /// Moves all of `others` behind these.
    pub(super) fn append(&mut self, others: &mut Self) {
        let begin = self.tokens.len();
        self.tokens.append(&mut others.tokens);
        let moved = others.notes.drain(..).map(|note| Note {
            tokens: begin + note.tokens.start..begin + note.tokens.end,
            ..note
        });
        self.notes.extend(moved);
    }

    /// All notes with their tokens, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Note, &[u32])> {
        let tokens = |note: &Note| self.tokens.get(note.tokens.clone()).unwrap_or_default();
        self.notes.iter().map(move |note| (note, tokens(note)))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.notes.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.notes.clear();
        self.tokens.clear();
    }
}

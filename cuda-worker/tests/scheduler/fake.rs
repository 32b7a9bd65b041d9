//! A deterministic engine: the next id is a hash of all tokens of the sequence, its position and
//! the seed. It checks what the real engine demands of its caller.

use orcd_shared::kv::PageCounts;
use std::collections::{BTreeMap, BTreeSet};

use cuda_worker::scheduler::step_engine::{
    BROKEN_LOGITS, EngineError, Sampled, StepBatch, StepEngine, TokenLogprob,
};

/// Ids drawn are below this.
pub const VOCAB: u32 = 1000;

const NO_TOKEN: TokenLogprob = TokenLogprob {
    token: 0,
    logprob: 0.0,
};

struct Open {
    tokens: Vec<u32>,
    most: usize,
}

/// Slot and tokens of each run of one step, and whether it was sampled from.
pub type Batch = Vec<(u32, usize, bool)>;

#[derive(Default)]
pub struct Fake {
    open: BTreeMap<u32, Open>,
    /// KV pages in all; 0 is no limit.
    pub kv_pages: usize,
    /// Most that were held at once.
    pub most_pages: usize,
    /// The error of the next step.
    pub fail_next: Option<EngineError>,
    /// Every id drawn is this one.
    pub always: Option<u32>,
    /// The slot whose logits are broken.
    pub broken_slot: Option<u32>,
    /// A step was begun and not finished.
    pub stepping: bool,
    sampled: Vec<Sampled>,
    /// All batches so far.
    pub batches: Vec<Batch>,
    /// Slots in the order they were opened, with the positions asked for.
    pub opened: Vec<(u32, u32)>,
    /// Slots with where their outputs were said to begin.
    pub outputs: BTreeSet<(u32, u32)>,
}

impl Fake {
    pub fn open_slots(&self) -> Vec<u32> {
        self.open.keys().copied().collect()
    }

    /// Tokens in the largest batch.
    pub fn largest_batch(&self) -> usize {
        let sums = self.batches.iter().map(|b| b.iter().map(|c| c.1).sum());
        sums.max().unwrap_or(0)
    }
}

/// The id that follows `tokens`.
pub fn next_id(tokens: &[u32], seed: u64) -> u32 {
    let mut hash = 0xcbf2_9ce4_8422_2325 ^ seed;
    for &word in tokens.iter().chain([&(tokens.len() as u32)]) {
        hash = (hash ^ u64::from(word)).wrapping_mul(0x0100_0000_01b3);
    }
    ((hash >> 20) % u64::from(VOCAB)) as u32
}

impl StepEngine for Fake {
    fn open(&mut self, slot: u32, max_tokens: u32) -> Result<(), EngineError> {
        assert!(!self.stepping, "slot {slot} opened during a step");
        assert!(!self.open.contains_key(&slot), "slot {slot} opened twice");
        self.opened.push((slot, max_tokens));
        self.open.insert(
            slot,
            Open {
                tokens: Vec::new(),
                most: max_tokens as usize,
            },
        );
        Ok(())
    }

    fn close(&mut self, slot: u32) -> Result<(), EngineError> {
        assert!(!self.stepping, "slot {slot} closed during a step");
        assert!(
            self.open.remove(&slot).is_some(),
            "slot {slot} closed but not open"
        );
        Ok(())
    }

    fn begin(&mut self, _: &StepBatch) -> Result<(), EngineError> {
        assert!(!self.stepping, "a step is under way");
        self.stepping = true;
        Ok(())
    }

    fn finish(&mut self, batch: &StepBatch) -> Result<&[Sampled], EngineError> {
        assert!(self.stepping, "a step that was not begun");
        self.stepping = false;
        if let Some(error) = self.fail_next.take() {
            return Err(error);
        }
        self.sampled.clear();
        self.outputs.extend(batch.outputs());
        let mut samples = batch.samples().peekable();
        let (mut rows, mut shape) = (0, Batch::new());
        for (slot, start, tokens) in batch.runs() {
            assert!(
                shape.iter().all(|run| run.0 != slot),
                "slot {slot} twice in a batch"
            );
            let open = self.open.get_mut(&slot);
            let open = open.expect("a run of a slot that is not open");
            assert_eq!(start as usize, open.tokens.len(), "a run out of place");
            assert!(!tokens.is_empty(), "an empty run");
            open.tokens.extend_from_slice(tokens);
            assert!(
                open.tokens.len() <= open.most,
                "more positions than were asked for"
            );
            rows += tokens.len();
            let sample = samples.next_if(|(row, _)| *row as usize + 1 == rows);
            shape.push((slot, tokens.len(), sample.is_some()));
            let Some((_, seed)) = sample else { continue };
            let id = self.always.unwrap_or_else(|| next_id(&open.tokens, seed));
            let broken = self.broken_slot == Some(slot);
            self.sampled.push(Sampled {
                token: if broken { BROKEN_LOGITS } else { id },
                logprob: 0.0,
                top: [NO_TOKEN; 20],
            });
        }
        assert!(rows > 0, "a step without runs");
        assert_eq!(
            samples.next(),
            None,
            "a sample of a row that is no run's last"
        );
        self.batches.push(shape);
        let pages = self.counts().used as usize;
        assert!(
            self.kv_pages == 0 || pages <= self.kv_pages,
            "a step of {pages} pages, there are {}",
            self.kv_pages
        );
        self.most_pages = self.most_pages.max(pages);
        Ok(&self.sampled)
    }

    fn counts(&self) -> PageCounts {
        let pages = |open: &Open| open.tokens.len().div_ceil(64) as u32;
        PageCounts {
            used: self.open.values().map(pages).sum(),
            ..PageCounts::default()
        }
    }

    fn capacity(&self) -> u32 {
        match self.kv_pages {
            0 => u32::MAX,
            pages => pages as u32,
        }
    }

    fn resident(&self) -> bool {
        false
    }
}

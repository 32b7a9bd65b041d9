//! SentencePiece BPE: vocabularies of the model `llama`, with a score per token and no merges.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap};

use orcd_shared::gguf::Metadata;
use orcd_shared::vocab::{TokenType, Vocab, byte_token, check_length};

use super::TokenizerError;

const SCORES: &str = "tokenizer.ggml.scores";
const UNKNOWN: &str = "tokenizer.ggml.unknown_token_id";
const SPACE_PREFIX: &str = "tokenizer.ggml.add_space_prefix";

/// Merges the adjacent pair with the highest score until no pair is a token; what is left over is
/// written in byte tokens.
pub(super) struct Spm {
    /// Normal tokens: id and score by text, spaces written as U+2581. The others stay out: text
    /// must never add up to a control token.
    pieces: HashMap<Box<str>, (u32, f32)>,
    /// The token of each byte, or the unknown token where it has none.
    bytes: Box<[u32; 256]>,
    /// Whether a text gets a space in front, as a word in the middle of a sentence has it.
    pub(super) space_prefix: bool,
    /// Whether the file has no scores.
    pub(super) scores_absent: bool,
}

impl Spm {
    pub(super) fn new(metadata: &Metadata, vocab: &Vocab<'_>) -> Result<Self, TokenizerError> {
        let scores = metadata.opt_f32s(SCORES)?;
        let scores_absent = scores.is_none();
        // The format's document: without scores all tokens are as probable as each other.
        let scores =
            scores.map_or_else(|| Cow::Owned(vec![0.0; vocab.tokens.len()]), Cow::Borrowed);
        check_length(SCORES, scores.len(), vocab.tokens)?;
        if let Some(id) = scores.iter().position(|score| score.is_nan()) {
            return Err(TokenizerError::Score { id });
        }
        let mut pieces = HashMap::with_capacity(vocab.tokens.len());
        let mut bytes = [vocab.id_at(metadata, UNKNOWN)?; 256];
        for ((id, text, ty), &score) in vocab.iter().zip(scores.iter()) {
            match ty {
                TokenType::Normal => {
                    pieces.entry(text.into()).or_insert((id, score));
                }
                TokenType::Byte => {
                    if let Some(byte) = byte_token(text) {
                        bytes[usize::from(byte)] = Some(id);
                    }
                }
                _ => {}
            }
        }
        let mut table = Box::new([0; 256]);
        for (byte, (slot, id)) in (0..=255).zip(table.iter_mut().zip(bytes)) {
            *slot = id.ok_or(TokenizerError::MissingByte { byte })?;
        }
        let space_prefix = metadata.opt_bool(SPACE_PREFIX)?.unwrap_or(true);
        Ok(Self {
            pieces,
            bytes: table,
            space_prefix,
            scores_absent,
        })
    }

    /// Appends the ids of `text`, which holds no special tokens. `first` says that it starts the
    /// sequence or follows a special token, which is where the space in front belongs.
    pub(super) fn encode(&self, text: &str, first: bool, out: &mut Vec<u32>) {
        let mut spelled = String::with_capacity(text.len() + 3);
        if first && self.space_prefix {
            spelled.push('\u{2581}');
        }
        spelled.extend(text.chars().map(|c| if c == ' ' { '\u{2581}' } else { c }));
        for piece in Merger::new(self, &spelled).run() {
            match self.pieces.get(piece) {
                Some(&(id, _)) => out.push(id),
                None => out.extend(piece.bytes().map(|b| self.bytes[usize::from(b)])),
            }
        }
    }
}

/// A stretch of the text that has been merged so far; a list in an array.
#[derive(Clone, Copy)]
struct Symbol {
    /// In bytes of the text.
    start: usize,
    /// In bytes; 0 once it was merged into the one on its left.
    len: usize,
    prev: Option<usize>,
    next: Option<usize>,
}

/// Two neighbors that make a token together, as they were when they were found.
struct Pair {
    score: f32,
    left: usize,
    right: usize,
    /// Length of both together: no longer true once one of them was merged with another.
    len: usize,
}

/// The highest score comes first, of equal ones the leftmost.
impl Ord for Pair {
    fn cmp(&self, other: &Self) -> Ordering {
        self.score
            .total_cmp(&other.score)
            .then(other.left.cmp(&self.left))
    }
}

impl PartialOrd for Pair {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Pair {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Pair {}

/// One text on its way into tokens: O(n log n) in its characters.
struct Merger<'s, 't> {
    spm: &'s Spm,
    text: &'t str,
    symbols: Vec<Symbol>,
    queue: BinaryHeap<Pair>,
}

impl<'s, 't> Merger<'s, 't> {
    fn new(spm: &'s Spm, text: &'t str) -> Self {
        let mut symbols: Vec<Symbol> = text
            .char_indices()
            .enumerate()
            .map(|(i, (start, c))| Symbol {
                start,
                len: c.len_utf8(),
                prev: i.checked_sub(1),
                next: Some(i + 1),
            })
            .collect();
        if let Some(last) = symbols.last_mut() {
            last.next = None;
        }
        let mut merger = Self {
            spm,
            text,
            symbols,
            queue: BinaryHeap::new(),
        };
        for right in 1..merger.symbols.len() {
            merger.offer(right - 1, right);
        }
        merger
    }

    /// Queues the pair if it makes a token.
    fn offer(&mut self, left: usize, right: usize) {
        let start = self.symbols[left].start;
        let len = self.symbols[left].len + self.symbols[right].len;
        if let Some(&(_, score)) = self.spm.pieces.get(&self.text[start..start + len]) {
            self.queue.push(Pair {
                score,
                left,
                right,
                len,
            });
        }
    }

    fn run(mut self) -> impl Iterator<Item = &'t str> {
        while let Some(pair) = self.queue.pop() {
            let (left, right) = (self.symbols[pair.left], self.symbols[pair.right]);
            if left.len == 0 || right.len == 0 || left.len + right.len != pair.len {
                continue;
            }
            self.symbols[pair.right].len = 0;
            self.symbols[pair.left].len = pair.len;
            self.symbols[pair.left].next = right.next;
            if let Some(next) = right.next {
                self.symbols[next].prev = Some(pair.left);
                self.offer(pair.left, next);
            }
            if let Some(prev) = left.prev {
                self.offer(prev, pair.left);
            }
        }
        let text = self.text;
        let left_over = self.symbols.into_iter().filter(|symbol| symbol.len > 0);
        left_over.map(move |symbol| &text[symbol.start..symbol.start + symbol.len])
    }
}

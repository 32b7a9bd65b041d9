//! Byte-level BPE: vocabularies of the model `gpt2`.

use std::sync::atomic::{AtomicBool, Ordering};

use orcd_shared::gguf::{GgufError, Metadata};
use orcd_shared::vocab::bytelevel::{self, BYTE_TO_CHAR};
use orcd_shared::vocab::{TokenType, Vocab};
use tokenizers::Model;
use tokenizers::models::bpe::{BPE, Merges};

use super::pre::{PreTokenizer, PreTokenizerName};
use super::{TokenizerError, normalize};

const PRE: &str = "tokenizer.ggml.pre";
const MERGES: &str = "tokenizer.ggml.merges";

/// Cuts a text into pieces and merges byte pairs inside each.
pub(super) struct Bpe {
    pub(super) pre: PreTokenizer,
    model: BPE,
    /// Bytes without a token, ascending: a text loses them.
    pub(super) missing_bytes: Vec<u8>,
    /// By id, whether the merges were seen to make this token of its own text: most words are one token, which need
    /// not be found out for each of them again.
    whole: Box<[AtomicBool]>,
}

impl Bpe {
    /// Of the file's vocabulary, with `pre_tokenizer` in place of the one that it names.
    pub(super) fn new(
        metadata: &Metadata,
        vocab: &Vocab<'_>,
        pre_tokenizer: Option<PreTokenizerName>,
    ) -> Result<Self, TokenizerError> {
        let name = match pre_tokenizer {
            Some(name) => name,
            None => Self::name_of(metadata)?.map_or(Ok(PreTokenizerName::DEFAULT), str::parse)?,
        };
        let pre = PreTokenizer::new(name)?;
        // Control tokens stay out: text must never add up to one. Where a text has two ids, the
        // lower one counts, so they are entered from the end.
        let mut ids = Vec::from_iter(vocab.iter().filter(|&(_, _, ty)| ty != TokenType::Control));
        ids.reverse();
        let count = ids.first().map_or(0, |&(id, ..)| id as usize + 1);
        let longest = ids
            .iter()
            .map(|&(_, text, _)| text.len())
            .max()
            .unwrap_or(0);
        let ids = ids.into_iter().map(|(id, text, _)| (text.to_owned(), id));
        let merges = split_merges(metadata.strings(MERGES)?, longest)?;
        let model = BPE::builder()
            .vocab_and_merges(ids.collect::<tokenizers::models::bpe::Vocab>(), merges)
            .ignore_merges(pre.rules.whole_pieces)
            // Its cache is per thread and lives as long as the thread; merging is fast enough.
            .cache_capacity(0)
            .build()
            .map_err(TokenizerError::Bpe)?;
        // The model drops a character that it has no token for.
        let has_token = |c: char| model.token_to_id(c.encode_utf8(&mut [0; 4])).is_some();
        let missing_bytes: Vec<u8> = (0..=255u8)
            .filter(|&byte| !has_token(BYTE_TO_CHAR[usize::from(byte)]))
            .collect();
        match missing_bytes.iter().find(|&&byte| !is_expendable(byte)) {
            Some(&byte) => Err(TokenizerError::MissingByte { byte }),
            None => Ok(Self {
                pre,
                model,
                missing_bytes,
                whole: (0..count).map(|_| AtomicBool::default()).collect(),
            }),
        }
    }

    /// What the file calls its pre-tokenizer.
    pub(super) fn name_of(metadata: &Metadata) -> Result<Option<&str>, GgufError> {
        metadata.opt_str(PRE)
    }

    /// Appends the ids of `text`, which holds no special tokens.
    pub(super) fn encode(&self, text: &str, out: &mut Vec<u32>) -> Result<(), TokenizerError> {
        if self.pre.rules.nfc {
            return self.encode_normalized(&normalize::nfc(text)?, out);
        }
        self.encode_normalized(text, out)
    }

    fn encode_normalized(&self, text: &str, out: &mut Vec<u32>) -> Result<(), TokenizerError> {
        let mut spelled = String::new();
        self.pre.cut(text, &mut |piece| {
            spelled.clear();
            bytelevel::write(piece.as_bytes(), &mut spelled);
            self.merge(&spelled, out)
        })
    }

    /// Appends the ids of a piece, spelled as the vocabulary has it.
    fn merge(&self, spelled: &str, out: &mut Vec<u32>) -> Result<(), TokenizerError> {
        let own = self.model.token_to_id(spelled);
        let whole = own.and_then(|id| Some((id, self.whole.get(id as usize)?)));
        if let Some((id, is_whole)) = whole
            && is_whole.load(Ordering::Relaxed)
        {
            out.push(id);
            return Ok(());
        }
        let tokens = self.model.tokenize(spelled).map_err(TokenizerError::Bpe)?;
        if let (Some((id, is_whole)), [token]) = (whole, &tokens[..]) {
            is_whole.store(token.id == id, Ordering::Relaxed);
        }
        out.extend(tokens.iter().map(|token| token.id));
        Ok(())
    }
}

/// Whether a vocabulary may do without `byte`: control characters other than white space, what
/// starts a code point from U+40000 on (none but private ones has a meaning), and what UTF-8 never
/// has. `smollm` vocabularies lack 21 of them; a file that lacks any other is damaged.
fn is_expendable(byte: u8) -> bool {
    match byte {
        b'\t'..=b'\r' => false,
        0..0x20 | 0x7F | 0xC0 | 0xC1 | 0xF1..=0xFF => true,
        _ => false,
    }
}

/// Cuts the entries `left right` in two.
///
/// `longest` is the length in bytes of the longest token; the model takes it for granted that no
/// merge yields a longer one.
fn split_merges(merges: &[String], longest: usize) -> Result<Merges, TokenizerError> {
    let split = |(index, merge): (usize, &String)| {
        let error = |reason| TokenizerError::Merge {
            index,
            merge: merge.clone(),
            reason,
        };
        let (left, right) = merge
            .split_once(' ')
            .ok_or_else(|| error("is not two tokens"))?;
        if left.is_empty() || right.is_empty() || right.contains(' ') {
            return Err(error("is not two tokens"));
        }
        if left.len() + right.len() > longest {
            return Err(error("makes a text that is not a token"));
        }
        Ok((left.to_owned(), right.to_owned()))
    };
    merges.iter().enumerate().map(split).collect()
}

//! A text as windows of tokens that see each other.

use std::path::PathBuf;

use orcd_shared::gguf::GgufFile;
use orcd_supervisor::text::{GuardedText, Specials, Tokenizer};

use crate::Failure;

/// What of the texts is read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extent {
    /// In all; each text has the same share.
    pub(crate) tokens: usize,
    /// Of a window, its begin token among them.
    pub(crate) window: usize,
}

/// Texts in a model's tokens.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Windows {
    /// What stands in front of prompts, and so of each window: nothing or a begin token.
    pub(crate) begin: Vec<u32>,
    /// No longer than the extent has it; two tokens at least.
    pub(crate) windows: Vec<Vec<u32>>,
}

impl Windows {
    /// Reads the texts' beginnings.
    ///
    /// # Errors
    /// A text can't be read, or is too short for a single position.
    pub(crate) fn read(
        file: &GgufFile,
        paths: &[PathBuf],
        extent: Extent,
    ) -> Result<Self, Failure> {
        let tokenizer = Tokenizer::from_metadata(&file.header().metadata)?;
        let begin = begin_of(&tokenizer)?;
        let share = extent.tokens / paths.len().max(1);
        let mut windows = Vec::new();
        for path in paths {
            let text = std::fs::read_to_string(path);
            let text = text.map_err(|e| format!("{}: {e}", path.display()))?;
            let ids = tokenizer.encode(&text, Specials::AsText)?;
            windows.extend(cut(
                &ids,
                &begin,
                Extent {
                    tokens: share,
                    ..extent
                },
            ));
        }
        if windows.is_empty() {
            return Err(
                "the text has fewer than two tokens; give a longer --text or more --tokens".into(),
            );
        }
        Ok(Self { begin, windows })
    }

    /// All windows, and whether each is one of `picked` that are spread evenly.
    pub(crate) fn spread(&self, picked: usize) -> impl Iterator<Item = (&Vec<u32>, bool)> {
        let n = self.windows.len();
        let picked = picked.min(n);
        let pick = move |i: usize| (i + 1) * picked / n > i * picked / n;
        let windows = self.windows.iter().enumerate();
        windows.map(move |(i, window)| (window, pick(i)))
    }
}

/// The token that the file's tokenizer puts in front of every prompt, if it does.
fn begin_of(tokenizer: &Tokenizer) -> Result<Vec<u32>, Failure> {
    let mut ids = tokenizer.encode_prompt(&GuardedText::trusted(""))?;
    ids.truncate(1);
    ids.retain(|id| tokenizer.bos() == Some(*id));
    Ok(ids)
}

/// Windows that begin with `begin`, of `extent.tokens` tokens together.
fn cut(ids: &[u32], begin: &[u32], extent: Extent) -> Vec<Vec<u32>> {
    let mut left = extent.tokens;
    let mut windows = Vec::new();
    for piece in ids.chunks(extent.window.saturating_sub(begin.len()).max(1)) {
        let piece = &piece[..piece.len().min(left.saturating_sub(begin.len()))];
        let window = [begin, piece].concat();
        left = left.saturating_sub(window.len());
        if !piece.is_empty() && window.len() >= 2 {
            windows.push(window);
        }
    }
    windows
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXTENT: Extent = Extent {
        tokens: 7,
        window: 4,
    };

    #[test]
    fn each_window_has_the_begin_token_and_it_counts() {
        let ids = [10, 11, 12, 13, 14, 15, 16];
        assert_eq!(
            cut(&ids, &[], EXTENT),
            [vec![10, 11, 12, 13], vec![14, 15, 16]]
        );
        assert_eq!(
            cut(&ids, &[1], EXTENT),
            [vec![1, 10, 11, 12], vec![1, 13, 14]]
        );
    }

    #[test]
    fn windows_are_picked_from_all_of_them() {
        let windows = Windows {
            begin: Vec::new(),
            windows: (0..8).map(|i| vec![i]).collect(),
        };
        let picked = |n| -> Vec<u32> {
            let all = windows.spread(n);
            all.filter(|(_, picked)| *picked)
                .map(|(window, _)| window[0])
                .collect()
        };
        assert_eq!(picked(2), [3, 7]);
        assert_eq!(picked(0), [0_u32; 0]);
        assert_eq!(picked(99), [0, 1, 2, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn windows_without_a_position_are_left_out() {
        assert_eq!(
            cut(&[10, 11, 12, 13, 14], &[], EXTENT),
            [vec![10, 11, 12, 13]]
        );
        assert_eq!(cut(&[10], &[], EXTENT), [[0_u32; 0]; 0]);
        assert_eq!(cut(&[10], &[1], EXTENT), [vec![1, 10]]);
        assert_eq!(cut(&[], &[1], EXTENT), [[0_u32; 0]; 0]);
    }
}

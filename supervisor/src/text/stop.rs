//! Stop sequences: texts at which the output ends, in front of them.

/// What a piece of output leads to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StopOutput {
    /// Text that certainly belongs to the output.
    pub emit: String,
    /// Which sequence the output has reached. Nothing is emitted from then on.
    pub matched: Option<usize>,
}

/// Looks for stop sequences in text that comes in pieces.
///
/// The output ends as soon as any sequence is complete, and in front of it: the match that *ends*
/// first wins, since waiting for another that began earlier would mean to generate on. Of several
/// that end there the longest wins, so that no part of a sequence is put out, and of equal ones the
/// first listed. How the text was cut into pieces makes no difference.
///
/// Text that may begin a sequence is held back: less than the longest sequence, in bytes.
#[derive(Clone, Debug)]
pub struct StopMatcher {
    sequences: Vec<String>,
    /// The end of the text so far, as long as it may begin a sequence.
    held: String,
    matched: Option<usize>,
}

impl StopMatcher {
    /// A matcher for `sequences`. Empty ones are never found.
    pub fn new(sequences: Vec<String>) -> Self {
        Self {
            sequences,
            held: String::new(),
            matched: None,
        }
    }

    /// The sequence at `index`, as [`StopOutput::matched`] names it.
    pub fn sequence(&self, index: usize) -> Option<&str> {
        self.sequences.get(index).map(String::as_str)
    }

    /// Takes the next piece of text.
    pub fn push(&mut self, text: &str) -> StopOutput {
        if self.matched.is_some() {
            return StopOutput {
                emit: String::new(),
                matched: self.matched,
            };
        }
        let mut emit = std::mem::take(&mut self.held);
        emit.push_str(text);
        if let Some((start, index)) = self.first_match(&emit) {
            emit.truncate(start);
            self.matched = Some(index);
        } else {
            self.held = emit.split_off(self.settled(&emit));
        }
        StopOutput {
            emit,
            matched: self.matched,
        }
    }

    /// The text still held back, which belongs to the output because no more comes.
    pub fn flush(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Start and index of the match that ends first.
    fn first_match(&self, text: &str) -> Option<(usize, usize)> {
        let found = self
            .sequences
            .iter()
            .enumerate()
            .filter(|(_, s)| !s.is_empty());
        found
            .filter_map(|(index, s)| text.find(s.as_str()).map(|start| (start, index, s.len())))
            .min_by_key(|&(start, index, len)| (start + len, start, index))
            .map(|(start, index, _)| (start, index))
    }

    /// Bytes at the start of `text` that no sequence can begin in. The rest is the longest end of
    /// `text` that is the beginning of a sequence.
    fn settled(&self, text: &str) -> usize {
        let begins = |s: &String| {
            let most = s.len().saturating_sub(1).min(text.len());
            (1..=most)
                .rev()
                .find(|&n| text.as_bytes().ends_with(&s.as_bytes()[..n]))
        };
        // A sequence starts with the first byte of a character, so this cuts between characters.
        text.len() - self.sequences.iter().filter_map(begins).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn matcher(sequences: &[&str]) -> StopMatcher {
        StopMatcher::new(sequences.iter().map(|s| s.to_string()).collect())
    }

    /// What each push emits, what the flush does, and the match.
    fn run(sequences: &[&str], pieces: &[&str]) -> (Vec<String>, Option<usize>) {
        let mut m = matcher(sequences);
        let longest = sequences.iter().map(|s| s.len()).max().unwrap_or(0);
        let mut matched = None;
        let mut emitted = Vec::new();
        for piece in pieces {
            let out = m.push(piece);
            assert!(m.held.len() < longest.max(1), "{:?} is held", m.held);
            assert!(matched.is_none() || (out.emit.is_empty() && out.matched == matched));
            matched = out.matched;
            emitted.push(out.emit);
        }
        emitted.push(m.flush());
        (emitted, matched)
    }

    #[test]
    fn without_sequences_everything_passes_at_once() {
        assert_eq!(
            run(&[], &["a", "b"]),
            (vec!["a".into(), "b".into(), "".into()], None)
        );
    }

    #[test]
    fn the_beginning_of_a_sequence_waits_and_comes_out_if_it_was_none() {
        let (emitted, matched) = run(&["END"], &["xE", "N", "x", "EN"]);
        assert_eq!((emitted.join("|"), matched), ("x||ENx||EN".into(), None));
    }

    #[test]
    fn a_sequence_across_pieces_ends_the_output_in_front_of_it() {
        let (emitted, matched) = run(&["END"], &["xE", "N", "Dy", "z"]);
        assert_eq!((emitted.join("|"), matched), ("x||||".into(), Some(0)));
    }

    #[test]
    fn the_first_to_be_complete_wins() {
        let (emitted, matched) = run(&["abcd", "bc"], &["xabcd"]);
        assert_eq!((emitted.concat(), matched), ("xa".into(), Some(1)));
        let (emitted, matched) = run(&["\n\n", "\n"], &["x\n\ny"]);
        assert_eq!((emitted.concat(), matched), ("x".into(), Some(1)));
    }

    #[test]
    fn of_those_complete_together_the_longest_wins_then_the_first_listed() {
        let (emitted, matched) = run(&["c", "abc", "abc"], &["xabc"]);
        assert_eq!((emitted.concat(), matched), ("x".into(), Some(1)));
    }

    #[test]
    fn a_sequence_that_overlaps_itself_is_found() {
        let (emitted, matched) = run(&["aab"], &["a", "a", "a", "b"]);
        assert_eq!((emitted.concat(), matched), ("a".into(), Some(0)));
    }

    #[test]
    fn the_longest_beginning_of_any_sequence_waits() {
        let (emitted, matched) = run(&["abx", "bc"], &["ab", "x"]);
        assert_eq!((emitted.join("|"), matched), ("||".into(), Some(0)));
    }

    #[test]
    fn characters_of_several_bytes_are_not_cut() {
        let (emitted, matched) = run(&["éé"], &["é", "è", "é", "é"]);
        assert_eq!((emitted.join("|"), matched), ("|éè|||".into(), Some(0)));
    }

    /// The definition: the shortest beginning of the text that ends in a sequence.
    fn naive(sequences: &[String], text: &str) -> (String, Option<usize>) {
        for end in (1..=text.len()).filter(|&end| text.is_char_boundary(end)) {
            let found = sequences
                .iter()
                .enumerate()
                .filter(|(_, s)| text[..end].ends_with(*s));
            // Of the longest the first listed: `min_by_key` returns the first of several.
            if let Some((index, s)) = found.min_by_key(|(_, s)| std::cmp::Reverse(s.len())) {
                return (text[..end - s.len()].to_owned(), Some(index));
            }
        }
        (text.to_owned(), None)
    }

    proptest! {
        #[test]
        fn any_chunking_equals_the_search_over_the_whole(
            sequences in vec(prop_oneof!["[ab]{2,6}", "[abé]{1,5}"], 0..=4),
            pieces in vec(prop_oneof!["[ab]{0,2}", "[abéx]{0,6}"], 0..12),
        ) {
            let sequence_refs: Vec<&str> = sequences.iter().map(String::as_str).collect();
            let piece_refs: Vec<&str> = pieces.iter().map(String::as_str).collect();
            let (emitted, matched) = run(&sequence_refs, &piece_refs);
            prop_assert_eq!((emitted.concat(), matched), naive(&sequences, &pieces.concat()));
        }
    }
}

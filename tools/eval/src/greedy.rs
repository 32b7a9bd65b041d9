//! Where greedy tokens part from another engine's.

use crate::Failure;
use crate::quality::argmax;
use crate::source::Source;

/// Prompts of a text.
const PROMPTS: usize = 41;
/// The longest prompt, its begin token among them.
const PROMPT_TOKENS: usize = 64;
/// The shortest one.
const LEAST_TOKENS: usize = 8;
/// Tokens generated after each.
pub(crate) const GENERATED: usize = 64;
/// The other engine's own rounding moves its first token by less, nats.
const CLOSE: f32 = 0.3;
/// Positions of a prompt and what is generated after it.
pub(crate) const CONTEXT: usize = PROMPT_TOKENS + GENERATED;

/// The first token that is not the other engine's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Parting {
    /// Generated tokens before it.
    at: usize,
    /// Its first token.
    its: usize,
    /// Of our token among its own: 2 for its second.
    pub(crate) rank: usize,
    /// Nats between its first and its second token.
    pub(crate) margin: f32,
    /// Nats between its first token and ours.
    pub(crate) gap: f32,
}

impl Parting {
    /// Whether it is one of the other engine's first two, between which there is little.
    fn is_close(&self) -> bool {
        self.rank == 2 && self.margin < CLOSE
    }
}

/// What came of all prompts.
#[derive(Debug, Default)]
pub(crate) struct Partings {
    /// Prompts.
    pub(crate) prompts: usize,
    /// Those of them that don't have the same tokens to the end.
    pub(crate) parted: Vec<Parting>,
    /// Of those that part and are not close, where exact logits have our token first.
    pub(crate) ours_exact: usize,
    /// And where they have the other engine's.
    pub(crate) its_exact: usize,
}

impl Partings {
    /// Compares what was generated after each prompt with what `reference` holds the most likely, on the same tokens.
    /// Where they part and it is not close `exact` says who is right.
    ///
    /// # Errors
    /// What the sources say.
    pub(crate) fn find(
        reference: &mut dyn Source,
        exact: &mut dyn Source,
        prompts: &[Vec<u32>],
        generated: &[Vec<u32>],
    ) -> Result<Self, Failure> {
        let mut found = Self {
            prompts: prompts.len(),
            ..Self::default()
        };
        for (prompt, ids) in prompts.iter().zip(generated) {
            let read = [&prompt[..], ids].concat();
            let mut rows = reference.rows(&read)?.collect::<Result<Vec<_>, _>>()?;
            rows.drain(..prompt.len() - 1);
            let Some(parting) = parting(ids, &rows) else {
                continue;
            };
            if !parting.is_close() {
                let right = best_after(exact, &read[..prompt.len() + parting.at])?;
                found.ours_exact += usize::from(right == ids[parting.at] as usize);
                found.its_exact += usize::from(right == parting.its);
            }
            found.parted.push(parting);
        }
        Ok(found)
    }

    /// Those that are close: our token is the other engine's second, by less than 0.3 nats.
    pub(crate) fn close(&self) -> usize {
        self.parted.iter().filter(|p| p.is_close()).count()
    }

    /// The largest margin, nats; 0 where nothing parts.
    pub(crate) fn largest_margin(&self) -> f32 {
        self.parted.iter().map(|p| p.margin).fold(0.0, f32::max)
    }

    /// The largest gap, nats; 0 where nothing parts.
    pub(crate) fn largest_gap(&self) -> f32 {
        self.parted.iter().map(|p| p.gap).fold(0.0, f32::max)
    }
}

/// Prompts of 8 to 64 tokens from all over the windows, each with what windows begin with.
pub(crate) fn prompts(windows: &[Vec<u32>], begin: &[u32]) -> Vec<Vec<u32>> {
    let of_each = PROMPTS.div_ceil(windows.len().max(1));
    let picks = windows.iter().cycle().take(PROMPTS).enumerate();
    picks
        .map(|(i, window)| {
            let text = &window[begin.len()..];
            let length = LEAST_TOKENS + i * 11 % (PROMPT_TOKENS - LEAST_TOKENS + 1);
            let start = text.len().saturating_sub(PROMPT_TOKENS) * (i / windows.len()) / of_each;
            let end = text.len().min(start + length - begin.len());
            [begin, &text[start..end]].concat()
        })
        .collect()
}

/// The first of `ids` that is not the most likely one of its row (vocabulary); row i is that in front of token i.
fn parting(ids: &[u32], rows: &[Vec<f32>]) -> Option<Parting> {
    ids.iter()
        .zip(rows)
        .enumerate()
        .find_map(|(at, (id, row))| {
            let ours = row.get(*id as usize).copied();
            let ours = ours.unwrap_or(f32::NEG_INFINITY);
            let above = row.iter().filter(|logit| **logit > ours).count();
            let (first, second) = first_two(row);
            (above > 0).then(|| Parting {
                at,
                its: argmax(row),
                rank: above + 1,
                margin: first - second,
                gap: first - ours,
            })
        })
}

/// The most likely token after `ids`.
fn best_after(source: &mut dyn Source, ids: &[u32]) -> Result<usize, Failure> {
    let mut last = Vec::new();
    for row in source.rows(ids)? {
        last = row?;
    }
    Ok(argmax(&last))
}

/// The two largest logits.
fn first_two(row: &[f32]) -> (f32, f32) {
    let none = (f32::NEG_INFINITY, f32::NEG_INFINITY);
    row.iter().fold(none, |(first, second), &logit| {
        if logit > first {
            (logit, first)
        } else {
            (first, second.max(logit))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Rows;

    #[test]
    fn the_first_token_that_differs_parts() {
        let rows = [
            vec![0.0, 2.0, 1.0],
            vec![1.0, 1.5, 0.0],
            vec![3.0, 0.0, 1.0],
        ];
        assert_eq!(parting(&[1, 1, 0], &rows), None);
        let second = Parting {
            at: 1,
            its: 1,
            rank: 2,
            margin: 0.5,
            gap: 0.5,
        };
        assert_eq!(parting(&[1, 0, 1], &rows), Some(second));
        let third = Parting {
            at: 2,
            its: 0,
            rank: 3,
            margin: 2.0,
            gap: 3.0,
        };
        assert_eq!(parting(&[1, 1, 1], &rows), Some(third));
    }

    /// Logits that depend on the last token alone.
    struct Bigrams([[f32; 3]; 3]);

    impl Source for Bigrams {
        fn rows<'a>(&'a mut self, window: &'a [u32]) -> Result<Rows<'a>, Failure> {
            let rows = window.iter().map(|id| Ok(self.0[*id as usize].to_vec()));
            Ok(Box::new(rows))
        }
    }

    #[test]
    fn exact_logits_say_who_is_right_where_tokens_part() -> Result<(), Failure> {
        let mut reference = Bigrams([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.5]]);
        let mut exact = Bigrams([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.5, 0.0, 1.0]]);
        let prompts = [vec![0], vec![0, 1], vec![2, 1, 0]];
        // To the reference 2 is followed by 0, to the exact logits by 2.
        let generated = [vec![1, 2, 0], vec![2, 2, 2], vec![2, 1, 2]];
        let found = Partings::find(&mut reference, &mut exact, &prompts, &generated)?;
        let [second, third] = &found.parted[..] else {
            return Err(format!("{found:?}").into());
        };
        assert_eq!((second.at, second.rank, second.gap), (1, 2, 0.5));
        assert_eq!((third.at, third.rank, third.gap), (0, 2, 1.0));
        assert_eq!(
            (found.prompts, found.ours_exact, found.its_exact),
            (3, 1, 1)
        );
        Ok(())
    }

    #[test]
    fn a_parting_is_close_at_the_second_token_with_little_between() {
        let close = Parting {
            at: 0,
            its: 1,
            rank: 2,
            margin: 0.29,
            gap: 0.29,
        };
        let far = Parting {
            margin: 0.31,
            ..close
        };
        let third = Parting { rank: 3, ..close };
        assert_eq!(
            [close, far, third].map(|p| p.is_close()),
            [true, false, false]
        );
    }

    #[test]
    fn tokens_as_likely_as_the_first_do_not_part() {
        assert_eq!(parting(&[1], &[vec![2.0, 2.0, 1.0]]), None);
    }

    #[test]
    fn prompts_come_from_all_windows_and_begin_as_they_do() {
        let windows: Vec<Vec<u32>> = (0..4)
            .map(|w| [vec![1], (w * 100..w * 100 + 99).collect()].concat())
            .collect();
        let prompts = prompts(&windows, &[1]);
        assert_eq!(prompts.len(), PROMPTS);
        let lengths: Vec<usize> = prompts.iter().map(Vec::len).collect();
        assert!(
            lengths
                .iter()
                .all(|n| (LEAST_TOKENS..=PROMPT_TOKENS).contains(n))
        );
        assert!(
            prompts
                .iter()
                .all(|prompt| prompt[0] == 1 && prompt[1] != 1)
        );
        let mut starts: Vec<u32> = prompts.iter().map(|prompt| prompt[1]).collect();
        starts.sort_unstable();
        starts.dedup();
        assert_eq!(starts.len(), PROMPTS, "no two are of the same place");
        let of_window = |w: u32| prompts.iter().any(|prompt| prompt[1] / 100 == w);
        assert!((0..4).all(of_window));
    }

    #[test]
    fn a_text_of_one_token_makes_prompts_too() {
        assert!(
            prompts(&[vec![1, 7]], &[1])
                .iter()
                .all(|prompt| *prompt == [1, 7])
        );
    }
}

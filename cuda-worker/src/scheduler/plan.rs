//! How many tokens each sequence gets in the next step. Pure. It decides only about time: how a
//! prompt is cut and what runs beside it changes no bit of the result.

/// Tokens each sequence takes, in the order given (oldest first). `pending` are the tokens each
/// one has not processed yet; 0 if it can't go on now.
///
/// Sequences with one token left come first, so that streams go on beside a long prompt; there are
/// at most `max_batch` sequences. What is left, at most `prefill` tokens, is shared among the
/// others: equal parts, with what a short prompt doesn't need going to the longer ones, so that a
/// short prompt never waits behind a long one. When there is not a token for each, the oldest get
/// one. Either way at least one prompt moves on with each step: nothing starves.
#[must_use]
pub fn share(pending: &[usize], max_batch: usize, prefill: usize) -> Vec<usize> {
    debug_assert!(
        pending.len() <= max_batch,
        "more sequences than a step holds"
    );
    let mut takes: Vec<usize> = pending.iter().map(|&p| usize::from(p == 1)).collect();
    let rows: usize = takes.iter().sum();
    let mut left = max_batch.saturating_sub(rows).min(prefill.max(1));
    let mut joining: Vec<usize> = (0..pending.len()).filter(|&i| pending[i] > 1).collect();

    if left < joining.len() {
        for &i in &joining[..left] {
            takes[i] = 1;
        }
        return takes;
    }
    // From the least hungry on, so that what one leaves goes to those behind it.
    joining.sort_by_key(|&i| pending[i]);
    for (served, &i) in joining.iter().enumerate() {
        takes[i] = pending[i].min(left / (joining.len() - served));
        left -= takes[i];
    }
    takes
}

#[cfg(test)]
mod tests {
    use super::share;

    #[test]
    fn decode_rows_come_before_prompts() {
        assert_eq!(share(&[100, 1, 1], 8, 64), [6, 1, 1]);
    }

    #[test]
    fn prompts_share_equally_and_short_ones_leave_the_rest() {
        assert_eq!(share(&[100, 100], 64, 64), [32, 32]);
        assert_eq!(share(&[100, 10], 64, 64), [54, 10]);
        assert_eq!(share(&[100, 5, 20], 64, 64), [39, 5, 20]);
    }

    #[test]
    fn prefill_budget_bounds_prompts_only() {
        assert_eq!(share(&[100, 1], 64, 16), [16, 1]);
        assert_eq!(share(&[100, 1], 64, 0), [1, 1]);
    }

    #[test]
    fn oldest_prompts_move_when_there_is_not_a_token_for_each() {
        assert_eq!(share(&[9, 8, 7, 1], 64, 2), [1, 1, 0, 1]);
    }

    #[test]
    fn a_full_batch_of_rows_leaves_none_out() {
        assert_eq!(share(&[1; 8], 8, 64), [1; 8]);
        assert_eq!(share(&[], 8, 64), [0; 0]);
    }
}

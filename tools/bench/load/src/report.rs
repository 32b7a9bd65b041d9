//! What many streams come to.

use std::time::Duration;

use crate::client::Streamed;

/// Figures of one round, or of several. Times in milliseconds.
pub(crate) struct Round {
    /// Tokens of all streams.
    pub(crate) tokens: u64,
    /// Tokens per second of all streams, from the first request to the last end.
    pub(crate) tokens_per_s: f64,
    /// From a stream's request to its first token: half of them, 99 of 100, the last.
    pub(crate) first_ms: [f64; 3],
    /// Between pieces of a stream that brought tokens, likewise.
    pub(crate) gap_ms: [f64; 3],
}

/// Of streams that ran at the same time; at least one.
pub(crate) fn round(streams: &[Streamed]) -> Round {
    let tokens: u64 = streams.iter().map(|stream| stream.tokens).sum();
    let begun = streams.iter().map(|stream| stream.sent).min();
    let ended = streams.iter().map(|stream| stream.ended).max();
    let took = begun
        .zip(ended)
        .map_or(Duration::ZERO, |(begun, ended)| ended - begun);
    let firsts = streams
        .iter()
        .filter_map(|stream| stream.arrivals.first())
        .map(|(at, _)| *at);
    let gaps = streams
        .iter()
        .flat_map(|stream| stream.arrivals.windows(2))
        .map(|pair| pair[1].0 - pair[0].0);
    Round {
        tokens,
        tokens_per_s: tokens as f64 / took.as_secs_f64(),
        first_ms: ranks(firsts.collect()),
        gap_ms: ranks(gaps.collect()),
    }
}

/// The least value that half of them, 99 of 100 and all don't exceed, in milliseconds; NaN of none.
fn ranks(mut values: Vec<Duration>) -> [f64; 3] {
    values.sort_unstable();
    [50, 99, 100].map(|percent| {
        let rank = (values.len() * percent).div_ceil(100).max(1);
        values
            .get(rank - 1)
            .map_or(f64::NAN, |value| value.as_secs_f64() * 1e3)
    })
}

/// The middle one of a figure over rounds; of an even number the upper of both.
pub(crate) fn median(rounds: &[Round], figure: impl Fn(&Round) -> f64) -> f64 {
    let mut values: Vec<f64> = rounds.iter().map(figure).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn streamed(sent: Instant, arrivals: &[u64], end: u64) -> Streamed {
        Streamed {
            arrivals: arrivals
                .iter()
                .map(|ms| (Duration::from_millis(*ms), 1))
                .collect(),
            tokens: arrivals.len() as u64,
            sent,
            ended: sent + Duration::from_millis(end),
        }
    }

    #[test]
    fn a_round_counts_from_the_first_request_to_the_last_end() {
        let sent = Instant::now();
        let later = sent + Duration::from_millis(100);
        let streams = [
            streamed(sent, &[10, 20, 50], 60),
            streamed(later, &[30, 35], 400),
        ];
        let round = round(&streams);
        assert_eq!((round.tokens, round.tokens_per_s), (5, 10.0)); // in half a second
        assert_eq!(round.first_ms, [10.0, 30.0, 30.0]);
        assert_eq!(round.gap_ms, [10.0, 30.0, 30.0]);
    }

    #[test]
    fn ranks_are_of_the_values_themselves() {
        let values = (1..=200).rev().map(Duration::from_millis).collect();
        assert_eq!(ranks(values), [100.0, 198.0, 200.0]);
        assert!(ranks(Vec::new()).iter().all(|rank| rank.is_nan()));
    }
}

//! Draws against the contract's six steps done the slow way: sorted lists, no histograms.

#![allow(clippy::unwrap_used)] // a panic is a failing test with a place
#![allow(clippy::print_stdout)] // measured figures are worth seeing

mod engine_support;

use cuda_worker::probe::{self, Beside};
use cuda_worker::scheduler::step_engine::BROKEN_LOGITS;
use engine_support::Rng;
use orcd_shared::sampling::SamplingParams;

const FREE: SamplingParams = SamplingParams {
    temperature: 1.0,
    ..SamplingParams::GREEDY
};

fn philox(key: u64, counter: [u32; 4]) -> [u32; 4] {
    let (mut k0, mut k1) = (key as u32, (key >> 32) as u32);
    let mut c = counter;
    for _ in 0..10 {
        let p0 = 0xd251_1f53_u64 * u64::from(c[0]);
        let p1 = 0xcd9e_8d57_u64 * u64::from(c[2]);
        let high = |p: u64| (p >> 32) as u32;
        c = [
            high(p1) ^ c[1] ^ k0,
            p1 as u32,
            high(p0) ^ c[3] ^ k1,
            p0 as u32,
        ];
        (k0, k1) = (k0.wrapping_add(0x9e37_79b9), k1.wrapping_add(0xbb67_ae85));
    }
    c
}

/// In binary64 from its definition: what the engine's binary32 comes close to.
fn exact_gumbel(word: u32) -> f64 {
    let v = (f64::from(word) + 0.5) / 2f64.powi(32);
    -(-(-v).ln_1p()).ln()
}

fn exp2(x: f32) -> f32 {
    probe::function("exp2", &[x])[0]
}

/// The token sampled, by the contract.
fn naive(logits: &[f32], beside: &Beside<'_>, position: u32, s: &SamplingParams) -> u32 {
    let Beside {
        before,
        output_start,
        biases,
        mask,
    } = *beside;
    if logits.iter().any(|l| !l.is_finite()) || logits.iter().all(|l| *l == 0.0) {
        return BROKEN_LOGITS;
    }
    let mut t = logits.to_vec();
    let mut penalized = vec![false; t.len()];
    for &token in before {
        if !std::mem::replace(&mut penalized[token as usize], true) {
            let l = &mut t[token as usize];
            *l = if *l > 0.0 {
                *l / s.repetition_penalty
            } else {
                *l * s.repetition_penalty
            };
        }
    }
    for (token, t) in t.iter_mut().enumerate() {
        let output = before.iter().skip(output_start as usize);
        let count = output.filter(|of| **of as usize == token).count();
        if count > 0 {
            *t -= s.frequency_penalty * count.min(65_535) as f32;
            *t -= s.presence_penalty;
        }
        for &(_, bias) in biases.iter().filter(|bias| bias.0 as usize == token) {
            *t += bias;
        }
    }
    let factor = 1.0 / s.temperature;
    let greedy = factor.is_infinite();
    if !greedy {
        t.iter_mut().for_each(|t| *t *= factor);
    }
    let is_allowed = |i: &usize| mask.is_empty() || mask[i / 32] >> (i % 32) & 1 == 1;
    let mut order: Vec<usize> = (0..t.len()).filter(is_allowed).collect();
    order.sort_by(|a, b| t[*b].partial_cmp(&t[*a]).unwrap().then(a.cmp(b)));
    let first = order[0];
    if greedy {
        return first as u32;
    }
    let top = t[first];
    if s.top_k > 0 {
        order.truncate(s.top_k as usize);
    }
    let weight = |i: usize| {
        let share = if t[i] == top {
            1.0
        } else {
            exp2((t[i] - top) * std::f32::consts::LOG2_E)
        };
        (share * 2f32.powi(32)) as u64
    };
    if s.top_p < 1.0 {
        let total: u64 = order.iter().map(|i| weight(*i)).sum();
        let wanted = ((f64::from(s.top_p) * total as f64).ceil() as u64).clamp(1, total);
        let mut sum = 0;
        let enough = order.iter().position(|i| {
            sum += weight(*i);
            sum >= wanted
        });
        order.truncate(enough.unwrap() + 1);
    }
    let least = (s.min_p * 2f32.powi(32)) as u64;
    order.retain(|i| s.min_p == 0.0 || weight(*i) >= least);
    let score = |i: usize| {
        let words = philox(s.seed, [i as u32 / 4, position, s.choice, 0]);
        t[i] + probe::function("gumbel", &[f32::from_bits(words[i % 4])])[0]
    };
    order.sort_unstable();
    let mut best = order[0];
    let mut best_score = score(best);
    for &i in &order[1..] {
        let this = score(i);
        if this > best_score {
            (best, best_score) = (i, this);
        }
    }
    best as u32
}

/// Logits with ties, zeros of both signs and some far from the others; seldom a NaN or an infinity.
fn logits(rng: &mut Rng, n: usize) -> Vec<f32> {
    let mut l: Vec<f32> = (0..n)
        .map(|_| (rng.signed() * 24.0).round() / 4.0)
        .collect();
    for _ in 0..n / 16 {
        let i = rng.below(n as u64) as usize;
        l[i] = [0.0, -0.0, -3e38, -1e9, 6.0][rng.below(5) as usize];
    }
    if rng.below(20) == 0 {
        let i = rng.below(n as u64) as usize;
        l[i] = [f32::NAN, f32::NEG_INFINITY, f32::INFINITY][rng.below(3) as usize];
    }
    l
}

#[test]
fn draws_follow_the_contract() {
    let mut rng = Rng(1);
    for round in 0..1500u32 {
        let n = [1usize, 2, 3, 5, 64, 97, 300][rng.below(7) as usize];
        let l = logits(&mut rng, n);
        let before: Vec<u32> = (0..rng.below(9))
            .map(|_| rng.below(n as u64) as u32)
            .collect();
        let mut pick = |values: &[f32]| values[rng.below(values.len() as u64) as usize];
        let s = SamplingParams {
            temperature: pick(&[0.0, 0.3, 0.7, 1.0, 2.0]),
            top_p: pick(&[1.0, 1.0, 0.95, 0.5, 0.01]),
            top_k: pick(&[0.0, 0.0, 1.0, 2.0, 7.0, 40.0, 1e6]) as u32,
            min_p: pick(&[0.0, 0.0, 0.05, 0.5, 1.0]),
            repetition_penalty: pick(&[1.0, 1.0, 1.3, 2.0, 0.5]),
            frequency_penalty: pick(&[0.0, 0.0, 0.3, 2.0, -2.0]),
            presence_penalty: pick(&[0.0, 0.0, 0.1, 2.0, -1.5]),
            choice: pick(&[0.0, 0.0, 1.0, 15.0]) as u32,
            seed: rng.next(),
        };
        // One in two, one in four, … of the tokens, and one of them for certain.
        let mut mask = vec![u32::MAX; n.div_ceil(32)];
        for _ in 0..rng.below(4) {
            mask.iter_mut().for_each(|word| *word &= rng.next() as u32);
        }
        let certain = rng.below(n as u64) as usize;
        mask[certain / 32] |= 1 << (certain % 32);
        if rng.below(2) == 0 {
            mask.clear();
        }
        // Of none, or of one in `of`.
        let (of, any) = (1 + rng.below(8), rng.below(2) == 0);
        let biased = (0..n as u32).filter(|id| any && id.is_multiple_of(of as u32));
        let biases: Vec<(u32, f32)> = biased.map(|id| (id, rng.signed() * 20.0)).collect();
        let beside = Beside {
            before: &before,
            output_start: rng.below(12) as u32,
            biases: &biases,
            mask: &mask,
        };
        let expected = naive(&l, &beside, round, &s);
        assert_eq!(
            probe::draw_beside(&l, &beside, round, &s),
            expected,
            "{s:?} {beside:?} of {l:?}"
        );
    }
}

#[test]
fn greedy_takes_the_lowest_of_equal_logits() {
    let greedy = |l: &[f32]| probe::draw(l, &[], &[], 0, &SamplingParams::GREEDY);
    assert_eq!(greedy(&[1.0, 3.0, 3.0, 2.0]), 1);
    assert_eq!(greedy(&[-0.0, 0.0, -1.0]), 0);
    assert_eq!(greedy(&[0.0, -0.0, -1.0]), 0);
    assert_eq!(greedy(&[-5.0, f32::MIN, -4.0]), 2);
    let tiny = SamplingParams {
        temperature: 1e-40,
        ..FREE
    };
    assert_eq!(probe::draw(&[1.0, 2.0, 0.0], &[], &[], 0, &tiny), 1);
}

#[test]
fn nothing_is_drawn_from_logits_of_which_one_is_not_finite_or_all_are_zero() {
    let filtered = SamplingParams {
        top_k: 5,
        top_p: 0.9,
        min_p: 0.1,
        ..FREE
    };
    let penalized = SamplingParams {
        repetition_penalty: 1.3,
        ..SamplingParams::GREEDY
    };
    for s in [SamplingParams::GREEDY, FREE, filtered, penalized] {
        let draw = |l: &[f32]| probe::draw(l, &[1], &[], 0, &s);
        for n in [1, 2, 31, 32, 33, 500] {
            assert_eq!(draw(&vec![0.0; n.max(2)]), BROKEN_LOGITS, "{n} {s:?}");
            assert_eq!(draw(&vec![-0.0; n.max(2)]), BROKEN_LOGITS, "{n} {s:?}");
            for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                for at in [0, n / 2, n - 1] {
                    let mut l = vec![1.0; n.max(2)];
                    l[at] = value;
                    assert_eq!(draw(&l), BROKEN_LOGITS, "{value} at {at} of {n} {s:?}");
                }
            }
            let mut l = vec![0.0; n.max(2)];
            l[n / 2] = -f32::MIN_POSITIVE / 4.0;
            assert!(draw(&l) < n.max(2) as u32, "{n} {s:?}");
        }
    }
}

#[test]
fn the_penalty_counts_a_token_once_and_pushes_both_signs_down() {
    let s = SamplingParams {
        repetition_penalty: 2.0,
        ..SamplingParams::GREEDY
    };
    assert_eq!(probe::draw(&[1.9, 1.0, 0.9], &[0, 0, 0], &[], 0, &s), 1);
    assert_eq!(probe::draw(&[2.1, 1.0, 0.9], &[0, 0, 0], &[], 0, &s), 0);
    assert_eq!(probe::draw(&[-1.0, -1.9], &[0], &[], 0, &s), 1);
}

#[test]
fn penalties_for_the_output_count_its_tokens_and_not_the_prompt() {
    let s = |frequency_penalty, presence_penalty| SamplingParams {
        frequency_penalty,
        presence_penalty,
        ..SamplingParams::GREEDY
    };
    // Token 0 three times, once in the prompt.
    let draw = |of_first, output_start, s: &SamplingParams| {
        let beside = Beside {
            before: &[0, 2, 0, 0],
            output_start,
            ..Beside::default()
        };
        probe::draw_beside(&[of_first, 1.0, -9.0], &beside, 4, s)
    };
    assert_eq!(draw(1.99, 1, &s(0.5, 0.0)), 1);
    assert_eq!(draw(2.01, 1, &s(0.5, 0.0)), 0);
    assert_eq!(draw(2.01, 0, &s(0.5, 0.0)), 1);
    assert_eq!(draw(1.49, 0, &s(0.0, 0.5)), 1);
    assert_eq!(draw(1.51, 0, &s(0.0, 0.5)), 0);
    assert_eq!(draw(1.51, 0, &s(0.25, 0.5)), 1);
    assert_eq!(draw(1.01, 4, &s(2.0, 2.0)), 0);
    assert_eq!(draw(1.01, u32::MAX, &s(2.0, 2.0)), 0);
    // Below 0 they help.
    assert_eq!(draw(0.01, 1, &s(-0.5, 0.0)), 0);
}

#[test]
fn a_count_is_no_larger_than_16_bits_hold() {
    let s = SamplingParams {
        frequency_penalty: 2f32.powi(-16),
        ..SamplingParams::GREEDY
    };
    let l = [1.0, 2f32.powi(-16), 0.0];
    let draw = |count: usize| probe::draw(&l, &vec![0; count], &[], 0, &s);
    // 1 - 65534 / 65536 is above 1 / 65536, 1 - 65535 / 65536 is equal to it: the lower id.
    assert_eq!([65_534, 65_535, 65_536, 70_000].map(draw), [0; 4]);
    let second = [1.0, 2f32.powi(-16) * 1.5, 0.0];
    assert_eq!(probe::draw(&second, &vec![0; 65_534], &[], 0, &s), 0);
    assert_eq!(probe::draw(&second, &vec![0; 65_535], &[], 0, &s), 1);
}

#[test]
fn biases_are_added_after_penalties_and_count_for_every_draw() {
    let penalized = SamplingParams {
        repetition_penalty: 2.0,
        ..SamplingParams::GREEDY
    };
    let draw = |l: &[f32], biases: &[(u32, f32)], s: &SamplingParams| {
        let beside = Beside {
            before: &[0],
            biases,
            ..Beside::default()
        };
        probe::draw_beside(l, &beside, 0, s)
    };
    // 8 / 2 + 1 and not (8 + 1) / 2.
    assert_eq!(draw(&[8.0, 4.75], &[(0, 1.0)], &penalized), 0);
    assert_eq!(draw(&[8.0, 5.25], &[(0, 1.0)], &penalized), 1);
    let filtered = SamplingParams {
        top_p: 0.5,
        top_k: 3,
        ..FREE
    };
    let l = [5.0, 6.0, 7.0, 4.0];
    for s in [SamplingParams::GREEDY, FREE, filtered] {
        for id in 0..4 {
            assert_eq!(draw(&l, &[(id, 100.0)], &s), id, "{s:?}");
        }
        let all_but_3 = [(0, -100.0), (1, -100.0), (2, -100.0)];
        assert_eq!(draw(&l, &all_but_3, &s), 3, "{s:?}");
    }
    // What is broken stays so, and what is made zero is not.
    assert_eq!(draw(&[f32::NAN, 1.0], &[(0, 1.0)], &FREE), BROKEN_LOGITS);
    assert_eq!(draw(&[0.0, 0.0], &[(0, 1.0)], &FREE), BROKEN_LOGITS);
    assert_eq!(draw(&[0.0, 3.0], &[(1, -3.0)], &SamplingParams::GREEDY), 0);
}

#[test]
fn filters_keep_what_they_say() {
    // p = 1/2, 1/4, 1/8, 1/8
    let l: Vec<f32> = [8.0f32, 4.0, 2.0, 2.0].iter().map(|p| p.ln()).collect();
    let sampled = |s: &SamplingParams| -> Vec<u32> {
        let mut all: Vec<u32> = (0..400).map(|p| probe::draw(&l, &[], &[], p, s)).collect();
        all.sort_unstable();
        all.dedup();
        all
    };
    assert_eq!(sampled(&FREE), [0, 1, 2, 3]);
    assert_eq!(sampled(&SamplingParams { top_k: 2, ..FREE }), [0, 1]);
    assert_eq!(sampled(&SamplingParams { top_k: 3, ..FREE }), [0, 1, 2]);
    assert_eq!(
        sampled(&SamplingParams {
            top_p: 0.49,
            ..FREE
        }),
        [0]
    );
    assert_eq!(sampled(&SamplingParams { top_p: 0.7, ..FREE }), [0, 1]);
    assert_eq!(sampled(&SamplingParams { top_p: 0.8, ..FREE }), [0, 1, 2]);
    assert_eq!(sampled(&SamplingParams { min_p: 0.3, ..FREE }), [0, 1]);
    assert_eq!(sampled(&SamplingParams { min_p: 1.0, ..FREE }), [0]);
    // top-p counts what top-k has left: 2/3 and 1/3.
    assert_eq!(
        sampled(&SamplingParams {
            top_k: 2,
            top_p: 0.6,
            ..FREE
        }),
        [0]
    );
}

#[test]
fn noise_is_philox_through_the_gumbel_quantile() {
    assert_eq!(
        philox(0, [0; 4]),
        [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]
    );
    let mut rng = Rng(3);
    let words: Vec<u32> = (0..200_000)
        .map(|i| if i < 5000 { i } else { rng.next() as u32 })
        .collect();
    let bits: Vec<f32> = words.iter().map(|w| f32::from_bits(*w)).collect();
    let mut worst = 0f64;
    for (word, g) in words.iter().zip(probe::function("gumbel", &bits)) {
        // Near 1, v itself is a binary32 with few digits behind the last nine; from 2^-8 on, 1 - v has
        // lost digits of v.
        if *word < u32::MAX - (1 << 16) {
            let v = (f64::from(*word) + 0.5) / 2f64.powi(32);
            let lost = if v < 2f64.powi(-8) {
                6e-6
            } else {
                2f64.powi(-24) / v
            };
            let tolerance = 2e-6 + lost + 2f64.powi(-24) / (1.0 - v);
            let off = (f64::from(g) - exact_gumbel(*word)).abs();
            assert!(off < tolerance, "{word:#x}: {g}, off by {off:e}");
            worst = worst.max(off / tolerance);
        }
    }
    println!("largest error: {worst:.2} of the tolerance");
}

/// Chi-square of 40 000 samples against the probabilities, with 15 degrees of freedom: 44 is passed by
/// chance once in ten thousand times; the seeds are fixed, so never or always.
fn chi_square(draw: impl Fn(u32) -> u32, probabilities: &[f64]) -> f64 {
    const DRAWS: u32 = 40_000;
    let mut counts = vec![0f64; probabilities.len()];
    (0..DRAWS).for_each(|i| counts[draw(i) as usize] += 1.0);
    let expected = probabilities.iter().map(|p| p * f64::from(DRAWS));
    counts
        .iter()
        .zip(expected)
        .map(|(n, e)| (n - e) * (n - e) / e)
        .sum()
}

#[test]
fn draws_are_distributed_like_the_softmax_over_positions_and_over_seeds() {
    let mut rng = Rng(4);
    let l: Vec<f32> = (0..16).map(|_| rng.signed() * 1.5).collect();
    for temperature in [0.7f32, 1.0, 1.8] {
        let w: Vec<f64> = l.iter().map(|l| f64::from(l / temperature).exp()).collect();
        let total: f64 = w.iter().sum();
        let p: Vec<f64> = w.iter().map(|w| w / total).collect();
        let s = SamplingParams {
            temperature,
            seed: 99,
            ..FREE
        };
        let positions = chi_square(|i| probe::draw(&l, &[], &[], i, &s), &p);
        let over = |i: u32| SamplingParams {
            seed: u64::from(i) << 20,
            ..s
        };
        let seeds = chi_square(|i| probe::draw(&l, &[], &[], 5, &over(i)), &p);
        println!("temperature {temperature}: chi-square {positions:.1} and {seeds:.1}");
        assert!(positions < 44.0 && seeds < 44.0, "{positions} {seeds}");
    }
}

#[test]
fn a_large_vocabulary_is_drawn_from_as_by_the_book() {
    let mut rng = Rng(5);
    let l: Vec<f32> = (0..20_011).map(|_| rng.signed() * 9.0).collect();
    let s = [
        FREE,
        SamplingParams {
            top_k: 50,
            seed: 1,
            ..FREE
        },
        SamplingParams {
            top_p: 0.9,
            temperature: 0.8,
            seed: 2,
            ..FREE
        },
        SamplingParams {
            min_p: 0.1,
            top_k: 1000,
            top_p: 0.99,
            seed: 3,
            ..FREE
        },
    ];
    for s in s {
        for position in 0..3 {
            let found = probe::draw(&l, &[3, 4, 5], &[], position, &s);
            let beside = Beside {
                before: &[3, 4, 5],
                ..Beside::default()
            };
            assert_eq!(found, naive(&l, &beside, position, &s), "{s:?}");
        }
    }
}

#[test]
fn logprobs_are_logarithms_of_shares() {
    let mut rng = Rng(5);
    let mut worst = 0f64;
    for _ in 0..300 {
        let n = [1usize, 2, 5, 97, 3000][rng.below(5) as usize];
        let scale = [0.01, 1.0, 4.0, 30.0][rng.below(4) as usize];
        let mut l: Vec<f32> = (0..n).map(|_| rng.signed() * scale).collect();
        // Ties among the best.
        l[rng.below(n as u64) as usize] = l[rng.below(n as u64) as usize];
        let top = l.iter().copied().fold(f32::MIN, f32::max);
        let sum: f64 = l.iter().map(|v| f64::from(v - top).exp()).sum();
        let exact = |id: u32| f64::from(l[id as usize] - top) - sum.ln();
        let token = rng.below(n as u64) as u32;
        let wanted = n.min(rng.below(21) as usize);
        let (of_token, best) = probe::logprobs(&l, token, wanted);
        let mut order: Vec<u32> = (0..n as u32).collect();
        order.sort_by(|a, b| {
            let (x, y) = (l[*a as usize], l[*b as usize]);
            y.partial_cmp(&x).unwrap().then(a.cmp(b))
        });
        let ids: Vec<u32> = best.iter().map(|b| b.0).collect();
        assert_eq!(ids, order[..wanted]);
        for (id, found) in best.into_iter().chain([(token, of_token)]) {
            let error = (f64::from(found) - exact(id)).abs() / exact(id).abs().max(1.0);
            worst = worst.max(error);
        }
    }
    println!("largest error of a logprob: {worst:.1e}");
    assert!(worst < 2e-6, "{worst}");
}

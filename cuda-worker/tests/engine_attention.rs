//! Rotation and attention of the CPU backend: to the bit against the contract written once more in plain Rust, and near
//! to a softmax in binary64.

#![allow(clippy::unwrap_used)] // a panic is a failing test with a place

mod engine_support;

use cuda_worker::probe::{self, AttentionParams, Form, Heads};
use engine_support::{Rng, assert_same};

/// Rotated in binary64, from the file's definition of either style.
fn rotated(x: &[f32], position: usize, heads: &Heads) -> Vec<f64> {
    let n = heads.dim as usize;
    let mut out: Vec<f64> = x.iter().map(|v| f64::from(*v)).collect();
    for head in out.chunks_mut(n) {
        for i in 0..n / 2 {
            let factor = heads.factors.get(i).map_or(1.0, |f| f64::from(*f));
            let angle = position as f64 * heads.base.powf(-2.0 * i as f64 / n as f64) / factor;
            let (a, b) = if heads.interleaved {
                (2 * i, 2 * i + 1)
            } else {
                (i, i + n / 2)
            };
            let (x0, x1) = (head[a], head[b]);
            head[a] = x0 * angle.cos() - x1 * angle.sin();
            head[b] = x0 * angle.sin() + x1 * angle.cos();
        }
    }
    out
}

/// A head as integers, and their scale.
type Integers = (Vec<i64>, f32);

/// Of up to `most`.
fn integers(x: &[f32], most: f32) -> Integers {
    let top = x.iter().fold(0f32, |m, x| m.max(x.abs()));
    let scale = top / most;
    let inverse = 1.0 / scale;
    let integers = x.iter().map(|x| (x * inverse).round_ties_even() as i64);
    (integers.collect(), scale)
}

fn pow2(k: f32) -> f32 {
    if k >= -126.0 {
        2f32.powi(k as i32)
    } else {
        0.0
    }
}

/// 2^x, of 2^-64 at least.
fn exp2(x: &[f32]) -> Vec<f32> {
    let bounded: Vec<f32> = x.iter().map(|x| x.max(-64.0)).collect();
    probe::function("exp2", &bounded)
}

/// What a weight is in the sum of the weights.
fn sum_weight(p: f32) -> i64 {
    (p * 2f32.powi(21)).round_ties_even() as i64
}

/// A maximum, the sum of the weights below it, and the weighted values.
type Part = (f32, f32, Vec<f32>);

/// Appends a part, whose values are multiples of `unit`.
fn combined((m0, l0, o0): Part, (m, l, o): Part, unit: f32) -> Part {
    let top = m0.max(m);
    let (a, b) = (pow2(m0 - top), pow2(m - top));
    let o = (o0.iter().zip(&o)).map(|(o0, o)| o.mul_add(b * unit, o0 * a));
    (top, l.mul_add(b, l0 * a), o.collect())
}

/// Scores of base 2 from products and what they are scaled by.
fn capped(x: Vec<f32>, cap: f32) -> Vec<f32> {
    if cap == 0.0 {
        return x;
    }
    let inverse = 1.0 / cap;
    let x: Vec<f32> = x.iter().map(|x| x * inverse).collect();
    let tanh = probe::function("tanh", &x);
    tanh.iter()
        .map(|t| cap * t * std::f32::consts::LOG2_E)
        .collect()
}

/// One split: its part and the unit of its values.
fn split(q: &Integers, q_scale: f32, cap: f32, k: &[Integers], v: &[Integers]) -> (Part, f32) {
    let t = k.iter().map(|(k, k_scale)| {
        let dot: i64 = q.0.iter().zip(k).map(|(q, k)| q * k).sum();
        dot as f32 * (q_scale * k_scale)
    });
    let t = capped(t.collect(), cap);
    let largest = v.iter().fold(0f32, |m, (_, scale)| m.max(*scale));
    let unit = 2f32.powi(f64::from(largest).log2().ceil() as i32 - 14);
    let m = t.iter().fold(f32::NEG_INFINITY, |m, t| m.max(*t)).ceil();
    let below: Vec<f32> = t.iter().map(|t| t - m).collect();
    let p = exp2(&below);
    let sum: i64 = p.iter().map(|p| sum_weight(*p)).sum();
    let weights = (p.iter().zip(v)).map(|(p, (_, d))| (p * d / unit).round_ties_even() as i64);
    let weights: Vec<i64> = weights.collect();
    let of = |d: usize| -> i64 { weights.iter().zip(v).map(|(w, (v, _))| w * v[d]).sum() };
    let o = (0..q.0.len()).map(|d| of(d) as f32).collect();
    ((m, sum as f32, o), unit)
}

/// `x` cut at multiples of `size` of the index that its first element has elsewhere.
fn pieces<T>(x: &[T], first: usize, size: usize) -> impl Iterator<Item = &[T]> {
    let head = (size - first % size).min(x.len());
    std::iter::once(&x[..head]).chain(x[head..].chunks(size))
}

/// Attention of one head by the contract: `k` and `v` are the keys that it sees, `first` the position of their first.
fn attended(
    q: &[f32],
    (k, v): (&[Integers], &[Integers]),
    first: usize,
    (cap, sink): (f32, Option<f32>),
) -> Vec<f32> {
    let root = (q.len() as f64).sqrt();
    let scale = if cap == 0.0 {
        std::f64::consts::LOG2_E / root
    } else {
        1.0 / root
    };
    let q = integers(q, 2047.0);
    let q_scale = q.1 * scale as f32;
    let run = |(i, (k, v)): (usize, (&[Integers], &[Integers]))| -> Part {
        let first = if i == 0 { first } else { 0 };
        let splits = pieces(k, first, 64).zip(pieces(v, first, 64));
        let mut splits = splits.map(|(k, v)| split(&q, q_scale, cap, k, v));
        let ((m, l, o), unit) = splits.next().unwrap();
        let first = (m, l, o.iter().map(|o| o * unit).collect());
        splits.fold(first, |run, (next, unit)| combined(run, next, unit))
    };
    let runs = pieces(k, first, 256).zip(pieces(v, first, 256)).enumerate();
    let sink = sink.map(|b| {
        let t = b * std::f32::consts::LOG2_E;
        let weight = sum_weight(exp2(&[t - t.ceil()])[0]);
        (t.ceil(), weight as f32, vec![0.0; q.0.len()])
    });
    let parts = runs.map(run).chain(sink);
    let (_, l, o) = parts.reduce(|all, run| combined(all, run, 1.0)).unwrap();
    let inverse = 1.0 / (l * 2f32.powi(-21));
    o.iter().map(|o| o * inverse).collect()
}

/// A sequence of random rows, rotated by the engine and attended from row `first` on.
struct Sequence {
    heads: Heads,
    params: AttentionParams,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    out: Vec<f32>,
}

impl Sequence {
    fn attend(
        form: Form,
        heads: &Heads,
        params: &AttentionParams,
        n: usize,
        first: usize,
        seed: u64,
    ) -> Self {
        let mut rng = Rng(seed);
        let (qw, kw) = (
            (heads.q * heads.dim) as usize,
            (heads.kv * heads.dim) as usize,
        );
        let (mut q, mut k, mut v) = (rng.floats(n * qw), rng.floats(n * kw), rng.floats(n * kw));
        q.iter_mut().for_each(|x| *x *= 0.125); // so that many keys weigh something
        let (q0, k0) = (q.clone(), k.clone());
        let out = probe::attend(form, heads, params, first, &mut q, &mut k, &mut v);
        for (before, after, width) in [(&q0, &q, qw), (&k0, &k, kw)] {
            let rows = before.chunks(width).zip(after.chunks(width));
            for (p, (x, y)) in rows.enumerate().skip(first) {
                for (exact, y) in rotated(x, p, heads).iter().zip(y) {
                    assert!(
                        (exact - f64::from(*y)).abs() < 4e-6,
                        "position {p}: {exact} {y}"
                    );
                }
            }
        }
        Self {
            heads: heads.clone(),
            params: params.clone(),
            q,
            k,
            v,
            out,
        }
    }

    fn width(&self) -> usize {
        (self.heads.q * self.heads.dim) as usize
    }

    /// One KV head of all keys, or values.
    fn of_kv_head<'a>(&self, x: &'a [f32], kv_head: usize) -> impl Iterator<Item = &'a [f32]> {
        let dim = self.heads.dim as usize;
        let rows = x.chunks(self.heads.kv as usize * dim);
        rows.map(move |row| &row[kv_head * dim..][..dim])
    }

    /// The first key that row p sees.
    fn first_seen(&self, p: usize) -> usize {
        match self.params.window as usize {
            0 => 0,
            window => (p + 1).saturating_sub(window),
        }
    }

    /// Head h of row p, from either q or the results.
    fn head<'a>(&self, x: &'a [f32], p: usize, h: usize) -> &'a [f32] {
        let dim = self.heads.dim as usize;
        &x[p * self.width() + h * dim..][..dim]
    }

    /// Holds the rows to the contract.
    fn check(&self, rows: &[usize], what: &str) {
        let per = (self.heads.q / self.heads.kv) as usize;
        for kv_head in 0..self.heads.kv as usize {
            let of = |x, most| -> Vec<Integers> {
                self.of_kv_head(x, kv_head)
                    .map(|head| integers(head, most))
                    .collect()
            };
            let (k, v) = (of(&self.k, 2047.0), of(&self.v, 127.0));
            for &p in rows {
                let first = self.first_seen(p);
                for h in kv_head * per..(kv_head + 1) * per {
                    let sink = self.params.sinks.get(h).copied();
                    let expected = attended(
                        self.head(&self.q, p, h),
                        (&k[first..=p], &v[first..=p]),
                        first,
                        (self.params.soft_cap, sink),
                    );
                    assert_same(
                        self.head(&self.out, p, h),
                        &expected,
                        format!("{what} {:?} position {p} head {h}", self.heads),
                    );
                }
            }
        }
    }

    /// Holds the rows to a softmax in binary64, as far as 12 and 8 bits go.
    fn check_near(&self, rows: &[usize]) {
        let per = (self.heads.q / self.heads.kv) as usize;
        let dot = |a: &[f32], b: &[f32]| -> f64 {
            (a.iter().zip(b))
                .map(|(a, b)| f64::from(*a) * f64::from(*b))
                .sum()
        };
        let cap = f64::from(self.params.soft_cap);
        for &p in rows {
            for h in 0..self.heads.q as usize {
                let seen = |x| {
                    self.of_kv_head(x, h / per)
                        .skip(self.first_seen(p))
                        .take(p + 1 - self.first_seen(p))
                };
                let q = self.head(&self.q, p, h);
                let t = seen(&self.k).map(|k| dot(q, k) / (q.len() as f64).sqrt());
                let w = t.map(|t| {
                    if cap == 0.0 {
                        t
                    } else {
                        cap * (t / cap).tanh()
                    }
                    .exp()
                });
                let w: Vec<f64> = w.collect();
                let sink = self
                    .params
                    .sinks
                    .get(h)
                    .map_or(0.0, |b| f64::from(*b).exp());
                let total = w.iter().sum::<f64>() + sink;
                let largest = seen(&self.v).flatten().fold(0f32, |m, v| m.max(v.abs()));
                for (d, found) in self.head(&self.out, p, h).iter().enumerate() {
                    let values = w
                        .iter()
                        .zip(seen(&self.v))
                        .map(|(w, v)| w * f64::from(v[d]));
                    let exact = values.sum::<f64>() / total;
                    assert!(
                        (exact - f64::from(*found)).abs() < 0.005 * f64::from(largest),
                        "{:?} {:?} position {p} head {h} value {d}: {exact}, found {found}",
                        self.heads,
                        self.params
                    );
                }
            }
        }
    }
}

/// What computes with quantized heads: all but the form that only products have.
fn forms() -> Vec<Form> {
    let exact = Form::exact().into_iter();
    exact.filter(|f| *f != Form::Reference).collect()
}

fn check(heads: &Heads, params: &AttentionParams, n: usize, seed: u64) {
    let rows: Vec<usize> = (0..n)
        .filter(|p| p % 7 == 0 || p + 3 > n || p % 64 < 2)
        .collect();
    for form in forms() {
        Sequence::attend(form, heads, params, n, 0, seed)
            .check(&rows, &format!("{form:?} {params:?}"));
    }
}

fn heads(q: u32, kv: u32, dim: u32, interleaved: bool) -> Heads {
    Heads {
        q,
        kv,
        dim,
        interleaved,
        base: 10_000.0,
        factors: Vec::new(),
    }
}

fn window(window: u32) -> AttentionParams {
    AttentionParams {
        window,
        ..AttentionParams::default()
    }
}

/// Sinks of all sizes: some take nearly all weight, some none.
fn sinks(n: u32) -> Vec<f32> {
    (0..n)
        .map(|h| [1.5, -40.0, 4.25, 0.0, 30.0][h as usize % 5])
        .collect()
}

#[test]
fn rotation_and_attention_follow_the_contract() {
    let plain = AttentionParams::default();
    check(&heads(14, 2, 64, false), &plain, 70, 1);
    check(&heads(2, 2, 32, true), &plain, 130, 2);
    check(&heads(5, 1, 80, false), &plain, 66, 3);
    check(&heads(3, 1, 10, true), &plain, 20, 4);
    check(&heads(4, 1, 32, false), &plain, 600, 6);
    let factors = (0..16).map(|i| 1.0 + i as f32 / 4.0).collect();
    let heads = Heads {
        factors,
        ..heads(4, 4, 32, true)
    };
    check(&heads, &plain, 40, 5);
}

#[test]
fn windows_soft_caps_and_sinks_follow_the_contract_for_each_head_size() {
    for (seed, dim) in [64, 80, 96, 128, 256].into_iter().enumerate() {
        let heads = heads(3, 1, dim, dim == 96);
        let (window, soft_cap, sinks) = (100, 5.0, sinks(3));
        let none = AttentionParams::default();
        let all = [
            none.clone(),
            AttentionParams {
                window,
                ..none.clone()
            },
            AttentionParams {
                soft_cap,
                ..none.clone()
            },
            AttentionParams {
                sinks: sinks.clone(),
                ..none
            },
            AttentionParams {
                window,
                soft_cap,
                sinks,
            },
        ];
        for params in all {
            check(&heads, &params, 330, 20 + seed as u64);
        }
    }
}

#[test]
fn windows_end_anywhere_in_splits_and_runs() {
    let heads = heads(2, 1, 32, false);
    for w in [1, 2, 3, 63, 64, 65, 127, 128, 255, 256, 257, 600, 601] {
        let all_rows: Vec<usize> = (0..600).collect();
        for form in forms() {
            let sequence = Sequence::attend(form, &heads, &window(w), 600, 0, u64::from(w));
            sequence.check(&all_rows, &format!("{form:?} window {w}"));
        }
    }
}

#[test]
fn windows_that_are_never_full_change_no_bit() {
    let heads = heads(4, 2, 64, false);
    for form in forms() {
        let of = |w| Sequence::attend(form, &heads, &window(w), 300, 0, 7).out;
        for w in [300, 301, u32::MAX] {
            assert_same(&of(w), &of(0), format!("{form:?} window {w}"));
        }
        assert_ne!(of(2), of(0), "most rows see other keys");
    }
}

#[test]
fn one_to_sixteen_query_heads_share_a_kv_head() {
    for group in 1..=16 {
        let params = AttentionParams {
            window: 70,
            soft_cap: 20.0,
            sinks: sinks(2 * group),
        };
        for params in [AttentionParams::default(), params] {
            check(
                &heads(2 * group, 2, 32, false),
                &params,
                140,
                40 + u64::from(group),
            );
        }
    }
}

#[test]
fn results_are_near_to_a_softmax_in_binary64() {
    for (i, dim) in [64, 80, 96, 128, 256].into_iter().enumerate() {
        for params in [
            AttentionParams::default(),
            window(90),
            AttentionParams {
                soft_cap: 2.0,
                ..window(0)
            },
            AttentionParams {
                sinks: sinks(6),
                ..window(0)
            },
            AttentionParams {
                window: 37,
                soft_cap: 1.0,
                sinks: sinks(6),
            },
        ] {
            let heads = heads(6, 2, dim, false);
            let sequence = Sequence::attend(Form::Portable, &heads, &params, 300, 0, 60 + i as u64);
            sequence.check_near(&[0, 1, 36, 37, 100, 298, 299]);
        }
    }
}

#[test]
fn contexts_of_131_072_tokens_are_attended() {
    let n = 131_072;
    let heads = Heads {
        base: 1e6,
        ..heads(2, 1, 64, false)
    };
    let all = AttentionParams {
        window: 100_000,
        soft_cap: 30.0,
        sinks: vec![1.0, 9.0],
    };
    for (params, form) in [AttentionParams::default(), window(4096), all]
        .iter()
        .zip(forms().into_iter().cycle())
    {
        let sequence = Sequence::attend(form, &heads, params, n, n - 2, 11);
        sequence.check(&[n - 2, n - 1], &format!("{form:?} {params:?}"));
        sequence.check_near(&[n - 1]);
    }
}

#[test]
fn each_query_head_reads_the_key_head_of_its_group() {
    // Values that name their head: whatever the weights, the output must be that name.
    let heads = Heads {
        base: 1e6,
        ..heads(14, 2, 64, false)
    };
    let mut rng = Rng(9);
    let n = 9;
    let (mut q, mut k) = (rng.floats(n * 14 * 64), rng.floats(n * 2 * 64));
    let mut v: Vec<f32> = (0..n * 128)
        .map(|i| if i % 128 < 64 { 1.0 } else { 2.0 })
        .collect();
    let params = AttentionParams::default();
    let out = probe::attend(Form::Portable, &heads, &params, 0, &mut q, &mut k, &mut v);
    for (i, o) in out.iter().enumerate() {
        let expected = if i % (14 * 64) / 64 < 7 { 1.0 } else { 2.0 };
        assert!(
            (o - expected).abs() < 1e-3,
            "head {} gave {o}",
            i % 896 / 64
        );
    }
}

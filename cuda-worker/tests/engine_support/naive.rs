//! The model in binary64, straight from the file's dequantized weights: no cache, no batches, nothing
//! shared with the engine but the formats.

use std::f64::consts::PI;

use cuda_worker::weights_plan::{
    Activation, LayerKind, ModelPlan, Role, RopeScaling, RopeSpec, RopeStyle,
};
use orcd_shared::gguf::GgufFile;

use super::dequantized;

/// A matrix (rows, cols).
struct Matrix {
    cols: usize,
    w: Vec<f64>,
}

impl Matrix {
    fn times(&self, x: &[f64]) -> Vec<f64> {
        self.w
            .chunks(self.cols)
            .map(|row| row.iter().zip(x).map(|(w, x)| w * x).sum())
            .collect()
    }

    /// The product, and a bias where there is one.
    fn times_plus(&self, x: &[f64], bias: Option<&Matrix>) -> Vec<f64> {
        let mut y = self.times(x);
        if let Some(bias) = bias {
            y.iter_mut().zip(&bias.w).for_each(|(y, b)| *y += b);
        }
        y
    }
}

pub struct Naive<'a> {
    file: &'a GgufFile,
    plan: &'a ModelPlan,
    /// Of experts that tie takes the last, which is wrong.
    pub takes_last_of_ties: bool,
}

impl<'a> Naive<'a> {
    pub fn new(file: &'a GgufFile, plan: &'a ModelPlan) -> Self {
        Self {
            file,
            plan,
            takes_last_of_ties: false,
        }
    }

    fn optional(&self, role: Role, layer: u32) -> Option<Matrix> {
        let t = self
            .plan
            .tensors
            .iter()
            .find(|t| t.role == role && t.layer == layer)?;
        let raw = synth_model::tensor_data(self.file, &t.info).unwrap();
        let rows = raw.chunks(raw.len() / t.rows as usize);
        let w = rows
            .flat_map(|row| dequantized(t.info.ty, row))
            .map(f64::from)
            .collect();
        Some(Matrix {
            cols: t.cols as usize,
            w,
        })
    }

    fn matrix(&self, role: Role, layer: u32) -> Matrix {
        self.optional(role, layer).unwrap()
    }

    /// What the file has for an expert, or for all where there are none.
    fn part(&self, role: Role, layer: u32, expert: usize) -> Option<Matrix> {
        let all = self.optional(role, layer)?;
        let each = all.w.len() / self.plan.shape.n_experts.max(1) as usize;
        Some(Matrix {
            cols: all.cols,
            w: all.w[expert * each..][..each].to_vec(),
        })
    }

    fn norm(&self, x: &[f64], role: Role, layer: u32) -> Vec<f64> {
        self.normed(x, &self.matrix(role, layer))
    }

    fn normed(&self, x: &[f64], weights: &Matrix) -> Vec<f64> {
        let mean = x.iter().map(|v| v * v).sum::<f64>() / x.len() as f64;
        let inv = 1.0 / (mean + f64::from(self.plan.shape.rms_eps)).sqrt();
        x.iter().zip(&weights.w).map(|(x, w)| x * inv * w).collect()
    }

    fn kind(&self, layer: u32) -> &LayerKind {
        let shape = &self.plan.shape;
        let is_second = shape.second_kind[layer as usize / 64] >> (layer % 64) & 1;
        &shape.kinds[is_second as usize]
    }

    /// Adds what a part gives to the residual stream.
    fn add(&self, x: &mut [f64], y: Vec<f64>, norm: Role, layer: u32) {
        let y = match self.optional(norm, layer) {
            Some(weights) => self.normed(&y, &weights),
            None => y,
        };
        let scale = f64::from(self.plan.shape.residual_scale);
        x.iter_mut().zip(y).for_each(|(x, y)| *x += scale * y);
    }

    /// Logits after every token of a sequence that gets no others.
    pub fn logits(&self, tokens: &[u32]) -> Vec<Vec<f64>> {
        let shape = &self.plan.shape;
        let embedding = self.matrix(Role::TokenEmbedding, 0);
        let d = shape.d_model as usize;
        let scaled = |x: &f64| x * f64::from(shape.embedding_scale);
        let of_token = |t: &u32| &embedding.w[*t as usize * d..][..d];
        let mut x: Vec<Vec<f64>> = tokens
            .iter()
            .map(|t| of_token(t).iter().map(scaled).collect())
            .collect();
        for layer in 0..shape.n_layers {
            self.attention(&mut x, layer);
            let experts: Vec<FeedForward> = (0..shape.n_experts.max(1) as usize)
                .map(|expert| self.feed_forward(layer, expert))
                .collect();
            for x in &mut x {
                let n = self.norm(x, Role::FfnNorm, layer);
                let mut sum = vec![0.0; d];
                for (expert, weight) in self.chosen(&n, layer) {
                    let y = experts[expert].of(&n, shape.activation);
                    sum.iter_mut().zip(y).for_each(|(s, y)| *s += weight * y);
                }
                self.add(x, sum, Role::PostFfnNorm, layer);
            }
        }
        let output = self.optional(Role::Output, 0).unwrap_or(embedding);
        let output_bias = self.optional(Role::OutputBias, 0);
        let (scale, cap) = (
            f64::from(shape.logit_scale),
            f64::from(shape.logit_soft_cap),
        );
        let finished = |x: &Vec<f64>| {
            let n = self.norm(x, Role::OutputNorm, 0);
            let logits = output.times_plus(&n, output_bias.as_ref());
            logits.iter().map(|l| capped(l * scale, cap)).collect()
        };
        x.iter().map(finished).collect()
    }

    fn feed_forward(&self, layer: u32, expert: usize) -> FeedForward {
        let part = |role| self.part(role, layer, expert);
        FeedForward {
            gate: part(Role::FfnGate).unwrap(),
            up: part(Role::FfnUp).unwrap(),
            down: part(Role::FfnDown).unwrap(),
            gate_bias: part(Role::FfnGateBias),
            up_bias: part(Role::FfnUpBias),
            down_bias: part(Role::FfnDownBias),
        }
    }

    /// The experts that take a row, and their weights, in the order of their ranks.
    fn chosen(&self, normed: &[f64], layer: u32) -> Vec<(usize, f64)> {
        let shape = &self.plan.shape;
        let Some(router) = self.optional(Role::Router, layer) else {
            return vec![(0, 1.0)];
        };
        let bias = self.optional(Role::RouterBias, layer);
        let logits = router.times_plus(normed, bias.as_ref());
        let mut order: Vec<usize> = (0..logits.len()).collect();
        if self.takes_last_of_ties {
            order.reverse();
        }
        // Stable: the first of those that tie goes before.
        order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
        order.truncate(shape.n_experts_used as usize);
        let mass = |e: &usize| (logits[*e] - logits[order[0]]).exp();
        let total: f64 = order.iter().map(mass).sum();
        let weight = |e: &usize| mass(e) / total * f64::from(shape.expert_scale);
        order.iter().map(|e| (*e, weight(e))).collect()
    }

    fn attention(&self, x: &mut [Vec<f64>], layer: u32) {
        let shape = &self.plan.shape;
        let kind = self.kind(layer);
        let (hd, per) = (
            shape.head_dim as usize,
            (shape.n_heads / shape.n_kv_heads) as usize,
        );
        let is_long = kind.rope.scaling == RopeScaling::LongRope
            && x.len() > kind.rope.original_context as usize;
        let factors = match is_long {
            true => self.optional(Role::LongRopeFreqs, 0),
            false => self.optional(Role::RopeFreqs, 0),
        };
        let rotation = Rotation::of(&kind.rope, factors.as_ref());
        let project = |weight, bias, norm: Option<Role>| -> Vec<Vec<f64>> {
            let (w, bias) = (self.matrix(weight, layer), self.optional(bias, layer));
            let norm_weights = norm.and_then(|role| self.optional(role, layer));
            let rows = x.iter().enumerate().map(|(position, x)| {
                let mut y = w.times_plus(&self.norm(x, Role::AttnNorm, layer), bias.as_ref());
                for head in y.chunks_mut(hd).filter(|_| norm.is_some()) {
                    if let Some(weights) = &norm_weights {
                        let normed = self.normed(head, weights);
                        head.copy_from_slice(&normed);
                    }
                    rotation.turn(head, position);
                }
                y
            });
            rows.collect()
        };
        let q = project(Role::AttnQ, Role::AttnQBias, Some(Role::AttnQNorm));
        let k = project(Role::AttnK, Role::AttnKBias, Some(Role::AttnKNorm));
        let v = project(Role::AttnV, Role::AttnVBias, None);
        let output = self.matrix(Role::AttnOutput, layer);
        let output_bias = self.optional(Role::AttnOutputBias, layer);
        let sinks = self.optional(Role::AttnSinks, layer);
        let scale = match shape.attention_scale {
            0.0 => 1.0 / (hd as f64).sqrt(),
            scale => scale,
        };
        let cap = f64::from(shape.attention_soft_cap);
        for (p, x) in x.iter_mut().enumerate() {
            let first = match kind.window as usize {
                0 => 0,
                window => (p + 1).saturating_sub(window),
            };
            let grown = self.query_scale(p);
            let mut all = Vec::new();
            for h in 0..shape.n_heads as usize {
                let (q, at) = (&q[p][h * hd..][..hd], h / per * hd);
                let dot = |k: &Vec<f64>| q.iter().zip(&k[at..]).map(|(q, k)| q * k).sum::<f64>();
                let t: Vec<f64> = k[first..=p]
                    .iter()
                    .map(|k| capped(dot(k) * grown * scale, cap))
                    .collect();
                let sink = sinks.as_ref().map_or(f64::NEG_INFINITY, |s| s.w[h]);
                let top = t.iter().fold(sink, |m, t| m.max(*t));
                let w: Vec<f64> = t.iter().map(|t| (t - top).exp()).collect();
                let total: f64 = w.iter().sum::<f64>() + (sink - top).exp();
                let v = &v[first..=p];
                let mix = |d| w.iter().zip(v).map(|(w, v)| w * v[at + d]).sum::<f64>() / total;
                all.extend((0..hd).map(mix));
            }
            let y = output.times_plus(&all, output_bias.as_ref());
            self.add(x, y, Role::PostAttnNorm, layer);
        }
    }

    /// What a query at this position is multiplied by.
    fn query_scale(&self, position: usize) -> f64 {
        let shape = &self.plan.shape;
        if shape.query_scale == 0.0 {
            return 1.0;
        }
        let contexts = position / shape.query_scale_context as usize;
        1.0 + shape.query_scale * (1.0 + contexts as f64).ln()
    }
}

/// A feed-forward part, or an expert.
struct FeedForward {
    gate: Matrix,
    up: Matrix,
    down: Matrix,
    gate_bias: Option<Matrix>,
    up_bias: Option<Matrix>,
    down_bias: Option<Matrix>,
}

impl FeedForward {
    fn of(&self, x: &[f64], activation: Activation) -> Vec<f64> {
        let gate = self.gate.times_plus(x, self.gate_bias.as_ref());
        let up = self.up.times_plus(x, self.up_bias.as_ref());
        let both = gate.iter().zip(&up);
        let h: Vec<f64> = both.map(|(g, u)| gated(activation, *g, *u)).collect();
        self.down.times_plus(&h, self.down_bias.as_ref())
    }
}

fn gated(activation: Activation, g: f64, u: f64) -> f64 {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    match activation {
        Activation::GeGlu => {
            let inner = (2.0 / PI).sqrt() * (g + 0.044_715 * g.powi(3));
            0.5 * g * (1.0 + inner.tanh()) * u
        }
        Activation::ClampedSwiGlu => {
            let (x, y) = (g.min(7.0), u.clamp(-7.0, 7.0));
            x * sigmoid(1.702 * x) * (y + 1.0)
        }
        _ => g * sigmoid(g) * u,
    }
}

/// `x` under a soft cap; 0 is none.
fn capped(x: f64, cap: f64) -> f64 {
    if cap == 0.0 {
        x
    } else {
        cap * (x / cap).tanh()
    }
}

/// A layer's rotation.
struct Rotation {
    style: RopeStyle,
    /// Radians per position, by pair.
    frequencies: Vec<f64>,
    /// Multiplies cosines and sines.
    magnitude: f64,
}

impl Rotation {
    fn of(rope: &RopeSpec, divisors: Option<&Matrix>) -> Self {
        let n = 2.0 * f64::from(rope.pairs);
        let frequency = |i: u32| {
            let divisor = divisors.map_or(1.0, |d| d.w[i as usize]);
            let plain = rope.base.powf(-2.0 * f64::from(i) / n) / divisor;
            match rope.scaling {
                RopeScaling::Linear => plain / rope.factor,
                RopeScaling::Yarn => {
                    let part = stretched(rope, i);
                    plain / rope.factor * part + plain * (1.0 - part)
                }
                _ => plain,
            }
        };
        let magnitude = match rope.scaling {
            RopeScaling::Yarn => {
                let m = |multiplier: f64| 0.1 * multiplier * rope.factor.max(1.0).ln() + 1.0;
                rope.attn_factor * m(1.0) / m(rope.log_multiplier)
            }
            _ => rope.attn_factor,
        };
        Self {
            style: rope.style,
            frequencies: (0..rope.pairs).map(frequency).collect(),
            magnitude,
        }
    }

    fn turn(&self, head: &mut [f64], position: usize) {
        let pairs = self.frequencies.len();
        for (i, frequency) in self.frequencies.iter().enumerate() {
            let (sin, cos) = (position as f64 * frequency).sin_cos();
            let (sin, cos) = (sin * self.magnitude, cos * self.magnitude);
            let (a, b) = if self.style == RopeStyle::Interleaved {
                (2 * i, 2 * i + 1)
            } else {
                (i, i + pairs)
            };
            (head[a], head[b]) = (head[a] * cos - head[b] * sin, head[a] * sin + head[b] * cos);
        }
    }
}

/// How far YaRN divides the frequency of a pair: 0 not at all, 1 by the whole factor.
fn stretched(rope: &RopeSpec, pair: u32) -> f64 {
    let n = 2.0 * f64::from(rope.pairs);
    // The pair that makes so many turns in the context of the training.
    let pair_of = |turns: f64| {
        let wave = f64::from(rope.original_context) / (turns * 2.0 * PI);
        n * wave.ln() / (2.0 * rope.base.ln())
    };
    let (mut low, mut high) = (pair_of(rope.beta_fast), pair_of(rope.beta_slow));
    if rope.rounds_bounds {
        (low, high) = (low.floor(), high.ceil());
    }
    (low, high) = (low.max(0.0), high.min(n - 1.0));
    if low == high {
        high += 0.001;
    }
    ((f64::from(pair) - low) / (high - low)).clamp(0.0, 1.0)
}

/// Largest difference over the largest logit.
pub fn relative_error(found: &[f32], exact: &[f64]) -> f64 {
    let top = exact.iter().fold(0f64, |m, v| m.max(v.abs()));
    let worst = found
        .iter()
        .zip(exact)
        .fold(0f64, |m, (f, e)| m.max((f64::from(*f) - e).abs()));
    worst / top
}

/// KL divergence of two rows of logits, nats.
pub fn divergence(exact: &[f64], found: &[f32]) -> f64 {
    let found: Vec<f64> = found.iter().map(|v| f64::from(*v)).collect();
    let log_sum = |x: &[f64]| {
        let top = x.iter().fold(f64::NEG_INFINITY, |m, v| m.max(*v));
        top + x.iter().map(|v| (v - top).exp()).sum::<f64>().ln()
    };
    let (a, b) = (log_sum(exact), log_sum(&found));
    exact
        .iter()
        .zip(&found)
        .map(|(e, f)| (e - a).exp() * ((e - a) - (f - b)))
        .sum()
}

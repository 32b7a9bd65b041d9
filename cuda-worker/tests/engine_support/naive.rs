//! The model in binary64, straight from the file's dequantized weights: no cache, no batches, nothing
//! shared with the engine but the formats.

use cuda_worker::weights_plan::{ModelPlan, Role, RopeStyle};
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
}

impl<'a> Naive<'a> {
    pub fn new(file: &'a GgufFile, plan: &'a ModelPlan) -> Self {
        Self { file, plan }
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

    fn norm(&self, x: &[f64], role: Role, layer: u32) -> Vec<f64> {
        let mean = x.iter().map(|v| v * v).sum::<f64>() / x.len() as f64;
        let inv = 1.0 / (mean + f64::from(self.plan.shape.rms_eps)).sqrt();
        x.iter()
            .zip(&self.matrix(role, layer).w)
            .map(|(x, w)| x * inv * w)
            .collect()
    }

    fn rotate(&self, x: &mut [f64], position: usize, factors: Option<&Matrix>) {
        let (shape, rope) = (&self.plan.shape, &self.plan.shape.kinds[0].rope);
        let n = shape.head_dim as usize;
        for head in x.chunks_mut(n) {
            for i in 0..n / 2 {
                let factor = factors.map_or(1.0, |f| f.w[i]);
                let exponent = -2.0 * i as f64 / n as f64;
                let (sin, cos) = (position as f64 * rope.base.powf(exponent) / factor).sin_cos();
                let (a, b) = if rope.style == RopeStyle::Interleaved {
                    (2 * i, 2 * i + 1)
                } else {
                    (i, i + n / 2)
                };
                (head[a], head[b]) = (head[a] * cos - head[b] * sin, head[a] * sin + head[b] * cos);
            }
        }
    }

    /// Logits after every token.
    pub fn logits(&self, tokens: &[u32]) -> Vec<Vec<f64>> {
        let shape = &self.plan.shape;
        let embedding = self.matrix(Role::TokenEmbedding, 0);
        let d = shape.d_model as usize;
        let mut x: Vec<Vec<f64>> = tokens
            .iter()
            .map(|t| embedding.w[*t as usize * d..][..d].to_vec())
            .collect();
        for layer in 0..shape.n_layers {
            self.attention(&mut x, layer);
            let (gate, up) = (
                self.matrix(Role::FfnGate, layer),
                self.matrix(Role::FfnUp, layer),
            );
            let down = self.matrix(Role::FfnDown, layer);
            let bias = |role| self.optional(role, layer);
            let (gate_bias, up_bias, down_bias) = (
                bias(Role::FfnGateBias),
                bias(Role::FfnUpBias),
                bias(Role::FfnDownBias),
            );
            for x in &mut x {
                let n = self.norm(x, Role::FfnNorm, layer);
                let h: Vec<f64> = gate
                    .times_plus(&n, gate_bias.as_ref())
                    .iter()
                    .zip(up.times_plus(&n, up_bias.as_ref()))
                    .map(|(g, u)| g / (1.0 + (-g).exp()) * u)
                    .collect();
                x.iter_mut()
                    .zip(down.times_plus(&h, down_bias.as_ref()))
                    .for_each(|(x, y)| *x += y);
            }
        }
        let output = self.optional(Role::Output, 0).unwrap_or(embedding);
        let output_bias = self.optional(Role::OutputBias, 0);
        x.iter()
            .map(|x| output.times_plus(&self.norm(x, Role::OutputNorm, 0), output_bias.as_ref()))
            .collect()
    }

    fn attention(&self, x: &mut [Vec<f64>], layer: u32) {
        let shape = &self.plan.shape;
        let (hd, per) = (
            shape.head_dim as usize,
            (shape.n_heads / shape.n_kv_heads) as usize,
        );
        let factors = self.optional(Role::RopeFreqs, 0);
        let project = |weight, bias, rotate: bool| -> Vec<Vec<f64>> {
            let (w, bias) = (self.matrix(weight, layer), self.optional(bias, layer));
            let rows = x.iter().enumerate().map(|(position, x)| {
                let mut y = w.times_plus(&self.norm(x, Role::AttnNorm, layer), bias.as_ref());
                if rotate {
                    self.rotate(&mut y, position, factors.as_ref());
                }
                y
            });
            rows.collect()
        };
        let q = project(Role::AttnQ, Role::AttnQBias, true);
        let k = project(Role::AttnK, Role::AttnKBias, true);
        let v = project(Role::AttnV, Role::AttnVBias, false);
        let output = self.matrix(Role::AttnOutput, layer);
        let output_bias = self.optional(Role::AttnOutputBias, layer);
        for (p, x) in x.iter_mut().enumerate() {
            let mut all = Vec::new();
            for h in 0..shape.n_heads as usize {
                let (q, at) = (&q[p][h * hd..][..hd], h / per * hd);
                let dot = |k: &Vec<f64>| q.iter().zip(&k[at..]).map(|(q, k)| q * k).sum::<f64>();
                let t: Vec<f64> = k[..=p]
                    .iter()
                    .map(|k| dot(k) / (hd as f64).sqrt())
                    .collect();
                let top = t.iter().fold(f64::NEG_INFINITY, |m, t| m.max(*t));
                let w: Vec<f64> = t.iter().map(|t| (t - top).exp()).collect();
                let total: f64 = w.iter().sum();
                let mix = |d| w.iter().zip(&v).map(|(w, v)| w * v[at + d]).sum::<f64>() / total;
                all.extend((0..hd).map(mix));
            }
            x.iter_mut()
                .zip(output.times_plus(&all, output_bias.as_ref()))
                .for_each(|(x, y)| *x += y);
        }
    }
}

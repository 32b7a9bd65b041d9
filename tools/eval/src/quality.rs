//! What one row of logits says of the next token, and how far another row is from it.

/// Sums over the rows of a text.
#[derive(Debug, Default, Clone)]
pub(crate) struct Quality {
    /// Rows.
    pub(crate) rows: u32,
    /// Nats: −log of what the exact rows give the token that follows.
    exact_loss: f64,
    /// The same of the rows that were found.
    loss: f64,
    /// Nats, of each row.
    divergences: Vec<f64>,
    agreed: u32,
}

impl Quality {
    /// Adds a row whose token is `next`; `exact` and `found` are logits (vocabulary).
    pub(crate) fn add(&mut self, exact: &[f32], found: &[f32], next: u32) {
        let (a, b) = (log_sum(exact), log_sum(found));
        let pairs = exact.iter().zip(found);
        let divergence = pairs
            .map(|(&e, &f)| (f64::from(e) - a, f64::from(f) - b))
            .map(|(e, f)| e.exp() * (e - f))
            .sum();
        self.rows += 1;
        self.exact_loss += a - f64::from(exact[next as usize]);
        self.loss += b - f64::from(found[next as usize]);
        self.divergences.push(divergence);
        self.agreed += u32::from(argmax(exact) == argmax(found));
    }

    /// Mean nats from the exact rows to those found.
    #[must_use]
    pub(crate) fn divergence(&self) -> f64 {
        self.divergences.iter().sum::<f64>() / f64::from(self.rows)
    }

    /// Standard error of [`Quality::divergence`].
    #[must_use]
    pub(crate) fn divergence_error(&self) -> f64 {
        let mean = self.divergence();
        let squares: f64 = self.divergences.iter().map(|d| (d - mean).powi(2)).sum();
        squares.sqrt() / f64::from(self.rows)
    }

    /// The largest of a row.
    #[must_use]
    pub(crate) fn largest_divergence(&self) -> f64 {
        self.divergences.iter().copied().fold(0.0, f64::max)
    }

    /// Perplexity of the exact rows.
    #[must_use]
    pub(crate) fn exact_perplexity(&self) -> f64 {
        (self.exact_loss / f64::from(self.rows)).exp()
    }

    /// Perplexity of the rows that were found.
    #[must_use]
    pub(crate) fn perplexity(&self) -> f64 {
        (self.loss / f64::from(self.rows)).exp()
    }

    /// Share of the rows whose most likely token is the same.
    #[must_use]
    pub(crate) fn agreement(&self) -> f64 {
        f64::from(self.agreed) / f64::from(self.rows)
    }
}

fn argmax(x: &[f32]) -> usize {
    (0..x.len()).fold(0, |best, i| if x[i] > x[best] { i } else { best })
}

/// log Σ exp, in binary64.
fn log_sum(x: &[f32]) -> f64 {
    let top = f64::from(x.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = x.iter().map(|v| (f64::from(*v) - top).exp()).sum();
    top + sum.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_measured_against_the_exact_one() {
        let mut quality = Quality::default();
        let (exact, found) = ([0.0_f32; 4], [2.0_f32.ln(), 0.0, 0.0, 0.0]);
        quality.add(&exact, &exact, 3);
        assert_eq!((quality.divergence(), quality.agreement()), (0.0, 1.0));
        assert!((quality.perplexity() - 4.0).abs() < 1e-6);

        let mut quality = Quality::default();
        quality.add(&exact, &found, 1);
        // ¼·ln(¼ / 2⁄5) + ¾·ln(¼ / 1⁄5)
        let expected = 0.25 * 0.625_f64.ln() + 0.75 * 1.25_f64.ln();
        assert!((quality.divergence() - expected).abs() < 1e-6);
        assert!((quality.perplexity() - 5.0).abs() < 1e-6);
        assert!((quality.exact_perplexity() - 4.0).abs() < 1e-6);
        assert_eq!(quality.largest_divergence(), quality.divergence());
    }
}

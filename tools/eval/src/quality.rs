//! What one row of logits says of the next token, and how far another row is from it.

use crate::Failure;

/// Logits of one position, and what is asked of them more than once.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    /// (vocabulary)
    logits: Vec<f32>,
    /// log Σ exp, in binary64.
    log_sum: f64,
    /// The most likely token.
    best: usize,
}

impl Row {
    /// Looks at all of them once.
    pub(crate) fn new(logits: Vec<f32>) -> Self {
        let best = argmax(&logits);
        let top = f64::from(logits.get(best).copied().unwrap_or_default());
        let sum: f64 = logits.iter().map(|v| (f64::from(*v) - top).exp()).sum();
        Self {
            logits,
            log_sum: top + sum.ln(),
            best,
        }
    }

    /// Nats: −log of what the row gives a token.
    fn loss(&self, token: u32) -> Result<f64, Failure> {
        let logit = self.logits.get(token as usize);
        let logit = logit.ok_or_else(|| {
            format!(
                "the text has token {token}, a row has {} logits",
                self.logits.len()
            )
        })?;
        Ok(self.log_sum - f64::from(*logit))
    }

    /// Nats from this row to another one.
    fn divergence(&self, found: &Self) -> Result<f64, Failure> {
        let (n, m) = (self.logits.len(), found.logits.len());
        if n != m {
            return Err(format!("rows of {n} and of {m} logits can't be compared").into());
        }
        let pairs = self.logits.iter().zip(&found.logits);
        Ok(pairs
            .map(|(e, f)| (f64::from(*e) - self.log_sum, f64::from(*f) - found.log_sum))
            .map(|(e, f)| e.exp() * (e - f))
            .sum())
    }
}

/// Sums over the rows of a text.
#[derive(Debug, Default, Clone)]
pub(crate) struct Quality {
    /// Rows.
    pub(crate) rows: u32,
    /// Nats: −log of what the exact rows give the token that follows.
    exact_loss: f64,
    /// Nats, of each row: how much less what was found gives it.
    excesses: Vec<f64>,
    /// Nats, of each row.
    divergences: Vec<f64>,
    agreed: u32,
}

impl Quality {
    /// Adds a row whose token is `next`.
    ///
    /// # Errors
    /// The rows are of different vocabularies, or of one without that token.
    pub(crate) fn add(&mut self, exact: &Row, found: &Row, next: u32) -> Result<(), Failure> {
        let divergence = exact.divergence(found)?;
        let (exact_loss, loss) = (exact.loss(next)?, found.loss(next)?);
        self.exact_loss += exact_loss;
        self.excesses.push(loss - exact_loss);
        self.rows += 1;
        self.divergences.push(divergence);
        self.agreed += u32::from(exact.best == found.best);
        Ok(())
    }

    /// Mean nats from the exact rows to those found.
    #[must_use]
    pub(crate) fn divergence(&self) -> f64 {
        mean(&self.divergences)
    }

    /// Standard error of [`Quality::divergence`].
    #[must_use]
    pub(crate) fn divergence_error(&self) -> f64 {
        mean_error(&self.divergences)
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
        self.exact_perplexity() * self.ratio()
    }

    /// [`Quality::perplexity`] as a multiple of [`Quality::exact_perplexity`].
    #[must_use]
    pub(crate) fn ratio(&self) -> f64 {
        mean(&self.excesses).exp()
    }

    /// Standard error of [`Quality::ratio`], which is of the same tokens.
    #[must_use]
    pub(crate) fn ratio_error(&self) -> f64 {
        self.ratio() * mean_error(&self.excesses)
    }

    /// Share of the rows whose most likely token is the same.
    #[must_use]
    pub(crate) fn agreement(&self) -> f64 {
        f64::from(self.agreed) / f64::from(self.rows)
    }
}

/// The index of the largest value, the first of several.
pub(crate) fn argmax(x: &[f32]) -> usize {
    (0..x.len()).fold(0, |best, i| if x[i] > x[best] { i } else { best })
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Standard error of [`mean`].
fn mean_error(values: &[f64]) -> f64 {
    let mean = mean(values);
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    squares.sqrt() / values.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(logits: &[f32]) -> Row {
        Row::new(logits.to_vec())
    }

    #[test]
    fn a_row_is_measured_against_the_exact_one() -> Result<(), Failure> {
        let mut quality = Quality::default();
        let (exact, found) = (row(&[0.0; 4]), row(&[2.0_f32.ln(), 0.0, 0.0, 0.0]));
        quality.add(&exact, &exact, 3)?;
        assert_eq!((quality.divergence(), quality.agreement()), (0.0, 1.0));
        assert!((quality.perplexity() - 4.0).abs() < 1e-6);

        let mut quality = Quality::default();
        quality.add(&exact, &found, 1)?;
        // ¼·ln(¼ / 2⁄5) + ¾·ln(¼ / 1⁄5)
        let expected = 0.25 * 0.625_f64.ln() + 0.75 * 1.25_f64.ln();
        assert!((quality.divergence() - expected).abs() < 1e-6);
        assert!((quality.perplexity() - 5.0).abs() < 1e-6);
        assert!((quality.exact_perplexity() - 4.0).abs() < 1e-6);
        assert_eq!(quality.largest_divergence(), quality.divergence());
        assert!((quality.ratio() - 1.25).abs() < 1e-6);
        assert_eq!(quality.ratio_error(), 0.0);
        Ok(())
    }

    #[test]
    fn the_error_of_the_ratio_is_that_of_losses_on_the_same_tokens() -> Result<(), Failure> {
        let mut quality = Quality::default();
        let (exact, found) = (row(&[0.0; 4]), row(&[2.0_f32.ln(), 0.0, 0.0, 0.0]));
        quality.add(&exact, &found, 0)?;
        quality.add(&exact, &found, 1)?;
        // Excesses: ln(5⁄8) and ln(5⁄4), which are ln 2 apart.
        assert!((quality.ratio() - (25.0_f64 / 32.0).sqrt()).abs() < 1e-6);
        let expected = quality.ratio() * 2.0_f64.ln() / 8.0_f64.sqrt();
        assert!((quality.ratio_error() - expected).abs() < 1e-6);
        Ok(())
    }

    #[test]
    fn rows_of_other_vocabularies_are_refused_and_not_counted() {
        let mut quality = Quality::default();
        let (four, three) = (row(&[0.0; 4]), row(&[0.0; 3]));
        assert!(quality.add(&four, &three, 1).is_err());
        assert!(quality.add(&three, &three, 3).is_err());
        assert_eq!(quality.rows, 0);
    }
}

//! Pre-tokenizers: how a text is cut into the pieces inside which byte pairs are merged.

mod names;
mod split;

use names::Rules;
pub use names::{PreTokenizerName, UnknownPreTokenizer};
pub(super) use split::Split;
use split::Stage;

use super::TokenizerError;

/// Cuts a text into pieces; nothing is lost between them.
pub(super) struct PreTokenizer {
    pub(super) rules: Rules,
    stages: Vec<Stage>,
}

impl PreTokenizer {
    /// The one of that name.
    ///
    /// # Errors
    /// Its expressions don't compile, which a test rules out.
    pub(super) fn new(name: PreTokenizerName) -> Result<Self, TokenizerError> {
        let rules = name.rules();
        let stages = rules.split.stages();
        Ok(Self {
            rules,
            stages: stages.map_err(|e| TokenizerError::Bpe(Box::new(e)))?,
        })
    }

    /// Gives each piece of `text` to `each`, in order; their concatenation is `text`.
    pub(super) fn cut<'t, E>(
        &self,
        text: &'t str,
        each: &mut impl FnMut(&'t str) -> Result<(), E>,
    ) -> Result<(), E> {
        cut(&self.stages, text, each)
    }
}

/// Cuts `text` by the first of `stages`, its pieces by the others.
fn cut<'t, E>(
    stages: &[Stage],
    text: &'t str,
    each: &mut impl FnMut(&'t str) -> Result<(), E>,
) -> Result<(), E> {
    let Some((stage, finer)) = stages.split_first() else {
        return each(text);
    };
    stage
        .pieces(text)
        .try_for_each(|piece| cut(finer, piece, each))
}

#[cfg(test)]
mod tests;

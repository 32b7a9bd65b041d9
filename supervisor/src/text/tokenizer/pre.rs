//! Pre-tokenizers: how a text is cut into the pieces inside which byte pairs are merged.

mod names;
mod split;

use names::Rules;
use split::{Split, Stage};

use super::TokenizerError;

/// Cuts a text into pieces; nothing is lost between them.
pub(super) struct PreTokenizer {
    pub(super) rules: Rules,
    stages: Vec<Stage>,
}

impl PreTokenizer {
    /// The pre-tokenizer that `tokenizer.ggml.pre` calls `name`; without a name the format's
    /// default.
    ///
    /// # Errors
    /// [`TokenizerError::UnknownPre`].
    pub(super) fn new(name: Option<&str>) -> Result<Self, TokenizerError> {
        let name = name.unwrap_or(names::DEFAULT);
        let rules = names::find(name).ok_or_else(|| TokenizerError::UnknownPre {
            pre: name.to_owned(),
            nearest: names::nearest(name),
        })?;
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

//! Where logits come from.

use crate::Failure;

/// Logits (vocabulary) after each token of a window, in its order.
pub(crate) type Rows<'a> = Box<dyn Iterator<Item = Result<Vec<f32>, Failure>> + 'a>;

/// What has logits for windows of a text: an engine, a file, another program.
pub(crate) trait Source {
    /// The rows of a window, which knows nothing of those before it.
    ///
    /// # Errors
    /// The window is longer than the context, or the source has come to its end.
    fn rows<'a>(&'a mut self, window: &'a [u32]) -> Result<Rows<'a>, Failure>;
}

//! What is said about a vocabulary that leaves something open.

use orcd_shared::gguf::Metadata;
use orcd_shared::vocab::Vocab;

use super::Model;
use super::bpe::Bpe;

/// A sentence for each default that was taken and each thing that is missing.
pub(super) fn of(metadata: &Metadata, vocab: &Vocab<'_>, model: &Model) -> Vec<String> {
    let mut notes = Vec::new();
    if vocab.types_absent {
        notes.push(
            "`tokenizer.ggml.token_type` is absent: all tokens are taken for text but those that \
             other keys or well-known names make special"
                .to_owned(),
        );
    }
    match model {
        Model::Bpe(bpe) => {
            if Bpe::is_unnamed(metadata) {
                notes.push(
                    "`tokenizer.ggml.pre` is absent: texts are cut as `default` has it, which \
                     need not be how the model was trained"
                        .to_owned(),
                );
            }
            if !bpe.missing_bytes.is_empty() {
                notes.push(missing(&bpe.missing_bytes));
            }
        }
        Model::Spm(spm) if spm.scores_absent => notes.push(
            "`tokenizer.ggml.scores` is absent: all tokens are taken to be equally probable"
                .to_owned(),
        ),
        Model::Spm(_) => {}
    }
    notes
}

fn missing(bytes: &[u8]) -> String {
    let list: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!(
        "the vocabulary has no token for {} bytes, which are dropped from texts: {}",
        bytes.len(),
        list.join(" ")
    )
}

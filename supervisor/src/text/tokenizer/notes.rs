//! What is said about a vocabulary that leaves something open.

use orcd_shared::gguf::Metadata;
use orcd_shared::vocab::Vocab;

use super::Model;
use super::bpe::Bpe;
use super::pre::PreTokenizerName;

/// A sentence for each default that was taken and each thing that is missing.
pub(super) fn of(
    metadata: &Metadata,
    vocab: &Vocab<'_>,
    model: &Model,
    insisted: Option<PreTokenizerName>,
) -> Vec<String> {
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
            notes.extend(pre_tokenizer(metadata, insisted));
            if !bpe.missing_bytes.is_empty() {
                notes.push(missing(&bpe.missing_bytes));
            }
        }
        Model::Spm(spm) => {
            if insisted.is_some() {
                notes.push(
                    "--pre-tokenizer changes nothing: a SentencePiece vocabulary has none"
                        .to_owned(),
                );
            }
            if spm.scores_absent {
                notes.push(
                    "`tokenizer.ggml.scores` is absent: all tokens are taken to be equally probable"
                        .to_owned(),
                );
            }
        }
    }
    notes
}

/// What is said of how texts are cut where the file alone does not say it.
fn pre_tokenizer(metadata: &Metadata, insisted: Option<PreTokenizerName>) -> Option<String> {
    let named = Bpe::name_of(metadata).ok().flatten();
    match (insisted, named) {
        (Some(insisted), Some(named)) if insisted.as_str() != named => Some(format!(
            "texts are cut as `{insisted}` has it, as --pre-tokenizer says; the file has `{named}`"
        )),
        (None, None) => Some(
            "`tokenizer.ggml.pre` is absent: texts are cut as `default` has it, which need not be \
             how the model was trained; --pre-tokenizer NAME names another way"
                .to_owned(),
        ),
        _ => None,
    }
}

fn missing(bytes: &[u8]) -> String {
    let list: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!(
        "the vocabulary has no token for {} bytes, which are dropped from texts: {}",
        bytes.len(),
        list.join(" ")
    )
}

//! Models by name, as the command line has them: `pull`, `list`, `rm`.

use std::io::{self, Write};

use model_store::progress::human_bytes;
use model_store::store::StoredModel;
use model_store::{Error, Store, pull};
use orcd_shared::exit::supervisor as exit;

use crate::config::Pull;

/// Digits of a commit that are shown.
const SHORT_COMMIT: usize = 12;

/// Why something with models failed.
#[derive(Debug, thiserror::Error)]
#[error("error: {code}: {0}", code = .0.code())]
pub struct ModelsError(#[from] pub Error);

impl ModelsError {
    /// The process's exit code.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self.0 {
            Error::Usage(_) => exit::USAGE,
            _ => exit::STARTUP_FAILED,
        }
    }
}

/// Pulls a model and says where it is.
///
/// # Errors
/// [`ModelsError`]
pub fn pull_and_show(wanted: &Pull, out: &mut impl Write) -> Result<(), ModelsError> {
    let model = pull(&wanted.settings, &wanted.name, &wanted.revision)?;
    let record = &model.record;
    let _ = writeln!(
        out,
        "pulled {} ({}, commit {}): {}",
        record.model_name(),
        human_bytes(record.bytes()),
        short(&record.commit),
        model.path.display()
    );
    Ok(())
}

/// Shows all models, a line each.
pub fn list(store: &Store, out: &mut impl Write) {
    let models = store.models();
    if models.is_empty() {
        let _ = writeln!(
            io::stderr(),
            "no model was pulled; `worker-orcd pull hf.co/OWNER/NAME` gets one"
        );
        return;
    }
    let names: Vec<_> = models
        .iter()
        .map(|model| model.record.model_name().to_string())
        .collect();
    let width = names.iter().map(String::len).max().unwrap_or(0);
    let _ = writeln!(
        out,
        "{:width$}  {:12}  {:>10}  COMMIT",
        "NAME", "QUANT", "SIZE"
    );
    for (name, model) in names.iter().zip(&models) {
        let _ = writeln!(out, "{name:width$}  {}", facts(model));
    }
}

fn facts(model: &StoredModel) -> String {
    let record = &model.record;
    let lack = if model.is_whole {
        ""
    } else {
        "  files are missing: pull it again"
    };
    let size = human_bytes(record.bytes());
    format!(
        "{:12}  {size:>10}  {}{lack}",
        record.quant,
        short(&record.commit)
    )
}

/// Removes a model and says how much that freed.
///
/// # Errors
/// [`ModelsError`]: there is none of that name, or it can't be removed.
pub fn remove(store: &Store, name: &str, out: &mut impl Write) -> Result<(), ModelsError> {
    let model = store.find(name)?;
    let removed = store.remove(&model)?;
    let _ = writeln!(out, "removed {}: {removed}", model.record.model_name());
    Ok(())
}

fn short(commit: &str) -> &str {
    commit.get(..SHORT_COMMIT).unwrap_or(commit)
}

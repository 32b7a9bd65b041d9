//! What is kept of a pulled model beside its files: `QUANT.json`.

use serde::{Deserialize, Serialize};

use crate::listing::{RemoteFile, is_commit};
use crate::name::{ModelName, RepoName, is_part};

/// Largest record that is read, in bytes: a thousand files have a third of it.
pub(crate) const MAX_BYTES: u64 = 1 << 20;
/// The form of the record.
const VERSION: u32 = 1;

/// A model that was pulled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    version: u32,
    /// Who owns the repository.
    pub owner: String,
    /// The repository's name.
    pub name: String,
    /// The quantization, upper case.
    pub quant: String,
    /// The commit that its files are of.
    pub commit: String,
    /// Its files, the first one first; there is one at least.
    pub files: Vec<RemoteFile>,
}

impl Record {
    /// Of files that were pulled.
    #[must_use]
    pub fn new(repo: &RepoName, quant: String, commit: String, files: Vec<RemoteFile>) -> Self {
        Self {
            version: VERSION,
            owner: repo.owner.clone(),
            name: repo.name.clone(),
            quant,
            commit,
            files,
        }
    }

    /// Reads one. It lay where others may write, so every name in it is checked again.
    #[must_use]
    pub fn parse(json: &[u8]) -> Option<Self> {
        let record: Self = serde_json::from_slice(json).ok()?;
        let is_sound = record.version == VERSION
            && record.repo().is_sound()
            && is_part(&record.quant)
            && is_commit(&record.commit)
            && !record.files.is_empty()
            && record.files.iter().all(RemoteFile::is_sound);
        is_sound.then_some(record)
    }

    /// The repository.
    #[must_use]
    pub fn repo(&self) -> RepoName {
        RepoName {
            owner: self.owner.clone(),
            name: self.name.clone(),
        }
    }

    /// Its full name.
    #[must_use]
    pub fn model_name(&self) -> ModelName {
        ModelName {
            repo: self.repo(),
            quant: Some(self.quant.clone()),
        }
    }

    /// Bytes of all files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files
            .iter()
            .fold(0, |sum, file| sum.saturating_add(file.bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let repo = RepoName {
            owner: "a".into(),
            name: "b".into(),
        };
        let file = RemoteFile {
            name: "m.gguf".into(),
            bytes: 3,
            sha256: "0".repeat(64),
        };
        Record::new(&repo, "Q4_0".into(), "c".repeat(40), vec![file])
    }

    #[test]
    fn a_record_is_read_as_it_was_written_and_refused_where_a_name_could_lead_elsewhere() {
        let json = serde_json::to_string(&record()).unwrap();
        assert_eq!(Record::parse(json.as_bytes()), Some(record()));
        for (from, to) in [
            ("\"m.gguf\"", "\"../m.gguf\""),
            ("\"a\"", "\"..\""),
            ("\"Q4_0\"", "\"/Q4_0\""),
            ("cccc", "../c"),
            ("\"version\":1", "\"version\":2"),
        ] {
            let changed = json.replace(from, to);
            assert_ne!(changed, json);
            assert_eq!(Record::parse(changed.as_bytes()), None, "{changed}");
        }
    }
}

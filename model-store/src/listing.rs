//! What the hub says of a repository: its commit and its files.

use serde::Deserialize;

use crate::error::Error;
use crate::name::{is_digest, is_file_name, is_gguf};

/// Digits of a commit's name.
const COMMIT_DIGITS: usize = 40;
/// Digits of a SHA-256.
const SHA256_DIGITS: usize = 64;
/// Largest file that is taken, in bytes: sums of all of a model's files stay far below what a `u64` holds.
const MAX_FILE_BYTES: u64 = 1 << 44;

/// A repository at one commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The commit, 40 digits.
    pub commit: String,
    /// Its model files that may be taken.
    pub files: Vec<RemoteFile>,
    /// Why other model files may not be taken, each with its name.
    pub refused: Vec<RefusedFile>,
}

/// A file as the hub has recorded it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, Deserialize)]
pub struct RemoteFile {
    /// Its name: one component of a path.
    pub name: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// The SHA-256 of its content, 64 digits.
    pub sha256: String,
}

/// A model file that may not be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedFile {
    /// Its name as the hub has it: it may hold anything.
    pub name: String,
    /// Why not.
    pub why: &'static str,
}

#[derive(Deserialize)]
struct Answer {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: String,
    size: Option<u64>,
}

impl Listing {
    /// Reads the hub's answer.
    ///
    /// # Errors
    /// [`Error::Hub`]: it is no such answer, or its commit is none.
    pub fn parse(json: &[u8]) -> Result<Self, Error> {
        let unusable = |why: String| Error::Hub(format!("the hub's answer can't be used: {why}"));
        let answer: Answer = serde_json::from_slice(json).map_err(|e| unusable(e.to_string()))?;
        if !is_digest(&answer.sha, COMMIT_DIGITS) {
            let shown = answer.sha.escape_default();
            return Err(unusable(format!("`{shown:.60}` is no commit")));
        }
        let mut listing = Self {
            commit: answer.sha,
            files: Vec::new(),
            refused: Vec::new(),
        };
        let models = answer
            .siblings
            .into_iter()
            .filter(|file| is_gguf(&file.rfilename));
        for sibling in models {
            match checked(&sibling) {
                Ok(file) => listing.files.push(file),
                Err(why) => listing.refused.push(RefusedFile {
                    name: sibling.rfilename,
                    why,
                }),
            }
        }
        Ok(listing)
    }
}

impl RemoteFile {
    /// Whether every part of it may be used as what it is.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        is_file_name(&self.name)
            && is_gguf(&self.name)
            && is_digest(&self.sha256, SHA256_DIGITS)
            && (1..=MAX_FILE_BYTES).contains(&self.bytes)
    }
}

fn checked(sibling: &Sibling) -> Result<RemoteFile, &'static str> {
    if !is_file_name(&sibling.rfilename) {
        return Err("its name is not that of a file in the repository's top folder");
    }
    let lfs = sibling.lfs.as_ref().ok_or("the hub has no SHA-256 of it")?;
    let file = RemoteFile {
        name: sibling.rfilename.clone(),
        bytes: lfs
            .size
            .or(sibling.size)
            .ok_or("the hub does not say its size")?,
        sha256: lfs.sha256.clone(),
    };
    file.is_sound()
        .then_some(file)
        .ok_or("its size or its SHA-256 can't be right")
}

/// Whether this is a commit's name.
#[must_use]
pub fn is_commit(text: &str) -> bool {
    is_digest(text, COMMIT_DIGITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(files: &str) -> Vec<u8> {
        format!(
            r#"{{"sha":"{}","x":1,"siblings":[{files}]}}"#,
            "a".repeat(40)
        )
        .into_bytes()
    }

    fn sibling(name: &str, size: u64, sha256: &str) -> String {
        let name = serde_json::to_string(name).unwrap();
        format!(
            r#"{{"rfilename":{name},"size":{size},"lfs":{{"sha256":"{sha256}","size":{size},"pointerSize":1}}}}"#
        )
    }

    #[test]
    fn model_files_are_taken_with_size_and_sum_and_others_passed_over() {
        let sum = "0".repeat(64);
        let files = [
            sibling("m.Q4_0.gguf", 7, &sum),
            r#"{"rfilename":"README.md"}"#.into(),
        ]
        .join(",");
        let listing = Listing::parse(&answer(&files)).unwrap();
        assert_eq!(listing.commit, "a".repeat(40));
        assert_eq!(
            listing.files,
            [RemoteFile {
                name: "m.Q4_0.gguf".into(),
                bytes: 7,
                sha256: sum
            }]
        );
        assert_eq!(listing.refused, []);
    }

    #[test]
    fn files_that_cannot_be_right_are_refused() {
        let sum = "0".repeat(64);
        for file in [
            sibling("../m.gguf", 7, &sum),
            sibling("Q4/m.gguf", 7, &sum),
            sibling("C:m.gguf", 7, &sum),
            sibling("a\u{1b}.gguf", 7, &sum),
            sibling("m.gguf", 0, &sum),
            sibling("m.gguf", u64::MAX, &sum),
            sibling("m.gguf", 7, "../../x"),
            sibling("m.gguf", 7, &"A".repeat(64)),
            r#"{"rfilename":"m.gguf","size":7}"#.into(),
        ] {
            let listing = Listing::parse(&answer(&file)).unwrap();
            assert_eq!(
                (listing.files.len(), listing.refused.len()),
                (0, 1),
                "{file}"
            );
        }
    }

    #[test]
    fn an_answer_that_is_none_is_an_error() {
        for text in [
            "",
            "[]",
            "{}",
            r#"{"sha":"../x","siblings":[]}"#,
            r#"{"sha":1,"siblings":[]}"#,
        ] {
            let error = Listing::parse(text.as_bytes()).unwrap_err();
            assert!(matches!(error, Error::Hub(_)), "{text}: {error}");
        }
    }
}

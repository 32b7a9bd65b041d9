//! What a job is called, and by whom.

use std::fmt;

/// Whose a job is: who comes with the same key. Without keys all are one.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Owner(Option<[u8; 32]>);

impl Owner {
    /// Who has the key of this digest.
    #[must_use]
    pub fn of_key(digest: [u8; 32]) -> Self {
        Self(Some(digest))
    }
}

/// Says nothing of the key.
impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() {
            "a key's"
        } else {
            "anybody's"
        })
    }
}

/// A job's name, which only its owner can use: two may have jobs of one name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct JobName {
    /// Whose job it is.
    pub owner: Owner,
    /// What the owner calls it.
    pub name: String,
}

impl From<&str> for JobName {
    /// A name where nobody has a key.
    fn from(name: &str) -> Self {
        Self {
            owner: Owner::default(),
            name: name.to_owned(),
        }
    }
}

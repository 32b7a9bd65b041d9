//! What a job is called, and by whom.

use std::fmt;

/// What a scope of the prefix cache is derived for: the same bytes hashed for anything else give others.
const CACHE_CONTEXT: &str = "worker-orcd 2026-11-30 whose jobs share pages of KV memory";

/// Whose a job is: who comes with the same key. Without keys all are one.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Owner(Option<[u8; 32]>);

impl Owner {
    /// Who has the key of this digest.
    #[must_use]
    pub fn of_key(digest: [u8; 32]) -> Self {
        Self(Some(digest))
    }

    /// Names, to the worker, the jobs that share KV pages: the owner's, and of these those with the same `salt`.
    /// Whatever salt is given, no other owner's have the same.
    #[must_use]
    pub fn cache_salt(self, salt: Option<&str>) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new_derive_key(CACHE_CONTEXT);
        // Whether there is a key and a salt stands in front of each: the key's digest has one length, and nothing follows
        // the salt, so no two pairs are the same bytes.
        hasher.update(&[u8::from(self.0.is_some()), u8::from(salt.is_some())]);
        hasher.update(self.0.as_ref().map_or(&[], |digest| digest.as_slice()));
        hasher.update(salt.unwrap_or_default().as_bytes());
        let mut name = [0; 16];
        hasher.finalize_xof().fill(&mut name);
        name
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_is_an_owner_s_and_a_salt_s() {
        let owners = [
            Owner::default(),
            Owner::of_key([0; 32]),
            Owner::of_key([1; 32]),
        ];
        // The digest of a key, given as a salt, is no key.
        let zeros = "\0".repeat(32);
        let salts = [None, Some(""), Some("a"), Some("b"), Some(&zeros)];
        let all: Vec<_> = owners
            .iter()
            .flat_map(|owner| salts.map(|salt| owner.cache_salt(salt)))
            .collect();
        let distinct: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
        let again = Owner::of_key([1; 32]).cache_salt(Some("a"));
        assert_eq!(again, owners[2].cache_salt(Some("a")));
    }
}

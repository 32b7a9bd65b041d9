//! Whether a job shares KV pages with others, and with which.

use orcd_shared::job::CacheScope;

use super::MAX_CACHE_SALT_BYTES;
use super::fields::Fields;
use crate::jobs::Owner;

/// The fields, as the error of an unknown one lists them.
pub(super) const CACHE_FIELDS: [&str; 2] = ["cache", "cache_salt"];

/// What a request says of the prefix cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheUse {
    /// Nothing of the job is kept for others, and it gets nothing of theirs.
    Off,
    /// It shares with jobs of the same owner and salt.
    Shared {
        /// What the client gave to share with fewer of its own jobs.
        salt: Option<String>,
    },
}

impl CacheUse {
    /// Takes both fields; notes what is wrong.
    pub(in crate::http) fn take(f: &mut Fields) -> Self {
        let is_on = f.flag_or("cache", true);
        let salt = f.take("cache_salt");
        let salt = salt.and_then(|value| f.text("cache_salt", MAX_CACHE_SALT_BYTES, value));
        if is_on {
            return Self::Shared { salt };
        }
        if salt.is_some() {
            let message = "cache is false; a salt says with which jobs it is shared".to_owned();
            f.fault("cache_salt", "only with the cache", message);
        }
        Self::Off
    }

    /// Whose jobs share with one of `owner` that says this.
    #[must_use]
    pub fn scope(&self, owner: Owner) -> CacheScope {
        match self {
            Self::Off => CacheScope::Job,
            Self::Shared { salt } => CacheScope::Salt(owner.cache_salt(salt.as_deref())),
        }
    }
}

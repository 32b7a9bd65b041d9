//! API keys, kept as digests: what is compared has one length, and what could be printed is no key.

use std::fmt;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};

use crate::jobs::Owner;

/// The keys that open the service.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Keys(Vec<[u8; 32]>);

impl Keys {
    /// Adds a key.
    pub fn add(&mut self, key: &str) {
        self.0.push(Sha256::digest(key).into());
    }

    /// Whether there is none, so that none is asked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Who asks, if `headers` bring one of the keys, as `Authorization: Bearer KEY`.
    #[must_use]
    pub fn owner(&self, headers: &HeaderMap) -> Option<Owner> {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return None;
        };
        self.owner_of(bearer(value.as_bytes())?)
    }

    /// Takes the same time whichever key it is, and whether it is one or not.
    fn owner_of(&self, key: &[u8]) -> Option<Owner> {
        let digest: [u8; 32] = Sha256::digest(key).into();
        let none = Choice::from(0);
        let found = self
            .0
            .iter()
            .fold(none, |found, known| found | known.ct_eq(&digest));
        bool::from(found).then(|| Owner::of_key(digest))
    }
}

/// Says how many there are, and nothing of them.
impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} keys", self.0.len())
    }
}

/// The token of an `Authorization` field of the scheme `Bearer`, whose name has no case.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    const SCHEME: &[u8] = b"bearer ";
    let (scheme, token) = value.split_at_checked(SCHEME.len())?;
    scheme
        .eq_ignore_ascii_case(SCHEME)
        .then(|| token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn keys() -> Keys {
        let mut keys = Keys::default();
        keys.add("first-key");
        keys.add("second");
        keys
    }

    #[test]
    fn any_of_the_keys_opens_and_nothing_else() {
        let opens = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
            keys().owner(&headers).is_some()
        };
        for good in ["Bearer first-key", "bearer second", "BEARER   second "] {
            assert!(opens(good), "{good}");
        }
        for bad in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer first-ke",
            "Bearer first-key2",
            "Bearer FIRST-KEY",
            "Basic first-key",
            "first-key",
            "Bearer first-key second",
        ] {
            assert!(!opens(bad), "{bad}");
        }
        assert!(keys().owner(&HeaderMap::new()).is_none());
        let mut twice = HeaderMap::new();
        for _ in 0..2 {
            twice.append(AUTHORIZATION, HeaderValue::from_static("Bearer second"));
        }
        assert!(keys().owner(&twice).is_none());
    }

    #[test]
    fn each_key_is_another_owner() {
        let owner = |key: &[u8]| keys().owner_of(key).unwrap();
        assert_eq!(owner(b"second"), owner(b"second"));
        assert_ne!(owner(b"second"), owner(b"first-key"));
        assert_eq!(format!("{:?}", owner(b"second")), "a key's");
    }

    #[test]
    fn keys_are_not_shown() {
        assert_eq!(format!("{:?}", keys()), "2 keys");
    }
}

//! API keys, kept as digests: what is compared has one length, and what could be printed is no key.

use std::fmt;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};

use crate::jobs::Owner;

/// What a key is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Every route but those that end the service.
    User,
    /// Every route.
    Admin,
}

/// Whose key came with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    /// As jobs know it.
    pub owner: Owner,
    /// What the key is good for; the more of two, if it was given as both.
    pub role: Role,
}

/// The keys that open the service.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Keys(Vec<([u8; 32], Role)>);

impl Keys {
    /// Adds a key.
    pub fn add(&mut self, key: &str, role: Role) {
        self.0.push((Sha256::digest(key).into(), role));
    }

    /// Adds those of another set.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none, so that none is asked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Who asks, if `headers` bring one of the keys, as `Authorization: Bearer KEY`.
    #[must_use]
    pub fn holder(&self, headers: &HeaderMap) -> Option<Holder> {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return None;
        };
        self.holder_of(bearer(value.as_bytes())?)
    }

    /// Takes the same time whichever key it is, and whether it is one or not.
    fn holder_of(&self, key: &[u8]) -> Option<Holder> {
        let digest: [u8; 32] = Sha256::digest(key).into();
        let none = (Choice::from(0), Choice::from(0));
        let (found, admin) = self.0.iter().fold(none, |(found, admin), (known, role)| {
            let same = known.ct_eq(&digest);
            let is_admin = Choice::from(u8::from(*role == Role::Admin));
            (found | same, admin | same & is_admin)
        });
        let role = if bool::from(admin) {
            Role::Admin
        } else {
            Role::User
        };
        bool::from(found).then(|| Holder {
            owner: Owner::of_key(digest),
            role,
        })
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
        keys.add("first-key", Role::User);
        keys.add("second", Role::Admin);
        keys
    }

    #[test]
    fn any_of_the_keys_opens_and_nothing_else() {
        let opens = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
            keys().holder(&headers).is_some()
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
        assert!(keys().holder(&HeaderMap::new()).is_none());
        let mut twice = HeaderMap::new();
        for _ in 0..2 {
            twice.append(AUTHORIZATION, HeaderValue::from_static("Bearer second"));
        }
        assert!(keys().holder(&twice).is_none());
    }

    #[test]
    fn each_key_is_another_owner() {
        let owner = |key: &[u8]| keys().holder_of(key).unwrap().owner;
        assert_eq!(owner(b"second"), owner(b"second"));
        assert_ne!(owner(b"second"), owner(b"first-key"));
        assert_eq!(format!("{:?}", owner(b"second")), "a key's");
    }

    #[test]
    fn a_key_is_good_for_what_it_was_given_for() {
        let mut keys = keys();
        let role = |keys: &Keys, key: &[u8]| keys.holder_of(key).unwrap().role;
        assert_eq!(role(&keys, b"first-key"), Role::User);
        assert_eq!(role(&keys, b"second"), Role::Admin);
        keys.add("first-key", Role::Admin);
        keys.add("second", Role::User);
        assert_eq!(role(&keys, b"first-key"), Role::Admin);
        assert_eq!(role(&keys, b"second"), Role::Admin);
    }

    #[test]
    fn keys_are_not_shown() {
        assert_eq!(format!("{:?}", keys()), "2 keys");
    }
}

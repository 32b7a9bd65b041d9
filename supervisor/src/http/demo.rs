//! What `--demo` adds: a page that can kill the worker, and who may do that.
//!
//! Only the page that this start of the service served may. A token of this start is in it, and nobody but whoever
//! reads the page has it: a browser lets no other site read it, and a page that reads it by script, as those of this machine
//! may ([`super::access`]), gets one without. Programs of this machine can read it as a browser does; with a key set they
//! need that too.

use std::fmt;

use http::{HeaderMap, HeaderName, header};
use orcd_shared::error::ErrorCode;
use subtle::ConstantTimeEq as _;
use uuid::Uuid;

use super::access::{HostName, Origin};
use super::error::ApiError;
use super::page::Page;

/// The header that the token comes in. No form and no link sends one of its own.
pub(super) const TOKEN: HeaderName = HeaderName::from_static("x-demo-token");

/// The token of this start and the page that has it.
pub(super) struct Demo {
    token: String,
    page: Page,
}

impl fmt::Debug for Demo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(a token and its page)")
    }
}

impl Demo {
    /// With a fresh token.
    pub(super) fn new() -> Self {
        // 122 bits of the system's random numbers.
        let token = Uuid::new_v4().simple().to_string();
        let page = Page::with_token(&token);
        Self { token, page }
    }

    /// The page with the token, for whoever asks as a person does: for the page itself, at this machine's own name. A proxy
    /// may pass a name of its own on, to whomever; and what scripts ask for has an origin.
    pub(super) fn page_for(&self, headers: &HeaderMap) -> Option<&Page> {
        let is_own = own_host(headers).is_some() && !headers.contains_key(header::ORIGIN);
        is_own.then_some(&self.page)
    }

    /// Whether a request of these headers comes from that page.
    ///
    /// # Errors
    /// `FORBIDDEN_ORIGIN`: it does not.
    pub(super) fn admit(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let origin = value(headers, header::ORIGIN).and_then(Origin::parse);
        let is_same = own_host(headers)
            .zip(origin)
            .is_some_and(|(host, origin)| origin.is_web() && origin.is_at(&host));
        let token = value(headers, TOKEN).unwrap_or_default();
        let has_token = bool::from(token.as_bytes().ct_eq(self.token.as_bytes()));
        if is_same && has_token {
            return Ok(());
        }
        Err(ApiError::new(
            ErrorCode::ForbiddenOrigin,
            "only the page of this start of the service may kill the worker; reload it at / and try again",
        ))
    }
}

/// The one value of a header.
fn value(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    let mut values = headers.get_all(name).iter();
    let only = values.next().filter(|_| values.next().is_none())?;
    only.to_str().ok()
}

/// The name under which this machine's own browser asks.
fn own_host(headers: &HeaderMap) -> Option<HostName> {
    value(headers, header::HOST)
        .and_then(HostName::parse)
        .filter(HostName::is_loopback)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(of: &[(HeaderName, &str)]) -> HeaderMap {
        let pair = |(name, value): &(HeaderName, &str)| (name.clone(), value.parse().unwrap());
        of.iter().map(pair).collect()
    }

    #[test]
    fn only_its_own_page_is_admitted() {
        let demo = Demo::new();
        let admits = |host: &str, origin: &str, token: &str| {
            let headers = headers(&[
                (header::HOST, host),
                (header::ORIGIN, origin),
                (TOKEN, token),
            ]);
            demo.admit(&headers).is_ok()
        };
        let token = demo.token.as_str();
        for host in ["127.0.0.1:8080", "localhost:8080", "[::1]:8080"] {
            assert!(admits(host, &format!("http://{host}"), token), "{host}");
            assert!(!admits(host, &format!("http://{host}"), "c0ffee"), "{host}");
            assert!(!admits(host, &format!("http://{host}"), ""), "{host}");
        }
        for (host, origin) in [
            ("127.0.0.1:8080", "http://127.0.0.1:3000"),
            ("127.0.0.1:8080", "http://localhost:8080"),
            ("127.0.0.1:8080", "null"),
            ("127.0.0.1:8080", "http://example.org"),
            ("gpu.example", "http://gpu.example"),
        ] {
            assert!(!admits(host, origin, token), "{host} {origin}");
        }
        let without_origin = headers(&[(header::HOST, "127.0.0.1:8080"), (TOKEN, token)]);
        assert!(demo.admit(&without_origin).is_err());
        let other = Demo::new();
        assert_ne!(other.token, demo.token, "each start has its own");
    }

    #[test]
    fn scripts_and_other_names_get_a_page_without_the_token() {
        let demo = Demo::new();
        let shows = |of: &[(HeaderName, &str)]| demo.page_for(&headers(of)).is_some();
        assert!(shows(&[(header::HOST, "localhost:8080")]));
        assert!(!shows(&[(header::HOST, "gpu.example")]));
        assert!(!shows(&[]));
        for origin in ["http://localhost:8080", "http://localhost:3000", "null"] {
            let asked = [(header::HOST, "localhost:8080"), (header::ORIGIN, origin)];
            assert!(!shows(&asked), "{origin}");
        }
    }
}

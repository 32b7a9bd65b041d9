//! Where a redirect may lead, and whether the token goes with it.

use reqwest::Url;

/// Most redirects of one request. The hub has two: to a repository's new name, and to where its files lie.
pub const MAX_REDIRECTS: usize = 5;

/// Why a redirect is not followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RefusedRedirect {
    /// There is no address in it, or none that can be asked.
    #[error("a redirect leads to no http address")]
    NoAddress,
    /// What is asked for over TLS is not asked for in clear text.
    #[error("a redirect leads from https to http")]
    Downgrade,
}

/// The address that `location` names in an answer of `asked`.
///
/// # Errors
/// [`RefusedRedirect`].
pub fn follow(asked: &Url, location: &str) -> Result<Url, RefusedRedirect> {
    let next = asked
        .join(location)
        .map_err(|_| RefusedRedirect::NoAddress)?;
    match (asked.scheme(), next.scheme()) {
        ("https", "http") => Err(RefusedRedirect::Downgrade),
        (_, "http" | "https") if next.has_host() => Ok(next),
        _ => Err(RefusedRedirect::NoAddress),
    }
}

/// Whether the token may be sent to `url`: to the hub itself alone, by scheme, host and port, and in clear
/// text to this machine alone.
#[must_use]
pub fn takes_token(endpoint: &Url, url: &Url) -> bool {
    endpoint.origin() == url.origin() && (url.scheme() == "https" || is_this_machine(url))
}

fn is_this_machine(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    let address = address.parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        text.parse().unwrap()
    }

    #[test]
    fn the_token_goes_to_the_hub_alone() {
        let hub = url("https://huggingface.co");
        assert!(takes_token(&hub, &url("https://huggingface.co/a/b?x=y")));
        for other in [
            "https://cdn-lfs.huggingface.co/a",
            "https://huggingface.co:8443/a",
            "http://huggingface.co/a",
            "https://huggingface.co.example/a",
            "https://huggingface.co@example/a",
        ] {
            assert!(!takes_token(&hub, &url(other)), "{other}");
        }
        let local = url("http://127.0.0.1:81");
        assert!(takes_token(&local, &url("http://127.0.0.1:81/a")));
        assert!(!takes_token(&local, &url("http://127.0.0.1:82/a")));
        let mirror = url("http://mirror.example");
        assert!(
            !takes_token(&mirror, &mirror),
            "in clear text over a network"
        );
    }

    #[test]
    fn redirects_lead_to_http_addresses_and_never_out_of_tls() {
        let asked = url("https://a/b/c");
        assert_eq!(follow(&asked, "/x?y=z"), Ok(url("https://a/x?y=z")));
        assert_eq!(follow(&asked, "https://cdn/x"), Ok(url("https://cdn/x")));
        assert_eq!(
            follow(&asked, "http://a/x"),
            Err(RefusedRedirect::Downgrade)
        );
        for wrong in ["file:///etc/passwd", "ftp://a/x", "https://", "data:,x"] {
            assert_eq!(
                follow(&asked, wrong),
                Err(RefusedRedirect::NoAddress),
                "{wrong}"
            );
        }
    }
}

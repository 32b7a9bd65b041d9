//! The page at `/`: one file without anything from elsewhere, in which a person talks to the model and sees how the
//! service is. Its parts lie in `page/`, each in its own language, and are put together here.
//!
//! Its policy lets it run the script and the style that it came with, and ask the service that it came from. So whatever
//! a model says, and whatever gets into the text, the browser runs nothing else and sends nothing elsewhere.

use bytes::Bytes;
use data_encoding::BASE64;
use http::{HeaderMap, HeaderValue, header};
use sha2::{Digest as _, Sha256};

const MARKUP: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");

/// Where the markup has them.
const PLACE_OF_STYLE: &str = "/* page.css */";
const PLACE_OF_SCRIPT: &str = "/* page.js */";
const PLACE_OF_TOKEN: &str = "<!-- demo token -->";

/// The page as it is sent.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) html: Bytes,
    /// `Content-Security-Policy`.
    pub(super) policy: HeaderValue,
    /// `ETag`.
    pub(super) tag: HeaderValue,
}

impl Page {
    /// The page of a service without `--demo`, and of one for whoever may not kill its worker.
    pub(super) fn new() -> Self {
        Self::with("")
    }

    /// The page that may kill the worker: it has the `token`, of hexadecimal digits.
    pub(super) fn with_token(token: &str) -> Self {
        Self::with(&format!("<meta name=\"demo-token\" content=\"{token}\">"))
    }

    fn with(token: &str) -> Self {
        // The script last: neither of the others can hold what looks like another's place.
        let html = MARKUP
            .replace(PLACE_OF_TOKEN, token)
            .replace(PLACE_OF_STYLE, STYLE)
            .replace(PLACE_OF_SCRIPT, SCRIPT);
        Self {
            policy: text(policy()),
            tag: text(format!("\"{}\"", hash(&html))),
            html: html.into(),
        }
    }

    /// Whether whoever asks with these headers has the page already.
    pub(super) fn is_known_to(&self, headers: &HeaderMap) -> bool {
        let values = headers.get_all(header::IF_NONE_MATCH).iter();
        let mut tags = values
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','));
        // A proxy that compresses makes the tag a weak one.
        tags.any(|tag| {
            let tag = tag.trim();
            tag.strip_prefix("W/").unwrap_or(tag).as_bytes() == self.tag.as_bytes()
        })
    }
}

/// What the browser may do for the page. The hashes are those of what stands between the tags. Texts never become markup
/// or script, also by a fault of the page's own: `trusted-types` refuses that.
fn policy() -> String {
    format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; img-src data:; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
         trusted-types 'none'",
        hash(SCRIPT),
        hash(STYLE)
    )
}

/// SHA-256 in base64.
fn hash(text: &str) -> String {
    BASE64.encode(&Sha256::digest(text))
}

/// All that comes here is ASCII that can be seen.
fn text(value: String) -> HeaderValue {
    HeaderValue::try_from(value).unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What stands between `<name>` and `</name>`, of which there is one.
    fn inside<'a>(html: &'a str, name: &str) -> &'a str {
        let (open, close) = (format!("<{name}>"), format!("</{name}>"));
        assert_eq!(html.matches(&format!("<{name}")).count(), 1, "{name}");
        assert_eq!(html.matches(&close).count(), 1, "{name}");
        let (_, rest) = html.split_once(&open).unwrap();
        rest.split_once(&close).unwrap().0
    }

    #[test]
    fn its_hashes_are_those_of_what_a_browser_finds() {
        for page in [Page::new(), Page::with_token("c0ffee")] {
            let html = std::str::from_utf8(&page.html).unwrap();
            let policy = page.policy.to_str().unwrap();
            for (name, directive) in [("script", "script-src"), ("style", "style-src")] {
                let found = hash(inside(html, name));
                let allowed = format!("{directive} 'sha256-{found}';");
                assert!(policy.contains(&allowed), "{allowed} in {policy}");
            }
            for directive in [
                "default-src 'none'",
                "connect-src 'self'",
                "base-uri 'none'",
                "form-action 'none'",
                "frame-ancestors 'none'",
            ] {
                assert!(policy.contains(directive), "{directive}");
            }
            assert!(!policy.contains("unsafe"), "{policy}");
        }
    }

    #[test]
    fn it_is_small_and_has_nothing_from_elsewhere() {
        let page = Page::with_token("c0ffee");
        let html = std::str::from_utf8(&page.html).unwrap();
        assert!(html.len() <= 100 << 10, "{} bytes", html.len());
        for foreign in [
            "http:", "https:", "//fonts", "@import", "url(", " src=", "import(",
        ] {
            assert!(!html.contains(foreign), "{foreign}");
        }
        // None of them would be run: what is inline has no hash of its own.
        for inline in [" style=", " onclick=", " onload=", "innerHTML", "outerHTML"] {
            assert!(!html.contains(inline), "{inline}");
        }
        assert!(html.is_ascii() || html.contains("<meta charset=\"utf-8\">"));
    }

    #[test]
    fn only_the_page_for_a_demonstration_has_a_token() {
        let html = |page: Page| String::from_utf8(page.html.to_vec()).unwrap();
        assert!(!html(Page::new()).contains("<meta name=\"demo-token\""));
        let shown = html(Page::with_token("c0ffee"));
        assert!(shown.contains("<meta name=\"demo-token\" content=\"c0ffee\">"));
        for place in [PLACE_OF_STYLE, PLACE_OF_SCRIPT, PLACE_OF_TOKEN] {
            assert_eq!(MARKUP.matches(place).count(), 1, "{place}");
            assert!(!shown.contains(place), "{place}");
        }
    }

    #[test]
    fn its_tag_is_found_as_browsers_and_proxies_send_it() {
        let page = Page::new();
        let known = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::IF_NONE_MATCH, value.parse().unwrap());
            page.is_known_to(&headers)
        };
        let tag = page.tag.to_str().unwrap();
        assert!(known(tag) && known(&format!("W/{tag}")));
        assert!(known(&format!("\"other\", {tag}")));
        assert!(!known("\"other\"") && !known("") && !page.is_known_to(&HeaderMap::new()));
        assert_ne!(page.tag, Page::with_token("c0ffee").tag);
    }
}

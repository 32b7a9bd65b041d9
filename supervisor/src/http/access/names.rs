//! Names of machines and of web pages' origins, as `Host` and `Origin` give them.

use std::net::IpAddr;

use http::uri::Authority;

/// A machine's name or address, and a port if one is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostName {
    /// Lower case, an IPv6 address without its brackets.
    name: String,
    port: Option<u16>,
}

/// Where a web page comes from: `https://app.example`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    scheme: String,
    host: HostName,
}

impl HostName {
    /// Reads `name` or `name:port`; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let authority: Authority = text.parse().ok()?;
        if authority.as_str().contains('@') {
            return None;
        }
        let host = authority.host();
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        // "localhost." is the same name, written to its end.
        let name = bare.unwrap_or(host).trim_end_matches('.');
        let port = match &authority.as_str()[host.len()..] {
            "" => None,
            port => Some(port.strip_prefix(':')?.parse().ok()?),
        };
        (!name.is_empty()).then(|| Self {
            name: name.to_ascii_lowercase(),
            port,
        })
    }

    /// Names this machine to itself alone.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.name == "localhost"
            || self
                .name
                .parse::<IpAddr>()
                .is_ok_and(|ip| ip.to_canonical().is_loopback())
    }

    /// Is an address, which can't be made to mean another machine.
    #[must_use]
    pub fn is_address(&self) -> bool {
        self.name.parse::<IpAddr>().is_ok()
    }

    /// Whether `other` is this name, at this port if it has one.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.name == other.name && (self.port.is_none() || self.port == other.port)
    }
}

impl Origin {
    /// Reads `scheme://name` with or without a port. `null`, which hides where a page comes from, is
    /// none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let is_scheme = |c: u8| c.is_ascii_alphanumeric() || b"+-.".contains(&c);
        if scheme.is_empty() || !scheme.bytes().all(is_scheme) {
            return None;
        }
        let scheme = scheme.to_ascii_lowercase();
        let mut host = HostName::parse(rest)?;
        host.port = host.port.or(match scheme.as_str() {
            "http" => Some(80),
            "https" => Some(443),
            _ => None,
        });
        Some(Self { scheme, host })
    }

    /// The machine that it names.
    #[must_use]
    pub fn host(&self) -> &HostName {
        &self.host
    }

    /// Whether a page from here that speaks to `host` speaks to where it came from.
    #[must_use]
    pub fn is_at(&self, host: &HostName) -> bool {
        let default = if self.scheme == "https" { 443 } else { 80 };
        self.host.name == host.name && self.host.port == Some(host.port.unwrap_or(default))
    }

    /// A page of a web server, not of a browser's extension or a file.
    #[must_use]
    pub fn is_web(&self) -> bool {
        matches!(self.scheme.as_str(), "http" | "https")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_has_many_names() {
        for own in [
            "localhost",
            "LocalHost:8080",
            "localhost.",
            "127.0.0.1",
            "127.9.8.7:1",
            "[::1]",
            "[::1]:8080",
            "[::ffff:127.0.0.1]:80",
        ] {
            assert!(HostName::parse(own).unwrap().is_loopback(), "{own}");
        }
        for foreign in [
            "example.org",
            "localhost.example.org",
            "127.0.0.1.example.org",
            "128.0.0.1",
            "0.0.0.0",
            "[::]",
            "2130706433",
        ] {
            let name = HostName::parse(foreign).unwrap();
            assert!(!name.is_loopback(), "{foreign}");
        }
    }

    #[test]
    fn what_is_no_name_is_none() {
        for bad in [
            "",
            ":80",
            "a:",
            "a:b",
            "a:99999",
            "a b",
            "a/b",
            "u@localhost",
            "[::1",
            "http://a",
        ] {
            assert_eq!(HostName::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_name_covers_itself_at_its_port() {
        let covers = |a: &str, b: &str| {
            let parse = |text| HostName::parse(text).unwrap();
            parse(a).covers(&parse(b))
        };
        assert!(covers("gpu.lan", "GPU.lan:8080") && covers("gpu.lan", "gpu.lan"));
        assert!(covers("gpu.lan:80", "gpu.lan:80"));
        assert!(!covers("gpu.lan:80", "gpu.lan:81") && !covers("gpu.lan:80", "gpu.lan"));
        assert!(!covers("gpu.lan", "gpu.lan.evil.example"));
    }

    #[test]
    fn origins_are_compared_with_their_default_ports() {
        let origin = |text| Origin::parse(text).unwrap();
        assert_eq!(
            origin("https://App.example:443"),
            origin("HTTPS://app.example")
        );
        assert_ne!(origin("http://app.example"), origin("https://app.example"));
        assert_ne!(
            origin("http://app.example:81"),
            origin("http://app.example")
        );
        assert!(origin("http://[::1]:3000").host().is_loopback());
        for bad in [
            "null",
            "",
            "app.example",
            "http://",
            "://a",
            "http://a/b",
            "http://a?b",
        ] {
            assert_eq!(Origin::parse(bad), None, "{bad}");
        }
        let at = |a, b| origin(a).is_at(&HostName::parse(b).unwrap());
        assert!(at("http://gpu.lan:8080", "gpu.lan:8080") && at("http://gpu.lan", "gpu.lan"));
        assert!(!at("http://gpu.lan", "gpu.lan:8080") && !at("http://evil", "gpu.lan"));
    }
}

//! The URL of an `http` probe or of an alert channel, parsed once, so that a request cannot fail because of its form.
//!
//! Pure.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::value::{ValueError, refuse};

/// `http://host[:port][/path][?query]`, or with `https`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpUrl {
    /// Whether the scheme is `https`.
    pub secure: bool,
    /// A name or an address; an IPv6 address without its brackets.
    pub host: String,
    /// The port; by default that of the scheme.
    pub port: u16,
    /// Path and query as they are requested; begins with `/`.
    pub target: String,
}

/// The placeholder for the role's name.
const ROLE: &str = "{role}";

/// A valid role name, put in place of the placeholder for the check.
const STAND_IN: &str = "role-name-is-put-here";

impl HttpUrl {
    /// A URL that may have `{role}` in its path. The placeholder is not allowed in a URL, but the name that replaces it
    /// is.
    ///
    /// # Errors
    /// As for a URL without it, or the placeholder is in the server's name.
    pub fn with_role(text: &str) -> Result<Self, ValueError> {
        let Some((before, after)) = text.split_once(ROLE) else { return text.parse() };
        let url: HttpUrl = format!("{before}{STAND_IN}{after}").parse()?;
        let target = url.target.replace(STAND_IN, ROLE);
        if !target.contains(ROLE) {
            return refuse("has {role} in the server's name", "it stands in the path");
        }
        Ok(HttpUrl { target, ..url })
    }

    /// Whether the host's name or address is this host's loopback.
    pub fn is_loopback(&self) -> bool {
        let named = self.host == "localhost" || self.host.ends_with(".localhost");
        named || self.host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
    }

    /// The server's name in a request: `host`, or `host:port` if the port is not the scheme's default.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == default_port(self.secure) { host } else { format!("{host}:{}", self.port) }
    }
}

fn default_port(secure: bool) -> u16 {
    if secure { 443 } else { 80 }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", if self.secure { "https" } else { "http" }, self.authority(), self.target)
    }
}

impl FromStr for HttpUrl {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        const HINT: &str = r#"write it like "http://127.0.0.1:8008/primary""#;
        let (secure, rest) = match (text.strip_prefix("http://"), text.strip_prefix("https://")) {
            (Some(rest), _) => (false, rest),
            (_, Some(rest)) => (true, rest),
            _ => return refuse(format!("{text:?} is not an HTTP URL"), HINT),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        if authority.contains('@') {
            // The text is not repeated in the error: it contains a secret.
            return refuse(
                "a URL here holds no credentials",
                "name a command = [\"…\"] instead, with a script that has them",
            );
        }
        if target.contains('#') {
            return refuse(format!("{text:?} has a part after #, which no server is sent"), "remove it");
        }
        let (host, port) = match authority.strip_prefix('[').and_then(|v6| v6.split_once(']')) {
            Some((v6, rest)) if v6.parse::<Ipv6Addr>().is_ok() => {
                (v6, rest.strip_prefix(':').or(rest.is_empty().then_some("")))
            }
            Some((v6, _)) => return refuse(format!("{v6:?} is not an IPv6 address"), HINT),
            None => match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, Some("")),
            },
        };
        let named = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if host.is_empty() || !(host.contains(':') || host.chars().all(named)) {
            return refuse(format!("{text:?}: {host:?} is no machine's name"), HINT);
        }
        let port = match port {
            Some("") if authority.ends_with(':') => None,
            Some("") => Some(default_port(secure)),
            Some(port) => port.parse::<u16>().ok().filter(|port| *port > 0),
            None => None,
        };
        let Some(port) = port else { return refuse(format!("{text:?} has no valid port"), HINT) };
        // RFC 3986: all other characters must be written as % and two digits.
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:@/?%".contains(c);
        if let Some(c) = target.chars().find(|c| !allowed(*c)) {
            return refuse(
                format!("{text:?}: {c:?} cannot be in a URL"),
                "write it with % and two digits, like %20 for a blank",
            );
        }
        let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
        Ok(Self { secure, host: host.to_ascii_lowercase(), port, target })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart_and_put_together_again() {
        let url =
            |secure, host: &str, port, target: &str| HttpUrl { secure, host: host.into(), port, target: target.into() };
        for (text, parts, canonical) in [
            ("http://127.0.0.1:8008/primary", url(false, "127.0.0.1", 8008, "/primary"), None),
            ("https://Db.example.net", url(true, "db.example.net", 443, "/"), Some("https://db.example.net/")),
            ("http://h:80?lag=1MB", url(false, "h", 80, "/?lag=1MB"), Some("http://h/?lag=1MB")),
            ("https://h:80/a%20b/@c?d=e:f", url(true, "h", 80, "/a%20b/@c?d=e:f"), None),
            ("http://[::1]:8008/primary", url(false, "::1", 8008, "/primary"), None),
            ("http://[fd00::A]/", url(false, "fd00::a", 80, "/"), Some("http://[fd00::a]/")),
        ] {
            let parsed: HttpUrl = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(parsed, parts);
            assert_eq!(parsed.to_string(), canonical.unwrap_or(text));
            assert_eq!(parsed.to_string().parse::<HttpUrl>().unwrap(), parts);
        }
    }

    #[test]
    fn what_is_no_url_is_refused_and_a_secret_is_not_repeated() {
        for bad in [
            "",
            "h/x",
            "ftp://h",
            "HTTP//h",
            "http://",
            "http:///x",
            "http://:80/",
            "http://h:/",
            "http://h:0/",
            "http://h:65536/",
            "http://h:8a/",
            "http://::1/",
            "http://[::1/",
            "http://[::1]8/",
            "http://[h]/",
            "http://a b/",
            "http://h/a b",
            "http://h/ü",
            "http://h/#x",
            "http://h/\r\nx: y",
        ] {
            assert!(bad.parse::<HttpUrl>().is_err(), "{bad:?}");
        }
        let e = "http://admin:hunter2@h/".parse::<HttpUrl>().unwrap_err();
        assert!(!e.to_string().contains("hunter2"), "{e}");
    }
}

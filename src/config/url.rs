//! The URL of an `http` probe or of an alert channel, parsed once, so that a request cannot fail because of its form.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use url::{Host, Position, Url};

use super::value::{ValueError, refuse};

/// `http://host[:port][/path][?query]`, or with `https`.
#[derive(Debug, Clone, PartialEq, Eq)]
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

impl HttpUrl {
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
        let (authority, target) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
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
        // What a browser would mend in silence is refused: these are the characters of RFC 3986, and those of names in other languages.
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:@/?%".contains(c);
        if let Some(c) = target.chars().find(|c| !allowed(*c)) {
            return refuse(
                format!("{text:?}: {c:?} cannot be in a URL"),
                "write it with % and two digits, like %20 for a blank",
            );
        }
        if let Some(c) = authority.chars().find(|c| !(c.is_alphanumeric() || "-._:[]".contains(*c))) {
            return refuse(format!("{text:?}: {c:?} cannot be in a host's name"), HINT);
        }
        if authority.is_empty() {
            return refuse(format!("{text:?} names no host"), HINT);
        }
        if authority.ends_with(':') {
            return refuse(format!("{text:?} has no port behind the colon"), HINT);
        }
        let url = match Url::parse(text) {
            Ok(url) => url,
            Err(why) => return refuse(format!("{text:?} is not an HTTP URL: {why}"), HINT),
        };
        let host = match url.host() {
            Some(Host::Domain(name)) => name.to_owned(),
            Some(Host::Ipv4(address)) => address.to_string(),
            Some(Host::Ipv6(address)) => address.to_string(),
            None => return refuse(format!("{text:?} names no host"), HINT),
        };
        let port = url.port().unwrap_or(default_port(secure));
        if port == 0 {
            return refuse(format!("{text:?}: no server has port 0"), HINT);
        }
        let target = url[Position::BeforePath..].to_owned();
        Ok(Self { secure, host, port, target })
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
            (
                "http://bücher.example/",
                url(false, "xn--bcher-kva.example", 80, "/"),
                Some("http://xn--bcher-kva.example/"),
            ),
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
            "http://h\n/",
            "http://h\\x",
            "http:// h/",
            "http://h/ ",
        ] {
            assert!(bad.parse::<HttpUrl>().is_err(), "{bad:?}");
        }
        for (bad, why) in [
            ("https:///x", "names no host"),
            ("http://:80/", "empty host"),
            ("http://h:/", "no port behind the colon"),
            ("http://h:0/", "port 0"),
            ("http://h:65536/", "invalid port number"),
            ("http://[h]/", "invalid IPv6 address"),
            ("http://1.2.3.444/", "invalid IPv4 address"),
            ("http://a b/", "' ' cannot be in a host's name"),
        ] {
            let e = bad.parse::<HttpUrl>().unwrap_err();
            assert!(e.to_string().contains(why) && e.hint.contains("http://"), "{bad}: {e}");
        }
        let e = "http://admin:hunter2@h/".parse::<HttpUrl>().unwrap_err();
        assert!(!e.to_string().contains("hunter2"), "{e}");
    }
}

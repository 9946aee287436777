//! `[etcd]`: the etcd that holds the leases of roles with `lease = "etcd"`. Pure.

use std::collections::BTreeSet;

use super::super::checker::SettingsChecker;
use super::super::error::ConfigProblem;
use super::super::key::read_rows;
use super::super::keys::ETCD;
use super::super::section::{ConfigSection, LocatedValue};
use super::super::settings::EtcdSettings;
use super::super::url::HttpUrl;

impl SettingsChecker<'_> {
    /// The settings; `None` if there are problems, which are on the list.
    pub(super) fn etcd(&mut self, section: &ConfigSection<'_>) -> Option<EtcdSettings> {
        let before = self.problems.len();
        if !cfg!(feature = "etcd") {
            self.problems.push(
                section
                    .problem("this program was built without etcd")
                    .hint("build it with the feature \"etcd\" (a default one), or remove the table"),
            );
            return None;
        }
        let mut etcd = EtcdSettings::new(self.endpoints(section));
        read_rows(ETCD, &mut etcd, section, self);
        for (one, other) in
            [("cert_file", "key_file"), ("key_file", "cert_file"), ("user", "password_file"), ("password_file", "user")]
        {
            if let Some(at) = section.text(one).filter(|_| !section.has(other)) {
                self.problems.push(at.problem(format!("needs {other} beside it")).hint("add it, or remove this line"));
            }
        }
        if etcd.endpoints.iter().any(|url| url.starts_with("http:")) {
            for at in ["ca_file", "cert_file"].into_iter().filter_map(|key| section.text(key)) {
                self.problems
                    .push(at.problem("goes with https:// endpoints only").hint("write https:// in all of them"));
            }
        }
        if let (Some(_), Some(list)) = (section.text("password_file"), section.texts("endpoints")) {
            for at in &list.value {
                if let Ok(url) = at.value.parse::<HttpUrl>() {
                    self.warn_of_plain(at, &url, "reads the password");
                }
            }
        }
        if let Some(at) = section.text("prefix") {
            self.prefix(&at);
        }
        (self.problems.len() == before && !etcd.endpoints.is_empty()).then_some(etcd)
    }

    /// Reports keys that a role cannot have if etcd keeps its journal's head.
    pub(super) fn beside_etcd(&mut self, role: &ConfigSection<'_>) {
        if let Some(at) = role.text("lease").filter(|at| at.value == "bucket") {
            self.problems.push(
                at.problem("\"bucket\" does not go with store.journal = \"etcd\"")
                    .hint("write lease = \"etcd\", or remove the line"),
            );
        }
        if let Some(at) = role.text("on_lease_unreachable").filter(|at| at.value == "holder_continues") {
            self.problems.push(
                at.problem("\"holder_continues\" does not go with store.journal = \"etcd\"")
                    .hint("without etcd nothing can be committed: remove the line"),
            );
        }
    }

    fn endpoints(&mut self, section: &ConfigSection<'_>) -> Vec<String> {
        const LIKE: &str = "write endpoints = [\"https://etcd1:2379\", \"https://etcd2:2379\", \"https://etcd3:2379\"]";
        let Some(list) = section.texts("endpoints") else {
            if !section.has("endpoints") {
                self.problems.push(section.problem("has no endpoints: where is etcd?").hint(LIKE));
            }
            return Vec::new();
        };
        if list.value.is_empty() {
            self.problems.push(list.problem("is empty: where is etcd?").hint(LIKE));
        }
        let mut endpoints: Vec<String> = Vec::new();
        let mut schemes = BTreeSet::new();
        for at in &list.value {
            match endpoint(at) {
                Ok(url) if endpoints.contains(&url) => {
                    self.problems.push(at.problem(format!("{url:?} is there twice")).hint("keep one of them"));
                }
                Ok(url) => {
                    schemes.insert(url.starts_with("https:"));
                    endpoints.push(url);
                }
                Err(problem) => self.problems.push(problem),
            }
        }
        if schemes.len() > 1 {
            self.problems.push(list.problem("has http:// beside https://").hint("write https:// in all of them"));
        }
        endpoints
    }

    fn prefix(&mut self, at: &LocatedValue<&str>) {
        let whole = at.value.starts_with('/') && at.value.len() > 1 && !at.value.ends_with('/');
        if !whole || at.value.contains("//") || at.value.chars().any(|c| c.is_whitespace() || c.is_control()) {
            self.problems.push(
                at.problem(format!("{:?} is not a prefix of keys", at.value))
                    .hint("write it like \"/runner\": a slash first, none at the end"),
            );
        }
    }
}

/// The problem that something needs etcd and there is none; `instead` is the alternative.
pub(super) fn missing(at: &LocatedValue<&str>, instead: &str) -> ConfigProblem {
    if cfg!(feature = "etcd") {
        at.problem("\"etcd\" needs an [etcd] table")
            .hint("[etcd]")
            .hint("endpoints = [\"https://etcd1:2379\"]")
            .hint(format!("Or write {instead}."))
    } else {
        let line = instead.split(':').next().unwrap_or_default();
        at.problem("this program was built without etcd")
            .hint(format!("build it with the feature \"etcd\" (a default one), or write {line}"))
    }
}

/// `http://host:port` or `https://host:port`, with nothing after it.
fn endpoint(at: &LocatedValue<&str>) -> Result<String, ConfigProblem> {
    let text = at.value.strip_suffix('/').unwrap_or(at.value);
    let authority = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let Some(authority) = authority else {
        // The text may contain a user and a password.
        let hint = if text.contains(['/', '@']) { "https://etcd1:2379".to_owned() } else { format!("https://{text}") };
        return Err(at.problem("is not a URL").hint(format!("write \"{hint}\"")));
    };
    if authority.contains('@') {
        return Err(at.problem("has a user in it").hint("write user = \"…\" and password_file = \"…\" instead"));
    }
    let (host, port) = match authority.rfind(':') {
        Some(colon) if !authority[colon..].contains(']') => (&authority[..colon], Some(&authority[colon + 1..])),
        _ => (authority, None),
    };
    let named = !host.is_empty() && !host.contains(|c: char| !c.is_ascii_alphanumeric() && !".-_:[]".contains(c));
    // Without brackets, the last group of an IPv6 address would be taken for the port.
    let bracketed = !host.contains(':') || (host.starts_with('[') && host.ends_with(']'));
    if !named || !bracketed || port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return Err(at
            .problem(format!("{:?} is not an endpoint", at.value))
            .hint("write it like \"https://etcd1:2379\" or \"https://[2001:db8::1]:2379\""));
    }
    // Without a port the client would use 443, which etcd never uses.
    Ok(if port.is_some() { text.to_owned() } else { format!("{text}:2379") })
}

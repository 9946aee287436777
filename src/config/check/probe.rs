//! Probes: one kind each, with the options and defaults of that kind. Pure.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use super::super::checker::SettingsChecker;
use super::super::section::{ConfigSection, LocatedValue, accept};
use super::super::settings::Probe;
use super::super::url::HttpUrl;
use super::super::value;

/// The default timeout of a command.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);

/// The default timeout of a server. Patroni answers from memory; a slower server hangs.
const HTTP_TIMEOUT: Duration = Duration::from_secs(5);

/// The default timeout of systemd: like Patroni, it answers from memory.
const UNIT_TIMEOUT: Duration = Duration::from_secs(5);

impl SettingsChecker<'_> {
    /// The probe; `None` if there are problems, which are on the list.
    pub(super) fn probe(&mut self, section: &ConfigSection<'_>) -> Option<Probe> {
        if let Some(at) = section.text("vip") {
            return Some(Probe::Vip { address: self.address(&at)?, interface: section.owned("interface") });
        }
        if let Some(command) = section.strings("command") {
            let timeout = section.duration("timeout").map_or(COMMAND_TIMEOUT, |at| at.value);
            return Some(Probe::Command { command, timeout });
        }
        if let Some(at) = section.text("http") {
            return self.http(section, &at);
        }
        if let Some(at) = section.text("mounted") {
            let path = accept(&at, value::absolute(at.value), &mut self.problems)?;
            if path == Path::new("/") {
                self.problems.push(at.problem("is mounted always").hint("name what moves between the nodes"));
                return None;
            }
            return Some(Probe::Mounted { path });
        }
        if let Some(at) = section.text("unit") {
            let unit = accept(&at, value::unit(at.value), &mut self.problems)?.to_owned();
            let timeout = section.duration("timeout").map_or(UNIT_TIMEOUT, |at| at.value);
            return Some(Probe::Unit { unit, timeout });
        }
        if let Some(inner) = section.section("not") {
            return Some(Probe::Not(Box::new(self.probe(&inner)?)));
        }
        for (key, make) in [("all", Probe::All as fn(Vec<Probe>) -> Probe), ("any", Probe::Any)] {
            if let Some(list) = section.list_of_sections(key) {
                // All probes are read before giving up, so that all their problems are found.
                let probes: Vec<Option<Probe>> = list.iter().map(|inner| self.probe(inner)).collect();
                return probes.into_iter().collect::<Option<Vec<Probe>>>().map(make);
            }
        }
        None
    }

    fn http(&mut self, section: &ConfigSection<'_>, at: &LocatedValue<&str>) -> Option<Probe> {
        let url = accept(at, at.value.parse::<HttpUrl>(), &mut self.problems);
        let body = section.text("body");
        if let Some(body) = body.as_ref().filter(|body| body.value.is_empty()) {
            self.problems.push(body.problem("is empty, and that is in every body").hint("write a text, or remove it"));
        }
        let ca_file = section.path("ca_file", &mut self.problems);
        if let (Some(ca), Some(HttpUrl { secure: false, .. })) = (section.text("ca_file"), &url) {
            self.problems.push(ca.problem("goes with https://").hint("write the URL with https://, or remove ca_file"));
        }
        Some(Probe::Http {
            url: url?,
            status: section.statuses("status").unwrap_or_default(),
            body: body.map(|body| body.value.to_owned()),
            timeout: section.duration("timeout").map_or(HTTP_TIMEOUT, |at| at.value),
            ca_file,
        })
    }

    fn address(&mut self, at: &LocatedValue<&str>) -> Option<IpAddr> {
        let hint = match at.value {
            text if text.contains('/') => {
                format!("write it without the mask: {:?}", text.split('/').next().unwrap_or_default())
            }
            text if text.contains('%') => {
                "name the interface beside it: { vip = \"…\", interface = \"eth0\" }".to_owned()
            }
            _ => "write it like \"10.0.0.50\" or \"2001:db8::50\"".to_owned(),
        };
        match at.value.parse::<IpAddr>().map(|ip| ip.to_canonical()) {
            Ok(ip) if !ip.is_unspecified() && !ip.is_multicast() => Some(ip),
            Ok(_) => {
                self.problems.push(at.problem(format!("{:?} is no machine's address", at.value)).hint(hint));
                None
            }
            Err(_) => {
                self.problems.push(at.problem(format!("{:?} is not an address", at.value)).hint(hint));
                None
            }
        }
    }
}

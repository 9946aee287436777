//! `[notify]`: the channels for alerts.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::super::checker::SettingsChecker;
use super::super::section::{ConfigSection, accept};
use super::super::settings::NotifySettings;
use super::super::url::HttpUrl;

/// The allowed timeout of one attempt: a process that ends waits for it, and a server that takes longer counts as down.
const TIMEOUT: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_mins(2);

impl SettingsChecker<'_> {
    pub(super) fn notify(&mut self, section: &ConfigSection<'_>) -> NotifySettings {
        let timeout = section.duration("timeout");
        if let Some(at) = timeout.as_ref().filter(|at| !TIMEOUT.contains(&at.value)) {
            self.problems.push(at.problem("is not between 1s and 2m").hint("10s is the default"));
        }
        for key in ["webhook", "healthchecks"] {
            if let Some(at) = section.text(key) {
                let url = at.value.replace(ROLE, STAND_IN);
                self.warn_of_plain(&at, &url, "reads what is told, and the URL by which others can send it");
            }
        }
        NotifySettings {
            command: section.strings("command"),
            environment: section.environment(),
            webhook: self.url(section, "webhook"),
            healthchecks: self.url(section, "healthchecks"),
            timeout: timeout.map_or(NotifySettings::TIMEOUT, |at| at.value),
        }
    }

    fn url(&mut self, section: &ConfigSection<'_>, key: &str) -> Option<HttpUrl> {
        let at = section.text(key)?;
        let Some((before, after)) = at.value.split_once(ROLE).filter(|_| key == "healthchecks") else {
            return accept(&at, at.value.parse(), &mut self.problems);
        };
        // `{role}` is not allowed in a URL, but the name that replaces it is.
        let url: HttpUrl = accept(&at, format!("{before}{STAND_IN}{after}").parse(), &mut self.problems)?;
        let target = url.target.replace(STAND_IN, ROLE);
        if !target.contains(ROLE) {
            self.problems.push(at.problem("has {role} in the server's name").hint("it stands in the path"));
        }
        Some(HttpUrl { target, ..url })
    }
}

/// The placeholder for the role's name.
const ROLE: &str = "{role}";

/// A valid role name, put in place of the placeholder for the check.
const STAND_IN: &str = "role-name-is-put-here";

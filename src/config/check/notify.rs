//! `[notify]`: the channels for alerts. Pure.

use super::super::checker::SettingsChecker;
use super::super::key::read_rows;
use super::super::keys::NOTIFY;
use super::super::section::ConfigSection;
use super::super::settings::NotifySettings;

impl SettingsChecker<'_> {
    pub(super) fn notify(&mut self, section: &ConfigSection<'_>) -> NotifySettings {
        let mut notify = NotifySettings::default();
        read_rows(NOTIFY, &mut notify, section, self);
        for (key, url) in [("webhook", &notify.webhook), ("healthchecks", &notify.healthchecks)] {
            if let (Some(at), Some(url)) = (section.text(key), url) {
                self.warn_of_plain(&at, url, "reads what is told, and the URL by which others can send it");
            }
        }
        notify
    }
}

//! The pings of a healthchecks service: which URL, which body, and which answer is a success. Pure.
//!
//! The service documents in "Pinging API" that it answers `200` with the body `OK`, and `201` if it has created the
//! check. It answers `200` with `OK (not found)` or `OK (rate limited)` on some servers, where it has ignored the ping.
//!
//! No ping has a run ID (`rid`): with one, the service goes on waiting for the end of a run whose node died, although
//! the other node of the pair has backed the role up since. Without run IDs the pair pings as one.

use crate::alert::ping::HealthcheckPing;
use crate::config::HttpUrl;

/// The documented answer.
pub(super) const ACCEPTED: &str = "\"OK\"";

/// The most of a text that a ping carries, in bytes: some servers keep 10 kB.
const BODY_MAX: usize = 10_000;

/// What pings carry, and which answer counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PingStyle {
    /// As the key `healthchecks` of `[notify]`: a success has no body, and every 2xx counts.
    Plain,
    /// As a channel: the end of a run has its report, and only the documented answers count.
    Reporting,
}

impl PingStyle {
    /// The part of the URL behind the check's own, and the body.
    pub(super) fn request(self, ping: &HealthcheckPing) -> (&'static str, Option<&str>) {
        let (behind, body) = match (ping, self) {
            (HealthcheckPing::Start, _) => ("/start", ""),
            (HealthcheckPing::Success(_), PingStyle::Plain) => ("", ""),
            (HealthcheckPing::Success(report), PingStyle::Reporting) => ("", report.as_str()),
            (HealthcheckPing::Fail { reason, report }, PingStyle::Reporting) if report.contains(reason) => {
                ("/fail", report.as_str())
            }
            (HealthcheckPing::Fail { reason, .. }, _) => return ("/fail", Some(bounded(reason))),
            (HealthcheckPing::Log(text), _) => ("/log", text.as_str()),
        };
        (behind, Some(bounded(body)).filter(|body| !body.is_empty()))
    }
}

/// Whether a service has counted the ping, by the status and the body of its answer.
pub(super) fn is_accepted(status: u16, answer: &[u8]) -> bool {
    status == 201 || answer.trim_ascii() == b"OK"
}

fn bounded(text: &str) -> &str {
    &text[..text.floor_char_boundary(BODY_MAX)]
}

/// The URL of a ping for this role: the template with the role's name in it, and `behind` appended to its path.
pub(super) fn ping_url(template: &HttpUrl, role: &str, behind: &str) -> HttpUrl {
    let target = template.target.replace("{role}", role);
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, format!("?{query}")),
        None => (target.as_str(), String::new()),
    };
    HttpUrl { target: format!("{}{behind}{query}", path.trim_end_matches('/')), ..template.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ping_has_its_place_behind_the_path() {
        let at = |target: &str, behind: &str| {
            let url = HttpUrl { target: target.to_owned(), .."https://hc.example.net/".parse().unwrap() };
            ping_url(&url, "app", behind).target
        };
        assert_eq!(at("/ping/x", ""), "/ping/x");
        assert_eq!(at("/ping/{role}", "/fail"), "/ping/app/fail");
        assert_eq!(at("/ping/x/?create=1", "/start"), "/ping/x/start?create=1");
    }

    #[test]
    fn the_end_of_a_run_carries_its_report_where_the_channel_does() {
        let success = HealthcheckPing::Success("app: committed\n3 new".to_owned());
        assert_eq!(PingStyle::Plain.request(&success), ("", None));
        assert_eq!(PingStyle::Reporting.request(&success), ("", Some("app: committed\n3 new")));
        assert_eq!(PingStyle::Reporting.request(&HealthcheckPing::Success(String::new())), ("", None));
        let fail = |report: &str| HealthcheckPing::Fail { reason: "no disk".to_owned(), report: report.to_owned() };
        assert_eq!(PingStyle::Plain.request(&fail("app: failed: no disk")), ("/fail", Some("no disk")));
        assert_eq!(
            PingStyle::Reporting.request(&fail("app: failed: no disk")),
            ("/fail", Some("app: failed: no disk"))
        );
        assert_eq!(PingStyle::Reporting.request(&fail("")), ("/fail", Some("no disk")));
        assert_eq!(PingStyle::Plain.request(&HealthcheckPing::Start), ("/start", None));
        let long = HealthcheckPing::Log("ü".repeat(BODY_MAX));
        assert_eq!(PingStyle::Reporting.request(&long).1.map(str::len), Some(BODY_MAX));
    }

    #[test]
    fn an_answer_that_ignores_the_ping_is_no_success() {
        assert!(is_accepted(200, b"OK\n") && is_accepted(201, b"Created"));
        for ignored in ["", "OK (not found)", "OK (rate limited)", "<html>OK</html>"] {
            assert!(!is_accepted(200, ignored.as_bytes()), "{ignored}");
        }
    }
}

//! Sends alerts over HTTP: the document is posted, and the begin and end of a run are pinged.

use std::time::Duration;

use crate::config::HttpUrl;
use crate::http::{self, Question};

/// Posts `body`, or sends a request without one. Any 2xx means that it was delivered.
///
/// # Errors
/// The reason why it was not delivered.
pub(in crate::alert) async fn send(
    url: &HttpUrl,
    body: Option<(&str, &'static str)>,
    timeout: Duration,
) -> Result<(), String> {
    let question = Question { url, body, ca_file: None };
    let asked = http::ask(question, |response| async move {
        let status = response.status();
        if status.is_success() { Ok(()) } else { Err(format!("answers {status}")) }
    });
    // The URL may be a secret, so the error names only the server.
    let named = |why: String| format!("{}: {why}", url.authority());
    match tokio::time::timeout(timeout, asked).await {
        Ok(answered) => answered.map_err(named),
        Err(_) => Err(named(format!("no answer in {}", humantime::format_duration(timeout)))),
    }
}

/// The URL of a ping for this role: the template with the role's name in it, and `behind` appended to its path.
pub(in crate::alert) fn ping(template: &HttpUrl, role: &str, behind: &str) -> HttpUrl {
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
            ping(&url, "app", behind).target
        };
        assert_eq!(at("/ping/x", ""), "/ping/x");
        assert_eq!(at("/ping/{role}", "/fail"), "/ping/app/fail");
        assert_eq!(at("/ping/x/?create=1", "/start"), "/ping/x/start?create=1");
    }
}

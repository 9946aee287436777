//! A message for an incoming webhook of Slack. Pure.
//!
//! Slack documents the payload and the answer in "Sending messages using incoming webhooks", and which characters are to
//! be escaped in "Formatting text for app surfaces": the three characters `&`, `<` and `>`, because `<!channel>` would
//! alert everyone. `mrkdwn` is off, so that the underscores and asterisks of paths stay what they are.

use serde_json::json;

use crate::alert::message::AlertMessage;

/// The answer to a message that Slack accepted: 200, and this body.
pub(super) const ACCEPTED: &str = "\"ok\"";

/// The body of the request.
pub(super) fn body(message: &AlertMessage) -> String {
    json!({ "text": escape(&message.text), "mrkdwn": false }).to_string()
}

/// Whether the answer is the documented one.
pub(super) fn is_accepted(answer: &[u8]) -> bool {
    answer.trim_ascii() == b"ok"
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::event::AlertPhase;

    #[test]
    fn three_characters_are_escaped_and_only_ok_is_accepted() {
        let message = AlertMessage::sample(AlertPhase::Begun, "app: <!channel> \"a\" & b_c &amp; *ü*");
        let text = "app: &lt;!channel&gt; \\\"a\\\" &amp; b_c &amp;amp; *ü*";
        assert_eq!(body(&message), format!("{{\"mrkdwn\":false,\"text\":\"{text}\"}}"));
        assert!(is_accepted(b"ok") && is_accepted(b"ok\n"));
        assert!(!is_accepted(b"") && !is_accepted(b"<html>ok</html>") && !is_accepted(b"no_service"));
    }
}

//! A document of an alert, read again for the services that have a form of their own. Pure.
//!
//! Documents wait in the outbox as JSON. Each channel makes its form of it when it sends, so that a message that was
//! kept by an older process, or for a channel that is configured differently now, still has the right one.

use jiff::Timestamp;
use serde::Deserialize;

use super::event::AlertPhase;

/// The most of a text that is sent to a service, in bytes: ntfy makes an attachment of a message of more than 4,096.
const TEXT_MAX: usize = 3500;

/// What the templates use of a document.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct AlertMessage {
    /// The name of the event.
    pub(super) event: String,
    pub(super) phase: AlertPhase,
    /// The role; a test has none.
    pub(super) role: Option<String>,
    pub(super) time: Timestamp,
    /// The sentence for people.
    pub(super) text: String,
}

impl AlertMessage {
    /// Reads a document. One that is not an alert's is sent as it is.
    pub(super) fn parse(document: &str) -> Self {
        let mut message: Self = serde_json::from_str(document).unwrap_or_else(|_| Self {
            event: "unknown".to_owned(),
            phase: AlertPhase::Begun,
            role: None,
            time: Timestamp::UNIX_EPOCH,
            text: document.to_owned(),
        });
        if message.text.len() > TEXT_MAX {
            message.text.truncate(message.text.floor_char_boundary(TEXT_MAX));
            message.text.push('…');
        }
        message
    }

    /// A title in ASCII: `runner: app: failed`.
    pub(super) fn title(&self) -> String {
        let role = self.role.as_ref().map(|role| format!("{role}: ")).unwrap_or_default();
        let over = if self.phase == AlertPhase::Over { " is over" } else { "" };
        format!("runner: {role}{}{over}", self.event)
    }
}

#[cfg(test)]
impl AlertMessage {
    /// A message with this text.
    pub(super) fn sample(phase: AlertPhase, text: &str) -> Self {
        Self {
            event: "failed".to_owned(),
            phase,
            role: Some("app".to_owned()),
            time: Timestamp::from_second(1_800_000_000).expect("it is a date"),
            text: text.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_read_and_its_text_is_bounded() {
        let document = |text: &str| {
            serde_json::json!({
                "schema": 1, "event": "failed", "phase": "over", "role": "app", "node": "east",
                "time": "2027-01-15T08:00:00Z", "text": text,
            })
            .to_string()
        };
        let message = AlertMessage::parse(&document("fine"));
        assert_eq!(message, AlertMessage::sample(AlertPhase::Over, "fine"));
        assert_eq!(message.title(), "runner: app: failed is over");
        let long = AlertMessage::parse(&document(&"ü".repeat(TEXT_MAX))).text;
        assert!(long.len() <= TEXT_MAX + '…'.len_utf8() && long.ends_with("ü…"));
        assert_eq!(AlertMessage::parse("no document").text, "no document");
    }
}

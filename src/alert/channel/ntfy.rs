//! A message for a topic of an ntfy server. Pure.
//!
//! ntfy documents in "Publishing" that the body of the request is the message, and that the headers `Title`, `Priority`
//! and `Tags` go with it; it answers with the message as JSON, which has an `id`.

use serde_json::Value;

use crate::alert::event::AlertPhase;
use crate::alert::message::AlertMessage;

/// The answer to a message that the server accepted.
pub(super) const ACCEPTED: &str = "the message with its id, as JSON";

/// The headers beside the body, which is the text.
pub(super) fn headers(message: &AlertMessage) -> [(String, String); 3] {
    let (priority, tags) = match message.phase {
        AlertPhase::Begun => ("high", "rotating_light"),
        AlertPhase::Lasts => ("default", "hourglass"),
        AlertPhase::Over => ("default", "white_check_mark"),
    };
    [("Title", message.title()), ("Priority", priority.to_owned()), ("Tags", tags.to_owned())]
        .map(|(name, value)| (name.to_owned(), value))
}

/// Whether the answer is the documented one.
pub(super) fn is_accepted(answer: &[u8]) -> bool {
    serde_json::from_slice::<Value>(answer).is_ok_and(|answer| answer["id"].is_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_headers_are_ascii_and_the_answer_has_an_id() {
        let of = |phase| headers(&AlertMessage::sample(phase, "ü")).map(|(name, value)| format!("{name}: {value}"));
        assert_eq!(of(AlertPhase::Begun), ["Title: runner: app: failed", "Priority: high", "Tags: rotating_light"]);
        assert_eq!(
            of(AlertPhase::Over),
            ["Title: runner: app: failed is over", "Priority: default", "Tags: white_check_mark"]
        );
        assert!(is_accepted(
            br#"{"id":"hwQ2YpKdmg","time":1635528741,"event":"message","topic":"mytopic","message":"x"}"#
        ));
        assert!(
            !is_accepted(b"") && !is_accepted(b"<html>") && !is_accepted(br#"{"code":40101,"error":"unauthorized"}"#)
        );
    }
}

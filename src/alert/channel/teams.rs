//! A message for a Workflows webhook of Microsoft Teams. Pure.
//!
//! The trigger "When a Teams webhook request is received" takes a message with Adaptive Cards as attachments; the
//! connectors of Office 365, which took a `MessageCard`, are retired. The texts are runs of a `RichTextBlock` and not
//! `TextBlock`s, because Teams reads Markdown in a `TextBlock`: the name of a file could then be a link.

use serde_json::{Value, json};

use crate::alert::message::AlertMessage;

/// The answer to a message that the workflow accepted: 202, or an answer of success without a body.
pub(super) const ACCEPTED: &str = "202 or an empty answer";

/// The body of the request.
pub(super) fn body(message: &AlertMessage) -> String {
    let run = |text: &str, weight: &str| json!({ "type": "RichTextBlock", "inlines": [{ "type": "TextRun", "text": text, "weight": weight }] });
    let card = json!({
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.2",
        "body": [run(&message.title(), "bolder"), run(&message.text, "default")],
    });
    json!({
        "type": "message",
        "attachments": [{
            "contentType": "application/vnd.microsoft.card.adaptive",
            "contentUrl": Value::Null,
            "content": card,
        }],
    })
    .to_string()
}

/// Whether the answer is one of a workflow.
pub(super) fn is_accepted(status: u16, answer: &[u8]) -> bool {
    status == 202 || answer.trim_ascii().is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::event::AlertPhase;

    #[test]
    fn the_card_has_the_documented_form_and_no_markdown() {
        let message = AlertMessage::sample(AlertPhase::Begun, "app: [click](https://evil.example) \"x\"");
        let value: Value = serde_json::from_str(&body(&message)).unwrap();
        assert_eq!(value["type"], "message");
        let attachment = &value["attachments"][0];
        assert_eq!(attachment["contentType"], "application/vnd.microsoft.card.adaptive");
        let card = &attachment["content"];
        assert_eq!((&card["type"], &card["version"]), (&"AdaptiveCard".into(), &"1.2".into()));
        let blocks: Vec<&str> = card["body"].as_array().unwrap().iter().map(|b| b["type"].as_str().unwrap()).collect();
        assert_eq!(blocks, ["RichTextBlock", "RichTextBlock"]);
        assert_eq!(card["body"][0]["inlines"][0]["text"], "runner: app: failed");
        assert_eq!(card["body"][1]["inlines"][0]["text"], message.text.as_str());
        assert!(is_accepted(202, b"{}") && is_accepted(200, b""));
        assert!(!is_accepted(200, b"<html>sign in</html>"));
    }
}

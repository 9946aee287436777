//! What `notify test` says of each outcome.

use std::io;
use std::time::Duration;

use hyper::StatusCode;

use super::*;
use crate::alert::delivery::DeliveryReceipt;
use crate::config::NotifyChannelKind;

#[test]
fn each_channel_has_its_paragraph_and_each_error_its_hint() {
    let server = || "ops.example.net".to_owned();
    let refused = |status: u16, line: &str| DeliveryError::Refused {
        server: server(),
        status: StatusCode::from_u16(status).unwrap(),
        line: line.to_owned(),
        retry_after: None,
    };
    let outcomes = [
        (NotifyChannelKind::Webhook, Ok(DeliveryReceipt { status: Some(204) })),
        (NotifyChannelKind::Email, Ok(DeliveryReceipt { status: None })),
        (NotifyChannelKind::Healthchecks, Ok(DeliveryReceipt { status: Some(200) })),
        (NotifyChannelKind::Slack, Err(refused(404, "no_service"))),
        (NotifyChannelKind::Ntfy, Err(refused(403, ""))),
        (NotifyChannelKind::Ntfy, Err(refused(429, ""))),
        (NotifyChannelKind::Teams, Err(refused(502, ""))),
        (NotifyChannelKind::Teams, Err(refused(400, ""))),
        (
            NotifyChannelKind::Teams,
            Err(DeliveryError::Redirected {
                server: server(),
                status: StatusCode::FOUND,
                target: Some("login.example.net".to_owned()),
            }),
        ),
        (
            NotifyChannelKind::Slack,
            Err(DeliveryError::Unexpected {
                server: server(),
                status: StatusCode::OK,
                expected: "\"ok\"",
                line: "<html>".to_owned(),
            }),
        ),
        (
            NotifyChannelKind::Webhook,
            Err(DeliveryError::Unreachable { server: server(), reason: "TLS: UnknownIssuer".to_owned() }),
        ),
        (
            NotifyChannelKind::Webhook,
            Err(DeliveryError::Unreachable {
                server: server(),
                reason: "Connection refused (os error 111)".to_owned(),
            }),
        ),
        (
            NotifyChannelKind::Webhook,
            Err(DeliveryError::TimedOut { server: server(), timeout: Duration::from_secs(10) }),
        ),
        (
            NotifyChannelKind::Webhook,
            Err(DeliveryError::SecretUnreadable {
                path: "/etc/runner/url".into(),
                error: io::Error::from_raw_os_error(2),
            }),
        ),
        (
            NotifyChannelKind::Webhook,
            Err(DeliveryError::SecretInvalid { path: "/etc/runner/key".into(), problem: SecretProblem::ShortKey }),
        ),
        (NotifyChannelKind::Command, Err(DeliveryError::Command("tell: exit code 3".to_owned()))),
    ];
    let all: Vec<ChannelTrial> = outcomes
        .into_iter()
        .map(|(kind, outcome)| ChannelTrial {
            name: "ops".to_owned(),
            kind,
            role: (kind == NotifyChannelKind::Healthchecks).then(|| "app".parse().unwrap()),
            outcome,
            duration: Duration::from_millis(120),
        })
        .collect();
    insta::assert_snapshot!(trials(&all, PageLayout::terminal(80)), @r##"
ops (webhook): delivered: status 204 after 0.1 s
ops (email): delivered: exit code 0 after 0.1 s
ops (healthchecks): delivered, as a line of the log of role app: status 200
  after 0.1 s
ops (slack): NOT delivered after 0.1 s: ops.example.net: answers 404 Not Found:
  no_service.
  hint: the service does not know this URL: make a new one there
ops (ntfy): NOT delivered after 0.1 s: ops.example.net: answers 403 Forbidden.
  hint: check the token, or make a new URL at the service
ops (ntfy): NOT delivered after 0.1 s: ops.example.net: answers 429 Too Many
  Requests.
  hint: the service takes fewer messages: wait, or name fewer events for the
    channel
ops (teams): NOT delivered after 0.1 s: ops.example.net: answers 502 Bad
  Gateway.
  hint: the service has a problem of its own: try it again later
ops (teams): NOT delivered after 0.1 s: ops.example.net: answers 400 Bad
  Request.
  hint: the service does not take messages of this form: check kind
ops (teams): NOT delivered after 0.1 s: ops.example.net: answers 302 Found, a
  redirect to login.example.net, which is not followed.
  hint: write the URL to which it leads, if that is where messages are taken: a
    page for people is not
ops (slack): NOT delivered after 0.1 s: ops.example.net: answers 200 OK, and not
  "ok": <html>.
  hint: another server answers in the service's place, or ignored the message:
    check the URL and kind
ops (webhook): NOT delivered after 0.1 s: ops.example.net: TLS: UnknownIssuer.
  hint: if the certificate is issued by an authority of your own, name the
    authority's in ca_file of a [[notify.channel]]
ops (webhook): NOT delivered after 0.1 s: ops.example.net: Connection refused.
  hint: check the URL, and whether this node may reach the server
ops (webhook): NOT delivered after 0.1 s: ops.example.net: no answer in 10s.
  hint: check whether this node may reach the server, or raise timeout
ops (webhook): NOT delivered after 0.1 s: /etc/runner/url cannot be read: No
  such file or directory.
  hint: copy the file to this node, and let the user that makes the backups read
    it
ops (webhook): NOT delivered after 0.1 s: /etc/runner/key: it holds a key of
  fewer than 16 bytes.
  hint: make one with `openssl rand -hex 32`
ops (command): NOT delivered after 0.1 s: tell: exit code 3.
  hint: run the command by hand, as the user that makes the backups
"##);
    insta::assert_snapshot!(crate::cli::json::notify::trials("east", &all[2..4]), @r##"
{"schema":1,"channels":[{"delivered":true,"duration_seconds":0.12,"error":null,"hint":null,"kind":"healthchecks","name":"ops","role":"app","status":200},{"delivered":false,"duration_seconds":0.12,"error":"ops.example.net: answers 404 Not Found: no_service","hint":"the service does not know this URL: make a new one there","kind":"slack","name":"ops","role":null,"status":404}],"node":"east"}
"##);
}

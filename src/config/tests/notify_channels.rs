//! `[[notify.channel]]`: read, rendered and read again; refused; shown without secrets.

use super::{parse, refused, role};
use crate::config::NotifyChannelKind;

/// A channel of every kind.
const CHANNELS: &str = r#"[notify]
command = ["tell"]
[[notify.channel]]
name = "program"
kind = "command"
command = ["/usr/local/bin/tell"]
environment = { TOKEN = "s3cret" }
pass_environment = ["HTTPS_PROXY"]
[[notify.channel]]
name = "ops"
kind = "webhook"
url = "https://ops.example.net/hook/s3cret"
headers = { X-Environment = "s3cret" }
signing_key_file = "/etc/runner/ops-key"
token_file = "/etc/runner/ops-token"
ca_file = "/etc/runner/ca.pem"
events = ["failed", "missed"]
roles = ["app"]
timeout = "5s"
[[notify.channel]]
name = "hc"
kind = "healthchecks"
url = "https://hc.example.net/ping/s3cret/{role}"
[[notify.channel]]
name = "slack"
kind = "slack"
url_file = "/etc/runner/slack-url"
[[notify.channel]]
name = "teams"
kind = "teams"
url_file = "/etc/runner/teams-url"
[[notify.channel]]
name = "phone"
kind = "ntfy"
url_file = "/etc/runner/ntfy-url"
token_file = "/etc/runner/ntfy-token"
[[notify.channel]]
name = "mail"
kind = "email"
command = ["/usr/sbin/sendmail", "-t", "-i"]
to = ["ops@example.net", "Night Shift <night@example.net>"]
from = "runner@example.net"
"#;

#[test]
fn channels_are_read_rendered_and_read_again() {
    let settings = parse(&role(CHANNELS)).unwrap();
    assert_eq!(settings.warnings, []);
    let kinds: Vec<NotifyChannelKind> = settings.notify.channels.iter().map(|channel| channel.kind).collect();
    assert_eq!(
        kinds,
        [
            NotifyChannelKind::Command,
            NotifyChannelKind::Webhook,
            NotifyChannelKind::Healthchecks,
            NotifyChannelKind::Slack,
            NotifyChannelKind::Teams,
            NotifyChannelKind::Ntfy,
            NotifyChannelKind::Email,
        ]
    );
    let ops = &settings.notify.channels[1];
    assert_eq!(ops.events.as_deref(), Some(&["failed".to_owned(), "missed".to_owned()][..]));
    assert_eq!(ops.roles.as_deref(), Some(&["app".to_owned()][..]));
    let shown = settings.render();
    assert!(!shown.contains("s3cret"), "{shown}");
    for line in ["url = \"https://ops.example.net/…\"", "headers = { X-Environment = \"…\" }", "timeout = \"5s\""] {
        assert!(shown.lines().any(|shown| shown == line), "{line}: {shown}");
    }
    // What is shown has no secrets, so it is read again without them.
    let bare = CHANNELS.lines().filter(|line| !line.contains("s3cret")).collect::<Vec<_>>().join("\n");
    let bare = bare.replace("kind = \"webhook\"", "kind = \"webhook\"\nurl = \"https://ops.example.net/\"");
    let bare = bare.replace("kind = \"healthchecks\"", "kind = \"healthchecks\"\nurl = \"https://hc.example.net/\"");
    let settings = parse(&role(&bare)).unwrap();
    let again = parse(&settings.render()).unwrap();
    assert_eq!((&again.notify, &again.hash), (&settings.notify, &settings.hash));
}

#[test]
fn a_channel_in_a_list_of_inline_tables_is_the_same() {
    let inline = "[notify]\nchannel = [{ name = \"ops\", kind = \"slack\", url_file = \"/u\" }]";
    let listed = "[[notify.channel]]\nname = \"ops\"\nkind = \"slack\"\nurl_file = \"/u\"";
    assert_eq!(parse(&role(inline)).unwrap().notify, parse(&role(listed)).unwrap().notify);
}

#[test]
fn what_a_channel_lacks_or_has_too_much_of_is_said() {
    let channels = [
        "events = []\nevnts = [\"failed\"]",
        "name = \"o p s\"\nkind = \"slak\"\nevents = [\"failed\", \"mised\"]\nroles = [\"ap\", \"db\"]\n\
         headers = { \"A B\" = \"x\", host = \"y\", X = \"a\\nb\", Y = 5 }\ntimeout = \"0s\"",
        "name = \"a\"\nkind = \"slack\"\nurl = \"https://h/{role}\"\ntoken_file = \"/t\"\nto = [\"x\"]\ncommand = [\"x\"]",
        "name = \"a\"\nkind = \"healthchecks\"\nurl = \"https://h/\"\nurl_file = \"/u\"\nevents = [\"failed\"]",
        "name = \"a\"\nkind = \"email\"\nto = [\"ops@example.net\\nBcc: x@y\"]\nfrom = \" \"\n[[notify.channel]]\n\
         name = \"a\"\nkind = \"command\"",
    ];
    let mut said: String =
        channels.iter().map(|lines| refused(&role(&format!("[[notify.channel]]\n{lines}"))) + "\n").collect();
    said +=
        &refused(&role("[notify]\nwebhook = \"https://h/\"\nchannel = [3, { name = \"webhook\", kind = \"teams\" }]"));
    insta::assert_snapshot!(said, @r##"
    runner.toml:7: notify.channel: has no name
        hint: write name = "ops", or another one
    runner.toml:7: notify.channel: has no kind
        hint: write kind = "webhook", or another one
    runner.toml:8: notify.channel.events: is empty
        hint: for all, remove the key
    runner.toml:9: notify.channel.evnts: unknown key
        hint: did you mean "events"?
    runner.toml:8: notify.channel.name: "o p s" is not the name of a channel
        hint: write at most 64 letters, digits, dots, dashes and underscores
    runner.toml:9: notify.channel.kind: "slak" is not known here
        hint: did you mean "slack"?
    runner.toml:10: notify.channel.events: "mised" is not known here
        hint: did you mean "missed"?
    runner.toml:11: notify.channel.roles: there is no role "ap"
        hint: did you mean "app"?
    runner.toml:11: notify.channel.roles: there is no role "db"
        hint: name a role of this config
    runner.toml:12: notify.channel.headers."A B": "A B" is not the name of a header
        hint: write it like "X-Environment"
    runner.toml:12: notify.channel.headers.X:
        a header has visible ASCII characters and blanks only
        hint: remove it
    runner.toml:12: notify.channel.headers.Y: expected a text, found a number
        hint: put it in quotes: "…"
    runner.toml:12: notify.channel.headers.host:
        host is what each request sets itself
        hint: remove it
    runner.toml:13: notify.channel.timeout: must be longer than nothing
        hint: write it like "30s" or "5m"
    runner.toml:10: notify.channel.url: "https://h/{role}": '{' cannot be in a URL
        hint: write it with % and two digits, like %20 for a blank
    runner.toml:11: notify.channel.token_file: is for channels of another kind
        hint: remove it, or correct kind
    runner.toml:12: notify.channel.to: is for channels of another kind
        hint: remove it, or correct kind
    runner.toml:13: notify.channel.command: is for channels of another kind
        hint: remove it, or correct kind
    runner.toml:11: notify.channel.url_file: stands beside url
        hint: keep one of the two
    runner.toml:12: notify.channel.events: is for channels of another kind
        hint: remove it, or correct kind
    runner.toml:7: notify.channel: has no command
        hint: write command = ["/usr/sbin/sendmail", "-t", "-i"]
    runner.toml:10: notify.channel.to:
        "ops@example.net\nBcc: x@y" is not the address of a mail
        hint: write it like "ops@example.net"
    runner.toml:11: notify.channel.from: " " is not the address of a mail
        hint: write it like "ops@example.net"
    runner.toml:12: notify.channel: has no command
        hint: write command = ["/usr/local/bin/tell"]
    runner.toml:13: notify.channel.name: another channel has the name "a"
        hint: give each its own name
    runner.toml:9: notify.channel: expected a table, found a number
        hint: write its keys below a line with its name in brackets, or as { key =
          value }
    runner.toml:9: notify.channel.name: another channel has the name "webhook"
        hint: give each its own name
    runner.toml:9: notify.channel: has no url
        hint: write url = "https://…", or url_file = "/etc/runner/ops-url" with the
          URL in that file
    "##);
}

#[test]
fn a_url_without_tls_is_warned_about() {
    let text = role("[[notify.channel]]\nname = \"ops\"\nkind = \"ntfy\"\nurl = \"http://ntfy.example.net/s3cret\"");
    let warnings: Vec<String> = parse(&text).unwrap().warnings.iter().map(ToString::to_string).collect();
    assert!(warnings[0].contains("notify.channel.url:"), "{warnings:?}");
    assert!(warnings[0].contains("ntfy.example.net is asked without encryption"), "{warnings:?}");
    assert!(!warnings[0].contains("s3cret"), "{warnings:?}");
}

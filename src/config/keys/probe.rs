//! The kinds of probes, and their options. Pure.

use super::super::key::KeyExample::Set;
use super::super::key::ValueForm::{Command, Probe, Probes, Statuses, Text};
use super::super::key::{ConfigKey, POSITIVE, TextForm, key};

/// The kinds of probes. Each probe's table has exactly one of these keys.
pub(in crate::config) static PROBE_KINDS: &[ConfigKey] = &[
    key(
        "vip",
        Text(TextForm::Plain),
        Set(r#""10.0.0.50""#),
        "Yes if the address is on this machine; an address on \"lo\" counts only with interface = \"lo\".",
    ),
    key(
        "http",
        Text(TextForm::HttpUrl),
        Set(r#""http://127.0.0.1:8008/primary""#),
        "An answer 2xx is yes, any other answer is no. No answer is unknown: a refused connection, a timeout, TLS that is \
         not trusted, or a gateway's 407, 502, 504 or 511. Redirects are not followed, and no proxy is used.",
    ),
    key("command", Command, Set(r#"["/path", "arg"]"#), "Exit code 0 is yes, 1 is no, anything else is unknown."),
    key(
        "mounted",
        Text(TextForm::Path),
        Set(r#""/srv/app""#),
        "Yes if a file system is mounted there. Links are not followed; an automount point alone and a directory that is \
         bound onto itself do not count.",
    ),
    key(
        "unit",
        Text(TextForm::Plain),
        Set(r#""app.service""#),
        "Yes if systemd calls the unit active or reloading; a unit that starts or stops is unknown.",
    ),
    key(
        "all",
        Probes,
        Set(r#"[{ vip = "10.0.0.50" }, { mounted = "/srv/app" }]"#),
        "All of these probes must say yes.",
    ),
    key(
        "any",
        Probes,
        Set(r#"[{ vip = "10.0.0.50" }, { vip = "10.0.0.51" }]"#),
        "At least one of these probes must say yes.",
    ),
    key("not", Probe, Set(r#"{ mounted = "/srv/app" }"#), "The opposite answer; unknown stays unknown."),
];

/// The options of probes, with the kinds that have them.
pub(in crate::config) static PROBE_OPTIONS: &[(ConfigKey, &[&str])] = &[
    (key("interface", Text(TextForm::Plain), Set(r#""lo""#), "The interface that must have the address."), &["vip"]),
    (
        key("status", Statuses, Set("[200, 429]"), "The status that means yes, or a list of them. Default: any 2xx."),
        &["http"],
    ),
    (
        key(
            "body",
            Text(TextForm::Plain),
            Set(r#""primary""#),
            "A text that must be in the first 64 KiB of the answer.",
        ),
        &["http"],
    ),
    (
        key(
            "ca_file",
            Text(TextForm::Path),
            Set(r#""/etc/ca.pem""#),
            "https:// only: a PEM file with the root certificates to trust instead of the system's.",
        ),
        &["http"],
    ),
    (
        key(
            "timeout",
            POSITIVE,
            Set(r#""10s""#),
            "No answer within this time is unknown. Default: \"10s\" for a command, else \"5s\".",
        ),
        &["command", "http", "unit"],
    ),
];

/// The option of a probe that is a fallback.
pub(in crate::config) static FALLBACK_AFTER: ConfigKey =
    key("after", POSITIVE, Set(r#""15m""#), "How long a slot must have been due without a commit. Default: \"15m\".");

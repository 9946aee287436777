use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;
use crate::ids::RoleName;

mod notify_channels;
mod reference;
mod schema_for_editors;
mod surroundings;

use reference::EXAMPLE;

fn parse(text: &str) -> Result<Settings, ConfigError> {
    Settings::parse(&[("runner.toml".into(), text.to_owned())], &ConfigEnvironment::default())
}

fn refused(text: &str) -> String {
    let text = parse(text).expect_err("must be refused").to_string();
    for line in text.lines() {
        assert!(line.chars().count() <= 80, "too wide for a terminal: {line}");
    }
    text
}

/// A valid role, with more lines added.
fn role(lines: &str) -> String {
    format!(
        "[store]\nurl = \"/backups\"\nkey_file = \"/k\"\n[role.app]\nlease = \"none\"\nsources = [\"/srv\"]\n{lines}\n"
    )
}

const SMALLEST: &str =
    "[store]\nurl = \"/backups\"\nkey_file = \"/k\"\n[role.app]\nlease = \"none\"\nsources = [\"/srv\"]\n";

#[test]
fn the_smallest_config_has_defaults() {
    let settings = parse(SMALLEST).unwrap();
    insta::assert_snapshot!(settings.render(), @r#"
    timezone = "UTC"

    [store]
    url = "file:///backups"
    key_file = "/k"
    journal = "auto"

    [role.app]
    lease = "none"
    sources = ["/srv"]
    exclude = []
    one_file_system = false
    exclude_caches = false
    jitter = "0s"
    missed_after = "30m"
    stall_timeout = "15m"
    bucket_lease_ttl = "1m"
    takeover_delay = "1m"
    takeover_after = "15m"
    on_lease_unreachable = "stop"
    takeover_trust = "rehash"
    allow_empty = false
    max_unused = 10
    prune_grace = "1day"
    "#);
    assert_eq!(settings.warnings, []);
}

#[test]
fn a_full_config_reads_as_it_says_and_renders_to_itself() {
    let text = r#"
        timezone = "America/New_York"
        [store]
        url = "s3://backups/prod/"
        endpoint = "http://localhost:9000"
        region = "eu-central-1"
        profile = "p"
        credentials_file = "/etc/runner/s3-credentials"
        path_style = false
        storage_class = "GLACIER_IR"
        sse = "aws:kms"
        sse_kms_key_id = "k1"
        ca_file = "/ca.pem"
        passphrase_file = "/etc/runner/pass"
        journal = "bucket"
        limit_upload = "20MiB"
        [role.app]
        nodes = ["b", "a"]
        eligible = { all = [{ vip = "::ffff:10.0.0.50", interface = "lo" }, { not = { command = ["/bin/x", "it's \"q\""] } },
                            { any = [{ command = ["y"], timeout = "3s" }, { http = "http://127.0.0.1:8008/primary" },
                                     { http = "https://[::1]/x?y", status = [429, 200, 200], body = "say \"yes\"\n",
                                       timeout = "2s", ca_file = "/etc/ca.pem" },
                                     { http = "http://h", status = 204 }, { mounted = "/srv//it's here/" },
                                     { unit = 'a\x2db@1.service' }, { unit = "b.timer", timeout = "1m" }] }] }
        keep = { last = 3, daily = 14, yearly = 0, within = "30d" }
        fallback = { not = { mounted = "/srv/it" }, after = "20m" }
        sources = ["/srv/b//", "/srv/a"]
        exclude = ["*.tmp", "!keep.tmp"]
        one_file_system = true
        exclude_caches = true
        exclude_larger_than = 1500
        every = "90m"
        jitter = "5m"
        missed_after = "1h"
        stall_timeout = "90s"
        takeover_trust = "mtime"
        allow_empty = true
        [role."orders.db"]
        encryption = "none"
        lease = "none"
        schedule = "*/5   1 * *   *"
        dumps."db.sql" = { command = ["pg_dump"], user = "postgres", timeout = "2h" }
    "#;
    let settings = parse(text).unwrap();
    let app = &settings.roles[&"app".parse::<RoleName>().unwrap()];
    assert_eq!(app.sources, [PathBuf::from("/srv/a"), "/srv/b".into()]);
    assert_eq!(app.lease, LeaseKind::None, "the default beside a probe");
    assert_eq!(app.key, KeySource::PassphraseFile("/etc/runner/pass".into()));
    assert_eq!(app.schedule, Some(Schedule::Every(Duration::from_mins(90))));
    let Some(Probe::All(probes)) = &app.eligible else { panic!("{:?}", app.eligible) };
    assert_eq!(
        probes[0],
        Probe::Vip { address: "10.0.0.50".parse().unwrap(), interface: Some("lo".into()) },
        "an IPv4 address in IPv6 clothes is the IPv4 address"
    );
    let Probe::Any(any) = &probes[2] else { panic!("{probes:?}") };
    let http = |url: &str, status: &[u16]| Probe::Http {
        url: url.parse().unwrap(),
        status: status.to_vec(),
        body: None,
        timeout: Duration::from_secs(5),
        ca_file: None,
    };
    assert_eq!(any[1], http("http://127.0.0.1:8008/primary", &[]));
    let secure = Probe::Http {
        url: "https://[::1]/x?y".parse().unwrap(),
        status: vec![200, 429],
        body: Some("say \"yes\"\n".into()),
        timeout: Duration::from_secs(2),
        ca_file: Some("/etc/ca.pem".into()),
    };
    assert_eq!(any[2], secure);
    assert_eq!(any[3], http("http://h/", &[204]));
    assert_eq!(any[4], Probe::Mounted { path: "/srv/it's here".into() });
    assert_eq!(any[5], Probe::Unit { unit: r"a\x2db@1.service".into(), timeout: Duration::from_secs(5) });
    assert_eq!(any[6], Probe::Unit { unit: "b.timer".into(), timeout: Duration::from_mins(1) });
    let orders = &settings.roles[&"orders.db".parse::<RoleName>().unwrap()];
    assert_eq!(orders.key, KeySource::None);
    assert_eq!(orders.schedule, Some(Schedule::Cron("*/5 1 * * *".into())));
    assert_eq!(orders.dumps["db.sql"].user.as_deref(), Some("postgres"));

    let again = parse(&settings.render()).unwrap();
    assert_eq!((&again.store, &again.roles), (&settings.store, &settings.roles));
    assert_eq!(again.timezone.iana_name(), Some("America/New_York"));
    assert_eq!(again.hash, settings.hash);
}

#[test]
fn the_hash_is_over_what_it_means_not_over_how_it_is_written() {
    let hash = parse(SMALLEST).unwrap().hash;
    assert_eq!(hash.len(), 16);
    let same =
        format!("# a comment\n{SMALLEST}one_file_system = false\n").replace("\"/backups\"", "\"file:///backups/\"");
    assert_eq!(parse(&same).unwrap().hash, hash);
    assert_ne!(parse(&format!("{SMALLEST}one_file_system = true\n")).unwrap().hash, hash);
}

#[test]
fn a_value_that_is_wrong_is_the_only_problem_of_keep() {
    let text = refused(&role("keep = { within = 30 }"));
    assert!(text.contains("within") && !text.contains("keeps nothing"), "{text}");
    assert!(refused(&role("keep = { daily = 0 }")).contains("keeps nothing"));
}

#[test]
fn unknown_keys_name_the_nearest() {
    insta::assert_snapshot!(refused(&role("shedule = \"0 1 * * *\"\nendpoint = \"x\"\nzzz = 1\nkeep = { dayly = 3 }\ndumps.x = { comand = [\"a\"] }\n[stoer]")), @r#"
    runner.toml:7: role.app.shedule: unknown key
        hint: did you mean "schedule"?
    runner.toml:8: role.app.endpoint: unknown key
        hint: "endpoint" belongs into [store]
    runner.toml:9: role.app.zzz: unknown key
        hint: known here: key_file, passphrase_file, encryption, nodes, eligible,
          fallback, lease, sources, exclude, one_file_system, exclude_caches,
          exclude_larger_than, schedule, every, jitter, missed_after, stall_timeout,
          bucket_lease_ttl, takeover_delay, takeover_after, on_lease_unreachable,
          takeover_trust, allow_empty, keep, max_unused, prune_grace, before, after,
          on_takeover, on_lost, hook_timeout, environment, pass_environment, dumps
    runner.toml:10: role.app.keep.dayly: unknown key
        hint: did you mean "daily"?
    runner.toml:11: role.app.dumps.x.comand: unknown key
        hint: did you mean "command"?
    runner.toml:11: role.app.dumps.x: has no command
        hint: write command = ["pg_dump", "app"]: its output becomes the file
    runner.toml:12: stoer: unknown key
        hint: did you mean "store"?
    "#);
}

#[test]
fn what_is_missing_is_said_with_what_to_write() {
    insta::assert_snapshot!(refused(""), @r#"
    runner.toml: store: is missing: where shall the backups go?
        hint: [store]
          url = "s3://bucket/prefix"  # or "file:///var/backups/runner"
          key_file = "/etc/runner/repository.key"
    runner.toml: role: is missing: what shall be backed up?
        hint: [role.app]
          sources = ["/srv/app"]
    "#);
    insta::assert_snapshot!(refused("[store]\n[role.app]\nlease = \"none\""), @r#"
    runner.toml:1: store: has no url: where shall the backups go?
        hint: write url = "s3://bucket/prefix" or url = "file:///var/backups/runner"
    runner.toml:1: store: has no key, and backups are encrypted unless you refuse it
        hint: write key_file = "/etc/runner/repository.key" (`runner init` creates
          it), or passphrase_file = "/etc/runner/passphrase", or encryption = "none"
    runner.toml:2: role.app: has nothing to back up
        hint: write sources = ["/srv/app"], or give it dumps
    "#);
}

#[test]
fn what_decides_who_backs_up_is_refused_until_it_is_there() {
    let all = "[store]\nurl = \"/b\"\nkey_file = \"/k\"\n\
        [role.a]\nlease = \"bucket\"\nsources = [\"/a\"]\n\
        [role.b]\nlease = \"bucket\"\nsources = [\"/b\"]\n\
        fallback = { any = [{ vip = \"10.0.0.1\" }], after = \"15m\" }\n";
    insta::assert_snapshot!(refused(all), @r#"
    runner.toml:10: role.b.fallback:
        stands in for eligible nodes, and the role has no eligible
        hint: rename it to eligible
    runner.toml:10: role.b.fallback:
        waits for slots that no node commits, and the role has none
        hint: give the role a schedule, or remove fallback
    "#);
    let plain = parse("[store]\nurl = \"/b\"\nkey_file = \"/k\"\n[role.a]\nsources = [\"/a\"]").unwrap();
    assert_eq!(plain.roles[&"a".parse().unwrap()].lease, LeaseKind::Bucket, "the default without a probe");
    let ttl = role("bucket_lease_ttl = \"2h\"");
    insta::assert_snapshot!(refused(&ttl), @r"
    runner.toml:7: role.app.bucket_lease_ttl: is not between 1s and 1h
        hint: 1m is the default, and costs little
    ");
}

#[cfg(feature = "etcd")]
#[test]
fn a_journal_in_etcd_needs_one_and_not_everything_goes_with_it() {
    let with = |etcd: &str| {
        format!(
            "[store]\nurl = \"/b\"\nkey_file = \"/k\"\njournal = \"etcd\"\n[role.a]\nsources = [\"/a\"]\n\
            [role.b]\nlease = \"bucket\"\nsources = [\"/b\"]\n\
            [role.c]\non_lease_unreachable = \"holder_continues\"\nsources = [\"/c\"]\n{etcd}"
        )
    };
    insta::assert_snapshot!(refused(&with("")), @r#"
    runner.toml:4: store.journal: "etcd" needs an [etcd] table
        hint: [etcd]
          endpoints = ["https://etcd1:2379"]
          Or write journal = "auto": most stores can hold it themselves.
    "#);
    let etcd = "[etcd]\nendpoints = [\"https://e1\"]\n";
    insta::assert_snapshot!(refused(&with(etcd)), @r#"
    runner.toml:8: role.b.lease: "bucket" does not go with store.journal = "etcd"
        hint: write lease = "etcd", or remove the line
    runner.toml:11: role.c.on_lease_unreachable:
        "holder_continues" does not go with store.journal = "etcd"
        hint: without etcd nothing can be committed: remove the line
    "#);
    let sound = with(etcd).replace("lease = \"bucket\"\n", "").replace("holder_continues", "stop");
    let settings = parse(&sound).unwrap();
    assert_eq!((settings.store.journal, settings.journal_at.line), (JournalPlacement::Etcd, Some(4)));
}

#[cfg(feature = "etcd")]
#[test]
fn etcd_is_where_leases_are_if_it_is_there() {
    let with = |etcd: &str| {
        format!(
            "[store]\nurl = \"/b\"\nkey_file = \"/k\"\n[role.a]\nsources = [\"/a\"]\n[role.b]\nlease = \"bucket\"\n\
            sources = [\"/b\"]\n[role.c]\neligible = {{ vip = \"10.0.0.1\" }}\nsources = [\"/c\"]\n{etcd}"
        )
    };
    let small = parse(&with("[etcd]\nendpoints = [\"https://e1\", \"https://[::1]:2390/\"]\n")).unwrap();
    let leases: Vec<LeaseKind> = small.roles.values().map(|role| role.lease).collect();
    assert_eq!(leases, [LeaseKind::Etcd, LeaseKind::Bucket, LeaseKind::Etcd], "the default, where it is configured");
    let etcd = small.etcd.clone().unwrap();
    assert_eq!(etcd.endpoints, ["https://e1:2379", "https://[::1]:2390"]);
    assert_eq!((etcd.prefix.as_str(), etcd.lease_ttl), ("/runner", Duration::from_secs(30)));

    let full = "[etcd]\nendpoints = [\"https://e1:2379\"]\nca_file = \"/ca\"\ncert_file = \"/cert\"\nkey_file = \"/key\"\n\
        user = \"runner\"\npassword_file = \"/password\"\nprefix = \"/prod/runner\"\nlease_ttl = \"10s\"\n";
    let full = parse(&with(full)).unwrap();
    let again = parse(&full.render()).unwrap();
    assert_eq!((&again.etcd, &again.hash), (&full.etcd, &full.hash));
    assert_ne!(full.hash, small.hash);

    insta::assert_snapshot!(refused("[store]\nurl = \"/b\"\nkey_file = \"/k\"\n[role.a]\nlease = \"etcd\"\nsources = [\"/a\"]"), @r#"
    runner.toml:5: role.a.lease: "etcd" needs an [etcd] table
        hint: [etcd]
          endpoints = ["https://etcd1:2379"]
          Or write lease = "bucket": a pair needs nothing but its store.
    "#);
    insta::assert_snapshot!(refused(&with("[etcd]\n")), @r#"
    runner.toml:12: etcd: has no endpoints: where is etcd?
        hint: write endpoints = ["https://etcd1:2379", "https://etcd2:2379",
          "https://etcd3:2379"]
    "#);
    insta::assert_snapshot!(refused(&with(
        "[etcd]\nendpoints = [\"http://e1\", \"https://e2\", \"https://e2:2379\", \"e3:2379\", \"https://u:p@e4\", \"https://e5/x\", \"https://::1\", \"https://e6:x\"]\n\
         ca_file = \"ca.pem\"\ncert_file = \"/cert\"\nuser = \"runner\"\nprefix = \"runner/\"\nlease_ttl = \"1s\"\n"
    )), @r#"
    runner.toml:13: etcd.endpoints: "https://e2:2379" is there twice
        hint: keep one of them
    runner.toml:13: etcd.endpoints: is not a URL
        hint: write "https://e3:2379"
    runner.toml:13: etcd.endpoints: has a user in it
        hint: write user = "…" and password_file = "…" instead
    runner.toml:13: etcd.endpoints: "https://e5/x" is not an endpoint
        hint: write it like "https://etcd1:2379" or "https://[2001:db8::1]:2379"
    runner.toml:13: etcd.endpoints: "https://::1" is not an endpoint
        hint: write it like "https://etcd1:2379" or "https://[2001:db8::1]:2379"
    runner.toml:13: etcd.endpoints: "https://e6:x" is not an endpoint
        hint: write it like "https://etcd1:2379" or "https://[2001:db8::1]:2379"
    runner.toml:13: etcd.endpoints: has http:// beside https://
        hint: write https:// in all of them
    runner.toml:14: etcd.ca_file: "ca.pem" is not absolute
        hint: write it from the root, like "/srv/ca.pem"
    runner.toml:14: etcd.ca_file: goes with https:// endpoints only
        hint: write https:// in all of them
    runner.toml:15: etcd.cert_file: needs key_file beside it
        hint: add it, or remove this line
    runner.toml:15: etcd.cert_file: goes with https:// endpoints only
        hint: write https:// in all of them
    runner.toml:16: etcd.user: needs password_file beside it
        hint: add it, or remove this line
    runner.toml:17: etcd.prefix: "runner/" is not a prefix of keys
        hint: write it like "/runner": a slash first, none at the end
    runner.toml:18: etcd.lease_ttl: is not between 2s and 10m
        hint: 30s is the default
    "#);
    insta::assert_snapshot!(refused(&with("[etcd]\nendpoints = []\nlease_ttl = \"2500ms\"\npassword_file = \"/p\"\n")), @r#"
    runner.toml:13: etcd.endpoints: is empty: where is etcd?
        hint: write endpoints = ["https://etcd1:2379", "https://etcd2:2379",
          "https://etcd3:2379"]
    runner.toml:14: etcd.lease_ttl: is not a whole number of seconds
        hint: write it like "30s"
    runner.toml:15: etcd.password_file: needs user beside it
        hint: add it, or remove this line
    "#);
}

#[cfg(not(feature = "etcd"))]
#[test]
fn without_etcd_built_in_it_is_refused() {
    let text = "[store]\nurl = \"/b\"\nkey_file = \"/k\"\n[etcd]\nendpoints = [\"https://e\"]\n\
        [role.a]\nlease = \"etcd\"\nsources = [\"/a\"]";
    assert!(refused(text).contains("etcd: this program was built without etcd"));
    assert!(refused(&text.replace("[etcd]\nendpoints = [\"https://e\"]", "")).contains("built without etcd"));
}

#[test]
fn what_is_only_convenient_is_warned_about() {
    let text = role("[notify]\nwebhook = \"https://x\"\n[listen]\naddress = \"127.0.0.1:1\"");
    let mut shown = String::new();
    for warning in parse(&text).unwrap().warnings {
        writeln!(shown, "{warning}").unwrap();
    }
    insta::assert_snapshot!(shown, @r"
    runner.toml:9: listen: no effect: nothing listens yet
    ");
}

#[test]
fn who_is_told_is_shown_without_what_lets_others_speak() {
    let text = role(
        "before = [\"freeze\", \"-q\"]\nhook_timeout = \"1m\"\n[notify]\ncommand = [\"tell\"]\n\
        webhook = \"https://ops.example.net/hook/s3cret?key=t0ken\"\n\
        healthchecks = \"https://hc.example.net/ping/s3cret/{role}\"",
    );
    let settings = parse(&text).unwrap();
    assert_eq!(settings.warnings, []);
    let shown = settings.render();
    assert!(!shown.contains("s3cret") && !shown.contains("t0ken"), "{shown}");
    for line in [
        "webhook = \"https://ops.example.net/…\"",
        "healthchecks = \"https://hc.example.net/…\"",
        "command = [\"tell\"]",
        "before = [\"freeze\", \"-q\"]",
        "hook_timeout = \"1m\"",
    ] {
        assert!(shown.lines().any(|l| l == line), "{line}: {shown}");
    }
    assert!(refused(&shown).contains("cannot be in a URL"), "what is shown is not taken for the whole");
    let other = parse(&text.replace("t0ken", "other")).unwrap();
    assert_ne!(other.hash, settings.hash, "two nodes that tell different people are not configured alike");
    insta::assert_snapshot!(refused(&role(
        "hook_timeout = \"0s\"\non_lost = []\n[notify]\ntimeout = \"1h\"\nwebhook = \"https://me:s3cret@h/\"\nhealthchecks = \"https://{role}.h/\""
    )), @r#"
    runner.toml:7: role.app.hook_timeout: must be longer than nothing
        hint: write it like "30s" or "5m"
    runner.toml:8: role.app.on_lost: names no program
        hint: write it like ["pg_dump", "app"]
    runner.toml:10: notify.timeout: is not between 1s and 2m
        hint: 10s is the default
    runner.toml:11: notify.webhook: a URL here holds no credentials
        hint: name a command = ["…"] instead, with a script that has them
    runner.toml:12: notify.healthchecks: has {role} in the server's name
        hint: it stands in the path
    "#);
}

#[test]
fn values_of_the_wrong_form_say_what_to_write() {
    insta::assert_snapshot!(refused(&role(
        "allow_empty = \"yes\"\njitter = 5\nmissed_after = \"0s\"\nexclude_larger_than = \"20 apples\"\ntakeover_trust = \"mtimes\"\n\
         exclude = [\"ok\", 3]\nkeep = { last = -1 }\nschedule = \"0 1 * *\"\nnodes = \"a\"\neligible = \"10.0.0.5\"\none_file_system = 1.5"
    )), @r#"
    runner.toml:7: role.app.allow_empty: expected true or false, found a text
        hint: write true or false, without quotes
    runner.toml:8: role.app.jitter: 5 has no unit
        hint: write it like "30s", "5m" or "1h30m"
    runner.toml:9: role.app.missed_after: must be longer than nothing
        hint: write it like "30s" or "5m"
    runner.toml:10: role.app.exclude_larger_than: "20 apples" is not a size
        hint: write it like "20MiB" (1024 based), "20MB" (1000 based) or in bytes
    runner.toml:11: role.app.takeover_trust: "mtimes" is not known here
        hint: did you mean "mtime"?
    runner.toml:12: role.app.exclude: entry 2 is a number, expected a text
        hint: put it in quotes
    runner.toml:13: role.app.keep.last: expected how many to keep
        hint: write a number, 0 or more
    runner.toml:14: role.app.schedule: a cron line has five fields, "0 1 * *" has 4
        hint: write minute, hour, day, month, weekday: "0 1 * * *" is every day at
          01:00
    runner.toml:15: role.app.nodes: expected a list of texts, found a text
        hint: write it like ["one", "two"]
    runner.toml:16: role.app.eligible: expected a probe, found a text
        hint: write one like { vip = "10.0.0.50" } or { command = ["/bin/am-i-up"] }
    runner.toml:17: role.app.one_file_system:
        expected true or false, found a fraction
        hint: write true or false, without quotes
    "#);
}

#[test]
fn values_that_make_no_sense_say_why() {
    insta::assert_snapshot!(refused(
        "timezone = \"Europe/Berln\"\n[store]\nurl = \"ftp://x\"\nkey_file = \"k\"\npassphrase_file = \"/p\"\n\
         [role.\"a/b\"]\nlease = \"none\"\nsources = [\"/a\"]\n\
         [role.b]\nlease = \"none\"\nsources = [\"srv\", \"/srv/app/\", \"/srv/app/x\", \"/srv\", \"/srv/app\", \"/x/../y\"]\n\
         schedule = \"0 0 30 2 *\"\nevery = \"1h\"\nexclude = [\"a{b\"]\nnodes = []\n\
         [role.c]\neligible = { vip = \"10.0.0.50/24\" }\nsources = [\"/c\"]\nevery = \"1m\"\njitter = \"1m\"\n\
         dumps.\"x/y\" = { command = [\"a\"] }\ndumps.z = { command = [] }"
    ), @r#"
    runner.toml:1: timezone: there is no time zone "Europe/Berln"
        hint: did you mean "Europe/Berlin"?
    runner.toml:3: store.url: there is no store for "ftp" URLs
        hint: write "s3://bucket/prefix" or "file:///var/backups/runner"
    runner.toml:5: store.passphrase_file: stands beside key_file
        hint: there is one way to unlock: keep one of the two
    runner.toml:6: role."a/b":
        "a/b" is not a role name: '/' is not one of a-z A-Z 0-9 . _ -
        hint: rename the role, like [role.app]
    runner.toml:11: role.b.sources: "srv" is not absolute
        hint: write it from the root, like "/srv/srv"
    runner.toml:11: role.b.sources: "/srv/app/x" is inside "/srv/app"
        hint: keep the outer one; exclude what is too much
    runner.toml:11: role.b.sources: "/srv/app" is inside "/srv"
        hint: keep the outer one; exclude what is too much
    runner.toml:11: role.b.sources: "/srv/app" is there twice
        hint: keep the outer one; exclude what is too much
    runner.toml:11: role.b.sources: "/x/../y" contains ".."
        hint: write where it really is
    runner.toml:12: role.b.schedule: "0 0 30 2 *" never comes round
        hint: that day is in no month it names
    runner.toml:13: role.b.every: stands beside schedule
        hint: keep one of the two
    runner.toml:14: role.b.exclude:
        "a{b" is not a pattern (unclosed alternate group; missing '}' (maybe escape
        '{' with '[{]'?))
        hint: write it as in a .gitignore: "*.tmp", "/srv/app/cache/**"
    runner.toml:15: role.b.nodes: is empty: no node could ever hold the role
        hint: name them, or remove the key
    runner.toml:17: role.c.eligible.vip: "10.0.0.50/24" is not an address
        hint: write it without the mask: "10.0.0.50"
    runner.toml:20: role.c.jitter: is not shorter than every
        hint: write less than the time between two slots
    runner.toml:21: role.c.dumps."x/y": "x/y" is not a file name
        hint: write a plain one, like "app.sql"
    runner.toml:22: role.c.dumps.z.command: names no program
        hint: write it like ["pg_dump", "app"]
    "#);
}

#[test]
fn a_source_may_be_the_root_but_not_inside_another() {
    assert!(parse(&SMALLEST.replace("\"/srv\"", "\"/\"")).is_ok());
    insta::assert_snapshot!(refused(&SMALLEST.replace("\"/srv\"", "\"/\", \"/srv\"")), @r#"
    runner.toml:6: role.app.sources: "/srv" is inside "/"
        hint: keep the outer one; exclude what is too much
    "#);
    assert!(parse(&SMALLEST.replace("\"/srv\"", "\"/srv\", \"/srv2\"")).is_ok(), "a common beginning is not inside");
}

#[test]
fn probes_are_one_thing_each() {
    insta::assert_snapshot!(refused(&role(
        "eligible = { all = [{ vip = \"fe80::1%eth0\" }, { vip = \"0.0.0.0\" }, { vip = \"10.0.0.1\", command = [\"x\"] },\n\
         {}, { vip = \"10.0.0.1\", timeout = \"1s\" }, { vop = \"x\" }, { not = [1] }, 7], timeout = \"1s\" }"
    )), @r#"
    runner.toml:7: role.app.eligible.all: command and vip in one probe
        hint: write { all = [ {…}, {…} ] } for both, { any = [ {…}, {…} ] } for one
    runner.toml:7: role.app.eligible.all.vip: "fe80::1%eth0" is not an address
        hint: name the interface beside it: { vip = "…", interface = "eth0" }
    runner.toml:7: role.app.eligible.all.vip: "0.0.0.0" is no machine's address
        hint: write it like "10.0.0.50" or "2001:db8::50"
    runner.toml:8: role.app.eligible.all: no probe in it
        hint: write one like { vip = "10.0.0.50" } or { command = ["/bin/am-i-up"] }
    runner.toml:8: role.app.eligible.all.timeout: out of place
        hint: it goes with command, http or unit, inside the same braces
    runner.toml:8: role.app.eligible.all.vop: unknown key
        hint: did you mean "vip"?
    runner.toml:8: role.app.eligible.all.not: expected a probe, found a list
        hint: write one like { vip = "10.0.0.50" } or { command = ["/bin/am-i-up"] }
    runner.toml:8: role.app.eligible.all: expected a probe, found a number
        hint: write one like { vip = "10.0.0.50" } or { command = ["/bin/am-i-up"] }
    runner.toml:8: role.app.eligible.timeout: out of place
        hint: it goes with command, http or unit, inside the same braces
    "#);
    insta::assert_snapshot!(refused(&role(
        "eligible = { any = [{ http = \"127.0.0.1:8008/primary\" }, { http = \"http://u:secret@h/\" }, { http = \"http://h/\", status = 99 },\n\
         { http = \"http://h/\", status = [200, \"ok\", 700], body = \"\" }, { http = \"http://h/\", status = [] }, { http = \"http://h/\", status = \"2xx\" },\n\
         { http = \"http://h/\", ca_file = \"/ca.pem\" }, { http = \"https://h/\", ca_file = \"ca.pem\", timeout = \"0s\", interface = \"lo\" },\n\
         { http = \"http://h/\", stauts = 200 }, { http = [\"x\"] }, { vip = \"10.0.0.1\", status = 200, body = \"x\" },\n\
         { mounted = \"srv\" }, { mounted = \"/\" }, { mounted = \"/srv/a\", timeout = \"1s\" }, { mounted = true },\n\
         { unit = \"app\" }, { unit = \"app@.service\" }, { unit = \"app*.service\" }, { unit = \"a.service\", http = \"http://h/\" }] }"
    )), @r#"
    runner.toml:7: role.app.eligible.any.status: 99 is not the status of an answer
        hint: write status = 200, or a list like [200, 429]
    runner.toml:7: role.app.eligible.any.http:
        "127.0.0.1:8008/primary" is not an HTTP URL
        hint: write it like "http://127.0.0.1:8008/primary"
    runner.toml:7: role.app.eligible.any.http: a URL here holds no credentials
        hint: name a command = ["…"] instead, with a script that has them
    runner.toml:8: role.app.eligible.any.status: expected a status, found a text
        hint: write status = 200, or a list like [200, 429]
    runner.toml:8: role.app.eligible.any.status: 700 is not the status of an answer
        hint: write status = 200, or a list like [200, 429]
    runner.toml:8: role.app.eligible.any.status: names no status
        hint: for any 2xx, remove it
    runner.toml:8: role.app.eligible.any.status:
        expected a status, or several, found a text
        hint: write status = 200, or a list like [200, 429]
    runner.toml:8: role.app.eligible.any.body: is empty, and that is in every body
        hint: write a text, or remove it
    runner.toml:9: role.app.eligible.any.interface: out of place
        hint: it goes with vip, inside the same braces
    runner.toml:9: role.app.eligible.any.timeout: must be longer than nothing
        hint: write it like "30s" or "5m"
    runner.toml:9: role.app.eligible.any.ca_file: goes with https://
        hint: write the URL with https://, or remove ca_file
    runner.toml:9: role.app.eligible.any.ca_file: "ca.pem" is not absolute
        hint: write it from the root, like "/srv/ca.pem"
    runner.toml:10: role.app.eligible.any.stauts: unknown key
        hint: did you mean "status"?
    runner.toml:10: role.app.eligible.any.http: expected a text, found a list
        hint: put it in quotes: "…"
    runner.toml:10: role.app.eligible.any.body: out of place
        hint: it goes with http, inside the same braces
    runner.toml:10: role.app.eligible.any.status: out of place
        hint: it goes with http, inside the same braces
    runner.toml:11: role.app.eligible.any.timeout: out of place
        hint: it goes with command, http or unit, inside the same braces
    runner.toml:11: role.app.eligible.any.mounted:
        expected a text, found true or false
        hint: put it in quotes: "…"
    runner.toml:11: role.app.eligible.any.mounted: "srv" is not absolute
        hint: write it from the root, like "/srv/srv"
    runner.toml:11: role.app.eligible.any.mounted: is mounted always
        hint: name what moves between the nodes
    runner.toml:12: role.app.eligible.any: http and unit in one probe
        hint: write { all = [ {…}, {…} ] } for both, { any = [ {…}, {…} ] } for one
    runner.toml:12: role.app.eligible.any.unit: "app" has no type of unit at its end
        hint: write "app.service"
    runner.toml:12: role.app.eligible.any.unit:
        "app@.service" is a template, which never runs itself
        hint: name one of its instances, like "app@main.service"
    runner.toml:12: role.app.eligible.any.unit:
        "app*.service" is not the name of a unit: '*' is in it
        hint: write it like "app.service" or "postgresql@15-main.service"
    "#);
    let deep = format!("{}{{ vip = \"10.0.0.1\" }}{}", "{ not = ".repeat(17), " }".repeat(17));
    assert!(parse(&role(&format!("eligible = {deep}"))).unwrap_err().to_string().contains("nested more than 16 deep"));
}

#[test]
fn s3_keys_beside_a_directory_are_refused() {
    insta::assert_snapshot!(refused(&SMALLEST.replace("key_file", "region = \"x\"\nsse_kms_key_id = \"y\"\nkey_file")), @r"
    runner.toml:3: store.region: is for S3 only, and the store is a directory
        hint: remove it
    runner.toml:4: store.sse_kms_key_id:
        is for S3 only, and the store is a directory
        hint: remove it
    ");
}

#[test]
fn credentials_come_from_systemd() {
    let text = SMALLEST.replace("\"/k\"", "\"credential:backup-key\"");
    insta::assert_snapshot!(refused(&text), @r"
    runner.toml:3: store.key_file:
        there are no credentials here ($CREDENTIALS_DIRECTORY is not set)
        hint: systemd gives them to a service with LoadCredential=backup-key:FILE;
          to run it by hand, set the variable or name the file itself
    ");
    let host =
        ConfigEnvironment { credentials_directory: Some("/run/credentials/x".into()), ..ConfigEnvironment::default() };
    let settings = Settings::parse(&[("r".into(), text.clone())], &host).unwrap();
    assert_eq!(settings.store.key, KeySource::KeyFile("/run/credentials/x/backup-key".into()));
    let out = text.replace("backup-key", "../shadow");
    assert!(Settings::parse(&[("r".into(), out)], &host).is_err(), "a name cannot leave the directory");
}

#[test]
fn broken_toml_names_every_line() {
    insta::assert_snapshot!(refused("[store]\nurl = \"x\nregion = y\nkey_file = \"a\"\nkey_file = \"b\"\n"), @r#"
    runner.toml:2: invalid basic string, expected `"`
        hint: in: url = "x
    runner.toml:3: string values must be quoted, expected literal string
        hint: in: region = y
    runner.toml:5: duplicate key
        hint: in: key_file = "b"
    "#);
}

#[test]
fn several_files_are_one_config() {
    let more = "[role.db]\nlease = \"none\"\nsources = [\"/db\"]\n[role.app]\nallow_empty = true\n";
    let files = |main: &str, more: &str| {
        Settings::parse(
            &[("r.toml".into(), main.to_owned()), ("conf.d/a.toml".into(), more.to_owned())],
            &ConfigEnvironment::default(),
        )
    };
    let settings = files(SMALLEST, more).unwrap();
    assert_eq!(settings.roles.len(), 2);
    assert!(settings.roles[&"app".parse::<RoleName>().unwrap()].allow_empty);
    insta::assert_snapshot!(files(SMALLEST, "[role.app]\nsources = [\"/x\"]\n[store]\nurl = \"/y\"\n").unwrap_err(), @r"
    conf.d/a.toml:2: role.app.sources: defined twice
        hint: it is also in r.toml:6
          keep one of them
    conf.d/a.toml:4: store.url: defined twice
        hint: it is also in r.toml:2
          keep one of them
    ");
    // An inline probe is one value: half of it from each file would be a third probe that no file contains.
    let probe = format!("{SMALLEST}eligible = {{ vip = \"10.0.0.1\" }}\n");
    assert!(
        files(&probe, "[role.app.eligible]\ninterface = \"lo\"").unwrap_err().to_string().contains("defined twice")
    );
}

#[test]
fn files_are_found_and_read_in_the_order_of_their_names() {
    let dir = tempfile::tempdir().unwrap();
    let main = dir.path().join("runner.toml");
    let missing = Settings::load(Some(&main), &ConfigEnvironment::default()).unwrap_err().to_string();
    assert!(missing.contains("--config names it") && missing.contains("config init"), "{missing}");

    std::fs::write(&main, SMALLEST).unwrap();
    std::fs::create_dir(dir.path().join("conf.d")).unwrap();
    let fragment = |name: &str, text: &str| std::fs::write(dir.path().join("conf.d").join(name), text).unwrap();
    fragment("20.toml", "[role.b]\nlease = \"none\"\nsources = [\"/b\"]");
    fragment("10.toml", "[role.a]\nlease = \"none\"\nsources = [\"/a\"]");
    fragment(".10.toml.swp.toml", "nonsense");
    fragment("README", "nonsense");
    let by_env = ConfigEnvironment { runner_config: Some(main.clone()), ..ConfigEnvironment::default() };
    let settings = Settings::load(None, &by_env).unwrap();
    assert_eq!(settings.files, [main.clone(), dir.path().join("conf.d/10.toml"), dir.path().join("conf.d/20.toml")]);
    assert_eq!(settings.roles.len(), 3);

    fragment("30.toml", "a = 1\nb = 2");
    std::fs::write(&main, b"a = 1\n# \xff\n").unwrap();
    let text = Settings::load(Some(&main), &ConfigEnvironment::default()).unwrap_err().to_string();
    assert!(text.contains("runner.toml:2: is not UTF-8"), "{text}");
}

#[test]
fn the_starter_is_right_as_it_stands() {
    for (source, url) in [("/srv/app", "s3://bucket/p"), ("/with \"quotes\" and \\", "/var/x y")] {
        let text = starter(&[source.into()], &url.parse().unwrap());
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
        let settings = parse(&text).unwrap_or_else(|e| panic!("{text}{e}"));
        assert_eq!(settings.roles[&"app".parse::<RoleName>().unwrap()].sources, [PathBuf::from(source)]);
        assert_eq!(settings.store.url, url.parse().unwrap());
        assert_eq!(settings.warnings, []);
    }
}

#[test]
fn flags_are_checked_like_files() {
    let name: RoleName = DEFAULT_ROLE.parse().unwrap();
    let make = |sources: &[&str]| {
        let sources: Vec<PathBuf> = sources.iter().map(PathBuf::from).collect();
        Settings::for_flags(&sources, "/b".parse().unwrap(), name.clone(), KeySource::KeyFile("/k".into()))
    };
    let settings = make(&["/z/", "/a"]).unwrap();
    assert_eq!(settings.roles[&name].sources, [PathBuf::from("/a"), "/z".into()]);
    assert_eq!(settings.roles[&name].lease, LeaseKind::None);
    assert_eq!(parse(&settings.render()).unwrap().hash, settings.hash, "the same said in a file");
    assert!(make(&[]).is_ok());
    insta::assert_snapshot!(make(&["a", "/b", "/b/c"]).unwrap_err(), @r#"
    command line: --source: "a" is not an absolute path without ".."
    command line: --source: "/b/c" is inside "/b"
        hint: keep the outer one
    "#);
}

proptest::proptest! {
    /// A config that an editor, a merge conflict or a broken disk has damaged is either valid, or its error says
    /// something.
    #[test]
    fn damage_is_an_error_and_never_a_panic(from in 0..EXAMPLE.len(), len in 0..200usize, with in "[ -~\n]{0,20}") {
        // The example is ASCII but for a few characters in comments.
        let text: Vec<char> = EXAMPLE.chars().collect();
        let (from, to) = (from.min(text.len()), (from + len).min(text.len()));
        let damaged: String = text[..from].iter().copied().chain(with.chars()).chain(text[to..].iter().copied()).collect();
        if let Err(e) = parse(&damaged) {
            proptest::prop_assert!(!e.problems.is_empty() && !e.to_string().is_empty());
        }
    }
}

#[test]
fn a_config_that_everybody_can_change_is_refused_and_a_readable_key_is_told() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let (file, key) = (dir.path().join("runner.toml"), dir.path().join("key"));
    std::fs::write(&file, SMALLEST.replace("/k", key.to_str().unwrap())).unwrap();
    std::fs::write(&key, "x").unwrap();
    let set = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    let load = || Settings::load(Some(&file), &ConfigEnvironment::default());
    set(&file, 0o644);
    set(&key, 0o600);
    assert_eq!(load().unwrap().warnings, []);
    set(&key, 0o644);
    let warnings = load().unwrap().warnings;
    let [warning] = &warnings[..] else { panic!("{warnings:?}") };
    assert!(warning.what.contains("everybody on this host can read it"), "{warning}");
    assert!(warning.hints[0].starts_with("chmod go-r "), "{warning}");
    set(&file, 0o666);
    let refused = load().unwrap_err().to_string();
    assert!(refused.contains("mode 0666") && refused.contains("hint: chmod o-w "), "{refused}");
    assert_eq!(refused.matches("hint: ").count(), 1, "nothing but that: {refused}");
    assert_eq!(refused.matches(file.to_str().unwrap()).count(), 2, "once, and in the command: {refused}");
}

#[test]
fn a_config_that_is_missing_is_told_apart_from_one_that_cannot_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |file: &Path| Settings::load(Some(file), &ConfigEnvironment::default()).unwrap_err();
    let file = dir.path().join("runner.toml");
    let missing = refused(&file);
    let init = format!("'runner config init {}' writes one to start from", file.display());
    assert_eq!(missing.hints(), Some(format!("--config names it: is it mistyped?\n{init}")));
    assert!(missing.what().ends_with(": cannot be read (No such file or directory)"), "{missing}");
    assert_eq!(refused(dir.path()).hints().as_deref(), Some("name the file in it"));
}

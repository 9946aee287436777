//! The keys of a role, of its retention policy and of its dumps. Pure.

use std::time::Duration;

use super::super::field::{PrintField, SecretDisplay, print_cron, print_every, words};
use super::super::key::KeyExample::{Commented, Set};
use super::super::key::ValueForm::{
    Command, Count, Fallback, Flag, NamedTables, Probe, Size, Table, Text, Texts, VariableNames, Variables, Word,
};
use super::super::key::{
    ANY_COUNT, ANY_DURATION, ConfigTable, DurationBounds, KeyField, KeyRow, POSITIVE, TextForm, ValueForm, checked,
    field, printed, row, unlocking,
};
use super::super::settings::{
    DumpSettings, LeaseKind, LeaseUnreachablePolicy, RetentionPolicy, RoleSettings, TakeoverTrust,
};

/// The TTL of a lease in the bucket: a shorter one is lost to a slow request, a longer one keeps the other node out for
/// no use.
const BUCKET_LEASE_TTL: DurationBounds =
    DurationBounds::between(Duration::from_secs(1), Duration::from_hours(1)).reason(", and costs little");

/// How long a run may make no progress: a healthy run may wait some seconds for a slow request, and a week is as good
/// as for ever.
const STALL_TIMEOUT: DurationBounds = DurationBounds::between(Duration::from_secs(1), Duration::from_hours(7 * 24))
    .reason(": longer than a healthy run is silent");

pub(in crate::config) static ROLE: &[KeyRow<RoleSettings>] = &[
    row(
        "key_file",
        Text(TextForm::SecretPath),
        unlocking!("key_file"),
        Commented(r#""/etc/runner/app.key""#),
        "The role's own key instead of the store's; at most one of key_file, passphrase_file and encryption. They mean \
         what they mean in [store].",
    ),
    row(
        "passphrase_file",
        Text(TextForm::SecretPath),
        unlocking!("passphrase_file"),
        Commented(r#""/etc/runner/app.passphrase""#),
        "Instead of key_file: a file with the role's own passphrase.",
    ),
    row(
        "encryption",
        Word(|| vec!["none"]),
        unlocking!("encryption"),
        Commented(r#""none""#),
        "Instead of key_file: no encryption of this role.",
    ),
    row(
        "nodes",
        Texts(TextForm::Plain),
        checked!(nodes),
        Set(r#"["app01", "app02"]"#),
        "Which nodes may ever hold the role, by hostname or --node name: for one file over a whole fleet. Default: all.",
    ),
    row(
        "eligible",
        Probe,
        checked!(eligible),
        Set(r#"{ vip = "10.0.0.50" }"#),
        "When a node should be active: a probe of what the node itself can see. It answers yes, no or unknown, and \
         unknown never starts a backup. Default: every node that may hold the role is eligible.",
    ),
    row(
        "fallback",
        Fallback,
        checked!(fallback),
        Commented(r#"{ any = [{ vip = "10.0.0.51" }], after = "15m" }"#),
        "Which node may do what no eligible node did: one whose probe says yes when a slot has been due for the time \
         after without a commit. It is for that slot; an eligible node that comes back has the role again. Default: none.",
    ),
    row(
        "lease",
        Word(words::<LeaseKind>),
        checked!(lease),
        Set(r#""bucket""#),
        "What makes the role exclusive. With \"none\" the journal still fences. Default: \"etcd\" if there is an [etcd], \
         else \"none\" beside an eligible, else \"bucket\".",
    ),
    row(
        "sources",
        Texts(TextForm::Path),
        checked!(sources),
        Set(r#"["/srv/app"]"#),
        "What is backed up: absolute paths of directories or files, none inside another. Required, unless the role has \
         dumps. A symbolic link is refused: the path that it leads to is named instead. A file whose size, times and \
         inode are unchanged is not read again. What a program writes through a shared mapping (mmap) into a page that is \
         dirty already changes no time: a database of that kind belongs into a dump, or is read by `runner backup \
         --rehash`.",
    ),
    row(
        "exclude",
        Texts(TextForm::Plain),
        field!(exclude),
        Set(r#"["*.tmp", "/srv/app/cache/**"]"#),
        "Patterns as in a .gitignore; a leading / means the root of the file system.",
    ),
    row("one_file_system", Flag, field!(one_file_system), Set("false"), "Stay on the file system of each source."),
    row(
        "exclude_caches",
        Flag,
        field!(exclude_caches),
        Set("false"),
        "Leave out the content of directories with a valid CACHEDIR.TAG, but not of the sources themselves.",
    ),
    row(
        "exclude_larger_than",
        Size,
        field!(exclude_larger_than),
        Commented(r#""10GiB""#),
        "Leave out files that are larger. Default: no limit.",
    ),
    row(
        "schedule",
        Text(TextForm::Cron),
        printed!(|role, _| print_cron(role.schedule.as_ref())),
        Set(r#""0 1 * * *""#),
        "When backups run: a cron line with minute, hour, day, month and weekday in the timezone of the config. A time \
         that daylight saving skips runs once, that much later; one that it repeats runs once. Default without schedule \
         and every: only by hand.",
    ),
    row(
        "every",
        ValueForm::Duration(DurationBounds::POSITIVE.whole_seconds()),
        printed!(|role, _| print_every(role.schedule.as_ref())),
        Commented(r#""1h""#),
        "Instead of schedule: the distance of the slots, counted from 1970-01-01 00:00 UTC.",
    ),
    row(
        "jitter",
        ANY_DURATION,
        field!(jitter),
        Set(r#""5m""#),
        "Spreads roles: each starts later by its own fixed part of this, which is derived from its name.",
    ),
    row(
        "missed_after",
        POSITIVE,
        field!(missed_after),
        Set(r#""30m""#),
        "How late a run for a slot may start. It must be committed before the next slot.",
    ),
    row(
        "stall_timeout",
        ValueForm::Duration(STALL_TIMEOUT),
        field!(stall_timeout),
        Set(r#""15m""#),
        "A run that makes no progress for this long is ended, and the role is left to another node for a while. No \
         progress means: nothing is read, walked, sent or answered; a dump or hook neither prints nor uses more than a \
         twentieth of a processor. It is longer than a healthy run is ever silent.",
    ),
    row(
        "bucket_lease_ttl",
        ValueForm::Duration(BUCKET_LEASE_TTL),
        field!(bucket_lease_ttl),
        Set(r#""1m""#),
        "How long a lease in the bucket keeps other nodes out after its holder died.",
    ),
    row(
        "takeover_delay",
        ANY_DURATION,
        field!(takeover_delay),
        Set(r#""1m""#),
        "How long a node leaves a due slot to the node that had the role last, where a lease decides.",
    ),
    row(
        "takeover_after",
        POSITIVE,
        field!(takeover_after),
        Set(r#""15m""#),
        "How long other nodes leave the role to a silent holder, or to the node that an operator gave it to.",
    ),
    row(
        "on_lease_unreachable",
        Word(words::<LeaseUnreachablePolicy>),
        field!(on_lease_unreachable),
        Set(r#""stop""#),
        "What happens while the holder of the lease cannot be found out: \"stop\" starts nothing; with \
         \"holder_continues\" the node that had the role last goes on with backups while its probes say yes, and the \
         journal fences. \"holder_continues\" does not go with a journal in etcd.",
    ),
    row(
        "takeover_trust",
        Word(words::<TakeoverTrust>),
        field!(takeover_trust),
        Set(r#""rehash""#),
        "After the role came from another node: \"rehash\" reads again what this node's own cache does not confirm, \
         \"mtime\" trusts size and modification time.",
    ),
    row(
        "allow_empty",
        Flag,
        field!(allow_empty),
        Set("false"),
        "Accept a source without a file where there were some, sources that have none at all, and a dump that prints \
         nothing. Without it each of these is an error: a volume that is not mounted, or a mistake.",
    ),
    row(
        "keep",
        Table(ConfigTable::Keep),
        checked!(keep),
        Set(""),
        "Which snapshots `runner prune` and the daemon (once a day) keep. Default: all.",
    ),
    row(
        "max_unused",
        Count(100),
        field!(max_unused),
        Set("10"),
        "How much of what is stored, in percent, may be unused before a prune rewrites wasteful packs.",
    ),
    row(
        "prune_grace",
        ANY_DURATION,
        field!(prune_grace),
        Set(r#""1d""#),
        "How long unused content stays in the store, for restores that are under way.",
    ),
    row(
        "before",
        Command,
        field!(hooks.before),
        Commented(r#"["/usr/local/bin/freeze"]"#),
        "A command that runs before a backup: program and arguments, no shell. If it fails, the run fails. It gets \
         RUNNER_NODE, RUNNER_ROLE, RUNNER_TERM and RUNNER_SLOT. See docs/ELECTION.md.",
    ),
    row(
        "after",
        Command,
        field!(hooks.after),
        Commented(r#"["/usr/local/bin/thaw"]"#),
        "A command that runs whenever before was started, at the latest when runner starts the next time. It gets \
         RUNNER_OUTCOME, too.",
    ),
    row(
        "on_takeover",
        Command,
        field!(hooks.on_takeover),
        Commented(r#"["/usr/local/bin/mine"]"#),
        "A command that runs when this node begins to work for the role.",
    ),
    row(
        "on_lost",
        Command,
        field!(hooks.on_lost),
        Commented(r#"["/usr/local/bin/not-mine"]"#),
        "A command that runs when this node no longer works for the role.",
    ),
    row(
        "hook_timeout",
        POSITIVE,
        field!(hooks.timeout, unless | role | role.hooks.is_empty()),
        Commented(r#""10m""#),
        "Each of these commands is killed after this time.",
    ),
    row(
        "environment",
        Variables,
        field!(environment.set),
        Commented(r#"{ PGHOST = "/run/postgresql" }"#),
        "Additional environment variables of hooks, probes and dumps; `config show` hides the values. Without it they \
         get PATH, LANG, LC_*, TZ, RUNNER_CONFIG and RUNNER_STATE_DIR as runner has them, HOME, USER, LOGNAME and SHELL \
         of the user that runs them, and the RUNNER_* variables of the run. They do not get the store's credentials. \
         They start in /, with umask 077, and with the descriptors 0, 1 and 2 alone.",
    ),
    row(
        "pass_environment",
        VariableNames,
        field!(environment.pass, unless | role | role.environment.pass.is_empty()),
        Commented(r#"["AWS_PROFILE", "HTTPS_PROXY"]"#),
        "Additional environment variables that keep the value that runner has, if they are set. `runner exec` gives its \
         command all variables of its caller but AWS_* credentials: these are passed on if they are named here.",
    ),
    row(
        "dumps",
        NamedTables(ConfigTable::Dump),
        KeyField::TABLE,
        Set(r#""app.sql""#),
        "A command whose standard output becomes a file of the snapshot, with this name. If it exits with anything but 0, \
         nothing is committed.",
    ),
];

pub(in crate::config) static KEEP: &[KeyRow<RetentionPolicy>] = &[
    row("last", ANY_COUNT, field!(last, unless | keep | keep.last == 0), Set("3"), "The newest snapshots, that many."),
    row(
        "hourly",
        ANY_COUNT,
        field!(hourly, unless | keep | keep.hourly == 0),
        Set("24"),
        "The newest snapshot of each hour that has any, for that many hours.",
    ),
    row(
        "daily",
        ANY_COUNT,
        field!(daily, unless | keep | keep.daily == 0),
        Set("14"),
        "The newest snapshot of each day that has any, for that many days.",
    ),
    row(
        "weekly",
        ANY_COUNT,
        field!(weekly, unless | keep | keep.weekly == 0),
        Set("8"),
        "The newest snapshot of each week that has any, for that many weeks.",
    ),
    row(
        "monthly",
        ANY_COUNT,
        field!(monthly, unless | keep | keep.monthly == 0),
        Set("12"),
        "The newest snapshot of each month that has any, for that many months.",
    ),
    row(
        "yearly",
        ANY_COUNT,
        field!(yearly, unless | keep | keep.yearly == 0),
        Set("0"),
        "The newest snapshot of each year that has any, for that many years.",
    ),
    row(
        "within",
        POSITIVE,
        field!(within),
        Commented(r#""30d""#),
        "All snapshots that are not older than the newest by more than this. Default: none by their age.",
    ),
];

pub(in crate::config) static DUMP: &[KeyRow<DumpSettings>] = &[
    row(
        "command",
        Command,
        checked!(command),
        Set(r#"["pg_dump", "app"]"#),
        "Program and arguments, no shell. Required.",
    ),
    row(
        "user",
        Text(TextForm::Plain),
        field!(user),
        Set(r#""postgres""#),
        "The user that runs the command, in all of its groups, with its HOME. Default: the user that runs runner.",
    ),
    row(
        "environment",
        Variables,
        field!(environment.set),
        Commented(r#"{ PGOPTIONS = "-c statement_timeout=0" }"#),
        "Environment variables of this dump, in addition to the role's.",
    ),
    row(
        "pass_environment",
        VariableNames,
        field!(environment.pass, unless | dump | dump.environment.pass.is_empty()),
        Commented(r#"["PGSERVICE"]"#),
        "Environment variables that this dump gets as runner has them, in addition to the role's.",
    ),
    row(
        "timeout",
        POSITIVE,
        field!(timeout),
        Set(r#""2h""#),
        "The command is killed after this time, and the run fails.",
    ),
];

impl PrintField for RetentionPolicy {
    fn print(&self, secrets: SecretDisplay) -> Option<String> {
        let printed = |row: &KeyRow<Self>| Some(format!("{} = {}", row.key.name, row.print(self, secrets)?));
        Some(format!("{{ {} }}", KEEP.iter().filter_map(printed).collect::<Vec<_>>().join(", ")))
    }
}

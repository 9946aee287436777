//! Reports as JSON documents. They are part of the public contract, versioned by `"schema"`. Paths are absolute and
//! escaped as people see them (`\xNN` for bytes that are not UTF-8, `\\` for a backslash), times are RFC 3339 in UTC,
//! durations are in seconds.

pub mod audit;
pub mod foreign;
pub mod notify;
pub mod pruned;
pub mod repaired;
pub mod whoami;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;
use serde_json::{Value, json};

use super::exit::ExitKind;
use super::render::browse::escaped;
use super::render::config::link;
use super::render::run_reason;
use super::settings::SymlinkedSource;
use crate::cli::error_hints::policy::CommandPolicy;
use crate::clock_doubt::ClockDoubt;
use crate::config::{JournalPlacement, KeySource, Settings};
use crate::ids::{Digest, RoleName, Term};
use crate::job::operate::{OperateReport, RoleChange};
use crate::job::report::browse::{DiffCounts, DiffLine, FindMatch};
use crate::job::report::restored::{RestoreProblem, RestoredSnapshot};
use crate::job::report::setup::{InitReport, InitRoleReport, KeyChange, KeyReport, KeySlotKind};
use crate::job::report::snapshot::SnapshotInfo;
use crate::job::report::verified::VerifyReport;
use crate::job::report::{
    ByteCounts, FileCounts, LossReport, MissingFile, PathProblem, PathProblemKind, RoleReport, RunOutcome,
};
use crate::job::repository::read_only::{JournalEntry, VoidContent};
use crate::journal::error::{JournalError, RecordReplacement};
use crate::journal::state::JournalPause;
use crate::repo::entry::{EntryKind, ManifestEntry, TreePath};
use crate::text;
use crate::tree::write::MetadataKind;

/// The version of all documents. It grows when a field is removed or changes its meaning, not when one is added.
const SCHEMA: u32 = 1;

/// A document: the schema's number and the fields.
#[derive(Serialize)]
struct JsonDocument<T> {
    schema: u32,
    #[serde(flatten)]
    body: T,
}

/// The document on one line, with the newline.
fn document(body: impl Serialize) -> String {
    let mut text = serde_json::to_string(&JsonDocument { schema: SCHEMA, body })
        .expect("reports have text keys and finite numbers, so they always serialise");
    text.push('\n');
    text::json(&text).into_owned()
}

/// RFC 3339 in UTC.
fn utc(t: Timestamp) -> String {
    t.to_string()
}

/// Seconds with milliseconds.
fn seconds(d: Duration) -> f64 {
    d.as_millis() as f64 / 1000.0
}

#[derive(Serialize)]
struct BackupRoleJson<'a> {
    role: &'a RoleName,
    outcome: RunOutcome,
    reason: Option<String>,
    snapshot: Option<Digest>,
    term: Option<Term>,
    slot: Option<String>,
    takeover: bool,
    files: FileCounts,
    bytes: ByteCounts,
    requests: u64,
    duration_seconds: f64,
    problems: Vec<Value>,
    problem_count: u64,
    warnings: Vec<Value>,
    loss: Option<Value>,
}

/// `backup`. `created` are the repositories that the run created first; `zone` is that of the times in texts.
pub fn backup(created: &[InitRoleReport], roles: &[RoleReport], zone: &TimeZone) -> String {
    let roles: Vec<BackupRoleJson<'_>> = roles
        .iter()
        .map(|r| BackupRoleJson {
            role: &r.role,
            outcome: r.outcome,
            reason: r.reason.as_ref().map(|reason| run_reason::text(&r.role, reason, zone)),
            snapshot: r.snapshot,
            term: r.term,
            slot: r.slot.map(utc),
            takeover: r.takeover,
            files: r.files,
            bytes: r.bytes,
            requests: r.requests,
            duration_seconds: seconds(r.duration),
            problems: r.problems.iter().map(problem).collect(),
            problem_count: r.problem_count,
            warnings: r
                .empty_sources
                .iter()
                .map(|path| json!({ "kind": "empty_source", "path": path.display() }))
                .chain(r.has_no_content().then(|| json!({ "kind": "no_content" })))
                .chain(r.clock_doubt.as_ref().map(clock_doubt))
                .collect(),
            loss: r.loss.as_ref().map(loss),
        })
        .collect();
    let created: Vec<Value> = created.iter().map(init_role).collect();
    document(json!({ "created": created, "roles": roles }))
}

/// Evidence against the clock that dated a record; `seconds` is how far the store's clock is ahead of this node's, if
/// known.
fn clock_doubt(doubt: &ClockDoubt) -> Value {
    let seconds = doubt.offset().map(|offset| offset.as_secs());
    json!({ "kind": "clock_off", "seconds": seconds, "text": doubt.to_string(), "hint": doubt.remedy() })
}

/// A document about a record, with the evidence against the clock that dated it.
pub fn with_clock_doubt(document: String, doubt: Option<&ClockDoubt>) -> String {
    match (doubt, document.strip_suffix("}\n")) {
        (Some(doubt), Some(head)) => {
            format!("{head},\"warnings\":[{}]}}\n", text::json(&clock_doubt(doubt).to_string()))
        }
        _ => document,
    }
}

/// The content that the store had lost; `missing_files` is null if the number is not known.
fn loss(loss: &LossReport) -> Value {
    let file = |file: &MissingFile| json!({ "snapshot": file.snapshot, "path": file.path.display() });
    json!({
        "packs": loss.packs, "healed_bytes": loss.healed_bytes, "missing_files": loss.missing_files,
        "missing": loss.missing.iter().map(file).collect::<Vec<_>>(),
    })
}

fn problem(problem: &PathProblem) -> Value {
    let (kind, detail) = match &problem.kind {
        PathProblemKind::Unreadable(why) => ("unreadable", Some(why)),
        PathProblemKind::Changed => ("changed", None),
        PathProblemKind::Vanished => ("vanished", None),
        PathProblemKind::Socket => ("socket", None),
        PathProblemKind::Attribute(why) => ("attribute", Some(why)),
    };
    json!({ "path": problem.path.display(), "kind": kind, "detail": detail })
}

/// Why the document may lack newer records: `null` if the journal was read to its end.
pub fn journal_doubt(why: Option<&JournalError>) -> Value {
    let Some(why) = why else { return Value::Null };
    let kind = match why {
        JournalError::RolledBack { instead: RecordReplacement::Nothing | RecordReplacement::Another, .. } => {
            "rolled_back"
        }
        _ => "damaged",
    };
    json!({ "kind": kind, "detail": why.to_string() })
}

/// `snapshots`.
pub fn snapshots(snapshots: &[SnapshotInfo], doubt: &Value) -> String {
    document(json!({ "snapshots": snapshots.iter().map(snapshot).collect::<Vec<_>>(), "doubt": doubt }))
}

fn snapshot(s: &SnapshotInfo) -> Value {
    json!({
        "id": s.id, "role": s.role, "term": s.term, "node": s.node, "time": utc(s.time), "slot": s.slot.map(utc),
        "files": s.files, "bytes": s.bytes, "incomplete": s.unreadable > 0, "unreadable": s.unreadable,
        "empty_sources": s.empty,
    })
}

fn paths(paths: &[TreePath]) -> Vec<String> {
    paths.iter().map(TreePath::display).collect()
}

/// `init`.
pub fn init(report: &InitReport) -> String {
    let roles: Vec<Value> = report.roles.iter().map(init_role).collect();
    document(json!({ "roles": roles, "new_identity": report.new_identity }))
}

fn init_role(role: &InitRoleReport) -> Value {
    let journal = match role.journal {
        JournalPlacement::Auto => "auto",
        JournalPlacement::Bucket => "bucket",
        JournalPlacement::Etcd => "etcd",
    };
    let key = match &role.key {
        KeySource::KeyFile(file) => json!({ "key_file": file.display().to_string() }),
        KeySource::PassphraseFile(file) => json!({ "passphrase_file": file.display().to_string() }),
        KeySource::None => Value::Null,
    };
    json!({
        "role": role.role, "store": role.store, "repository": role.repository, "created": role.created,
        "journal": journal, "proof_rounds": role.proof_rounds, "key": key, "key_file_created": role.key_file_created,
    })
}

/// `key list|export|add|remove|rotate`.
pub fn keys(report: &KeyReport) -> String {
    let (change, id, file) = match &report.change {
        KeyChange::None => (Value::Null, None, None),
        KeyChange::Exported(file) => ("exported".into(), None, Some(file.display().to_string())),
        KeyChange::Added(id) => ("added".into(), Some(id), None),
        KeyChange::Removed(id) => ("removed".into(), Some(id), None),
        KeyChange::Rotated(rotation) => (
            if rotation.dry_run { Value::Null } else { "rotated".into() },
            None,
            rotation.created_file.as_ref().map(|file| file.display().to_string()),
        ),
    };
    let slots: Vec<Value> = report
        .slots
        .iter()
        .map(|slot| {
            let kind = match slot.kind {
                KeySlotKind::KeyFile => "key_file",
                KeySlotKind::Passphrase => "passphrase",
                KeySlotKind::Unreadable => "unreadable",
            };
            json!({
                "id": slot.id, "generation": slot.generation, "kind": kind, "created": slot.written, "opened": slot.opened, "problem": slot.problem,
            })
        })
        .collect();
    document(json!({ "role": report.role, "change": change, "id": id, "file": file, "slots": slots,
        "generation": report.generation, "passed_over": report.passed_over, "rotation": rotation(report),
    }))
}

fn rotation(report: &KeyReport) -> Value {
    let KeyChange::Rotated(rotation) = &report.change else { return Value::Null };
    json!({
        "generation": rotation.generation, "dry_run": rotation.dry_run, "finished": rotation.finished, "written": rotation.written,
        "removed": rotation.removed, "left": rotation.left,
    })
}

/// `journal show`: the records' own fields, and those that `journal show` adds for people.
pub fn journal(role: &RoleName, lines: &[JournalEntry], doubt: &Value) -> String {
    let (mut records, mut void, mut lost) = (Vec::new(), Vec::new(), Vec::new());
    for line in lines {
        match line {
            JournalEntry::Record(digest, record) => {
                let (kind, body) = record.body.to_json();
                records.push(json!({
                    "seq": record.seq, "digest": digest, "kind": kind, "term": record.term, "node": record.node,
                    "time": utc(record.time), "slot": record.slot.map(utc), "body": body,
                }));
            }
            JournalEntry::Void { seq, by, content } => {
                let (found, what) = match content {
                    VoidContent::Absent => ("nothing", None),
                    VoidContent::Record => ("record", None),
                    VoidContent::Unusable(error) => ("unusable", Some(error.to_string())),
                };
                void.push(json!({ "seq": seq, "by": by, "found": found, "what": what }));
            }
            JournalEntry::Lost { seq, error } => lost.push(json!({ "seq": seq, "what": error.to_string() })),
        }
    }
    document(json!({ "role": role, "records": records, "void": void, "lost": lost, "doubt": doubt }))
}

/// `takeover`, `pause`, `resume`, `journal adopt` and `journal amend`.
pub fn operate_report(acted: &OperateReport) -> String {
    let pause = |paused: &JournalPause| {
        json!({
            "node": paused.node, "time": utc(paused.time), "until": paused.until.map(utc), "why": paused.why,
        })
    };
    let (change, term, from, pause) = match &acted.change {
        RoleChange::Paused(paused) => ("paused", None, None, Some(pause(paused))),
        RoleChange::Resumed(paused) => ("resumed", None, None, Some(pause(paused))),
        RoleChange::NotPaused
        | RoleChange::HeadSound
        | RoleChange::JournalInBucket
        | RoleChange::NoFutureDates
        | RoleChange::ClockOff { .. }
        | RoleChange::OwnClockSuspect(_) => ("none", None, None, None),
        RoleChange::TookOver { term, from, .. } => {
            ("takeover", Some(*term), from.as_ref().map(|from| &from.node), None)
        }
        RoleChange::AlreadyHolder { term } => ("none", Some(*term), None, None),
        RoleChange::Adopted { term, .. } => ("adopted", Some(*term), None, None),
        RoleChange::Amended(_) => ("amended", None, None, None),
    };
    document(json!({ "role": acted.role, "change": change, "term": term, "from": from, "pause": pause }))
}

/// `restore`.
pub fn restore(restored: &RestoredSnapshot, doubt: &Value) -> String {
    let report = &restored.report;
    let metadata: Vec<Value> = report
        .metadata
        .iter()
        .map(|m| {
            let kind = match m.kind {
                MetadataKind::Owner => "owner",
                MetadataKind::Mode => "mode",
                MetadataKind::Acl => "acl",
                MetadataKind::Capability => "capability",
                MetadataKind::Xattr => "xattr",
                MetadataKind::Time => "time",
                MetadataKind::Device => "device",
                MetadataKind::Hardlink => "hardlink",
                MetadataKind::Flags => "flags",
            };
            json!({ "kind": kind, "count": m.count, "first": m.first.display(), "detail": m.error })
        })
        .collect();
    let problem = |p: &RestoreProblem| json!({ "path": p.path.display(), "entries": p.kind.entries(), "detail": p.kind.to_string() });
    let problems: Vec<Value> = report.problems.iter().map(problem).collect();
    let (n, b) = (&report.counts, &report.bytes);
    document(json!({
        "snapshot": snapshot(&restored.snapshot), "doubt": doubt,
        "target": restored.target.as_ref().map(|t| t.display().to_string()), "dry_run": report.dry_run,
        "salvage": restored.salvage, "vouched": restored.is_vouched_for,
        "entries": {
            "restored": n.restored, "touched": n.touched, "unchanged": n.unchanged, "trusted": n.trusted,
            "skipped": n.skipped, "deleted": n.deleted, "leftovers": n.leftovers, "failed": n.failed, "directories": n.directories,
        },
        "bytes": { "fetched": b.fetched, "reused": b.reused, "written": b.written },
        "duration_seconds": seconds(report.duration), "metadata": metadata, "problems": problems,
        "unmatched": report.unmatched.iter().map(TreePath::display).collect::<Vec<_>>(),
    }))
}

/// `verify`.
pub fn verify(report: &VerifyReport) -> String {
    let damages: Vec<Value> = report
        .damages
        .iter()
        .map(|d| {
            let affected: Vec<Value> =
                d.affected.iter().map(|a| json!({ "snapshot": a.snapshot, "path": a.path.display() })).collect();
            json!({ "kind": d.kind, "object": d.object, "what": d.what, "affected": affected, "affected_count": d.affected_count })
        })
        .collect();
    document(json!({
        "role": report.role, "checked": report.checked, "read_percent": report.read_percent,
        "duration_seconds": seconds(report.duration), "damages": damages, "damage_count": report.damage_count,
    }))
}

/// `config check`, and `config show` with the effective text.
pub fn config(
    settings: &Settings,
    links: &[SymlinkedSource],
    missing: &[crate::config::ConfigProblem],
    with_text: bool,
) -> String {
    let files: Vec<String> = settings.files.iter().map(|f| f.display().to_string()).collect();
    let roles: Vec<&RoleName> = settings.roles.keys().collect();
    let links = links.iter().map(link);
    let warnings: Vec<String> = settings
        .warnings
        .iter()
        .map(ToString::to_string)
        .chain(links)
        .chain(missing.iter().map(ToString::to_string))
        .collect();
    document(json!({
        "files": files, "config_hash": settings.hash, "store": settings.store.url.to_string(), "roles": roles,
        "warnings": warnings, "config": with_text.then(|| settings.render()),
    }))
}

/// The document of a command that fails, instead of its own.
pub fn error(error: &dyn CommandPolicy, exit: ExitKind, hint: Option<&str>) -> String {
    let causes = super::error::causes(error);
    let (message, hint) = error.separate_hints().unwrap_or_else(|| (error.to_string(), hint.map(str::to_owned)));
    let message = text::without_os_error(&message);
    document(json!({ "error": { "message": message, "causes": causes, "hint": hint, "exit": exit.code() } }))
}

/// One entry of a snapshot.
pub fn entry(entry: &ManifestEntry) -> Value {
    let (kind, target, device) = match &entry.kind {
        EntryKind::File { .. } => ("file", None, None),
        EntryKind::Hardlink { target } => ("hardlink", Some(target.display()), None),
        EntryKind::Dir => ("dir", None, None),
        EntryKind::Symlink { target } => ("symlink", Some(escaped(target)), None),
        EntryKind::Fifo => ("fifo", None, None),
        EntryKind::CharDevice { major, minor } => ("char_device", None, Some([major, minor])),
        EntryKind::BlockDevice { major, minor } => ("block_device", None, Some([major, minor])),
    };
    let (mtime, mtime_nanoseconds) = entry.mtime.seconds_and_nanos();
    let xattrs: BTreeMap<String, String> =
        entry.xattrs.iter().map(|x| (escaped(&x.name), hex::encode(&x.value))).collect();
    json!({
        "path": entry.path.display(), "type": kind, "size": entry.kind.size(), "mode": format!("{:04o}", entry.owner.mode),
        "uid": entry.owner.uid, "gid": entry.owner.gid, "user": &*entry.owner.user, "group": &*entry.owner.group,
        "mtime": mtime, "mtime_nanoseconds": mtime_nanoseconds, "target": target, "device": device, "xattrs": xattrs,
    })
}

/// One match of `find`.
pub fn found(found: &FindMatch) -> Value {
    let mut value = entry(&found.entry);
    value["snapshot"] = json!(found.snapshot);
    value
}

/// One line of `diff`.
pub fn diff(line: &DiffLine) -> Value {
    json!({
        "path": line.path.display(), "change": line.change, "size_before": line.size_before,
        "size_after": line.size_after,
    })
}

/// The last fields of `diff`.
pub fn diff_total(counts: &DiffCounts) -> Value {
    json!({ "counts": counts })
}

/// A document with one long list, written item by item, so that memory does not grow with the tree.
#[derive(Debug)]
pub struct JsonListWriter<W> {
    out: W,
    any: bool,
}

impl<W: Write> JsonListWriter<W> {
    /// Starts a document with these fields and the list `name`.
    pub fn open(mut out: W, fields: &Value, name: &str) -> io::Result<Self> {
        let head = document(fields);
        // Without the document's own closing brace; another brace may belong to a field.
        let head = head.strip_suffix("}\n").unwrap_or(&head);
        write!(out, "{head},\"{name}\":[")?;
        Ok(Self { out, any: false })
    }

    /// Appends one item.
    pub fn item(&mut self, item: &Value) -> io::Result<()> {
        if self.any {
            self.out.write_all(b",")?;
        }
        self.any = true;
        self.out.write_all(text::json(&item.to_string()).as_bytes())
    }

    /// Ends the list, adds the fields of the object `fields`, ends the document, and returns the output.
    pub fn finish(mut self, fields: &Value) -> io::Result<W> {
        self.out.write_all(b"]")?;
        for (name, value) in fields.as_object().into_iter().flatten() {
            let field = format!(",{}:{value}", Value::from(name.as_str()));
            self.out.write_all(text::json(&field).as_bytes())?;
        }
        self.out.write_all(b"}\n")?;
        Ok(self.out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::render::samples;
    use crate::ids::RepoId;
    use crate::repo::entry::{OwnerAndMode, TreePath, UnixNanos, Xattr};

    /// Parses a document and checks the contract: one line, schema 1.
    fn read(text: &str) -> Value {
        assert_eq!(text.trim_end().lines().count(), 1);
        let value: Value = serde_json::from_str(text).unwrap();
        assert_eq!(value["schema"], 1);
        value
    }

    #[test]
    fn the_documents_of_the_contract() {
        let mut backed_up = samples::backup();
        let path = TreePath::new(b"srv/app/\xff\\".to_vec()).unwrap();
        backed_up.problems =
            vec![PathProblem { path, kind: PathProblemKind::Unreadable("Permission denied (os error 13)".to_owned()) }];
        backed_up.files.unreadable = 1;
        backed_up.problem_count = 1;
        insta::assert_json_snapshot!("backup", read(&backup(&[], &[backed_up], &TimeZone::UTC)));
        let list = [samples::snapshot(0x3f, "2026-11-20T01:00:00.5Z")];
        insta::assert_json_snapshot!("snapshots", read(&snapshots(&list, &Value::Null)));
        let roles = vec![samples::active(), samples::blind()];
        insta::assert_json_snapshot!("whoami", read(&whoami::report(&samples::all(roles))));
        insta::assert_json_snapshot!("whoami_cloned", read(&whoami::report(&samples::all(vec![samples::cloned()]))));
    }

    #[test]
    fn the_fields_that_the_contract_names_are_there() {
        let text = backup(&[], &[samples::backup()], &TimeZone::UTC);
        let role = &read(&text)["roles"][0];
        for field in "role outcome snapshot term slot takeover files bytes requests duration_seconds".split(' ') {
            assert!(role.get(field).is_some(), "{field}");
        }
        for field in ["new", "changed", "unchanged", "removed", "unreadable"] {
            assert!(role["files"][field].is_u64(), "{field}");
        }
        for field in ["source", "read", "new", "uploaded"] {
            assert!(role["bytes"][field].is_u64(), "{field}");
        }
        let text = whoami::report(&samples::all(vec![samples::active()]));
        let document = read(&text);
        for field in "id hostname instance version config_hash".split(' ') {
            assert!(document["node"][field].is_string(), "{field}");
        }
        for field in "role state reason evidence term last_backup next_slot slots store etcd warnings".split(' ') {
            assert!(document["roles"][0].get(field).is_some(), "{field}");
        }
        for field in ["mine", "current", "holder"] {
            assert!(document["roles"][0]["term"].get(field).is_some(), "{field}");
        }
        let text = snapshots(&[samples::snapshot(1, "2026-11-20T01:00:00Z")], &Value::Null);
        for field in "id role term node time slot files bytes".split(' ') {
            assert!(read(&text)["snapshots"][0].get(field).is_some(), "{field}");
        }
    }

    #[test]
    fn entries_keep_every_byte_of_their_names() {
        let odd = ManifestEntry {
            path: TreePath::new(b"srv/\xff\\n".to_vec()).unwrap(),
            kind: EntryKind::Symlink { target: b"../\n".to_vec() },
            owner: OwnerAndMode { mode: 0o777, uid: 1, gid: 2, user: "app".into(), group: "".into() },
            mtime: UnixNanos::new(-1, 999_999_999),
            xattrs: vec![Xattr { name: b"user.x".to_vec(), value: vec![0, 255] }],
        };
        insta::assert_json_snapshot!(entry(&odd));
    }

    #[test]
    fn a_document_tells_that_the_clock_is_doubted() {
        let doubt = ClockDoubt::Store { offset: jiff::SignedDuration::from_secs(-10_800) };
        let plain = || journal(&samples::app(), &[], &Value::Null);
        assert_eq!(with_clock_doubt(plain(), None), plain());
        let warning = &read(&with_clock_doubt(plain(), Some(&doubt)))["warnings"][0];
        assert_eq!((&warning["kind"], &warning["seconds"]), (&json!("clock_off"), &json!(-10_800)));
        assert!(warning["text"].is_string() && warning["hint"].is_string(), "{warning}");
        let run = RoleReport { clock_doubt: Some(doubt), ..samples::backup() };
        assert_eq!(
            read(&backup(&[], &[run], &TimeZone::UTC))["roles"][0]["warnings"].as_array().unwrap().last().unwrap(),
            warning
        );
    }

    #[test]
    fn an_error_is_a_document_too() {
        let error_ = io::Error::other("disk on fire");
        insta::assert_snapshot!(error(&error_, ExitKind::Failed, Some("put it out.")), @r#"{"schema":1,"error":{"causes":[],"exit":1,"hint":"put it out.","message":"disk on fire"}}"#);
    }

    #[test]
    fn a_made_repository_names_its_key() {
        let role = InitRoleReport {
            role: samples::app(),
            store: "file:///b".to_owned(),
            repository: RepoId([1; 16]),
            created: true,
            journal: JournalPlacement::Bucket,
            proof_rounds: 20,
            key: KeySource::KeyFile("/k".into()),
            key_file_created: true,
            shared: false,
        };
        let text = init(&InitReport { roles: vec![role.clone()], new_identity: None });
        assert_eq!(read(&text)["roles"][0]["key"]["key_file"], "/k");
        assert_eq!(read(&backup(&[role], &[], &TimeZone::UTC))["created"][0]["role"], "app", "backup says it, too");
    }
}

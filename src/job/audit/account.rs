//! Judges a journal record by record. Pure.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use crate::ids::{Digest, RoleName, Term};
use crate::job::audit::completeness::{CompletenessCheck, EmptySourceStreak};
use crate::job::audit::flapping::FlappingDetector;
use crate::job::audit::ledger::{SlotLedger, before};
use crate::job::audit::repetition::{RepetitionDetector, SnapshotRoot};
use crate::job::health::{self, RunningBackup, Severity};
use crate::job::report::PROBLEMS_MAX;
use crate::job::report::audited::{
    AttemptEnd, AuditFinding, AuditNote, AuditReport, CommitInfo, NodeShare, SlotAttempt,
};
use crate::job::report::run_summary::RunSummary;
use crate::job::report::verified::DamagedObject;
use crate::job::report::whoami::RoleWarning;
use crate::job::verify::error::MISSING;
use crate::journal::body::{RecordBody, TakeoverReason};
use crate::journal::future_dates;
use crate::journal::record::Record;
use crate::journal::state::{CommandEnd, JournalPause, JournalState};
use crate::journal::view::JournalView;
use crate::role::clock_tolerance;
use crate::role::slot::SlotSchedule;

/// The period that the audit covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AuditPeriod {
    /// The begin of the period.
    pub(crate) since: Timestamp,
    /// The present.
    pub(crate) now: Timestamp,
}

/// The state of an audit between records.
#[derive(Debug)]
pub(crate) struct JournalAudit<'a> {
    plan: Option<&'a SlotSchedule>,
    period: AuditPeriod,
    ledger: SlotLedger,
    snapshots: RepetitionDetector,
    completeness: CompletenessCheck,
    /// The newest snapshots, if some of their sources are empty.
    pub(crate) empty_sources: Option<EmptySourceStreak>,
    takeovers: FlappingDetector,
    nodes: BTreeMap<String, NodeShare>,
    future: FutureRecords,
    /// Number and time of the newest commit.
    newest: Option<(u64, Timestamp)>,
    /// The end of the scheduled guarded command that ended last.
    command: Option<CommandEnd>,
    /// Runs that ended without a commit.
    failures: Vec<RunSummary>,
    /// The newest term.
    term: Term,
    /// The last committed slot, as far as the journal's newest state has it.
    scheduled: Option<Timestamp>,
    order: DateOrderCheck,
    notes: Vec<AuditNote>,
}

impl<'a> JournalAudit<'a> {
    /// Begins an audit of the records after those of `base`, in a repository that was made at `created`.
    pub(crate) fn new(
        plan: Option<&'a SlotSchedule>,
        period: AuditPeriod,
        base: Option<&JournalView>,
        created: Timestamp,
    ) -> Self {
        let known = base.map(|view| future_dates::dates_beyond(view, period.now)).unwrap_or_default();
        let sound = base.is_some_and(|view| future_dates::is_anything_dated_by(view, period.now));
        let nothing = JournalState::default();
        let base = base.map_or(&nothing, |view| &view.state);
        let born = base.created_at(created);
        let made = clock_tolerance::is_in_future(born, period.now).then_some(born);
        let snapshot = base.snapshots.last().map(|snapshot| (snapshot.seq.0, snapshot.time));
        let command = base.holder.as_ref().and_then(|holder| holder.command.as_ref());
        Self {
            plan,
            period,
            ledger: SlotLedger::of_state(base, Some(created)),
            snapshots: RepetitionDetector::new(period.since, base.snapshots.last().map(|snapshot| snapshot.root)),
            completeness: CompletenessCheck::new(period.since, &base.snapshots),
            empty_sources: base
                .snapshots
                .iter()
                .fold(None, |bare, s| EmptySourceStreak::after(bare, s.time, s.id, s.empty.as_deref())),
            takeovers: FlappingDetector::default(),
            nodes: BTreeMap::new(),
            future: FutureRecords {
                dates: known.into_iter().map(|(latest, node)| (latest, node.map(|node| node.name))).collect(),
                made,
                sound: sound || made.is_none(),
                sound_after: false,
            },
            order: DateOrderCheck::default(),
            newest: health::newest_commit(snapshot, command),
            command: command.cloned(),
            failures: Vec::new(),
            scheduled: None,
            term: base.holder.as_ref().map_or(Term(0), |holder| holder.term),
            notes: Vec::new(),
        }
    }

    /// Adds failed runs, and a run of the newest term, that the journal does not contain. All records must be added
    /// before.
    pub(crate) fn add_unrecorded_runs(&mut self, failures: Vec<RunSummary>, under_way: Option<&RunningBackup>) {
        self.failures = failures;
        if let Some(run) = under_way {
            self.ledger.under_way(run, self.term);
        }
    }

    /// Sets the last committed slot, as far as the journal's newest state has it.
    pub(crate) fn scheduled(&mut self, last: Option<Timestamp>) {
        self.scheduled = last;
    }

    /// Adds the next record, whose object has this digest.
    pub(crate) fn add_record(&mut self, record: &Record, digest: Digest) {
        let time = record.written_at();
        self.future.add_record(record, self.period.now);
        self.order.add_record(record, self.period);
        self.term = record.term;
        let commit =
            |began| CommitInfo { seq: record.seq, node: record.node.name.clone(), term: record.term, began, time };
        match &record.body {
            RecordBody::Snapshot(body) => {
                self.newest = Some((record.seq.0, time));
                self.share(record, time, |node| node.commits += 1);
                self.snapshots.add_snapshot(SnapshotRoot { time, root: body.root, id: digest }, body);
                self.completeness.add_snapshot(time, digest, body.changes.unreadable);
                self.empty_sources =
                    EmptySourceStreak::after(self.empty_sources.take(), time, digest, body.empty.as_deref());
                self.ledger.snapshot(time);
                if let Some(slot) = record.slot {
                    self.ledger.scheduled(slot, record.schedule);
                    self.ledger.commit(slot, commit(before(time, body.cost.duration_ms)));
                }
            }
            RecordBody::Begin(_) => {
                self.share(record, time, |node| node.attempts += 1);
                if let Some(slot) = record.slot {
                    let (node, term) = (record.node.name.clone(), record.term);
                    self.ledger.begin(slot, record.instance, SlotAttempt { node, term, began: time, end: None });
                }
            }
            RecordBody::End(body) => {
                let Some(slot) = record.slot else { return };
                self.command = record.command_end();
                let end = AttemptEnd { exit: body.exit, stopped: body.stopped };
                let began = self.ledger.end(slot, record.instance, end);
                if body.is_success() {
                    self.newest = Some((record.seq.0, time));
                    self.share(record, time, |node| node.commits += 1);
                    self.ledger.scheduled(slot, record.schedule);
                    self.ledger.commit(slot, commit(began.unwrap_or_else(|| before(time, body.duration_ms))));
                }
            }
            RecordBody::Takeover(body) => match body.why {
                TakeoverReason::Moved | TakeoverReason::Restart => self.takeovers.add_takeover(time, &record.node.name),
                // An operator's act is intended, and a fallback node gives the role back.
                TakeoverReason::First
                | TakeoverReason::Operator
                | TakeoverReason::Adopt
                | TakeoverReason::Repair
                | TakeoverReason::Fallback => {}
            },
            RecordBody::Pause(body) => self.ledger.pauses.begin(&JournalPause {
                node: record.node.clone(),
                time,
                until: body.until,
                why: body.why.clone(),
            }),
            RecordBody::Resume => self.ledger.pauses.end(time),
            RecordBody::Amend(_) => {
                self.notes.extend(self.future.amend(time, &record.node.name));
                self.ledger.amend(time);
            }
            RecordBody::Clone(_)
            | RecordBody::Prune(_)
            | RecordBody::Swept(_)
            | RecordBody::Rotate(_)
            | RecordBody::Unknown { .. } => {}
        }
    }

    fn share(&mut self, record: &Record, time: Timestamp, add: impl FnOnce(&mut NodeShare)) {
        if time >= self.period.since {
            let name = &record.node.name;
            add(self
                .nodes
                .entry(name.clone())
                .or_insert_with(|| NodeShare { node: name.clone(), ..NodeShare::default() }));
        }
    }

    /// Returns the report. `seen`, which was found outside of the journal, comes first, then the damages.
    pub(crate) fn finish(
        self,
        role: RoleName,
        seen: impl IntoIterator<Item = AuditFinding>,
        (damages, damage_count): (Vec<DamagedObject>, u64),
    ) -> AuditReport {
        let AuditPeriod { since, now } = self.period;
        let unnamed = damage_count - damages.len() as u64;
        let mut findings: Vec<AuditFinding> = seen.into_iter().chain(damages.into_iter().map(of_damage)).collect();
        let verdict = self.plan.map(|plan| self.ledger.judge(plan, since, now));
        let slots = verdict.as_ref().map(|verdict| verdict.counts);
        let verdict = verdict.unwrap_or_default();
        let (anomalies, more_notes) = self.snapshots.finish();
        let failed = health::open_failure(&self.failures, self.newest).cloned();
        let alarms = |run: &RunSummary| health::severity(&RoleWarning::RunFailed(run.clone())) == Severity::Critical;
        findings.extend(failed.filter(alarms).map(AuditFinding::Failed));
        let command = self.command.as_ref();
        let command =
            command.and_then(|last| health::failed_command(last, |slot| self.ledger.commits().is_closed(slot, now)));
        findings.extend(command.map(AuditFinding::Failed));
        let schedule_missing = self.scheduled.filter(|_| self.plan.is_none());
        findings.extend(schedule_missing.map(|last| AuditFinding::ScheduleMissing { last }));
        findings.extend(self.ledger.duplicates(since));
        findings.extend(verdict.findings);
        let (incomplete, past) = self.completeness.finish();
        findings.extend(incomplete);
        findings.extend(anomalies);
        findings.extend(self.takeovers.finish(since));
        findings.extend(self.future.finish());
        findings.extend(self.order.finish());
        let forgotten = self.ledger.pauses.open().filter(|span| health::is_forgotten(span.from, None, now));
        findings.extend(forgotten.map(|span| AuditFinding::PausedTooLong {
            since: span.from,
            by: span.by.clone(),
            why: span.why.clone(),
        }));
        let finding_count = findings.len() as u64 + unnamed;
        findings.truncate(PROBLEMS_MAX);
        let mut notes = verdict.notes;
        notes.extend(self.notes);
        notes.extend(past);
        notes.extend(more_notes);
        notes.truncate(PROBLEMS_MAX);
        let nodes = self.nodes.into_values().collect();
        let calendar = verdict.calendar;
        AuditReport { role, since, records: 0, slots, calendar, nodes, findings, finding_count, notes }
    }
}

/// Records that are dated in the future.
#[derive(Debug, Default)]
struct FutureRecords {
    /// The latest instant that each record names, with the node's name if it is known.
    dates: Vec<(Timestamp, Option<String>)>,
    /// The creation time of the repository, if it is in the future.
    made: Option<Timestamp>,
    /// Some record is dated in the present or before.
    sound: bool,
    /// Some record after all of these is dated in the present or before.
    sound_after: bool,
}

impl FutureRecords {
    fn add_record(&mut self, record: &Record, now: Timestamp) {
        let latest = record.latest_date();
        if clock_tolerance::is_in_future(latest, now) {
            self.dates.push((latest, Some(record.node.name.clone())));
            self.sound_after = false;
        } else {
            (self.sound, self.sound_after) = (true, true);
        }
    }

    /// An operator declared at `present` that all later dates are wrong.
    fn amend(&mut self, present: Timestamp, by: &str) -> Option<AuditNote> {
        let is_beyond = |at: &Timestamp| clock_tolerance::is_in_future(*at, present);
        let records = self.dates.extract_if(.., |(latest, _)| is_beyond(latest)).map(|(latest, _)| latest);
        let amended: Vec<Timestamp> = records.chain(self.made.take_if(|made| is_beyond(made))).collect();
        let latest = amended.iter().max().copied()?;
        Some(AuditNote::Amended { count: amended.len() as u64, latest, by: by.to_owned() })
    }

    fn finish(self) -> Option<AuditFinding> {
        let (is_recorded, dates) = (!self.dates.is_empty(), self.dates.iter().map(|(latest, _)| *latest));
        let latest = dates.chain(self.made).max()?;
        let count = self.dates.len() as u64 + u64::from(self.made.is_some());
        let nodes: BTreeSet<String> = self.dates.into_iter().filter_map(|(_, node)| node).collect();
        let reader = is_recorded && (!self.sound || nodes.len() > 1 && !self.sound_after);
        Some(AuditFinding::Future { count, latest, nodes: nodes.into_iter().collect(), reader })
    }
}

/// How much earlier than a preceding record a record must be dated to be reported: clocks differ, and a run is dated
/// when it ends.
const BACK_MIN: SignedDuration = SignedDuration::from_hours(1);

/// Checks whether the dates of the records ascend.
#[derive(Debug, Default)]
struct DateOrderCheck {
    newest: Option<Timestamp>,
    /// Number of records dated before a preceding one, the largest difference, and the nodes that wrote them.
    backdated: Option<(u64, SignedDuration, BTreeSet<String>)>,
}

impl DateOrderCheck {
    fn add_record(&mut self, record: &Record, AuditPeriod { since, now }: AuditPeriod) {
        let time = record.written_at();
        if clock_tolerance::is_in_future(time, now) {
            return;
        }
        let before = self.newest.map(|newest| (newest, newest.duration_since(time)));
        if let Some((_, by)) = before.filter(|(newest, by)| *newest >= since && *by > BACK_MIN) {
            let (count, farthest, nodes) = self.backdated.get_or_insert_default();
            *count += 1;
            *farthest = by.max(*farthest);
            nodes.insert(record.node.name.clone());
        }
        self.newest = self.newest.max(Some(time));
    }

    fn finish(self) -> Option<AuditFinding> {
        let (count, by, nodes) = self.backdated?;
        Some(AuditFinding::Backdated { count, by, nodes: nodes.into_iter().collect() })
    }
}

fn of_damage(damage: DamagedObject) -> AuditFinding {
    if damage.what == MISSING {
        AuditFinding::Hole { record: damage.object }
    } else {
        AuditFinding::Broken { record: damage.object, what: damage.what }
    }
}

//! The judgement on a journal: takes its records one by one and says what is to be told. Pure.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use crate::ids::{Digest, RoleName, Term};
use crate::job::audit::changes::{Seen, Sequence};
use crate::job::audit::completeness::{Bare, Completeness};
use crate::job::audit::ledger::{Ledger, before};
use crate::job::audit::takeovers::Takeovers;
use crate::job::health::{self, Severity, UnderWay};
use crate::job::report::PROBLEMS_MAX;
use crate::job::report::audited::{Attempt, AttemptEnd, Commit, Finding, NodeShare, Note, RoleAudit};
use crate::job::report::verified::Damage;
use crate::job::report::whoami::{RunSeen, Warning};
use crate::job::verify::MISSING;
use crate::journal::future;
use crate::journal::record::{Body, Record, TakeoverWhy};
use crate::journal::state::{CommandEnd, Paused, State, View};
use crate::role::present;
use crate::role::slot::Plan;

/// The time in question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Period {
    /// From then on.
    pub(crate) since: Timestamp,
    /// Until now.
    pub(crate) now: Timestamp,
}

/// A journal on its way to a verdict.
#[derive(Debug)]
pub(crate) struct Account<'a> {
    plan: Option<&'a Plan>,
    period: Period,
    ledger: Ledger,
    snapshots: Sequence,
    completeness: Completeness,
    /// The newest snapshots, if they have nothing of some sources.
    pub(crate) bare: Option<Bare>,
    takeovers: Takeovers,
    nodes: BTreeMap<String, NodeShare>,
    future: FutureRecords,
    /// The newest commit's number and time.
    newest: Option<(u64, Timestamp)>,
    /// How the guarded command for a slot ended that ended last.
    command: Option<CommandEnd>,
    /// Runs that ended without a commit.
    failures: Vec<RunSeen>,
    /// The newest term.
    term: Term,
    /// When a slot was committed last, as far as the journal's newest state remembers.
    scheduled: Option<Timestamp>,
    order: Order,
    notes: Vec<Note>,
}

impl<'a> Account<'a> {
    /// An account of the records that come after those of `base`, in a repository that was made at `created`.
    pub(crate) fn new(plan: Option<&'a Plan>, period: Period, base: Option<&View>, created: Timestamp) -> Self {
        let known = base.map(|view| future::dates_beyond(view, period.now)).unwrap_or_default();
        let sound = base.is_some_and(|view| future::is_anything_dated_by(view, period.now));
        let nothing = State::default();
        let base = base.map_or(&nothing, |view| &view.state);
        let born = base.born(created);
        let made = present::is_beyond(born, period.now).then_some(born);
        let snapshot = base.snapshots.last().map(|snapshot| (snapshot.seq.0, snapshot.time));
        let command = base.holder.as_ref().and_then(|holder| holder.command.as_ref());
        Self {
            plan,
            period,
            ledger: Ledger::of_state(base, Some(created)),
            snapshots: Sequence::new(period.since, base.snapshots.last().map(|snapshot| snapshot.root)),
            completeness: Completeness::new(period.since, &base.snapshots),
            bare: base.snapshots.iter().fold(None, |bare, s| Bare::after(bare, s.time, s.id, s.empty.as_deref())),
            takeovers: Takeovers::default(),
            nodes: BTreeMap::new(),
            future: FutureRecords {
                dates: known.into_iter().map(|(latest, node)| (latest, node.map(|node| node.name))).collect(),
                made,
                sound: sound || made.is_none(),
                sound_after: false,
            },
            order: Order::default(),
            newest: health::newest_commit(snapshot, command),
            command: command.cloned(),
            failures: Vec::new(),
            scheduled: None,
            term: base.holder.as_ref().map_or(Term(0), |holder| holder.term),
            notes: Vec::new(),
        }
    }

    /// Runs failed, or are under way in the newest term, that the journal knows nothing of. All records are taken before.
    pub(crate) fn hear(&mut self, failures: Vec<RunSeen>, under_way: Option<&UnderWay>) {
        self.failures = failures;
        if let Some(run) = under_way {
            self.ledger.under_way(run, self.term);
        }
    }

    /// A slot was committed last then, as far as the journal's newest state remembers.
    pub(crate) fn scheduled(&mut self, last: Option<Timestamp>) {
        self.scheduled = last;
    }

    /// The next record, whose object has this digest.
    pub(crate) fn take(&mut self, record: &Record, digest: Digest) {
        let time = record.written();
        self.future.take(record, self.period.now);
        self.order.take(record, self.period);
        self.term = record.term;
        let commit = |began| Commit { seq: record.seq, node: record.node.name.clone(), term: record.term, began, time };
        match &record.body {
            Body::Snapshot(body) => {
                self.newest = Some((record.seq.0, time));
                self.share(record, time, |node| node.commits += 1);
                self.snapshots.take(Seen { time, root: body.root, id: digest }, body);
                self.completeness.take(time, digest, body.changes.unreadable);
                self.bare = Bare::after(self.bare.take(), time, digest, body.empty.as_deref());
                self.ledger.snapshot(time);
                if let Some(slot) = record.slot {
                    self.ledger.scheduled(slot, record.schedule);
                    self.ledger.commit(slot, commit(before(time, body.cost.duration_ms)));
                }
            }
            Body::Begin(_) => {
                self.share(record, time, |node| node.attempts += 1);
                if let Some(slot) = record.slot {
                    let (node, term) = (record.node.name.clone(), record.term);
                    self.ledger.begin(slot, record.instance, Attempt { node, term, began: time, end: None });
                }
            }
            Body::End(body) => {
                let Some(slot) = record.slot else { return };
                self.command = CommandEnd::of(record);
                let end = AttemptEnd { exit: body.exit, stopped: body.stopped };
                let began = self.ledger.end(slot, record.instance, end);
                if body.is_good() {
                    self.newest = Some((record.seq.0, time));
                    self.share(record, time, |node| node.commits += 1);
                    self.ledger.scheduled(slot, record.schedule);
                    self.ledger.commit(slot, commit(began.unwrap_or_else(|| before(time, body.duration_ms))));
                }
            }
            Body::Takeover(body) => match body.why {
                TakeoverWhy::Moved | TakeoverWhy::Restart => self.takeovers.take(time, &record.node.name),
                // A person's act is meant, and who stands in gives it back.
                TakeoverWhy::First
                | TakeoverWhy::Operator
                | TakeoverWhy::Adopt
                | TakeoverWhy::Repair
                | TakeoverWhy::Fallback => {}
            },
            Body::Pause(body) => self.ledger.pauses.begin(&Paused {
                node: record.node.clone(),
                time,
                until: body.until,
                why: body.why.clone(),
            }),
            Body::Resume => self.ledger.pauses.end(time),
            Body::Amend(_) => {
                self.notes.extend(self.future.amend(time, &record.node.name));
                self.ledger.amend(time);
            }
            Body::Clone(_) | Body::Prune(_) | Body::Swept(_) | Body::Rotate(_) | Body::Unknown { .. } => {}
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

    /// The verdict, with what was found on the way: what was `seen` beside the journal comes first, then damages.
    pub(crate) fn finish(
        self,
        role: RoleName,
        seen: impl IntoIterator<Item = Finding>,
        (damages, damage_count): (Vec<Damage>, u64),
    ) -> RoleAudit {
        let Period { since, now } = self.period;
        let unnamed = damage_count - damages.len() as u64;
        let mut findings: Vec<Finding> = seen.into_iter().chain(damages.into_iter().map(of_damage)).collect();
        let verdict = self.plan.map(|plan| self.ledger.judge(plan, since, now));
        let slots = verdict.as_ref().map(|verdict| verdict.counts);
        let verdict = verdict.unwrap_or_default();
        let (anomalies, more_notes) = self.snapshots.finish();
        let failed = health::open_failure(&self.failures, self.newest).cloned();
        let alarms = |run: &RunSeen| health::severity(&Warning::RunFailed(run.clone())) == Severity::Critical;
        findings.extend(failed.filter(alarms).map(Finding::Failed));
        let command = self.command.as_ref();
        let command =
            command.and_then(|last| health::failed_command(last, |slot| self.ledger.commits().is_closed(slot, now)));
        findings.extend(command.map(Finding::Failed));
        let schedule_missing = self.scheduled.filter(|_| self.plan.is_none());
        findings.extend(schedule_missing.map(|last| Finding::ScheduleMissing { last }));
        findings.extend(self.ledger.duplicates(since));
        findings.extend(verdict.findings);
        let (incomplete, past) = self.completeness.finish();
        findings.extend(incomplete);
        findings.extend(anomalies);
        findings.extend(self.takeovers.finish(since));
        findings.extend(self.future.finish());
        findings.extend(self.order.finish());
        let forgotten = self.ledger.pauses.open().filter(|span| health::is_forgotten(span.from, None, now));
        findings.extend(forgotten.map(|span| Finding::PausedTooLong {
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
        RoleAudit { role, since, records: 0, slots, nodes, findings, finding_count, notes }
    }
}

/// What is dated beyond the present.
#[derive(Debug, Default)]
struct FutureRecords {
    /// By the latest instant that each record names, with the node's name where it is known.
    dates: Vec<(Timestamp, Option<String>)>,
    /// When the repository was made, where that lies beyond the present.
    made: Option<Timestamp>,
    /// Something is dated in the present or before.
    sound: bool,
    /// A record is that comes after all of these.
    sound_after: bool,
}

impl FutureRecords {
    fn take(&mut self, record: &Record, now: Timestamp) {
        let latest = record.dated();
        if present::is_beyond(latest, now) {
            self.dates.push((latest, Some(record.node.name.clone())));
            self.sound_after = false;
        } else {
            (self.sound, self.sound_after) = (true, true);
        }
    }

    /// An operator said at `present` that what is dated beyond it is not.
    fn amend(&mut self, present: Timestamp, by: &str) -> Option<Note> {
        let is_beyond = |at: &Timestamp| present::is_beyond(*at, present);
        let records = self.dates.extract_if(.., |(latest, _)| is_beyond(latest)).map(|(latest, _)| latest);
        let amended: Vec<Timestamp> = records.chain(self.made.take_if(|made| is_beyond(made))).collect();
        let latest = amended.iter().max().copied()?;
        Some(Note::Amended { count: amended.len() as u64, latest, by: by.to_owned() })
    }

    fn finish(self) -> Option<Finding> {
        let (is_recorded, dates) = (!self.dates.is_empty(), self.dates.iter().map(|(latest, _)| *latest));
        let latest = dates.chain(self.made).max()?;
        let count = self.dates.len() as u64 + u64::from(self.made.is_some());
        let nodes: BTreeSet<String> = self.dates.into_iter().filter_map(|(_, node)| node).collect();
        let reader = is_recorded && (!self.sound || nodes.len() > 1 && !self.sound_after);
        Some(Finding::Future { count, latest, nodes: nodes.into_iter().collect(), reader })
    }
}

/// How much earlier than a record before it one must be dated to be told: clocks differ, and a run is dated when it ends.
const BACK_MIN: SignedDuration = SignedDuration::from_hours(1);

/// Whether the dates of the records follow their order.
#[derive(Debug, Default)]
struct Order {
    newest: Option<Timestamp>,
    /// How many are dated before one that comes before them, the farthest, and by whom.
    back: Option<(u64, SignedDuration, BTreeSet<String>)>,
}

impl Order {
    fn take(&mut self, record: &Record, Period { since, now }: Period) {
        let time = record.written();
        if present::is_beyond(time, now) {
            return;
        }
        let before = self.newest.map(|newest| (newest, newest.duration_since(time)));
        if let Some((_, by)) = before.filter(|(newest, by)| *newest >= since && *by > BACK_MIN) {
            let (count, farthest, nodes) = self.back.get_or_insert_default();
            *count += 1;
            *farthest = by.max(*farthest);
            nodes.insert(record.node.name.clone());
        }
        self.newest = self.newest.max(Some(time));
    }

    fn finish(self) -> Option<Finding> {
        let (count, by, nodes) = self.back?;
        Some(Finding::Backdated { count, by, nodes: nodes.into_iter().collect() })
    }
}

fn of_damage(damage: Damage) -> Finding {
    if damage.what == MISSING {
        Finding::Hole { record: damage.object }
    } else {
        Finding::Broken { record: damage.object, what: damage.what }
    }
}

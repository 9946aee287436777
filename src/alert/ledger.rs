//! What was reported, what is to be reported, and by which node. Pure.
//!
//! Of a pair one node reports. A node reports what happens to itself. What all nodes see in the journal is reported by
//! the node that has the role. Another node reports it when [`SILENCE`] has passed since it saw it, without a newer
//! sign of life of the holder: a record of the holder, or its hold on the lease. A holder that lives, writes nothing
//! and has no lease cannot be told from a dead one, so both nodes may report: two alerts are better than none.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::event::{AlertEvent, AlertKind, AlertNotification, AlertPhase, AlertReporter};
use crate::ids::RoleName;
use crate::role::clock_tolerance;

/// After this time an event that lasts is reported again.
pub const REPEAT: SignedDuration = SignedDuration::from_hours(24);

/// How long a standby waits for a sign of life of the holder.
pub const SILENCE: SignedDuration = SignedDuration::from_mins(2);

/// As [`SILENCE`], for what a record shows: the node that wrote it lived then. By this time a holder has had a slot.
pub const SILENCE_AFTER_RECORD: SignedDuration = SignedDuration::from_hours(24);

/// How long the ledger remembers that an event which happened once was reported: longer than any condition looks back.
const MEMORY: SignedDuration = SignedDuration::from_hours(24 * 30);

/// The most messages that wait. More of them are a storm, and the oldest are out of date.
pub const OUTBOX_MAX: usize = 256;

/// How long a process owns a message before another process may send it: longer than all its attempts take.
pub const CLAIM: SignedDuration = SignedDuration::from_mins(30);

/// Number of attempts to send a message.
pub const ATTEMPTS_MAX: u32 = 8;

/// This node's status for the role that it watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReporterStatus {
    /// This node has the role.
    Holder,
    /// Another node has the role, or none has.
    Standby {
        /// The number of the holder's newest record.
        holder_newest: u64,
        /// The lease shows that the holder's process lives.
        is_holder_alive: bool,
    },
}

/// An event that lasts, or was reported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct AlertEntry {
    event: AlertEvent,
    /// When it was first seen.
    since: Timestamp,
    /// When it was last reported.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    told: Option<Timestamp>,
    /// The number of the holder's newest sign of life, and when this node first saw that number.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    sign: Option<(u64, Timestamp)>,
}

/// A document on its way through a channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboxMessage {
    /// The message's number.
    pub id: u64,
    /// The channel's name.
    pub channel: String,
    /// The document.
    pub document: String,
    /// Number of attempts so far.
    pub attempts: u32,
    /// Until then the process that claimed the message sends it; later another process may.
    pub claimed: Timestamp,
}

/// What this node remembers about its alerts. It is kept in a file; if the file is lost, every event that lasts is
/// reported once more.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AlertLedger {
    #[serde(default)]
    entries: Vec<AlertEntry>,
    #[serde(default)]
    outbox: Vec<OutboxMessage>,
    #[serde(default)]
    next: u64,
}

impl AlertLedger {
    /// Notes that the event is true. Returns the alert if it is to be reported now.
    pub fn raise(&mut self, event: AlertEvent, watcher: ReporterStatus, now: Timestamp) -> Option<AlertNotification> {
        let same =
            |e: &AlertEntry| e.event.kind == event.kind && e.event.role == event.role && e.event.mark == event.mark;
        let at = self.entries.iter().position(same).unwrap_or_else(|| {
            self.entries.push(AlertEntry { since: event.time, event: event.clone(), told: None, sign: None });
            self.entries.len() - 1
        });
        let entry = &mut self.entries[at];
        // The newest text, under the old date.
        entry.event = event;
        if !entry.is_reported_here(watcher, now) {
            return None;
        }
        if let Some(told) = &mut entry.told {
            clamp_future_date(told, now);
        }
        let phase = match entry.told {
            None => AlertPhase::Begun,
            Some(told) if entry.event.kind.is_ongoing() && has_elapsed(told, REPEAT, now) => AlertPhase::Lasts,
            Some(_) => return None,
        };
        entry.told = Some(now);
        Some(AlertNotification { phase, since: entry.since, event: entry.event.clone() })
    }

    /// Notes that events of this kind are over, except those in `still`. Returns an alert for each event that was
    /// reported.
    pub fn resolve(
        &mut self,
        role: &RoleName,
        kind: AlertKind,
        still: &[String],
        by: &str,
        now: Timestamp,
    ) -> Vec<AlertNotification> {
        let mut over = Vec::new();
        self.entries.retain_mut(|entry| {
            let event = &entry.event;
            let gone = event.kind == kind && event.role == *role && !still.contains(&event.mark);
            if !gone {
                return true;
            }
            if !kind.is_ongoing() {
                // The event happened once, whether or not it can still be seen.
                clamp_future_date(&mut entry.since, now);
                return !has_elapsed(entry.since, MEMORY, now);
            }
            if entry.told.is_some() {
                let event = AlertEvent { node: by.to_owned(), time: now, ..event.clone() };
                over.push(AlertNotification { phase: AlertPhase::Over, since: entry.since, event });
            }
            false
        });
        over
    }

    /// The marks of the events of this kind for which `is` holds.
    pub fn marks(&self, role: &RoleName, kind: AlertKind, is: impl Fn(&AlertEvent) -> bool) -> Vec<String> {
        let events = self.entries.iter().map(|entry| &entry.event);
        let these = events.filter(|event| event.kind == kind && event.role == *role && is(event));
        these.map(|event| event.mark.clone()).collect()
    }

    /// Puts a document into the outbox, once for each channel. Returns the messages, which the caller owns until
    /// `claimed`.
    pub fn enqueue(&mut self, document: &str, channels: &[&str], claimed: Timestamp) -> Vec<OutboxMessage> {
        let mut messages = Vec::new();
        for channel in channels {
            let (id, channel, document) = (self.next, (*channel).to_owned(), document.to_owned());
            messages.push(OutboxMessage { id, channel, document, attempts: 0, claimed });
            self.next += 1;
        }
        self.outbox.extend(messages.iter().cloned());
        let excess = self.outbox.len().saturating_sub(OUTBOX_MAX);
        self.outbox.drain(..excess);
        messages
    }

    /// The messages for these channels that no process owns; the caller owns them until `claimed`. Messages for
    /// channels that are no longer configured are dropped.
    pub fn claim(&mut self, channels: &[&str], now: Timestamp, claimed: Timestamp) -> Vec<OutboxMessage> {
        self.outbox.retain(|message| message.is_claimed(now) || channels.contains(&message.channel.as_str()));
        let free = self.outbox.iter_mut().filter(|message| !message.is_claimed(now));
        free.map(|message| {
            message.claimed = claimed;
            message.clone()
        })
        .collect()
    }

    /// Prolongs the claims of these messages until `claimed`, where less than half of [`CLAIM`] is left.
    pub fn renew_claims(&mut self, ids: &[u64], now: Timestamp, claimed: Timestamp) {
        let is_short = |message: &OutboxMessage| message.claimed.duration_since(now) < CLAIM / 2;
        for message in self.outbox.iter_mut().filter(|message| ids.contains(&message.id)) {
            if is_short(message) {
                message.claimed = claimed;
            }
        }
    }

    /// Removes a message that was delivered.
    pub fn note_delivered(&mut self, id: u64) {
        self.outbox.retain(|message| message.id != id);
    }

    /// Counts a failed attempt. Returns the pause before the next one; `None` if it was the last one, and the message
    /// is dropped.
    pub fn note_failed(&mut self, id: u64) -> Option<Duration> {
        let message = self.outbox.iter_mut().find(|message| message.id == id)?;
        message.attempts += 1;
        if message.attempts >= ATTEMPTS_MAX {
            self.note_delivered(id);
            return None;
        }
        Some(retry_pause(message.attempts))
    }

    /// Releases these messages: the process that owns them ends.
    pub fn unclaim(&mut self, ids: &[u64], now: Timestamp) {
        for message in self.outbox.iter_mut().filter(|message| ids.contains(&message.id)) {
            message.claimed = now;
        }
    }
}

/// The pause after this many attempts: doubled each time, at most a minute.
pub fn retry_pause(attempts: u32) -> Duration {
    Duration::from_secs(1 << attempts.saturating_sub(1).min(6)).min(Duration::from_mins(1))
}

/// A date that this node wrote while its clock was ahead counts from now on; otherwise the ledger would wait until that
/// date.
fn clamp_future_date(since: &mut Timestamp, now: Timestamp) {
    if clock_tolerance::is_in_future(*since, now) {
        *since = now;
    }
}

/// Whether `long` has passed since `since`.
fn has_elapsed(since: Timestamp, long: SignedDuration, now: Timestamp) -> bool {
    now.duration_since(since) >= long
}

impl OutboxMessage {
    /// Whether a process owns the message, as far as its clock was right when it claimed it.
    fn is_claimed(&self, now: Timestamp) -> bool {
        self.claimed > now
            && !clock_tolerance::is_in_future(self.claimed, now.saturating_add(CLAIM).unwrap_or(Timestamp::MAX))
    }
}

impl AlertEntry {
    /// Whether this node is the one of the pair that reports the event.
    fn is_reported_here(&mut self, watcher: ReporterStatus, now: Timestamp) -> bool {
        let ReporterStatus::Standby { holder_newest: sign, is_holder_alive: vouched } = watcher else { return true };
        let silence = match self.event.kind.reporter() {
            AlertReporter::AffectedNode => return true,
            AlertReporter::Holder => SILENCE,
            AlertReporter::HolderByRecord => SILENCE_AFTER_RECORD,
        };
        if let Some((_, since)) = &mut self.sign {
            clamp_future_date(since, now);
        }
        match self.sign {
            Some((before, since)) if before >= sign && !vouched => has_elapsed(since, silence, now),
            _ => {
                self.sign = Some((sign, now));
                false
            }
        }
    }
}

#[cfg(test)]
mod tests;

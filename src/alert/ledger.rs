//! What was told, what is to be told, and by whom. Pure.
//!
//! Of a pair one node tells. What happens to a node itself, it tells itself. What everybody sees in the journal is told by the node
//! that has the role; another node tells it when [`SILENCE`] has passed since it saw it without a newer sign of life of the
//! holder: a record of its own, or the lease in its hands. A holder that lives, writes nothing and has no lease is not told from
//! a dead one, so that both may tell: that is the side to err on.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::event::{AlertEvent, AlertKind, AlertNotification, AlertPhase, AlertReporter};
use crate::ids::RoleName;
use crate::role::clock_tolerance;

/// After this long something that lasts is told again.
pub const REPEAT: SignedDuration = SignedDuration::from_hours(24);

/// How long a node that has not the role waits for a sign of life of the one that has.
pub const SILENCE: SignedDuration = SignedDuration::from_mins(2);

/// The same for what a record shows: whoever wrote it lived then. By this time a holder has had a slot.
pub const SILENCE_AFTER_RECORD: SignedDuration = SignedDuration::from_hours(24);

/// How long something that happened once is remembered as told: longer than anybody looks back for it.
const MEMORY: SignedDuration = SignedDuration::from_hours(24 * 30);

/// The most letters that wait. More of them are a storm, and the oldest tell what is no longer new.
pub const OUTBOX_MAX: usize = 256;

/// How long a process sees to a letter before another one may: longer than all its tries take.
pub const CLAIM: SignedDuration = SignedDuration::from_mins(30);

/// How often one letter is tried.
pub const ATTEMPTS_MAX: u32 = 8;

/// How this node stands to the role that it watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReporterStatus {
    /// It has the role.
    Holder,
    /// Another node has it, or nobody.
    Standby {
        /// The number of the newest record of the node that has it.
        holder_newest: u64,
        /// The lease shows that its process lives.
        is_holder_alive: bool,
    },
}

/// Something that is, or was told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct AlertEntry {
    event: AlertEvent,
    /// When it was first seen.
    since: Timestamp,
    /// When it was last told.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    told: Option<Timestamp>,
    /// The holder's newest sign of life, and when this node first saw that it was this one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    sign: Option<(u64, Timestamp)>,
}

/// A document on its way to one of those who are told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboxMessage {
    /// Its number.
    pub id: u64,
    /// By which way.
    pub channel: String,
    /// What it says.
    pub document: String,
    /// How often it was tried.
    pub attempts: u32,
    /// Until then a process sees to it; after that it has died, and another one may.
    pub claimed: Timestamp,
}

/// What this node remembers about telling. It is kept in a file; where that is lost, everything that lasts is told once more.
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
    /// Something is so. Says whether to tell it now.
    pub fn raise(&mut self, event: AlertEvent, watcher: ReporterStatus, now: Timestamp) -> Option<AlertNotification> {
        let same =
            |e: &AlertEntry| e.event.kind == event.kind && e.event.role == event.role && e.event.mark == event.mark;
        let at = self.entries.iter().position(same).unwrap_or_else(|| {
            self.entries.push(AlertEntry { since: event.time, event: event.clone(), told: None, sign: None });
            self.entries.len() - 1
        });
        let entry = &mut self.entries[at];
        // The newest words, under the old date.
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

    /// Something is not so any more, but for what is in `still`. What was told is told to be over, once for each.
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
                // It has happened, whether it can still be seen or not.
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

    /// The marks of what is so of this kind, of those of which `is` holds.
    pub fn marks(&self, role: &RoleName, kind: AlertKind, is: impl Fn(&AlertEvent) -> bool) -> Vec<String> {
        let events = self.entries.iter().map(|entry| &entry.event);
        let these = events.filter(|event| event.kind == kind && event.role == *role && is(event));
        these.map(|event| event.mark.clone()).collect()
    }

    /// Puts a document into the outbox, once for each channel. Returns the letters, which the caller sees to until `claimed`.
    pub fn enqueue(&mut self, document: &str, channels: &[&str], claimed: Timestamp) -> Vec<OutboxMessage> {
        let mut letters = Vec::new();
        for channel in channels {
            let (id, channel, document) = (self.next, (*channel).to_owned(), document.to_owned());
            letters.push(OutboxMessage { id, channel, document, attempts: 0, claimed });
            self.next += 1;
        }
        self.outbox.extend(letters.iter().cloned());
        let excess = self.outbox.len().saturating_sub(OUTBOX_MAX);
        self.outbox.drain(..excess);
        letters
    }

    /// The letters that nobody sees to, for these channels; now the caller does until `claimed`. Those for channels that are no
    /// longer configured are dropped.
    pub fn claim(&mut self, channels: &[&str], now: Timestamp, claimed: Timestamp) -> Vec<OutboxMessage> {
        self.outbox.retain(|letter| letter.is_claimed(now) || channels.contains(&letter.channel.as_str()));
        let free = self.outbox.iter_mut().filter(|letter| !letter.is_claimed(now));
        free.map(|letter| {
            letter.claimed = claimed;
            letter.clone()
        })
        .collect()
    }

    /// A letter has arrived.
    pub fn note_delivered(&mut self, id: u64) {
        self.outbox.retain(|letter| letter.id != id);
    }

    /// A try came to nothing. `None`: it was the last one, and the letter is given up; else how long to wait for the next.
    pub fn note_failed(&mut self, id: u64) -> Option<Duration> {
        let letter = self.outbox.iter_mut().find(|letter| letter.id == id)?;
        letter.attempts += 1;
        if letter.attempts >= ATTEMPTS_MAX {
            self.note_delivered(id);
            return None;
        }
        Some(retry_pause(letter.attempts))
    }

    /// Nobody sees to these any more: the process ends.
    pub fn unclaim(&mut self, ids: &[u64], now: Timestamp) {
        for letter in self.outbox.iter_mut().filter(|letter| ids.contains(&letter.id)) {
            letter.claimed = now;
        }
    }
}

/// The pause after so many tries: doubled each time, a minute at most.
pub fn retry_pause(attempts: u32) -> Duration {
    Duration::from_secs(1 << attempts.saturating_sub(1).min(6)).min(Duration::from_mins(1))
}

/// What this node dated while its clock was ahead counts from now on: otherwise it would wait until that date.
fn clamp_future_date(since: &mut Timestamp, now: Timestamp) {
    if clock_tolerance::is_in_future(*since, now) {
        *since = now;
    }
}

/// Whether something at `since` is so long past.
fn has_elapsed(since: Timestamp, long: SignedDuration, now: Timestamp) -> bool {
    now.duration_since(since) >= long
}

impl OutboxMessage {
    /// Whether a process sees to it, as far as the clock was right when it said so.
    fn is_claimed(&self, now: Timestamp) -> bool {
        self.claimed > now
            && !clock_tolerance::is_in_future(self.claimed, now.saturating_add(CLAIM).unwrap_or(Timestamp::MAX))
    }
}

impl AlertEntry {
    /// Whether this node is the one of the pair to tell it.
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

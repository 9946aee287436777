//! The text of an alert: one sentence, for people who see nothing else. Pure.

use std::time::Duration;

use jiff::tz::TimeZone;

use crate::alert::event::{AlertEvent, AlertKind, AlertNotification, AlertPhase, COMMAND, FailureCause};
use crate::cli::units;
use crate::job::report::ADVICE;

/// The sentence for an alert.
pub fn text(notice: &AlertNotification, zone: &TimeZone) -> String {
    let AlertEvent { kind, role, node, .. } = &notice.event;
    let since = units::minute(notice.since, zone);
    match notice.phase {
        AlertPhase::Begun => format!("{role}: {}", what(&notice.event, zone)),
        AlertPhase::Lasts => format!("{role}: ongoing since {since}: {}", what(&notice.event, zone)),
        AlertPhase::Over => {
            let over = match kind {
                AlertKind::Failed | AlertKind::Fenced => "is backed up again",
                AlertKind::Missed => "a slot is committed again",
                AlertKind::Conflict => "no longer in conflict",
                AlertKind::Clone => "no second node with its identity is seen any more",
                AlertKind::Drift => "the nodes have the same config and version again",
                AlertKind::ClockOff => "its clock is right again",
                AlertKind::PausedTooLong => "no longer paused",
                AlertKind::Incomplete if notice.event.cause == Some(FailureCause::EmptySource) => {
                    "a snapshot has files of every source again"
                }
                AlertKind::Incomplete => "a snapshot is complete again",
                AlertKind::Lost => "no snapshot needs what is lost any more",
                AlertKind::Anomaly | AlertKind::Duplicate | AlertKind::Takeover => "over",
            };
            format!("{role}: {over} (seen by {node}; {}, since {since})", kind.name())
        }
    }
}

fn what(event: &AlertEvent, zone: &TimeZone) -> String {
    let AlertEvent { kind, node, slot, term, count, mark, cause, detail, .. } = event;
    let behind = detail.as_ref().map(|detail| format!(": {detail}")).unwrap_or_default();
    let slot = slot.map(|slot| units::minute(slot, zone)).unwrap_or_default();
    let count = count.unwrap_or(1);
    let term = term.map(|term| format!(" with term {term}")).unwrap_or_default();
    match kind {
        AlertKind::Failed if mark == COMMAND => {
            format!("exec of slot {slot} by node {node} {}", detail.as_deref().unwrap_or("failed"))
        }
        AlertKind::Failed => format!("the backup on {node} failed{behind}"),
        AlertKind::Fenced => format!("{node} was fenced, nothing was committed{behind}"),
        AlertKind::Missed => {
            let slots =
                if count == 1 { format!("the slot {slot}") } else { format!("{count} slots, the first {slot}") };
            // The event is about the node that reports it.
            let why = detail.as_ref().map(|why| match cause {
                Some(FailureCause::NotActive) => format!(". {node} is not active: {why}"),
                _ => format!(". The last run on {node} failed: {why}"),
            });
            format!("no backup was committed for {slots} (seen by {node}){}", why.unwrap_or_default())
        }
        AlertKind::Duplicate => format!("the slot {slot} was committed {count} times (seen by {node})"),
        AlertKind::Takeover => format!("{node} took the role over{term}"),
        AlertKind::Conflict => {
            let other = detail.as_deref().unwrap_or("another node");
            format!("{node} is eligible, and so was {other}, which took the role")
        }
        AlertKind::Clone => format!("another live node has the identity of {node}{behind}"),
        AlertKind::Drift => {
            let other = detail.as_deref().unwrap_or("another node");
            format!("{node} and {other} run with different configs or versions of runner")
        }
        AlertKind::ClockOff => {
            let apart = units::duration(Duration::from_secs(count));
            format!("the clock of {node} is {apart} away from the store's: it runs no slots until it is set right")
        }
        AlertKind::Anomaly => {
            let odd = match mark.as_str() {
                "same_changes" => format!("the last {count} snapshots report the same changes"),
                "everything_changed" => {
                    format!("{count} snapshots report everything as changed, and had no new content")
                }
                "flapping" => format!("the role was taken over {count} times within a day"),
                "future" => {
                    let by = detail.as_deref().map(|nodes| format!(" by {nodes}")).unwrap_or_default();
                    format!("{count} records{by} are dated beyond the present, so a clock was wrong")
                }
                "schedule_missing" => format!("the config of {node} has no schedule for this role, and had one"),
                "hole" => format!("a journal record is missing{behind}"),
                _ => format!("a journal record cannot be used{behind}"),
            };
            format!("{odd}. {ADVICE}'runner audit' tells more")
        }
        AlertKind::Incomplete if event.cause == Some(FailureCause::EmptySource) => {
            let sources = units::counted(count, "source or dump", "sources or dumps");
            format!("the newest snapshot has nothing of {sources}: no file was there (seen by {node}){behind}")
        }
        AlertKind::Incomplete if count == 1 => {
            format!("the newest snapshot is incomplete: 1 file could not be read (seen by {node}){behind}")
        }
        AlertKind::Incomplete => {
            format!("the newest snapshot is incomplete: {count} files could not be read (seen by {node}){behind}")
        }
        AlertKind::Lost => {
            let files = units::counted(count, "file", "files");
            format!(
                "{files} of earlier snapshots cannot be restored: the content is lost in the store, and the source \
                 is gone (seen by {node}). {ADVICE}'runner verify {}' names them",
                event.role
            )
        }
        AlertKind::PausedTooLong => format!("paused for more than a day, without an end{behind}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;

    #[test]
    fn a_node_that_tells_of_missed_slots_says_why_it_is_not_active() {
        let event = AlertEvent {
            cause: Some(FailureCause::NotActive),
            detail: Some("the probes cannot tell".to_owned()),
            ..AlertEvent::new(AlertKind::Missed, "app".parse().unwrap(), "east".to_owned(), Timestamp::UNIX_EPOCH)
        };
        let text =
            text(&AlertNotification { phase: AlertPhase::Begun, since: Timestamp::UNIX_EPOCH, event }, &TimeZone::UTC);
        assert!(text.ends_with("(seen by east). east is not active: the probes cannot tell"), "{text}");
    }

    #[test]
    fn every_kind_has_its_sentence() {
        let at = |hour: i64| Timestamp::from_second(hour * 3600).unwrap();
        let event = |kind| AlertEvent {
            slot: Some(at(1)),
            count: Some(3),
            term: Some(crate::ids::Term(7)),
            detail: Some("west".to_owned()),
            ..AlertEvent::new(kind, "app".parse().unwrap(), "east".to_owned(), at(2))
        };
        let mut shown = String::new();
        for kind in AlertKind::ALL {
            for phase in [AlertPhase::Begun, AlertPhase::Lasts, AlertPhase::Over] {
                if phase == AlertPhase::Begun || kind.is_ongoing() {
                    shown += &text(&AlertNotification { phase, since: at(2), event: event(kind) }, &TimeZone::UTC);
                    shown.push('\n');
                }
            }
        }
        insta::assert_snapshot!(shown, @r"
        app: the backup on east failed: west
        app: ongoing since 1970-01-01 02:00 +00:00: the backup on east failed: west
        app: is backed up again (seen by east; failed, since 1970-01-01 02:00 +00:00)
        app: east was fenced, nothing was committed: west
        app: ongoing since 1970-01-01 02:00 +00:00: east was fenced, nothing was committed: west
        app: is backed up again (seen by east; fenced, since 1970-01-01 02:00 +00:00)
        app: no backup was committed for 3 slots, the first 1970-01-01 01:00 +00:00 (seen by east). The last run on east failed: west
        app: ongoing since 1970-01-01 02:00 +00:00: no backup was committed for 3 slots, the first 1970-01-01 01:00 +00:00 (seen by east). The last run on east failed: west
        app: a slot is committed again (seen by east; missed, since 1970-01-01 02:00 +00:00)
        app: the slot 1970-01-01 01:00 +00:00 was committed 3 times (seen by east)
        app: east took the role over with term 7
        app: east is eligible, and so was west, which took the role
        app: ongoing since 1970-01-01 02:00 +00:00: east is eligible, and so was west, which took the role
        app: no longer in conflict (seen by east; conflict, since 1970-01-01 02:00 +00:00)
        app: another live node has the identity of east: west
        app: ongoing since 1970-01-01 02:00 +00:00: another live node has the identity of east: west
        app: no second node with its identity is seen any more (seen by east; clone, since 1970-01-01 02:00 +00:00)
        app: east and west run with different configs or versions of runner
        app: ongoing since 1970-01-01 02:00 +00:00: east and west run with different configs or versions of runner
        app: the nodes have the same config and version again (seen by east; drift, since 1970-01-01 02:00 +00:00)
        app: the clock of east is 3.0 s away from the store's: it runs no slots until it is set right
        app: ongoing since 1970-01-01 02:00 +00:00: the clock of east is 3.0 s away from the store's: it runs no slots until it is set right
        app: its clock is right again (seen by east; clock_off, since 1970-01-01 02:00 +00:00)
        app: a journal record cannot be used: west. hint: 'runner audit' tells more
        app: ongoing since 1970-01-01 02:00 +00:00: a journal record cannot be used: west. hint: 'runner audit' tells more
        app: over (seen by east; anomaly, since 1970-01-01 02:00 +00:00)
        app: paused for more than a day, without an end: west
        app: ongoing since 1970-01-01 02:00 +00:00: paused for more than a day, without an end: west
        app: no longer paused (seen by east; paused_too_long, since 1970-01-01 02:00 +00:00)
        app: the newest snapshot is incomplete: 3 files could not be read (seen by east): west
        app: ongoing since 1970-01-01 02:00 +00:00: the newest snapshot is incomplete: 3 files could not be read (seen by east): west
        app: a snapshot is complete again (seen by east; incomplete, since 1970-01-01 02:00 +00:00)
        app: 3 files of earlier snapshots cannot be restored: the content is lost in the store, and the source is gone (seen by east). hint: 'runner verify app' names them
        app: ongoing since 1970-01-01 02:00 +00:00: 3 files of earlier snapshots cannot be restored: the content is lost in the store, and the source is gone (seen by east). hint: 'runner verify app' names them
        app: no snapshot needs what is lost any more (seen by east; lost, since 1970-01-01 02:00 +00:00)
        ");
    }
}

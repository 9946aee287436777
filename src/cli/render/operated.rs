//! `takeover`, `pause`, `resume`, `journal adopt` and `journal amend`.

use super::RenderContext;
use super::browse::escaped;
use crate::cli::units::{counted, duration, minute, relative};
use crate::config::LeaseKind;
use crate::job::operate::{OperateReport, RoleChange};
use crate::job::report::ADVICE;
use crate::journal::future_dates::WrongClock;
use crate::journal::state::JournalPause;
use crate::role::controller::read_interval::READ_INTERVAL_IDLE;

/// The action, and what follows from it.
pub fn report(acted: &OperateReport, view: &RenderContext) -> String {
    let role = &acted.role;
    let text = match &acted.change {
        RoleChange::Paused(paused) => {
            let until = paused.until.map_or_else(
                || format!("until 'runner resume {role}'"),
                |until| format!("until {} ({})", minute(until, &view.zone), relative(until, view.now)),
            );
            format!("paused on every node {until}. A run that is in progress continues.")
        }
        RoleChange::Resumed(paused) => format!("resumed; it was {}.", pause_text(paused, view)),
        RoleChange::NotPaused => "was not paused.".to_owned(),
        RoleChange::TookOver { term, from: None, .. } => format!("this node has the role now, with term {term}."),
        RoleChange::TookOver { term, from: Some(from), lease: LeaseKind::None } => format!(
            "this node has the role now, with term {term}; {} had it before. Work of that node for the role can no \
             longer commit.",
            from.node.name
        ),
        RoleChange::TookOver { term, from: Some(from), .. } => format!(
            "the takeover is in the journal: this node has term {term}, and work of {from} for the role can no \
             longer commit. The lease follows: a daemon on {from} releases it when it reads the takeover, within {}. \
             Until then a run here is skipped; 'runner whoami {role}' says when this node is active.",
            duration(READ_INTERVAL_IDLE),
            from = from.node.name
        ),
        RoleChange::AlreadyHolder { term } => {
            format!("this node has the role already, with term {term}; nothing to do.")
        }
        RoleChange::Adopted { was, seq, term } => format!(
            "the journal continues with record {seq}, which gives this node the role with term {term}. {}. Work that \
             was not in the store by then was never reported as done.",
            capital(&was.to_string())
        ),
        RoleChange::HeadSound => "the journal's head in etcd is sound; nothing to adopt.".to_owned(),
        RoleChange::JournalInBucket => "the journal is in the store; there is nothing to adopt.".to_owned(),
        RoleChange::Amended(future) => format!(
            "{}, up to {}: from now on they count as written at {}, or at the time of what follows them in the journal. The \
             slots that they committed stay committed, and close no other.",
            counted(future.count, "date from beyond the present", "dates from beyond the present"),
            minute(future.latest, &view.zone),
            minute(view.now, &view.zone)
        ),
        RoleChange::NoFutureDates => "no record is dated beyond the present; nothing to amend.".to_owned(),
        RoleChange::OwnClockSuspect(future) => format!(
            "nothing was written: {} beyond this node's clock, up to {}, and {}. This clock is probably behind. \
             {ADVICE}compare it with another one and set it right; add --force only if it is right.",
            counted(future.count, "date lies", "dates lie"),
            minute(future.latest, &view.zone),
            match future.clock {
                WrongClock::Reader => "the store's clock is ahead of it as well",
                _ => "no record is dated by it, or several nodes agree against it",
            }
        ),
        RoleChange::ClockOff { offset } => format!(
            "nothing was written: this node's clock and the store's are {} apart, so this node cannot tell the \
             present time. {ADVICE}set the clock right, or run it on another node.",
            duration(offset.unsigned_abs())
        ),
    };
    view.page.wrap(&format!("{role}: "), 2, &text)
}

/// The text with a capital first letter.
fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().collect::<String>() + chars.as_str()).unwrap_or_default()
}

fn pause_text(paused: &JournalPause, view: &RenderContext) -> String {
    let why = paused.why.as_deref().map(|why| format!(" ({})", escaped(why.as_bytes()))).unwrap_or_default();
    format!("paused on {} at {}{why}", paused.node.name, minute(paused.time, &view.zone))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::render::samples;
    use crate::ids::{Digest, InstanceId, NodeId, Seq, Term};
    use crate::journal::body::{TakeoverReason, WriterNode};
    use crate::journal::error::HeadConflict;
    use crate::journal::future_dates::FutureDates;
    use crate::journal::state::RoleHolder;

    #[test]
    fn it_says_what_follows() {
        let paused = |until: Option<&str>, why: Option<&str>| JournalPause {
            node: WriterNode { id: NodeId([1; 16]), name: "app01".to_owned() },
            time: samples::at("2026-11-20T01:00:02Z"),
            until: until.map(samples::at),
            why: why.map(str::to_owned),
        };
        let from = || {
            Some(RoleHolder {
                term: Term(1),
                takeover: Digest([1; 32]),
                seq: Seq(1),
                node: WriterNode { id: NodeId([2; 16]), name: "app02".to_owned() },
                instance: InstanceId([2; 8]),
                why: TakeoverReason::Moved,
                command: None,
                store_time: None,
                handed_over: None,
                time: samples::at("2026-11-20T01:00:00Z"),
            })
        };
        let all = [
            RoleChange::Paused(paused(None, None)),
            RoleChange::Paused(paused(Some("2026-11-21T01:00:00Z"), Some("disk swap"))),
            RoleChange::Resumed(paused(None, Some("disk\nswap"))),
            RoleChange::NotPaused,
            RoleChange::TookOver { term: Term(1), from: None, lease: LeaseKind::Bucket },
            RoleChange::TookOver { term: Term(2), from: from(), lease: LeaseKind::None },
            RoleChange::TookOver { term: Term(2), from: from(), lease: LeaseKind::Bucket },
            RoleChange::AlreadyHolder { term: Term(3) },
            RoleChange::Adopted { was: HeadConflict::NoHead, seq: Seq(12), term: Term(4) },
            RoleChange::HeadSound,
            RoleChange::JournalInBucket,
            RoleChange::Amended(samples::future()),
            RoleChange::NoFutureDates,
            RoleChange::OwnClockSuspect(FutureDates { clock: WrongClock::LikelyReader, ..samples::future() }),
            RoleChange::ClockOff { offset: jiff::SignedDuration::from_secs(-400) },
        ];
        let text: String =
            all.map(|change| report(&OperateReport { role: samples::app(), change }, &samples::view())).concat();
        insta::assert_snapshot!(text);
    }
}

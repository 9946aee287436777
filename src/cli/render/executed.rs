//! `exec`: what is to be said beside the command's own output.

use super::{View, reason};
use crate::ids::RoleName;
use crate::job::exec::{Cause, Ended, Executed};

/// Nothing where the command ran to its end.
pub fn text(role: &RoleName, executed: &Executed, view: &View) -> Option<String> {
    let text = match executed {
        Executed::Ran { .. } => return None,
        Executed::Stopped { ended, cause, .. } => {
            let ended = match ended {
                Ended::Exit(code) => format!("it ended with exit code {code}"),
                Ended::Signal(signal) => format!("it was ended by signal {signal}"),
            };
            format!("the command was stopped, {ended}: {}", self::cause(cause))
        }
        Executed::Refused(refused) => {
            let why =
                refused.1.as_ref().map_or_else(|| "not active here".to_owned(), |why| reason::text(why, &view.zone));
            format!("not run: {why}")
        }
    };
    Some(view.page.wrap(&format!("{role}: "), 2, &text))
}

/// Why a command was ended.
pub fn cause(cause: &Cause) -> String {
    match cause {
        Cause::LeaseLost(Some(by)) => format!("node {} has the lease now", by.label),
        Cause::LeaseLost(None) => "another node has the lease now".to_owned(),
        Cause::Expired => "the lease could not be renewed in time".to_owned(),
        Cause::NotEligible(evidence) => reason::not_eligible("not active here any more", evidence),
        Cause::Fenced(holder) => {
            format!("node {} took the role over with term {}", holder.node.name, holder.term)
        }
        Cause::TimedOut(timeout) => format!("it took longer than --timeout {}", humantime::format_duration(*timeout)),
    }
}

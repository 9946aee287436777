//! What a person reads when something fails: the error, its causes, and as the last line what to do. Kinds of errors carry
//! the policy; this is the one place that turns them into an exit code and advice.

use std::error::Error as StdError;

use super::exit::Exit;
use crate::config::ConfigError;
use crate::job::restore::{RestoreError, SourceErrorKind};
use crate::journal::log::{AppendError, JournalError};
use crate::journal::record::RecordError;
use crate::store::{StoreError, StoreErrorKind};

/// Any room's error on its way out.
pub type Error = Box<dyn StdError + Send + Sync>;

/// Wrong usage that only shows after the command line was read.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct UsageError {
    /// What is wrong.
    pub what: String,
    /// What to write instead.
    pub todo: String,
}

/// The operator's signal ended the command.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub struct Interrupted;

/// How the program ends because of `error`, and what to do about it.
pub fn judge(error: &(dyn StdError + 'static)) -> (Exit, Option<String>) {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(usage) = error.downcast_ref::<UsageError>() {
            return (Exit::Usage, Some(usage.todo.clone()));
        }
        if error.is::<Interrupted>() {
            return (Exit::Interrupted, None);
        }
        if error.is::<ConfigError>() {
            // Each problem says itself what to do about it.
            return (Exit::Usage, None);
        }
        if let Some(store) = error.downcast_ref::<StoreError>() {
            return (Exit::Failed, store_advice(store.kind).map(str::to_owned));
        }
        if let Some(journal) = error.downcast_ref::<JournalError>() {
            return (Exit::Failed, journal_advice(journal).map(str::to_owned));
        }
        if let Some(append) = error.downcast_ref::<AppendError>() {
            let (exit, advice) = append_policy(append);
            return (exit, advice.map(str::to_owned));
        }
        if let Some(restore) = error.downcast_ref::<RestoreError>() {
            return (Exit::Failed, Some(restore_advice(restore).to_owned()));
        }
        next = error.source();
    }
    (Exit::Failed, None)
}

fn store_advice(kind: StoreErrorKind) -> Option<&'static str> {
    match kind {
        StoreErrorKind::NotFound => Some("'runner verify ROLE' tells whether more is missing."),
        StoreErrorKind::NoSuchStore => {
            Some("check [store] url; create the bucket or the directory, or mount it, then try again.")
        }
        StoreErrorKind::Denied => Some("check the credentials, the bucket policy or the directory's owner and mode."),
        StoreErrorKind::NoSpace => Some("make room in the store or raise the quota; earlier backups are not touched."),
        StoreErrorKind::Unreachable => Some("check the network and [store] endpoint, then try again: it is safe."),
        StoreErrorKind::Unsupported => None,
        StoreErrorKind::Invalid => Some("check [store] region and endpoint, and this node's clock."),
        StoreErrorKind::Other => Some("look at the store's disk or the server's log."),
    }
}

fn journal_advice(error: &JournalError) -> Option<&'static str> {
    match error {
        JournalError::Store(store) => store_advice(store.kind),
        // Its own text says to update.
        JournalError::Record { error: RecordError::Newer(_), .. } => None,
        JournalError::Record { .. } | JournalError::Fold { .. } | JournalError::Hole(_) => {
            Some("nothing is written to a damaged journal. Keep the store as it is and find out who changed it.")
        }
        JournalError::RolledBack { .. } => {
            Some("find out who rolled the store back before anything is written to it again.")
        }
    }
}

/// Only here an error means more than that the command failed.
fn append_policy(error: &AppendError) -> (Exit, Option<&'static str>) {
    match error {
        AppendError::Fenced(_) => (Exit::Fenced, Some("'runner whoami' shows which node has the role now.")),
        AppendError::Unknown { .. } => {
            (Exit::Unknown, Some("run it again: what was committed is found, not repeated."))
        }
        AppendError::Expired => (Exit::Unknown, Some("run it again when this node is surely active.")),
        AppendError::Moved(_) => (Exit::Failed, Some("run it again.")),
        AppendError::NotUnderstood(_) => (Exit::Failed, None),
        AppendError::Journal(journal) => (Exit::Failed, journal_advice(journal)),
        AppendError::Store { error, .. } => (Exit::Failed, store_advice(error.kind)),
    }
}

fn restore_advice(error: &RestoreError) -> &'static str {
    match error {
        RestoreError::Target(_) => "choose a directory that this user may write to.",
        RestoreError::Write { .. } => {
            "make room or choose another --target, then run it again: what is complete is not fetched again."
        }
        RestoreError::Source(source) if source.kind == SourceErrorKind::Unavailable => {
            "run it again when the store answers: what is complete is not fetched again."
        }
        RestoreError::Source(_) | RestoreError::Unsorted { .. } => {
            "'runner verify ROLE' names what is damaged; an older --snapshot may be whole."
        }
        RestoreError::Pattern { .. } => "write it as in a .gitignore file.",
        RestoreError::Broken(_) => "run it again with -vv and report what it logs.",
    }
}

/// The causes below an error, without those that its own text already quotes.
pub fn causes(error: &(dyn StdError + 'static)) -> Vec<String> {
    let mut causes: Vec<String> = Vec::new();
    let mut above = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if !above.contains(&text) {
            above.clone_from(&text);
            causes.push(text);
        }
        next = cause.source();
    }
    causes
}

/// The text for standard error.
pub fn render(error: &(dyn StdError + 'static), hint: Option<&str>) -> String {
    let text = error.to_string();
    // Several problems stand below each other.
    let mut out = if text.contains('\n') { format!("error:\n{text}\n") } else { format!("error: {text}\n") };
    for cause in causes(error) {
        out += &format!("  because: {cause}\n");
    }
    if let Some(hint) = hint {
        out += &format!("To do: {hint}\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read the journal of app")]
    struct Outer(#[source] StoreError);

    fn outer(kind: StoreErrorKind) -> Outer {
        Outer(StoreError {
            kind,
            store: "s3://backups/prod".to_owned(),
            key: Some("app/journal/00000001".to_owned()),
            detail: "connection refused".to_owned(),
        })
    }

    #[test]
    fn an_error_has_its_causes_and_ends_with_what_to_do() {
        let error = outer(StoreErrorKind::Unreachable);
        let (exit, hint) = judge(&error);
        assert_eq!(exit, Exit::Failed);
        insta::assert_snapshot!(render(&error, hint.as_deref()));
    }

    #[test]
    fn kinds_decide_the_code_however_deep_they_are() {
        let usage = UsageError { what: "x".to_owned(), todo: "y".to_owned() };
        assert_eq!(judge(&usage), (Exit::Usage, Some("y".to_owned())));
        assert_eq!(judge(&Interrupted), (Exit::Interrupted, None));
        let unknown = AppendError::Unknown { seq: crate::ids::Seq(7), why: "timeout".to_owned() };
        assert_eq!(judge(&unknown).0, Exit::Unknown);
        assert_eq!(judge(&AppendError::Expired).0, Exit::Unknown);
        let denied = AppendError::Store { seq: crate::ids::Seq(7), error: outer(StoreErrorKind::Denied).0 };
        assert_eq!(judge(&denied).0, Exit::Failed);
        let plain = std::io::Error::other("disk on fire");
        assert_eq!(judge(&plain), (Exit::Failed, None));
    }

    #[test]
    fn a_cause_that_is_quoted_above_is_not_repeated() {
        #[derive(Debug, thiserror::Error)]
        #[error("{outer}: wrapped", outer = .0)]
        struct Quoting(#[source] Outer);
        let error = Quoting(outer(StoreErrorKind::Denied));
        assert_eq!(causes(&error).len(), 1, "the store's error, not the journal's once more");
    }
}

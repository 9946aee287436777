//! The text of an error for a person: the error, its causes, and as the last line a hint.

use std::error::Error as StdError;

use super::error_hints::policy::CommandPolicy;
use super::exit::ExitKind;
use super::render::layout::PageLayout;
use crate::ids::RoleName;
use crate::job::report::{RoleReport, RunOutcome, RunReason};
use crate::text;
pub use crate::text::ADVICE;

/// The error's own text, for a person.
pub(crate) fn message(error: &(dyn StdError + 'static)) -> String {
    text::without_os_error(&error.to_string()).into_owned()
}

/// The causes below an error, without those that its own text already quotes.
pub fn causes(error: &(dyn StdError + 'static)) -> Vec<String> {
    let mut causes: Vec<String> = Vec::new();
    let mut above = message(error);
    let mut next = error.source();
    while let Some(cause) = next {
        let text = message(cause);
        if !above.contains(&text) {
            above.clone_from(&text);
            causes.push(text);
        }
        next = cause.source();
    }
    causes
}

/// The report of a role whose backup ended with an error. The other roles are still backed up.
pub fn report(role: &RoleName, error: &dyn CommandPolicy) -> (RoleReport, ExitKind) {
    let exit = error.policy().exit;
    let outcome = match exit {
        ExitKind::Unknown => RunOutcome::Unknown,
        ExitKind::Fenced => RunOutcome::Fenced,
        _ => RunOutcome::Failed,
    };
    let reason = RunReason::Text(with_causes_and_hint(error, role));
    let report = RoleReport { reason: Some(reason), ..RoleReport::nothing(role.clone(), outcome) };
    (report, exit)
}

/// A hint with the role's name in it, so that it can be copied.
pub fn hint_for_role(advice: String, role: Option<&RoleName>) -> String {
    match role {
        Some(role) => advice.replace(" ROLE", &format!(" {role}")),
        None => advice,
    }
}

/// An error of a role with its causes and a hint, in one paragraph.
pub fn with_causes_and_hint(error: &dyn CommandPolicy, role: &RoleName) -> String {
    let mut text = message(error);
    for cause in causes(error) {
        text += &format!(": {cause}");
    }
    if let Some(hint) = error.policy().hint {
        text += &format!(". {ADVICE}{}", hint_for_role(hint, Some(role)));
    }
    text
}

/// The text for standard error.
pub fn render(error: &(dyn StdError + 'static), hint: Option<&str>, page: PageLayout) -> String {
    let text = message(error);
    // Several problems are written one below the other.
    let mut out = if text.contains('\n') {
        format!("error:\n{}", page.wrap_lines(&text))
    } else {
        page.wrap_advised("error: ", 2, &text)
    };
    for cause in causes(error) {
        out += &page.wrap("  because: ", 4, &cause);
    }
    if let Some(hint) = hint {
        out += &page.wrap(ADVICE, 2, hint);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::error_hints::policy::ErrorPolicy;
    use crate::cli::exit::ExitKind;
    use crate::store::{StoreError, StoreErrorKind};

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read the journal of app")]
    struct Outer(#[source] StoreError);

    impl CommandPolicy for Outer {
        fn policy(&self) -> ErrorPolicy {
            self.0.policy()
        }
    }

    fn outer(kind: StoreErrorKind) -> Outer {
        Outer(StoreError {
            kind,
            store: "s3://backups/prod".to_owned(),
            key: Some("app/journal/00000001".to_owned()),
            detail: "connection refused".to_owned(),
            version: None,
        })
    }

    #[test]
    fn an_error_has_its_causes_and_ends_with_what_to_do() {
        let error = outer(StoreErrorKind::Unreachable);
        let ErrorPolicy { exit, hint } = error.policy();
        assert_eq!(exit, ExitKind::Failed);
        insta::assert_snapshot!(render(&error, hint.as_deref(), PageLayout::LOG));
        insta::assert_snapshot!("on_40_columns", render(&error, hint.as_deref(), PageLayout::terminal(40)));
    }

    /// A directory may have the name that stands for the role in hints.
    #[test]
    fn the_role_is_named_in_the_advice_and_nothing_else_is_changed() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot read {0}")]
        struct Named(String, #[source] StoreError);
        impl CommandPolicy for Named {
            fn policy(&self) -> ErrorPolicy {
                self.1.policy()
            }
        }
        let mut store = outer(StoreErrorKind::NotFound).0;
        store.detail = "/srv/THE ROLE/f".to_owned();
        let (report, _) = report(&"app".parse().unwrap(), &Named("/srv/MY ROLE/f".to_owned(), store));
        let Some(RunReason::Text(reason)) = report.reason else { panic!("{report:?}") };
        assert!(reason.contains("/srv/MY ROLE/f") && reason.contains("/srv/THE ROLE/f"), "{reason}");
        assert!(reason.contains("runner verify app") && !reason.contains("verify ROLE"), "{reason}");
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

//! `notify test`. Pure.

use super::layout::PageLayout;
use crate::alert::delivery::{DeliveryError, SecretProblem};
use crate::alert::trial::ChannelTrial;
use crate::cli::units;
use crate::job::report::ADVICE;
use crate::text;

/// The text of the test message.
pub fn trial_text(label: &str) -> String {
    text::line(&format!("This is a test message of runner on node {label}: alerts reach this channel.")).into_owned()
}

/// What was seen, a paragraph for each channel.
pub fn trials(trials: &[ChannelTrial], page: PageLayout) -> String {
    trials.iter().map(|trial| page.wrap_advised(&heading(trial), 2, &seen(trial))).collect()
}

fn heading(trial: &ChannelTrial) -> String {
    format!("{} ({}): ", trial.name, trial.kind.name())
}

fn seen(trial: &ChannelTrial) -> String {
    let time = units::duration(trial.duration);
    match &trial.outcome {
        Ok(receipt) => {
            let answer = receipt.status.map_or("exit code 0".to_owned(), |status| format!("status {status}"));
            let place = trial.role.as_ref().map(|role| format!(", as a line of the log of role {role}"));
            format!("delivered{}: {answer} after {time}", place.unwrap_or_default())
        }
        Err(error) => {
            format!("NOT delivered after {time}: {}. {ADVICE}{}", error_text(error), hint(error))
        }
    }
}

/// The error in words.
pub fn error_text(error: &DeliveryError) -> String {
    text::line(&text::without_os_error(&error.to_string())).into_owned()
}

/// What to do about it.
pub fn hint(error: &DeliveryError) -> String {
    let hint = match error {
        DeliveryError::SecretUnreadable { .. } => {
            "copy the file to this node, and let the user that makes the backups read it"
        }
        DeliveryError::SecretExposed(exposure) => return exposure.remedy(),
        DeliveryError::SecretInvalid { problem: SecretProblem::NoUrl, .. } => "write the URL into it, on one line",
        DeliveryError::SecretInvalid { problem: SecretProblem::NoToken, .. } => "write the token into it, on one line",
        DeliveryError::SecretInvalid { problem: SecretProblem::ShortKey, .. } => "make one with `openssl rand -hex 32`",
        DeliveryError::Unreachable { reason, .. } if reason.starts_with("TLS") => {
            "if the certificate is issued by an authority of your own, name the authority's in ca_file of a \
             [[notify.channel]]"
        }
        DeliveryError::Unreachable { .. } => "check the URL, and whether this node may reach the server",
        DeliveryError::TimedOut { .. } => "check whether this node may reach the server, or raise timeout",
        DeliveryError::Redirected { .. } => {
            "write the URL to which it leads, if that is where messages are taken: a page for people is not"
        }
        DeliveryError::Refused { status, .. } => match status.as_u16() {
            401 | 403 | 407 => "check the token, or make a new URL at the service",
            404 | 410 => "the service does not know this URL: make a new one there",
            429 => "the service takes fewer messages: wait, or name fewer events for the channel",
            500.. => "the service has a problem of its own: try it again later",
            _ => "the service does not take messages of this form: check kind",
        },
        DeliveryError::Unexpected { .. } => {
            "another server answers in the service's place, or ignored the message: check the URL and kind"
        }
        DeliveryError::Command(_) => "run the command by hand, as the user that makes the backups",
    };
    hint.to_owned()
}

#[cfg(test)]
mod tests;

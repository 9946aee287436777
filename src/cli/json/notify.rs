//! `notify test` as a JSON document.

use serde_json::{Value, json};

use super::{document, seconds};
use crate::alert::trial::ChannelTrial;
use crate::cli::render::notify::{error_text, hint};

/// What was seen of each channel.
pub fn trials(label: &str, trials: &[ChannelTrial]) -> String {
    let channels: Vec<Value> = trials.iter().map(trial).collect();
    document(json!({ "node": label, "channels": channels }))
}

fn trial(trial: &ChannelTrial) -> Value {
    let error = trial.outcome.as_ref().err();
    let status = match &trial.outcome {
        Ok(receipt) => receipt.status,
        Err(error) => error.status(),
    };
    json!({
        "name": trial.name,
        "kind": trial.kind.name(),
        "role": trial.role,
        "delivered": error.is_none(),
        "status": status,
        "duration_seconds": seconds(trial.duration),
        "error": error.map(error_text),
        "hint": error.map(hint),
    })
}

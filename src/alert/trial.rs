//! Sends a test message through the channels, and tells what was seen. Nothing is kept or tried again: the person who
//! asked sees the outcome.

use std::time::Duration;

use futures_util::future::join_all;

use super::channel::AlertChannel;
use super::delivery::{DeliveryError, DeliveryReceipt};
use super::ping::HealthcheckPing;
use crate::config::{NotifyChannelKind, NotifySettings};
use crate::env::Env;
use crate::ids::RoleName;

/// What was seen of one channel.
#[derive(Debug)]
pub struct ChannelTrial {
    /// The channel's name.
    pub name: String,
    /// Its kind.
    pub kind: NotifyChannelKind,
    /// The role whose check was pinged, if the channel is pinged.
    pub role: Option<RoleName>,
    /// How the attempt ended.
    pub outcome: Result<DeliveryReceipt, DeliveryError>,
    /// How long it took.
    pub duration: Duration,
}

/// The names of all channels.
pub fn channel_names(settings: &NotifySettings) -> Vec<String> {
    AlertChannel::all(settings).into_iter().map(|channel| channel.name).collect()
}

/// Sends `text` from the node with this label through all channels at once, or through the one named `only`. A
/// healthchecks service gets it as a line of its log, which does not change its state, for the first of `roles` that
/// the channel is for.
pub async fn send_trial(
    settings: &NotifySettings,
    only: Option<&str>,
    roles: &[RoleName],
    label: &str,
    text: &str,
    env: &Env,
) -> Vec<ChannelTrial> {
    let now = env.clock.now();
    let document = serde_json::json!({
        "schema": 1, "event": "test", "phase": "begun", "role": null, "node": label, "slot": null, "term": null,
        "count": null, "time": now, "since": now, "cause": null, "detail": null, "text": text,
    })
    .to_string();
    let channels = AlertChannel::all(settings).into_iter();
    let asked = channels.filter(|channel| only.is_none_or(|name| name == channel.name));
    let trials = asked.map(|channel| {
        let document = &document;
        async move {
            let begun = env.clock.boottime();
            let role = roles.iter().find(|role| channel.is_pinged() && channel.wants_role(role)).cloned();
            let outcome = match &role {
                Some(role) => channel.ping(role, &HealthcheckPing::Log(text.to_owned())).await,
                None => channel.send(document, now).await,
            };
            let duration = env.clock.boottime().saturating_sub(begun);
            ChannelTrial { name: channel.name, kind: channel.kind, role, outcome, duration }
        }
    });
    join_all(trials).await
}

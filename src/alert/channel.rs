//! The channels through which alerts leave this node. Each sends one message or ping, and says whether it was accepted.

mod command;
mod email;
mod endpoint;
mod healthchecks;
mod ntfy;
mod secret;
mod signature;
mod slack;
mod teams;

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;

use self::endpoint::{AnswerRule, EndpointRequest, EndpointUrl, HttpEndpoint};
use self::healthchecks::PingStyle;
use super::delivery::{DeliveryError, DeliveryReceipt};
use super::event::AlertEvent;
use super::message::AlertMessage;
use super::ping::HealthcheckPing;
use crate::config::{EnvironmentSettings, NotifyChannelKind, NotifyChannelSettings, NotifySettings};
use crate::ids::RoleName;

/// The type of a JSON body.
const JSON: &str = "application/json";

/// The type of a body that is text.
const TEXT: &str = "text/plain; charset=utf-8";

/// A channel, as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AlertChannel {
    /// Its name, under which its messages wait in the outbox.
    pub(super) name: String,
    /// Its kind.
    pub(super) kind: NotifyChannelKind,
    /// The names of the events that it gets; `None`: all.
    events: Option<Vec<String>>,
    /// The names of the roles of which it gets events and pings; `None`: all.
    roles: Option<Vec<String>>,
    timeout: Duration,
    transport: ChannelTransport,
}

/// How a channel's messages leave the node.
#[derive(Debug, Clone, PartialEq, Eq)]
enum ChannelTransport {
    Command { command: Vec<String>, environment: EnvironmentSettings },
    Email { command: Vec<String>, environment: EnvironmentSettings, from: Option<String>, to: Vec<String> },
    Webhook { endpoint: HttpEndpoint, headers: Vec<(String, String)>, signing_key_file: Option<PathBuf> },
    Slack(HttpEndpoint),
    Teams(HttpEndpoint),
    Ntfy(HttpEndpoint),
    Healthchecks { endpoint: HttpEndpoint, style: PingStyle },
}

impl AlertChannel {
    /// All channels of the settings: those of the keys of `[notify]` first, under the names of these keys.
    pub(super) fn all(settings: &NotifySettings) -> Vec<Self> {
        let keyed = |name: &str, kind, transport| Self {
            name: name.to_owned(),
            kind,
            events: None,
            roles: None,
            timeout: settings.timeout,
            transport,
        };
        let command = settings.command.clone().map(|command| {
            let environment = settings.environment.clone();
            keyed("command", NotifyChannelKind::Command, ChannelTransport::Command { command, environment })
        });
        let webhook = settings.webhook.clone().map(|url| {
            let endpoint = HttpEndpoint::inline(url);
            let transport = ChannelTransport::Webhook { endpoint, headers: Vec::new(), signing_key_file: None };
            keyed("webhook", NotifyChannelKind::Webhook, transport)
        });
        let healthchecks = settings.healthchecks.clone().map(|url| {
            let endpoint = HttpEndpoint::inline(url);
            let transport = ChannelTransport::Healthchecks { endpoint, style: PingStyle::Plain };
            keyed("healthchecks", NotifyChannelKind::Healthchecks, transport)
        });
        let listed = settings.channels.iter().filter_map(Self::listed);
        [command, webhook, healthchecks].into_iter().flatten().chain(listed).collect()
    }

    /// The channel of a table; the config's check has refused one that lacks what its kind needs.
    fn listed(settings: &NotifyChannelSettings) -> Option<Self> {
        let endpoint = || {
            let has_role = settings.kind == NotifyChannelKind::Healthchecks;
            let file = || Some(EndpointUrl::File { path: settings.url_file.clone()?, has_role });
            Some(HttpEndpoint {
                url: settings.url.clone().map(EndpointUrl::Inline).or_else(file)?,
                token_file: settings.token_file.clone(),
                ca_file: settings.ca_file.clone(),
            })
        };
        let environment = || settings.environment.clone();
        let transport = match settings.kind {
            NotifyChannelKind::Command => {
                ChannelTransport::Command { command: settings.command.clone()?, environment: environment() }
            }
            NotifyChannelKind::Email => ChannelTransport::Email {
                command: settings.command.clone()?,
                environment: environment(),
                from: settings.from.clone(),
                to: settings.to.clone()?,
            },
            NotifyChannelKind::Webhook => ChannelTransport::Webhook {
                endpoint: endpoint()?,
                headers: settings.headers.clone().into_iter().collect(),
                signing_key_file: settings.signing_key_file.clone(),
            },
            NotifyChannelKind::Slack => ChannelTransport::Slack(endpoint()?),
            NotifyChannelKind::Teams => ChannelTransport::Teams(endpoint()?),
            NotifyChannelKind::Ntfy => ChannelTransport::Ntfy(endpoint()?),
            NotifyChannelKind::Healthchecks => {
                ChannelTransport::Healthchecks { endpoint: endpoint()?, style: PingStyle::Reporting }
            }
        };
        Some(Self {
            name: settings.name.clone(),
            kind: settings.kind,
            events: settings.events.clone(),
            roles: settings.roles.clone(),
            timeout: settings.timeout,
            transport,
        })
    }

    /// Whether the channel gets pings instead of messages.
    pub(super) fn is_pinged(&self) -> bool {
        self.kind == NotifyChannelKind::Healthchecks
    }

    /// Whether the channel gets messages about this event: about its end as well as its begin.
    pub(super) fn wants(&self, event: &AlertEvent) -> bool {
        let is_wanted = |events: &Vec<String>| events.iter().any(|name| name == event.kind.name());
        !self.is_pinged() && self.events.as_ref().is_none_or(is_wanted) && self.wants_role(&event.role)
    }

    /// Whether the channel is for this role.
    pub(super) fn wants_role(&self, role: &RoleName) -> bool {
        self.roles.as_ref().is_none_or(|roles| roles.iter().any(|name| name == role.as_str()))
    }

    /// Sends the document of an alert; `now` is this node's time.
    ///
    /// # Errors
    /// Why it was not delivered.
    pub(super) async fn send(&self, document: &str, now: Timestamp) -> Result<DeliveryReceipt, DeliveryError> {
        let message = || AlertMessage::parse(document);
        let posted = |endpoint, body, rule| post(endpoint, body, Vec::new(), rule, self.timeout);
        match &self.transport {
            ChannelTransport::Command { command, environment } => {
                command::send(command, environment, &format!("{document}\n"), self.timeout).await
            }
            ChannelTransport::Email { command, environment, from, to } => {
                let mail = email::mail(&message(), from.as_deref(), to);
                command::send(command, environment, &mail, self.timeout).await
            }
            ChannelTransport::Webhook { endpoint, headers, signing_key_file } => {
                let mut headers = headers.clone();
                if let Some(path) = signing_key_file {
                    let key = secret::signing_key(path).await?;
                    let signature = signature::header_value(&key, now.as_second(), document);
                    headers.push((signature::HEADER.to_owned(), signature));
                }
                post(endpoint, (document, JSON), headers, AnswerRule::ANY_SUCCESS, self.timeout).await
            }
            ChannelTransport::Slack(endpoint) => {
                let rule =
                    AnswerRule { is_accepted: Some(|_, body| slack::is_accepted(body)), expected: slack::ACCEPTED };
                posted(endpoint, (&slack::body(&message()), JSON), rule).await
            }
            ChannelTransport::Teams(endpoint) => {
                let rule = AnswerRule { is_accepted: Some(teams::is_accepted), expected: teams::ACCEPTED };
                posted(endpoint, (&teams::body(&message()), JSON), rule).await
            }
            ChannelTransport::Ntfy(endpoint) => {
                let rule =
                    AnswerRule { is_accepted: Some(|_, body| ntfy::is_accepted(body)), expected: ntfy::ACCEPTED };
                let message = message();
                post(endpoint, (&message.text, TEXT), ntfy::headers(&message).into(), rule, self.timeout).await
            }
            // The dispatcher enqueues no message for it.
            ChannelTransport::Healthchecks { .. } => Ok(DeliveryReceipt { status: None }),
        }
    }

    /// Sends a ping of a run of this role.
    ///
    /// # Errors
    /// Why it was not delivered.
    pub(super) async fn ping(&self, role: &RoleName, ping: &HealthcheckPing) -> Result<DeliveryReceipt, DeliveryError> {
        let ChannelTransport::Healthchecks { endpoint, style } = &self.transport else {
            return Ok(DeliveryReceipt { status: None });
        };
        let (behind, body) = style.request(ping);
        let rule = match style {
            PingStyle::Plain => AnswerRule::ANY_SUCCESS,
            PingStyle::Reporting => {
                AnswerRule { is_accepted: Some(healthchecks::is_accepted), expected: healthchecks::ACCEPTED }
            }
        };
        let request = EndpointRequest { body: body.map(|body| (body, TEXT)), headers: Vec::new() };
        endpoint.send(request, rule, self.timeout, |url| healthchecks::ping_url(&url, role.as_str(), behind)).await
    }
}

async fn post(
    endpoint: &HttpEndpoint,
    body: (&str, &'static str),
    headers: Vec<(String, String)>,
    rule: AnswerRule,
    timeout: Duration,
) -> Result<DeliveryReceipt, DeliveryError> {
    endpoint.send(EndpointRequest { body: Some(body), headers }, rule, timeout, |url| url).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::event::AlertKind;
    use crate::config::ALERT_EVENTS;

    #[test]
    fn the_config_knows_the_name_of_every_event() {
        assert_eq!(AlertKind::ALL.map(AlertKind::name), ALERT_EVENTS);
    }

    #[test]
    fn a_channel_gets_the_events_and_roles_that_it_names() {
        let channel = |events: Option<&str>, roles: Option<&str>, kind| AlertChannel {
            name: "ops".to_owned(),
            kind,
            events: events.map(|event| vec![event.to_owned()]),
            roles: roles.map(|role| vec![role.to_owned()]),
            timeout: Duration::from_secs(1),
            transport: ChannelTransport::Command { command: Vec::new(), environment: EnvironmentSettings::default() },
        };
        let event =
            AlertEvent::new(AlertKind::Missed, "app".parse().unwrap(), "east".to_owned(), Timestamp::UNIX_EPOCH);
        let wants = |events, roles| channel(events, roles, NotifyChannelKind::Command).wants(&event);
        assert!(wants(None, None) && wants(Some("missed"), Some("app")));
        assert!(!wants(Some("failed"), None) && !wants(None, Some("db")));
        assert!(!channel(None, None, NotifyChannelKind::Healthchecks).wants(&event), "it is pinged");
    }
}

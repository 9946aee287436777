//! Queues and delivers alerts, in a task for each channel. Reporting an event never waits: if a queue is full the
//! message stays in the outbox, from which it is taken later, by this process or the next one of this node.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::channel::AlertChannel;
use super::delivery::DeliveryError;
use super::event::{AlertFormatter, AlertNotification};
use super::ledger::{AlertLedger, CLAIM, OutboxMessage, retry_pause};
use super::ledger_file::AlertLedgerFile;
use super::pace::ChannelPace;
use super::ping::HealthcheckPing;
use crate::config::NotifySettings;
use crate::env::Env;
use crate::ids::RoleName;
use crate::job::report::RunReason;
use crate::outage::Outage;

/// Messages that wait for one channel. What does not fit waits in the outbox.
const QUEUE_MAX: usize = 64;

/// Number of attempts to send a ping. Pings are not stored: the next run pings again.
const PING_ATTEMPTS_MAX: u32 = 3;

/// How long the ping of a run's end waits for that of its start to be delivered. A process that ends goes on sending
/// for a few seconds in all.
const START_GRACE: Duration = Duration::from_secs(1);

/// An item to send through a channel.
#[derive(Debug)]
enum ChannelItem {
    Message(OutboxMessage),
    Ping(RoleName, HealthcheckPing),
}

/// A channel and its delivery task.
struct ChannelTask {
    channel: Arc<AlertChannel>,
    queue: mpsc::Sender<ChannelItem>,
    task: JoinHandle<()>,
}

/// The numbers of the messages that this process delivers.
type ClaimedMessages = Arc<Mutex<BTreeSet<u64>>>;

/// Queues and delivers alerts.
pub struct AlertDispatcher {
    ledger_file: Arc<AlertLedgerFile>,
    env: Env,
    formatter: Arc<dyn AlertFormatter>,
    channels: Mutex<Vec<ChannelTask>>,
    claimed: ClaimedMessages,
}

impl fmt::Debug for AlertDispatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AlertDispatcher").field("ledger_file", &self.ledger_file).finish()
    }
}

impl AlertDispatcher {
    /// Sends to the channels that `settings` name, and keeps the ledger in the state directory.
    pub fn new(settings: &NotifySettings, state_dir: &Path, env: Env, words: Arc<dyn AlertFormatter>) -> Self {
        let (ledger_file, channels) = (Arc::new(AlertLedgerFile::new(state_dir)), Mutex::default());
        let dispatcher = Self { ledger_file, env, formatter: words, channels, claimed: ClaimedMessages::default() };
        dispatcher.configure(settings);
        dispatcher
    }

    /// Uses these settings from now on. Messages that are on their way are still sent.
    pub fn configure(&self, settings: &NotifySettings) {
        let start = |channel: AlertChannel| {
            let (queue, items) = mpsc::channel(QUEUE_MAX);
            let channel = Arc::new(channel);
            let sender = ChannelSender {
                channel: Arc::clone(&channel),
                env: self.env.clone(),
                outage: Mutex::default(),
                pace: Mutex::default(),
            };
            let (ledger_file, mine) = (Arc::clone(&self.ledger_file), Arc::clone(&self.claimed));
            let task = tokio::spawn(run_channel(sender, items, ledger_file, mine));
            ChannelTask { channel, queue, task }
        };
        // A task whose sender is dropped ends when its queue is empty.
        *self.channels() = AlertChannel::all(settings).into_iter().map(start).collect();
    }

    /// Why a run of the role ended as it did.
    pub(super) fn reason_text(&self, role: &RoleName, reason: &RunReason) -> String {
        self.formatter.reason_text(role, reason)
    }

    /// Whether no channel is configured.
    pub fn has_no_channels(&self) -> bool {
        self.channels().is_empty()
    }

    /// Sends the alerts that `note` returns, and the messages that a process that is gone has left.
    pub fn dispatch(&self, note: impl FnOnce(&mut AlertLedger, Timestamp) -> Vec<AlertNotification>) {
        let channels = self.channels();
        if channels.is_empty() {
            return;
        }
        // Pings are not stored as messages.
        let names: Vec<&str> =
            channels.iter().filter(|task| !task.channel.is_pinged()).map(|task| task.channel.name.as_str()).collect();
        let now = self.env.clock.now();
        let claimed = now.checked_add(CLAIM).unwrap_or(Timestamp::MAX);
        let own: Vec<u64> = self.claimed.lock().iter().copied().collect();
        let messages = self.ledger_file.update(|ledger| {
            // What waits here behind a slow server stays this process's own: another one would send it a second time.
            ledger.renew_claims(&own, now, claimed);
            let mut messages = ledger.claim(&names, now, claimed);
            for notice in note(ledger, now) {
                let text = self.formatter.format(&notice);
                tracing::debug!("telling: {text}");
                let wanted = channels.iter().filter(|task| task.channel.wants(&notice.event));
                let wanted: Vec<&str> = wanted.map(|task| task.channel.name.as_str()).collect();
                messages.extend(ledger.enqueue(&notice.document(&text), &wanted, claimed));
            }
            messages
        });
        for message in messages {
            let Some(task) = channels.iter().find(|task| task.channel.name == message.channel) else { continue };
            let id = message.id;
            self.claimed.lock().insert(id);
            if task.queue.try_send(ChannelItem::Message(message)).is_err() {
                self.claimed.lock().remove(&id);
                self.ledger_file.update(|ledger| ledger.unclaim(&[id], now));
            }
        }
    }

    /// Tells the healthchecks services how far a run of this role is.
    pub fn ping(&self, role: &RoleName, ping: &HealthcheckPing) {
        let channels = self.channels();
        for task in channels.iter().filter(|task| task.channel.is_pinged() && task.channel.wants_role(role)) {
            if task.queue.try_send(ChannelItem::Ping(role.clone(), ping.clone())).is_err() {
                tracing::warn!("{}: too many run reports wait to be sent", task.channel.name);
            }
        }
    }

    /// Whether the lines of a run's report are sent at its end.
    pub fn has_pings(&self) -> bool {
        self.channels().iter().any(|task| task.channel.is_pinged())
    }

    /// The texts of alerts and reports.
    pub(super) fn formatter(&self) -> &dyn AlertFormatter {
        &*self.formatter
    }

    /// Sends what is on its way, for no longer than `patience`. The next process of this node sends the rest.
    pub async fn close(&self, patience: Duration) {
        let channels = std::mem::take(&mut *self.channels());
        let mut tasks: Vec<JoinHandle<()>> = channels.into_iter().map(|channel| channel.task).collect();
        let all = async {
            for task in &mut tasks {
                // A panic was reported where it happened.
                let _ = task.await;
            }
        };
        if tokio::time::timeout(patience, all).await.is_err() {
            tasks.iter().for_each(JoinHandle::abort);
        }
        let left: Vec<u64> = self.claimed.lock().iter().copied().collect();
        if !left.is_empty() {
            tracing::warn!(
                "{} alerts were not delivered yet, and are sent again when runner starts the next time",
                left.len()
            );
            let now = self.env.clock.now();
            self.ledger_file.update(|ledger| ledger.unclaim(&left, now));
        }
    }

    fn channels(&self) -> MutexGuard<'_, Vec<ChannelTask>> {
        self.channels.lock()
    }
}

/// The sending end of a channel.
struct ChannelSender {
    channel: Arc<AlertChannel>,
    env: Env,
    outage: Mutex<Outage>,
    pace: Mutex<ChannelPace>,
}

impl ChannelSender {
    /// Waits until one more message may be sent. Pings are not counted: each run makes two, and their time tells.
    async fn wait_for_pace(&self, item: &ChannelItem) {
        if let ChannelItem::Message(_) = item {
            let wait = self.pace.lock().next_wait(self.env.clock.boottime());
            if !wait.is_zero() {
                tokio::time::sleep(wait).await;
            }
        }
    }

    async fn attempt(&self, item: &ChannelItem) -> Result<(), DeliveryError> {
        let receipt = match item {
            ChannelItem::Message(message) => self.channel.send(&message.document, self.env.clock.now()).await,
            ChannelItem::Ping(role, ping) => self.channel.ping(role, ping).await,
        };
        receipt.map(drop)
    }

    /// Counts one more failure. Returns whether it is to be logged.
    fn note_failure(&self, why: &str) -> bool {
        self.outage.lock().note_failure(why, self.env.clock.boottime())
    }

    /// Sends one item. A failure is logged, as often as it should be, with what follows from it.
    async fn send(&self, item: &ChannelItem, then: impl FnOnce() -> Option<Duration>) -> Result<(), Option<Duration>> {
        let name = &self.channel.name;
        let Err(error) = self.attempt(item).await else {
            if self.outage.lock().note_answer() {
                tracing::info!("{name} answers again");
            }
            return Ok(());
        };
        let wait = then().map(|wait| wait.max(error.retry_after().unwrap_or_default()));
        let why = error.to_string();
        let is_logged = self.note_failure(&why);
        match (item, wait) {
            // The message is dropped for good.
            (ChannelItem::Message(_), None) => tracing::error!("{name}: {why}; given up"),
            (_, wait) => {
                let then =
                    wait.map_or("given up".to_owned(), |wait| format!("again in {}", humantime::format_duration(wait)));
                if is_logged {
                    tracing::warn!("{name}: {why}; {then}");
                } else {
                    tracing::debug!("{name}: {why}; {then}");
                }
            }
        }
        Err(wait)
    }
}

/// Sends the items in order until the queue is closed. A start ping that is not delivered by the time its end is to be
/// sent is left out: the service needs the end.
async fn run_channel(
    sender: ChannelSender,
    mut items: mpsc::Receiver<ChannelItem>,
    ledger_file: Arc<AlertLedgerFile>,
    mine: ClaimedMessages,
) {
    let (mut waiting, mut grace) = (VecDeque::new(), START_GRACE);
    loop {
        let next = match waiting.pop_front() {
            Some(item) => Some(item),
            None => items.recv().await,
        };
        let Some(item) = next else { return };
        sender.wait_for_pace(&item).await;
        let sent = send_until_done(&sender, &item, &ledger_file);
        tokio::select! {
            biased;
            () = sent => grace = START_GRACE,
            () = wait_superseded(&item, &mut items, &mut waiting, grace) => {
                // The ends of other roles wait for the same service.
                grace = Duration::ZERO;
                let why = "the start of a run was not delivered before its end, and is left out";
                if sender.note_failure(why) {
                    tracing::warn!("{}: {why}", sender.channel.name);
                }
            }
        }
        if let ChannelItem::Message(message) = &item {
            mine.lock().remove(&message.id);
        }
    }
}

/// Resolves when a later ping of the same role has waited this long for this one; items that come meanwhile wait. Then
/// only a start ping is left out.
async fn wait_superseded(
    item: &ChannelItem,
    items: &mut mpsc::Receiver<ChannelItem>,
    waiting: &mut VecDeque<ChannelItem>,
    grace: Duration,
) {
    let ChannelItem::Ping(role, HealthcheckPing::Start) = item else { return std::future::pending().await };
    let is_of_role = |later: &ChannelItem| matches!(later, ChannelItem::Ping(of, _) if of == role);
    while !waiting.iter().any(is_of_role) {
        // What does not fit waits in the queue.
        let later = if waiting.len() < QUEUE_MAX { items.recv().await } else { None };
        let Some(later) = later else { return std::future::pending().await };
        waiting.push_back(later);
    }
    tokio::time::sleep(grace).await;
}

/// Sends one item until it is delivered or given up.
async fn send_until_done(sender: &ChannelSender, item: &ChannelItem, ledger_file: &AlertLedgerFile) {
    let mut pings = 0;
    loop {
        let then = || match item {
            ChannelItem::Message(message) => ledger_file.update(|ledger| ledger.note_failed(message.id)),
            ChannelItem::Ping(..) => {
                pings += 1;
                (pings < PING_ATTEMPTS_MAX).then(|| retry_pause(pings))
            }
        };
        match sender.send(item, then).await {
            Ok(()) => {
                if let ChannelItem::Message(message) = item {
                    ledger_file.update(|ledger| ledger.note_delivered(message.id));
                }
                return;
            }
            Err(None) => return,
            Err(Some(wait)) => tokio::time::sleep(wait).await,
        }
    }
}

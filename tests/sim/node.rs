//! One node: the program's own daemon, or its cron job, on a simulated host. What the host, the network and the servers are is
//! simulated; what decides, elects, commits, prunes and deletes is the program.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::ground_truth::{GroundTruth, SimObserver, SimProbes};
use crate::invariant_checker::{InvariantChecker, SECOND};
use crate::leases::LeaseServer;
use crate::registers::RegisterServer;
use crate::rng::Rng;
use crate::setup::{ClusterSetup, EligibilityRule, GRACE, LaunchMode, TTL, make_repository};
use crate::sim_store::SimBucket;
use crate::world::World;
use runner::alert::dispatcher::AlertDispatcher;
use runner::alert::event::{AlertFormatter, AlertNotification};
use runner::config::{LeaseKind, NotifySettings, RoleSettings, Settings};
use runner::daemon::oneshot::{self, OneshotObserver};
use runner::daemon::{self, DaemonObserver, RoleTaskConfig};
use runner::env::Env;
use runner::ids::{InstanceId, NodeId, RoleName};
use runner::job::admission::lease;
use runner::job::backup::request::BackupRequest;
use runner::job::error::GuardError;
use runner::job::local_state::process_memory::ProcessMemory;
use runner::job::node::context::{NodeContext, NodeInputs};
use runner::job::node::leases::LeaseSessions;
use runner::job::operate::OperatorContext;
use runner::job::prune;
use runner::job::prune::error::PruneError;
use runner::job::report::pruned::PruneReport;
use runner::job::report::{RoleReport, RunOutcome, RunReason};
use runner::job::repository::journal_access::JournalAccess;
use runner::job::repository::open::Repository;
use runner::journal::body::WriterNode;
use runner::journal::register;
use runner::journal::view::JournalView;
use runner::role::lease::bucket::ProcessObjects;
use runner::role::lease::keep_alive::{self, LeaseKeepAlive};
use runner::role::lease::{LeaseHolder, LeaseReply, LeaseService};
use runner::role::slot::SlotSchedule;
use runner::store::{Store, StoreError};

/// Where a node keeps what it remembers.
const STATE_DIR: &str = "/var/lib/runner";

/// How often nodes prune.
const PRUNE_INTERVAL: Duration = Duration::from_secs(70);

/// Between two looks of a timer. Nothing comes of one, so how long it takes makes no difference.
const LOOK: Duration = Duration::from_millis(20);

/// For a few slots.
const BETWEEN_LOOKS: Duration = Duration::from_secs(100);

/// A second role is kept for so long at most, and then left to others for so long at most.
const SECOND_HOLDS: Duration = Duration::from_secs(90);
const SECOND_RESTS: Duration = Duration::from_secs(15);

/// How often it is looked meanwhile whether it really has it.
const SECOND_LOOKS: Duration = Duration::from_secs(1);

/// A cron job that hangs is not started twice, and not waited for for ever.
const CRON: Duration = Duration::from_secs(20);

/// A world with a bucket, an etcd and nodes.
pub struct SimCluster {
    pub world: World,
    pub bucket: Arc<SimBucket>,
    pub leases: Arc<LeaseServer>,
    pub registers: Arc<RegisterServer>,
    pub judge: Arc<InvariantChecker>,
    pub truth: Arc<GroundTruth>,
    pub setup: ClusterSetup,
    settings: Settings,
    role: RoleSettings,
    /// Each host's identity, as it stands on its disk.
    ids: BTreeMap<usize, NodeId>,
    rng: Rng,
}

impl SimCluster {
    /// Its hosts are 1 to `setup.nodes`, with an empty repository; nothing runs yet.
    pub fn new(seed: u64, setup: ClusterSetup) -> Self {
        let world = World::new(seed);
        let (bucket, leases, registers) =
            (SimBucket::new(&world, setup.store_clock), LeaseServer::new(&world), RegisterServer::new(&world));
        let settings = setup.settings();
        let role = settings.roles.values().next().expect("there is one").clone();
        let mut rng = world.rng();
        let repo = make_repository(&bucket, &role.name, setup.journal_in_etcd, &mut rng);
        registers.registers().tamper(&register::head_name(repo), Some(Bytes::new()));
        let probes = setup.eligible != EligibilityRule::Always;
        // Where the store tells no time, a grace is as long as the clock of the node that prunes says.
        let grace = if setup.store_clock { GRACE } else { Duration::ZERO };
        let judge = InvariantChecker::new(&world, bucket.store().objects(), grace, probes);
        bucket.observe(judge.clone());
        registers.observe(judge.clone());
        let watching = Arc::clone(&judge);
        leases.on_grant(move |holder| watching.lease_moved("app", &holder.instance.to_string()));
        let truth = GroundTruth::new();
        let mut cluster =
            Self { world, bucket, leases, registers, judge, truth, setup, settings, role, ids: BTreeMap::new(), rng };
        for _ in 0..setup.nodes {
            cluster.add();
        }
        cluster
    }

    /// A further machine.
    pub fn add(&mut self) -> usize {
        let host = self.world.host();
        self.renew(host);
        host
    }

    /// The machine has another identity from now on.
    pub fn renew(&mut self, host: usize) {
        let mut id = [0; 16];
        id.chunks_mut(8).for_each(|chunk| chunk.copy_from_slice(&self.rng.next().to_le_bytes()));
        self.ids.insert(host, NodeId(id));
    }

    /// The machine has the disk of `from`, identity and all.
    pub fn copy(&mut self, host: usize, from: usize) {
        self.world.disk(host).copy(&self.world.disk(from));
        self.ids.insert(host, self.ids[&from]);
        self.judge.cloned(&self.ids[&from].to_string());
    }

    pub fn hosts(&self) -> impl Iterator<Item = usize> + use<> {
        1..=self.ids.len()
    }

    /// Starts the program on a host.
    pub fn start(&mut self, host: usize) {
        let node_context = self.node_context(host);
        let store: Arc<dyn Store> = self.bucket.wire(self.world.process(host));
        let (settings, role) = (self.settings.clone(), self.role.clone());
        let observer = self.observer(host, &node_context);
        match self.setup.mode {
            LaunchMode::Daemon => {
                if self.setup.second {
                    let second = SecondRole::new(&node_context, &self.role, Arc::clone(&store), Arc::clone(&observer));
                    let rng = self.world.rng();
                    self.world.start(host, second.hold(rng));
                }
                let dispatcher = AlertDispatcher::new(
                    &NotifySettings::default(),
                    Path::new(STATE_DIR),
                    node_context.env.clone(),
                    Arc::new(EmptyAlertFormatter),
                );
                let hold = RoleTaskConfig {
                    node_context,
                    settings,
                    role,
                    store,
                    observer,
                    alerts: Arc::new(dispatcher),
                    prune_interval: PRUNE_INTERVAL,
                };
                let (keep, stop) = watch::channel(false);
                self.world.start(host, async move {
                    daemon::run_role(hold, stop).await;
                    drop(keep);
                });
            }
            LaunchMode::Cron => {
                let random = Mutex::new(self.world.rng());
                self.world.start(host, run_cron(node_context, settings, role, store, observer, random));
            }
        }
    }

    /// Runs something of the program by hand on a host, in a process of its own that shares the host's disk.
    pub fn prune(&mut self, host: usize) {
        let (node_context, settings, role) = (self.node_context(host), self.settings.clone(), self.role.clone());
        let store: Arc<dyn Store> = self.bucket.wire(self.world.process(host));
        let (truth, world) = (Arc::clone(&self.truth), self.world.process(host).world);
        self.world.start(host, async move {
            let done = prune::run(&node_context, &settings, &role, async || Ok(store)).await;
            truth.say(&world, || format!("host {host}: pruned by hand: {}", pruned(&done)));
        });
    }

    /// A timer on this host looks whether a slot is due, so many times, each time as a process of its own; nothing is: the role is paused
    /// meanwhile. Then there are a few slots, and then it does that again.
    pub fn look_often(&mut self, host: usize, looks: u32) {
        let (node_context, settings, role) = (self.node_context(host), self.settings.clone(), self.role.clone());
        let store: Arc<dyn Store> = self.bucket.wire(self.world.process(host));
        let observer = self.observer(host, &node_context);
        let mut random = self.world.rng();
        self.world.start(host, async move {
            for _ in 0..2 {
                retry_operation(&node_context, &role, &store, OperatorAction::Pause).await;
                for _ in 0..looks {
                    let instance = InstanceId(random.next().to_le_bytes());
                    run_once_if_due(&observer, &node_context, instance, &settings, &role, &store).await;
                    node_context.env.sleep(LOOK).await;
                }
                retry_operation(&node_context, &role, &store, OperatorAction::Resume).await;
                node_context.env.sleep(BETWEEN_LOOKS).await;
            }
            observer.truth.say(&observer.world, || format!("host {host}: looked {looks} times, twice"));
        });
    }

    /// What an operator says on a host.
    pub fn operate(&mut self, host: usize, act: OperatorAction) {
        let (node_context, role) = (self.node_context(host), self.role.clone());
        let store: Arc<dyn Store> = self.bucket.wire(self.world.process(host));
        let (truth, world) = (Arc::clone(&self.truth), self.world.process(host).world);
        self.world.start(host, async move {
            // A person tries again.
            for _ in 0..20 {
                let done = operate(&node_context, &role, Arc::clone(&store), act).await;
                truth.say(&world, || {
                    format!("host {host}: {act:?}: {}", done.as_ref().map_or_else(Clone::clone, |()| "done".to_owned()))
                });
                if done.is_ok() {
                    return;
                }
                node_context.env.sleep(Duration::from_secs(10)).await;
            }
        });
    }

    /// The bucket without any wire, for whoever checks.
    pub fn store(&self) -> Arc<dyn Store> {
        Arc::new(self.bucket.store().clone())
    }

    pub fn role(&self) -> &RoleSettings {
        &self.role
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    fn node_context(&mut self, host: usize) -> NodeContext {
        let env: Env = self.world.env(host);
        let process = self.world.process(host);
        let instance = InstanceId(self.rng.next().to_le_bytes());
        let node = WriterNode { id: self.ids[&host], name: format!("node{host}") };
        let mut sessions = LeaseSessions::default();
        if self.setup.journal_in_etcd {
            sessions = sessions.with_journal_access(JournalAccess::with(self.registers.wire(process.clone())));
        }
        if self.setup.lease == LeaseKind::Etcd {
            let me = LeaseHolder { node: node.id, label: node.name.clone(), instance };
            sessions = sessions.with_lender(self.leases.lender(process, me, Duration::from_secs(TTL)));
        }
        let eyes = SimProbes {
            host,
            life: self.world.life(host),
            instance: instance.to_string(),
            eligible: self.setup.eligible,
            env: env.clone(),
            rng: Mutex::new(self.world.rng()),
            truth: Arc::clone(&self.truth),
            judge: Arc::clone(&self.judge),
        };
        let eyes = Arc::new(eyes);
        let surroundings = NodeInputs { probes: eyes.clone(), content: Some(eyes) };
        NodeContext {
            env,
            node,
            instance,
            state_dir: PathBuf::from(STATE_DIR),
            cancel: CancellationToken::new(),
            progress: Arc::default(),
            config_hash: String::new(),
            leases: sessions,
            memory: ProcessMemory::default(),
            inputs: surroundings,
        }
    }

    fn observer(&self, host: usize, node_context: &NodeContext) -> Arc<SimObserver> {
        Arc::new(SimObserver {
            host,
            life: self.world.life(host),
            node: node_context.node.id,
            instance: node_context.instance.to_string(),
            eligible: self.setup.eligible,
            world: self.world.process(host).world,
            truth: Arc::clone(&self.truth),
            judge: Arc::clone(&self.judge),
        })
    }
}

/// The daemon's other role, of which nothing matters but the lease.
struct SecondRole {
    env: Env,
    role: RoleSettings,
    store: Arc<dyn Store>,
    me: LeaseHolder,
    processes: ProcessObjects,
    observer: Arc<SimObserver>,
}

impl SecondRole {
    fn new(node_context: &NodeContext, role: &RoleSettings, store: Arc<dyn Store>, observer: Arc<SimObserver>) -> Self {
        let (node, instance) = (node_context.node.clone(), node_context.instance);
        Self {
            env: node_context.env.clone(),
            role: RoleSettings { name: SECOND.parse().expect("a name"), ..role.clone() },
            store,
            me: LeaseHolder { node: node.id, label: node.name, instance },
            processes: node_context.leases.processes().clone(),
            observer,
        }
    }

    fn lease(&self) -> Box<dyn LeaseService> {
        let Self { env, role, store, me, processes, .. } = self;
        Box::new(lease::bucket_lease(store, role, env, me.clone(), Some(processes)))
    }

    fn say(&self, what: &str, of: impl std::fmt::Debug) {
        let SimObserver { host, truth, world, instance, .. } = &*self.observer;
        truth.say(world, || format!("host {host} ({instance}): {what} {SECOND}: {of:?}"));
    }

    /// Asks for the lease all the time, keeps it for a while, and gives it up, whatever becomes of the first role.
    async fn hold(self, mut rng: Rng) {
        let ttl = self.role.bucket_lease_ttl;
        let mut lease = self.lease();
        loop {
            match self.env.timeout(ttl, lease.acquire_or_renew()).await {
                Some(LeaseReply::Held(grant)) => {
                    let keeper = LeaseKeepAlive::start(lease, grant, &self.env);
                    self.say("has", grant);
                    let who = (self.observer.host, self.observer.life);
                    self.observer.judge.works(SECOND, who, &self.me.instance.to_string(), keeper.deadline());
                    let ends = self.env.clock.boottime() + rng.time(Duration::from_secs(1), SECOND_HOLDS);
                    let mut lost = None;
                    while lost.is_none() && self.env.clock.boottime() < ends {
                        lost = self.env.timeout(SECOND_LOOKS, keeper.lost()).await;
                        self.observer.judge.works(SECOND, who, &self.me.instance.to_string(), keeper.deadline());
                    }
                    self.say("ends", lost);
                    keeper.release().await;
                    self.say("gave up", ());
                    self.env.sleep(rng.time(Duration::ZERO, SECOND_RESTS)).await;
                    lease = self.lease();
                }
                _ => self.env.sleep(keep_alive::retry_pause(ttl)).await,
            }
        }
    }
}

/// What an operator may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperatorAction {
    TakeOver,
    Pause,
    Resume,
}

async fn operate(
    node_context: &NodeContext,
    role: &RoleSettings,
    store: Arc<dyn Store>,
    act: OperatorAction,
) -> Result<(), String> {
    let repository = Repository::open(store, &role.name, &role.key).await.map_err(|e| e.to_string())?;
    let operator = OperatorContext {
        node: node_context.node.clone(),
        instance: node_context.instance,
        env: &node_context.env,
        state_dir: Some(&node_context.state_dir),
        journal_access: node_context.leases.journal_access().clone(),
    };
    let done = match act {
        // Which node the probes speak for is the story's own affair.
        OperatorAction::TakeOver => {
            operator.take_over(&repository, role, None, true).await.map_err(|error| error.to_string())
        }
        OperatorAction::Pause => operator.pause(&repository, None, None).await.map_err(|error| error.to_string()),
        OperatorAction::Resume => operator.resume(&repository).await.map_err(|error| error.to_string()),
    };
    done.map(drop)
}

/// A person tries again.
async fn retry_operation(node_context: &NodeContext, role: &RoleSettings, store: &Arc<dyn Store>, act: OperatorAction) {
    for _ in 0..20 {
        if operate(node_context, role, Arc::clone(store), act).await.is_ok() {
            return;
        }
        node_context.env.sleep(Duration::from_secs(10)).await;
    }
}

/// A one-shot run for the due slot, if there is one, as a process of its own.
async fn run_once_if_due(
    observer: &SimObserver,
    node_context: &NodeContext,
    instance: InstanceId,
    settings: &Settings,
    role: &RoleSettings,
    store: &Arc<dyn Store>,
) {
    let node_context = observer.as_instance(node_context, instance);
    let observer = SimObserver { instance: instance.to_string(), ..observer.clone() };
    let request = BackupRequest { scheduled: true, ..BackupRequest::default() };
    let connect = || -> BoxFuture<'_, Result<Arc<dyn Store>, StoreError>> {
        let store = Arc::clone(store);
        Box::pin(async move { Ok(store) })
    };
    let (host, judge) = (observer.host, Arc::clone(&observer.judge));
    let missed_slot = || judge.missed_slot(node_context.env.clock.now());
    let observer = CronObserver {
        observer: &observer,
        env: &node_context.env,
        role: &role.name,
        plan: SlotSchedule::new(role, &settings.timezone).expect("a schedule"),
        slot_check: Mutex::default(),
    };
    let before = missed_slot();
    let done = oneshot::back_up(&node_context, settings, role, &connect, request, &observer).await;
    // Nothing else sees a role that no node backs up. A slot that is committed meanwhile is not missed any more.
    if let Some(slot) = before.filter(|slot| missed_slot() == Some(*slot))
        && done.is_ok_and(|report| report.outcome == RunOutcome::Standby)
        && !observer.slot_check.lock().is_done_for(slot)
    {
        let what = format!("host {host}: a run that stood by did not report slot {slot}, which was missed");
        judge.add(vec![what]);
    }
}

/// What a one-shot run came to know of missed slots.
#[derive(Debug, Default)]
enum MissedSlotCheck {
    /// It did not look for any.
    #[default]
    Omitted,
    /// It could not read the journal, and says so.
    Unread,
    /// It looked, and reports these.
    Reported(Vec<Timestamp>),
}

impl MissedSlotCheck {
    /// Whether a run that came to know this has done what it can about a missed slot.
    fn is_done_for(&self, slot: Timestamp) -> bool {
        match self {
            Self::Omitted => false,
            Self::Unread => true,
            Self::Reported(slots) => slots.contains(&slot),
        }
    }
}

/// What a cron job says.
struct CronObserver<'a> {
    observer: &'a SimObserver,
    env: &'a Env,
    role: &'a RoleName,
    plan: Option<SlotSchedule>,
    slot_check: Mutex<MissedSlotCheck>,
}

impl OneshotObserver for CronObserver<'_> {
    fn run_begins(&self, _: &JournalView, _: Option<Timestamp>) {}

    fn run_ended(&self, report: &RoleReport) {
        self.observer.run_ended(report);
    }

    fn run_failed(&self, error: &GuardError) {
        self.observer.work_failed(self.role, error);
    }

    fn reports_missed_slots(&self) -> bool {
        true
    }

    fn journal_read(&self, view: &JournalView) {
        let missed = self.plan.as_ref().map(|plan| plan.missed(&view.commits(), &[], self.env.clock.now()));
        let slots: Vec<Timestamp> = missed.unwrap_or_default().slots.iter().map(|slot| slot.at).collect();
        self.observer.truth.say(&self.observer.world, || {
            format!("host {}: {} slots missed, the first is {:?}", self.observer.host, slots.len(), slots.first())
        });
        *self.slot_check.lock() = MissedSlotCheck::Reported(slots);
    }

    fn journal_unread(&self, why: &str) {
        *self.slot_check.lock() = MissedSlotCheck::Unread;
        self.observer.truth.say(&self.observer.world, || {
            format!("host {}: missed slots cannot be checked: {why}", self.observer.host)
        });
    }
}

/// A cron line: every twenty seconds, each time a process of its own, never two at once.
async fn run_cron(
    node_context: NodeContext,
    settings: Settings,
    role: RoleSettings,
    store: Arc<dyn Store>,
    observer: Arc<SimObserver>,
    random: Mutex<Rng>,
) {
    let mut runs = 0_u32;
    loop {
        let instance = InstanceId(random.lock().next().to_le_bytes());
        run_once_if_due(&observer, &node_context, instance, &settings, &role, &store).await;
        runs += 1;
        if runs.is_multiple_of(5) {
            let node_context = observer.as_instance(&node_context, instance);
            let store = Arc::clone(&store);
            let done = prune::run(&node_context, &settings, &role, async || Ok(store)).await;
            observer
                .truth
                .say(&observer.world, || format!("host {}: pruned by cron: {}", observer.host, pruned(&done)));
        }
        node_context.env.sleep(CRON).await;
    }
}

fn pruned(done: &Result<prune::PruneOutcome, PruneError>) -> String {
    match done {
        Ok(prune::PruneOutcome::Done(report)) => prune_summary(report),
        Ok(prune::PruneOutcome::Refused(refused)) => format!("{:?}", refused.reason),
        Err(error) => error.to_string(),
    }
}

/// A prune in a line.
pub fn prune_summary(report: &PruneReport) -> String {
    let gone = report.snapshots.iter().filter(|verdict| !verdict.kept).count();
    format!(
        "{gone} forgotten, {} packs condemned, {} repacked, {} swept",
        report.packs_condemned, report.packs_repacked, report.swept.packs
    )
}

#[derive(Debug)]
struct EmptyAlertFormatter;

impl AlertFormatter for EmptyAlertFormatter {
    fn format(&self, _: &AlertNotification) -> String {
        String::new()
    }

    fn reason_text(&self, _: &RoleName, reason: &RunReason) -> String {
        format!("{reason:?}")
    }

    fn format_report(&self, _: &RoleReport) -> String {
        String::new()
    }
}

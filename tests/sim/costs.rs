//! What a pair costs while nothing is to be done: the program's own daemons for hours of virtual time, and every request to the store
//! counted. The table in `docs/COSTS.md` is what comes out here.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{env, fs};

use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::ground_truth::{GroundTruth, SimObserver, SimProbes};
use crate::invariant_checker::InvariantChecker;
use crate::leases::LeaseServer;
use crate::setup::{EligibilityRule, make_repository};
use crate::sim_store::SimBucket;
use crate::world::World;
use runner::alert::dispatcher::AlertDispatcher;
use runner::alert::event::{AlertFormatter, AlertNotification};
use runner::config::{ConfigEnvironment, LeaseKind, NotifySettings, RoleSettings, Settings};
use runner::daemon::{self, RoleTaskConfig};
use runner::ids::{InstanceId, NodeId, RoleName};
use runner::job::local_state::process_memory::ProcessMemory;
use runner::job::node::context::{NodeContext, NodeInputs};
use runner::job::node::leases::LeaseSessions;
use runner::job::report::{RoleReport, RunReason};
use runner::journal::body::WriterNode;
use runner::role::controller::RoleStatus;
use runner::role::lease::LeaseHolder;
use runner::role::probe::ProbeAnswer;
use runner::store::Store;
use runner::store::counting::{CountingStore, RequestCounts, StoreCounters};

/// The first hour has the first slot and its commit.
const WARM_UP: Duration = Duration::from_hours(1);

/// Between the start of the first one and that of the second.
const APART: Duration = Duration::from_mins(2);

/// Then it is counted. The rarest thing that these daemons do is to tell the others of themselves, every hour.
const COUNTED: Duration = Duration::from_hours(6);

const MONTH: Duration = Duration::from_hours(24 * 30);

/// What 1,000 requests cost on Amazon S3 Standard, in dollars. Deleting is free.
const WRITE_OR_LIST: f64 = 0.005;
const READ: f64 = 0.0004;

/// The etcd lease, where there is one.
const ETCD_TTL: Duration = Duration::from_secs(12);

#[derive(Debug)]
struct SilentAlertFormatter;

impl AlertFormatter for SilentAlertFormatter {
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

fn settings(roles: usize, lease: LeaseKind) -> Settings {
    let mut text = "[store]\nurl = \"s3://bucket\"\nregion = \"eu-central-1\"\nencryption = \"none\"\n".to_owned();
    // Where there is no lease, an address decides; where there is one, both nodes want the role, and one of them asks all the time.
    let eligible = if lease == LeaseKind::None {
        "eligible = { vip = \"192.0.2.1\" }\nlease = \"none\""
    } else {
        "lease = \"bucket\""
    };
    for n in 0..roles {
        let name = if n == 0 { "app".to_owned() } else { format!("app{n}") };
        let _ = write!(text, "[role.{name}]\n{eligible}\nsources = [\"/srv\"]\nevery = \"1d\"\njitter = \"0s\"\n");
    }
    let place = ConfigEnvironment { runner_config: None, credentials_directory: None };
    let mut settings = Settings::parse(&[(PathBuf::from("sim.toml"), text)], &place).unwrap_or_else(|e| panic!("{e}"));
    settings.roles.values_mut().for_each(|role| role.lease = lease);
    settings
}

/// Two nodes with the same roles.
pub struct IdlePair {
    pub world: World,
    bucket: Arc<SimBucket>,
    truths: Vec<Arc<GroundTruth>>,
    counters: Vec<Arc<StoreCounters>>,
}

impl IdlePair {
    /// The first one has the roles, where a lease decides.
    pub fn new(roles: usize, lease: LeaseKind) -> Self {
        let world = World::new(11);
        let (bucket, leases, settings) =
            (SimBucket::new(&world, true), LeaseServer::new(&world), settings(roles, lease));
        let mut rng = world.rng();
        for role in settings.roles.keys() {
            make_repository(&bucket, role, false, &mut rng);
        }
        // What it finds is of no account here: nothing goes wrong.
        let judge = InvariantChecker::new(&world, bucket.store().objects(), Duration::ZERO, false);
        let truths: Vec<_> = settings.roles.iter().map(|_| GroundTruth::new()).collect();
        let mut pair = Self { world, bucket: Arc::clone(&bucket), truths, counters: Vec::new() };
        for host in [pair.world.host(), pair.world.host()] {
            pair.start(host, &settings, &bucket, &leases, &judge);
            pair.world.run_until(pair.world.now() + APART);
        }
        pair
    }

    /// Whether this host has the role's lease, by what stands in the bucket.
    pub fn has_lease(&self, role: usize, host: usize) -> bool {
        let name = if role == 0 { "app".to_owned() } else { format!("app{role}") };
        let objects = self.bucket.store().objects();
        let record: Value = serde_json::from_slice(&objects[&format!("{name}/live/lease")]).expect("a lease");
        record["released"] == false && record["instance"] == InstanceId([host as u8; 8]).to_string()
    }

    fn start(
        &mut self,
        host: usize,
        settings: &Settings,
        bucket: &Arc<SimBucket>,
        leases: &Arc<LeaseServer>,
        judge: &Arc<InvariantChecker>,
    ) {
        let process = self.world.process(host);
        let (counting, counters) = CountingStore::new(bucket.wire(process.clone()));
        self.counters.push(counters);
        let store: Arc<dyn Store> = Arc::new(counting);
        let (env, instance) = (self.world.env(host), InstanceId([host as u8; 8]));
        let node = WriterNode { id: NodeId([host as u8; 16]), name: format!("node{host}") };
        let mut sessions = LeaseSessions::default();
        let has_etcd = settings.roles.values().any(|role| role.lease == LeaseKind::Etcd);
        if has_etcd {
            let me = LeaseHolder { node: node.id, label: node.name.clone(), instance };
            sessions = sessions.with_lender(leases.lender(process.clone(), me, ETCD_TTL));
        }
        for (role, truth) in settings.roles.values().zip(&self.truths) {
            let here = if host == 1 { ProbeAnswer::Yes } else { ProbeAnswer::No };
            truth.put(host, here);
            truth.answer_at_once();
            truth.change(|files| drop(files.insert(b"srv/file".to_vec(), "content".into())));
            let eligible = if role.eligible.is_some() { EligibilityRule::Vip } else { EligibilityRule::Always };
            let (instance, life) = (instance.to_string(), self.world.life(host));
            let eyes = Arc::new(SimProbes {
                host,
                life,
                instance: instance.clone(),
                eligible,
                env: env.clone(),
                rng: Mutex::new(self.world.rng()),
                truth: Arc::clone(truth),
                judge: Arc::clone(judge),
            });
            let observer = Arc::new(SimObserver {
                host,
                life,
                node: node.id,
                instance,
                eligible,
                world: process.world.clone(),
                truth: Arc::clone(truth),
                judge: Arc::clone(judge),
            });
            let node_context = NodeContext {
                env: env.clone(),
                node: node.clone(),
                instance: InstanceId([host as u8; 8]),
                state_dir: PathBuf::from("/var/lib/runner"),
                cancel: CancellationToken::new(),
                progress: Arc::default(),
                config_hash: String::new(),
                leases: sessions.clone(),
                memory: ProcessMemory::default(),
                inputs: NodeInputs { probes: eyes.clone(), content: Some(eyes) },
            };
            self.hold(host, node_context, settings, role, Arc::clone(&store), observer);
        }
    }

    fn hold(
        &self,
        host: usize,
        node_context: NodeContext,
        settings: &Settings,
        role: &RoleSettings,
        store: Arc<dyn Store>,
        observer: Arc<SimObserver>,
    ) {
        let state = Path::new("/var/lib/runner");
        let dispatcher = AlertDispatcher::new(
            &NotifySettings::default(),
            state,
            node_context.env.clone(),
            Arc::new(SilentAlertFormatter),
        );
        let (settings, role, dispatcher) = (settings.clone(), role.clone(), Arc::new(dispatcher));
        let prune_interval = Duration::from_hours(23);
        let hold = RoleTaskConfig { node_context, settings, role, store, observer, alerts: dispatcher, prune_interval };
        let (keep, stop) = watch::channel(false);
        self.world.start(host, async move {
            daemon::run_role(hold, stop).await;
            drop(keep);
        });
    }

    fn counts(&self) -> RequestCounts {
        let each: Vec<RequestCounts> = self.counters.iter().map(|counters| counters.snapshot()).collect();
        let sum = |of: fn(&RequestCounts) -> u64| each.iter().map(of).sum();
        RequestCounts {
            put: sum(|c| c.put),
            put_if_absent: sum(|c| c.put_if_absent),
            replace: sum(|c| c.replace),
            get: sum(|c| c.get),
            get_range: sum(|c| c.get_range),
            list: sum(|c| c.list),
            delete: sum(|c| c.delete),
            ..RequestCounts::default()
        }
    }

    /// Of the role with this number: how many nodes work for it, and how many stand by.
    fn statuses(&self, role: usize) -> (usize, usize) {
        let statuses = [1, 2].map(|host| self.truths[role].status(host, self.world.life(host)));
        let count = |of: fn(&RoleStatus) -> bool| statuses.iter().flatten().filter(|status| of(status)).count();
        (count(|s| matches!(s, RoleStatus::Active { term: Some(_) })), count(|s| matches!(s, RoleStatus::Standby(_))))
    }
}

/// What a pair asks of the store in a minute, and what that costs in a month.
#[derive(Debug, Clone, Copy, PartialEq)]
struct RequestCost {
    puts: f64,
    lists: f64,
    gets: f64,
    dollars: f64,
}

fn idle(roles: usize, lease: LeaseKind) -> RequestCost {
    let pair = IdlePair::new(roles, lease);
    pair.world.run_until(WARM_UP);
    let before = pair.counts();
    pair.world.run_until(WARM_UP + COUNTED);
    let after = pair.counts();
    for role in 0..roles {
        assert_eq!(pair.statuses(role), (1, 1), "role {role} of {roles}, {lease:?}");
    }
    let (writes, lists) = (|c: &RequestCounts| c.put + c.put_if_absent + c.replace, after.list - before.list);
    let writes = writes(&after) - writes(&before);
    let gets = after.get + after.get_range - before.get - before.get_range;
    let minutes = COUNTED.as_secs_f64() / 60.0;
    let months = MONTH.as_secs_f64() / COUNTED.as_secs_f64();
    let dollars = ((writes + lists) as f64 * WRITE_OR_LIST + gets as f64 * READ) / 1000.0 * months;
    let cost = RequestCost {
        puts: writes as f64 / minutes,
        lists: lists as f64 / minutes,
        gets: gets as f64 / minutes,
        dollars,
    };
    println!("{roles} roles, {lease:?}: {cost:?}");
    cost
}

const BEGIN: &str = "<!-- counted by tests/sim/costs.rs -->\n";
const END: &str = "<!-- end -->\n";

#[test]
fn an_idle_pair_costs_what_the_docs_say() {
    let mut table =
        "| roles | `lease` | PUT a minute | LIST a minute | GET a minute | $ a month |\n|---|---|---|---|---|---|\n"
            .to_owned();
    for (roles, lease, most) in GOALS {
        let cost = idle(roles, lease);
        assert!(cost.dollars <= most, "{roles} roles, {lease:?}: {cost:?}");
        let name = match lease {
            LeaseKind::Bucket => "bucket",
            LeaseKind::Etcd => "etcd",
            LeaseKind::None => "none",
        };
        let RequestCost { puts, lists, gets, dollars } = cost;
        let _ = writeln!(table, "| {roles} | `{name}` | {puts:.2} | {lists:.2} | {gets:.1} | {dollars:.2} |");
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/COSTS.md");
    let text = fs::read_to_string(&path).unwrap();
    let (head, rest) = text.split_once(BEGIN).expect("the table has a beginning");
    let (said, tail) = rest.split_once(END).expect("and an end");
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, format!("{head}{BEGIN}{table}{END}{tail}")).unwrap();
    } else {
        assert_eq!(said, table, "docs/COSTS.md says what was; UPDATE_DOCS=1 writes what is");
    }
}

/// The most that each may cost in a month.
const GOALS: [(usize, LeaseKind, f64); 6] = [
    (1, LeaseKind::Bucket, 1.0),
    (1, LeaseKind::Etcd, 0.25),
    (1, LeaseKind::None, 0.25),
    (50, LeaseKind::Bucket, 3.0),
    (50, LeaseKind::Etcd, 3.0),
    (50, LeaseKind::None, 3.0),
];

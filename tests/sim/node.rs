//! One node: the program's own daemon, or its cron job, on a simulated host. What the host, the network and the servers are is
//! simulated; what decides, elects, commits, prunes and deletes is the program.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::FutureExt as _;
use jiff::Timestamp;
use runner::config::{Host as Place, Lease, NotifySettings, Probe, RoleSettings, Settings};
use runner::daemon::{self, Failure, Hold, Voice};
use runner::env::Env;
use runner::ids::{InstanceId, NodeId, RepoId, RoleName};
use runner::job::backup::{BackupError, Content};
use runner::job::cancel::Cancel;
use runner::job::guard::{self, GuardError, Reason, Request};
use runner::job::lease::Sessions;
use runner::job::operate::Operator;
use runner::job::prune::{self, PruneError};
use runner::job::report::pruned::PruneReport;
use runner::job::report::{Outcome, RoleReport};
use runner::job::repository::Repository;
use runner::job::runner::{Runner, Surroundings};
use runner::job::seat::Seats;
use runner::journal::log::AppendError;
use runner::journal::record::NodeRef;
use runner::journal::register;
use runner::notice::event::{Notice, Words};
use runner::notice::teller::Teller;
use runner::repo::crypto::{Cipher, Keys, RepositoryKey};
use runner::repo::entry::TreePath;
use runner::repo::format::{self, ChunkerParams, Format, JournalHome};
use runner::role::duty::Stand;
use runner::role::lease::LeaseHolder;
use runner::role::permit::Permit;
use runner::role::probe::vip::events::Hints;
use runner::role::probe::{Answer, Context, Detail, Evidence, Senses};
use runner::role::slot::Slot;
use runner::store::Store;
use tokio::sync::watch;

use crate::judge::{Files, Judge};
use crate::leases::LeaseServer;
use crate::registers::{CLUSTER, RegisterServer};
use crate::rng::Rng;
use crate::wire::Bucket;
use crate::world::{World, WorldRef};

/// Where a node keeps what it remembers.
const STATE_DIR: &str = "/var/lib/runner";

/// How often nodes prune.
const PRUNE_INTERVAL: Duration = Duration::from_secs(70);

/// How long what is condemned stays.
pub const GRACE: Duration = Duration::from_secs(100);

/// How often a slot comes.
pub const EVERY: Duration = Duration::from_mins(1);

/// The lease's length, in seconds.
const TTL: u64 = 10;

/// A cron job that hangs is not started twice, and not waited for for ever.
const CRON: Duration = Duration::from_secs(20);

/// What makes a node eligible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Eligible {
    Always,
    Vip,
    /// A probe under a `not`.
    NotAway,
}

/// Who runs the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Daemon,
    Cron,
}

/// How a cluster is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setup {
    pub nodes: usize,
    pub mode: Mode,
    pub lease: Lease,
    /// The journal has its head in etcd.
    pub seated: bool,
    pub eligible: Eligible,
    pub holder_continues: bool,
    pub keep: u32,
    pub max_unused: u8,
}

impl Setup {
    /// One of those that the config allows.
    pub fn drawn(rng: &mut Rng) -> Self {
        let lease = *rng.pick(&[Lease::None, Lease::Bucket, Lease::Etcd]);
        let mode = if lease != Lease::Etcd && rng.chance(250) { Mode::Cron } else { Mode::Daemon };
        let eligible = match rng.below(5) {
            0 if lease != Lease::None => Eligible::Always,
            0..=2 => Eligible::Vip,
            _ => Eligible::NotAway,
        };
        Self {
            nodes: 2 + usize::from(rng.chance(300)),
            mode,
            lease,
            seated: lease != Lease::Bucket && rng.chance(350),
            eligible,
            holder_continues: rng.chance(300),
            keep: 1 + rng.below(3) as u32,
            max_unused: *rng.pick(&[0, 10, 50, 100]),
        }
    }

    /// The config file of all nodes, read as the program reads it.
    pub fn settings(&self) -> Settings {
        let lease = match self.lease {
            // The lease service that stands in for etcd needs no client of it.
            Lease::None | Lease::Etcd => "none",
            Lease::Bucket => "bucket",
        };
        let eligible = match self.eligible {
            // Somebody who may always have the role, where nothing but the journal keeps others out, is a mistake to the config.
            Eligible::Always => "",
            Eligible::Vip => "eligible = { vip = \"192.0.2.1\" }",
            Eligible::NotAway => "eligible = { not = { command = [\"/away\"] } }",
        };
        let unreachable = if self.holder_continues && !self.seated { "holder_continues" } else { "stop" };
        let text = format!(
            "[store]\nurl = \"file:///sim\"\nencryption = \"none\"\n\
             [role.app]\n{eligible}\nlease = \"{lease}\"\nsources = [\"/srv\"]\nevery = \"{}s\"\njitter = \"0s\"\n\
             bucket_lease_ttl = \"{TTL}s\"\nmissed_after = \"30s\"\ntakeover_delay = \"3s\"\ntakeover_after = \"90s\"\n\
             on_lease_unreachable = \"{unreachable}\"\nkeep = {{ last = {} }}\nmax_unused = {}\nprune_grace = \"{}s\"\n",
            EVERY.as_secs(),
            self.keep,
            self.max_unused,
            GRACE.as_secs(),
        );
        let place = Place { runner_config: None, credentials_directory: None };
        let settings = Settings::parse(&[(PathBuf::from("sim.toml"), text)], &place);
        let mut settings = settings.unwrap_or_else(|error| panic!("{error}"));
        settings.roles.values_mut().for_each(|role| role.lease = self.lease);
        settings
    }
}

/// What the story moves, and the nodes see.
#[derive(Debug)]
pub struct Truth {
    state: Mutex<Facts>,
}

#[derive(Debug)]
struct Facts {
    here: BTreeMap<usize, Answer>,
    files: BTreeMap<Vec<u8>, Bytes>,
    stands: BTreeMap<usize, (u64, Stand)>,
    log: Option<Vec<String>>,
}

impl Truth {
    fn new() -> Arc<Self> {
        let (here, files, stands) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Arc::new(Self { state: Mutex::new(Facts { here, files, stands, log: None }) })
    }

    /// From now on the story is written down.
    pub fn log(&self) {
        self.state().log.get_or_insert_default();
    }

    /// Writes it down, if it is.
    pub fn say(&self, world: &WorldRef, what: impl FnOnce() -> String) {
        if let Some(log) = &mut self.state().log {
            let line = format!("{:>12.3?} {}", world.now().as_secs_f64(), what());
            // Between what the program logs of itself.
            println!("{line}");
            log.push(line);
        }
    }

    /// What was written down.
    pub fn story(&self) -> Vec<String> {
        self.state().log.clone().unwrap_or_default()
    }

    /// Whether the role belongs on this host.
    pub fn put(&self, host: usize, here: Answer) {
        self.state().here.insert(host, here);
    }

    pub fn is_here(&self, host: usize) -> Answer {
        self.state().here.get(&host).copied().unwrap_or(Answer::No)
    }

    /// Changes the role's files.
    pub fn change(&self, change: impl FnOnce(&mut BTreeMap<Vec<u8>, Bytes>)) {
        change(&mut self.state().files);
    }

    /// How this process of the host stands, if it has said so.
    pub fn stand(&self, host: usize, life: u64) -> Option<Stand> {
        self.state().stands.get(&host).filter(|(of, _)| *of == life).map(|(_, stand)| stand.clone())
    }

    fn state(&self) -> MutexGuard<'_, Facts> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A world with a bucket, an etcd and nodes.
pub struct Cluster {
    pub world: World,
    pub bucket: Arc<Bucket>,
    pub leases: Arc<LeaseServer>,
    pub registers: Arc<RegisterServer>,
    pub judge: Arc<Judge>,
    pub truth: Arc<Truth>,
    pub setup: Setup,
    settings: Settings,
    role: RoleSettings,
    /// Each host's identity, as it stands on its disk.
    ids: BTreeMap<usize, NodeId>,
    rng: Rng,
}

impl Cluster {
    /// Its hosts are 1 to `setup.nodes`, with an empty repository; nothing runs yet.
    pub fn new(seed: u64, setup: Setup) -> Self {
        let world = World::new(seed);
        let (bucket, leases, registers) = (Bucket::new(&world), LeaseServer::new(&world), RegisterServer::new(&world));
        let settings = setup.settings();
        let role = settings.roles.values().next().expect("there is one").clone();
        let mut rng = world.rng();
        let repo = make_repository(&bucket, &role.name, setup.seated, &mut rng);
        registers.registers().tamper(&register::head(repo), Some(Bytes::new()));
        let probes = setup.eligible != Eligible::Always;
        let judge = Judge::new(&world, bucket.store().objects(), GRACE, probes);
        bucket.observe(judge.clone());
        registers.observe(judge.clone());
        let watching = Arc::clone(&judge);
        leases.on_grant(move |holder| watching.lease_moved(&holder.instance.to_string()));
        let truth = Truth::new();
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
    }

    pub fn hosts(&self) -> impl Iterator<Item = usize> + use<> {
        1..=self.ids.len()
    }

    /// Starts the program on a host.
    pub fn start(&mut self, host: usize) {
        let runner = self.runner(host);
        let store = self.bucket.wire(self.world.process(host));
        let (settings, role) = (self.settings.clone(), self.role.clone());
        let voice = self.voice(host, &runner);
        match self.setup.mode {
            Mode::Daemon => {
                let teller =
                    Teller::new(&NotifySettings::default(), Path::new(STATE_DIR), runner.env.clone(), Arc::new(Silent));
                let hold = Hold {
                    runner,
                    settings,
                    role,
                    store,
                    voice,
                    teller: Arc::new(teller),
                    prune_interval: PRUNE_INTERVAL,
                };
                let (keep, stop) = watch::channel(false);
                self.world.start(host, async move {
                    daemon::hold(hold, stop).await;
                    drop(keep);
                });
            }
            Mode::Cron => {
                let random = Mutex::new(self.world.rng());
                self.world.start(host, cron(runner, settings, role, store, voice, random));
            }
        }
    }

    /// Runs something of the program by hand on a host, in a process of its own that shares the host's disk.
    pub fn prune(&mut self, host: usize) {
        let (runner, settings, role) = (self.runner(host), self.settings.clone(), self.role.clone());
        let store: Arc<dyn Store> = self.bucket.wire(self.world.process(host));
        let (truth, world) = (Arc::clone(&self.truth), self.world.process(host).world);
        self.world.start(host, async move {
            let done = prune::run(&runner, &settings, &role, async || Ok(store)).await;
            truth.say(&world, || format!("host {host}: pruned by hand: {}", pruned(&done)));
        });
    }

    /// What an operator says on a host.
    pub fn operate(&mut self, host: usize, act: Act) {
        let (runner, role) = (self.runner(host), self.role.clone());
        let store: Arc<dyn Store> = self.bucket.wire(self.world.process(host));
        let (truth, world) = (Arc::clone(&self.truth), self.world.process(host).world);
        self.world.start(host, async move {
            // A person tries again.
            for _ in 0..20 {
                let done = operate(&runner, &role, Arc::clone(&store), act).await;
                truth.say(&world, || {
                    format!("host {host}: {act:?}: {}", done.as_ref().map_or_else(Clone::clone, |()| "done".to_owned()))
                });
                if done.is_ok() {
                    return;
                }
                runner.env.sleep(Duration::from_secs(10)).await;
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

    fn runner(&mut self, host: usize) -> Runner {
        let env: Env = self.world.env(host);
        let process = self.world.process(host);
        let instance = InstanceId(self.rng.next().to_le_bytes());
        let node = NodeRef { id: self.ids[&host], name: format!("node{host}") };
        let mut sessions = Sessions::default();
        if self.setup.seated {
            sessions = sessions.with_seats(Seats::with(self.registers.wire(process.clone())));
        }
        if self.setup.lease == Lease::Etcd {
            let me = LeaseHolder { node: node.id, label: node.name.clone(), instance };
            sessions = sessions.borrowing(self.leases.lender(process, me, Duration::from_secs(TTL)));
        }
        let eyes = Eyes {
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
        let surroundings = Surroundings { senses: eyes.clone(), content: Some(eyes) };
        Runner {
            env,
            node,
            instance,
            state_dir: PathBuf::from(STATE_DIR),
            cancel: Cancel::new(),
            progress: Arc::default(),
            config_hash: String::new(),
            sessions,
            surroundings,
        }
    }

    fn voice(&self, host: usize, runner: &Runner) -> Arc<Mouth> {
        Arc::new(Mouth {
            host,
            life: self.world.life(host),
            instance: runner.instance.to_string(),
            eligible: self.setup.eligible,
            world: self.world.process(host).world,
            truth: Arc::clone(&self.truth),
            judge: Arc::clone(&self.judge),
        })
    }
}

/// What an operator may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    TakeOver,
    Pause,
    Resume,
}

async fn operate(runner: &Runner, role: &RoleSettings, store: Arc<dyn Store>, act: Act) -> Result<(), String> {
    let repository = Repository::open(store, &role.name, &role.key).await.map_err(|e| e.to_string())?;
    let operator = Operator {
        node: runner.node.clone(),
        instance: runner.instance,
        env: &runner.env,
        state_dir: Some(&runner.state_dir),
        seats: runner.sessions.seats().clone(),
    };
    let done = match act {
        Act::TakeOver => operator.take_over(&repository, role).await,
        Act::Pause => operator.pause(&repository, None, None).await,
        Act::Resume => operator.resume(&repository).await,
    };
    done.map(drop).map_err(|error| error.to_string())
}

/// A cron line: every twenty seconds, each time a process of its own, never two at once.
async fn cron(
    runner: Runner,
    settings: Settings,
    role: RoleSettings,
    store: Arc<dyn Store>,
    voice: Arc<Mouth>,
    random: Mutex<Rng>,
) {
    let mut runs = 0_u32;
    loop {
        let instance = InstanceId(random.lock().unwrap_or_else(PoisonError::into_inner).next().to_le_bytes());
        let runner = voice.as_instance(&runner, instance);
        let voice = Mouth { instance: instance.to_string(), ..Mouth::clone(&voice) };
        let request = Request { scheduled: true, rehash: false };
        let connect = {
            let store = Arc::clone(&store);
            async move || Ok(store)
        };
        match guard::backup(&runner, &settings, &role, connect, request, &|_, _| {}).await {
            Ok((report, reason)) => voice.ran(&voice.explained(&report, reason.as_ref())),
            Err(error) => voice.failed(&role.name, &error),
        }
        runs += 1;
        if runs.is_multiple_of(5) {
            let store = Arc::clone(&store);
            let done = prune::run(&runner, &settings, &role, async || Ok(store)).await;
            voice.truth.say(&voice.world, || format!("host {}: pruned by cron: {}", voice.host, pruned(&done)));
        }
        runner.env.sleep(CRON).await;
    }
}

fn pruned(done: &Result<prune::Pruned, PruneError>) -> String {
    match done {
        Ok(prune::Pruned::Done(report)) => told(report),
        Ok(prune::Pruned::Refused(refused)) => format!("{:?}", refused.1),
        Err(error) => error.to_string(),
    }
}

fn told(report: &PruneReport) -> String {
    let gone = report.snapshots.iter().filter(|verdict| !verdict.kept).count();
    format!(
        "{gone} forgotten, {} packs condemned, {} repacked, {} swept",
        report.packs_condemned, report.packs_repacked, report.swept.packs
    )
}

/// What a node sees of the truth.
#[derive(Debug)]
struct Eyes {
    host: usize,
    life: u64,
    instance: String,
    eligible: Eligible,
    env: Env,
    rng: Mutex<Rng>,
    truth: Arc<Truth>,
    judge: Arc<Judge>,
}

#[async_trait]
impl Senses for Eyes {
    async fn ask(&self, _: &Probe, _: &Context) -> (Answer, Detail) {
        let time = {
            let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
            let most = if rng.chance(20) { Duration::from_secs(8) } else { Duration::from_millis(100) };
            rng.time(Duration::from_millis(1), most)
        };
        self.env.sleep(time).await;
        let here = self.truth.is_here(self.host);
        if here == Answer::Yes {
            self.judge.said_yes(&self.instance);
        }
        let answer = match (self.eligible, here) {
            (Eligible::NotAway, Answer::Yes) => Answer::No,
            (Eligible::NotAway, Answer::No) => Answer::Yes,
            (_, here) => here,
        };
        (answer, Detail::Absent)
    }

    fn hints(&self, _: Option<&Probe>) -> Hints {
        Hints::none()
    }
}

impl Content for Eyes {
    fn files(&self, permit: &Permit) -> BTreeMap<TreePath, Bytes> {
        let files: Files = self.truth.state().files.clone();
        self.judge.given((self.host, self.life), &self.instance, files.clone(), permit.deadline());
        files.into_iter().map(|(path, bytes)| (TreePath::new(path).expect("a sound path"), bytes)).collect()
    }
}

/// What a node says.
#[derive(Debug, Clone)]
struct Mouth {
    host: usize,
    life: u64,
    instance: String,
    eligible: Eligible,
    world: WorldRef,
    truth: Arc<Truth>,
    judge: Arc<Judge>,
}

impl Mouth {
    /// The runner of another process of the same node.
    fn as_instance(&self, runner: &Runner, instance: InstanceId) -> Runner {
        let eyes = Arc::new(Eyes {
            host: self.host,
            life: self.life,
            instance: instance.to_string(),
            eligible: self.eligible,
            env: runner.env.clone(),
            rng: Mutex::new(self.world.rng()),
            truth: Arc::clone(&self.truth),
            judge: Arc::clone(&self.judge),
        });
        let surroundings = Surroundings { senses: eyes.clone(), content: Some(eyes) };
        Runner { instance, surroundings, cancel: Cancel::new(), ..runner.clone() }
    }
}

impl Voice for Mouth {
    fn load(&self) -> Result<Settings, Failure> {
        Err("nobody asks for it".into())
    }

    fn stands(&self, _: &RoleName, stand: &Stand, _: &[Evidence]) {
        self.truth.say(&self.world, || format!("host {}: {stand:?}", self.host));
        self.truth.state().stands.insert(self.host, (self.life, stand.clone()));
    }

    fn explained(&self, report: &RoleReport, reason: Option<&Reason>) -> RoleReport {
        RoleReport { reason: reason.map(|reason| format!("{reason:?}")), ..report.clone() }
    }

    fn ran(&self, report: &RoleReport) {
        self.truth.say(&self.world, || {
            format!("host {}: ran: {:?} slot {:?} {:?}", self.host, report.outcome, report.slot, report.reason)
        });
        if let Some(id) = report.snapshot {
            self.judge.told_commit(&id.to_string());
        }
    }

    fn report_failure(&self, role: &RoleName, _: &GuardError) -> (RoleReport, u8) {
        (RoleReport::nothing(role.clone(), Outcome::Failed), 1)
    }

    fn refusal(&self, _: &RoleName, _: Option<&Stand>) -> String {
        String::new()
    }

    fn failed(&self, _: &RoleName, error: &GuardError) {
        self.truth.say(&self.world, || format!("host {}: failed: {error}", self.host));
        if let GuardError::Backup(BackupError::Append(
            AppendError::Store { seq, .. } | AppendError::Register { seq, .. },
        )) = error
        {
            self.judge.told_unwritten(&self.instance, seq.0);
        }
    }

    fn pruned(&self, report: &PruneReport) {
        self.truth.say(&self.world, || format!("host {}: pruned: {}", self.host, told(report)));
    }

    fn not_pruned(&self, _: &RoleName, error: &PruneError) {
        self.truth.say(&self.world, || format!("host {}: not pruned: {error}", self.host));
    }

    fn would_run(&self, _: &RoleName, _: Slot) {}

    fn summary(&self, _: &BTreeMap<RoleName, Option<Stand>>) -> String {
        String::new()
    }
}

#[derive(Debug)]
struct Silent;

impl Words for Silent {
    fn text(&self, _: &Notice) -> String {
        String::new()
    }
}

/// What `init` makes, without its proof: a repository that is not encrypted, so that whoever checks reads it with nothing but the
/// bytes.
fn make_repository(bucket: &Bucket, role: &RoleName, seated: bool, rng: &mut Rng) -> RepoId {
    let mut key = [7; 32];
    key[..8].copy_from_slice(&rng.next().to_le_bytes());
    let mut repo = [3; 16];
    repo[..8].copy_from_slice(&rng.next().to_le_bytes());
    let (repo, master) = (RepoId(repo), RepositoryKey::new(key));
    let keys = Keys::new(Cipher::None, repo, role.clone(), master.clone());
    let journal = if seated { JournalHome::Etcd { cluster: CLUSTER } } else { JournalHome::Bucket };
    let format = Format {
        v: format::VERSION,
        role: role.clone(),
        repo,
        created: Timestamp::UNIX_EPOCH,
        cipher: Cipher::None,
        journal,
        chunker: ChunkerParams::default(),
        clear_key: Some(hex::encode(key)),
    };
    let there = [
        (runner::repo::names::format(role), Bytes::from(format.encode(&keys))),
        (runner::repo::names::probe(role), Bytes::from_static(b"probe")),
        (runner::repo::names::lease_probe(role), Bytes::from_static(b"probe")),
    ];
    for (key, body) in there {
        bucket.store().put(&key, body).now_or_never().expect("it is in memory").expect("it takes anything");
    }
    repo
}

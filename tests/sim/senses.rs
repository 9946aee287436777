//! What is true in a world, what a node sees of it, and what a node says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use runner::config::{Probe, Settings};
use runner::daemon::{Failure, Voice};
use runner::env::Env;
use runner::ids::{InstanceId, NodeId, RoleName};
use runner::job::backup::{BackupError, Content};
use runner::job::cancel::Cancel;
use runner::job::guard::{GuardError, Reason};
use runner::job::local::Memories;
use runner::job::prune::PruneError;
use runner::job::report::pruned::PruneReport;
use runner::job::report::{Outcome, RoleReport};
use runner::job::runner::{Runner, Surroundings};
use runner::journal::log::AppendError;
use runner::repo::entry::TreePath;
use runner::role::duty::Stand;
use runner::role::permit::Permit;
use runner::role::probe::vip::events::Hints;
use runner::role::probe::{Answer, Context, Detail, Evidence, Senses};
use runner::role::slot::Slot;

use crate::judge::{Files, Judge};
use crate::node::told;
use crate::rng::Rng;
use crate::setup::Eligible;
use crate::world::WorldRef;

/// How often it is looked whether what hangs still does.
const HANG_LOOK: Duration = Duration::from_secs(5);

/// What the story moves, and the nodes see.
#[derive(Debug)]
pub struct Truth {
    state: Mutex<Facts>,
}

#[derive(Debug)]
struct Facts {
    here: BTreeMap<usize, Answer>,
    files: BTreeMap<Vec<u8>, Bytes>,
    /// On these hosts reading the files does not end.
    hangs: BTreeSet<usize>,
    stands: BTreeMap<usize, (u64, Stand)>,
    /// Now and then a probe takes seconds.
    probes_are_slow: bool,
    log: Option<Vec<String>>,
}

impl Truth {
    pub fn new() -> Arc<Self> {
        let (here, files, stands) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let hangs = BTreeSet::new();
        Arc::new(Self { state: Mutex::new(Facts { here, files, hangs, stands, probes_are_slow: true, log: None }) })
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

    /// From now on every probe answers at once.
    pub fn answer_at_once(&self) {
        self.state().probes_are_slow = false;
    }

    /// From now on reading the files does not end on this host, or it does.
    pub fn hang(&self, host: usize, hangs: bool) {
        let hung = &mut self.state().hangs;
        if hangs {
            hung.insert(host)
        } else {
            hung.remove(&host)
        };
    }

    fn hangs(&self, host: usize) -> bool {
        self.state().hangs.contains(&host)
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

/// What a node sees of the truth.
#[derive(Debug)]
pub struct Eyes {
    pub host: usize,
    pub life: u64,
    pub instance: String,
    pub eligible: Eligible,
    pub env: Env,
    pub rng: Mutex<Rng>,
    pub truth: Arc<Truth>,
    pub judge: Arc<Judge>,
}

#[async_trait]
impl Senses for Eyes {
    async fn ask(&self, _: &Probe, _: &Context) -> (Answer, Detail) {
        let time = {
            let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
            let is_slow = rng.chance(20) && self.truth.state().probes_are_slow;
            let most = if is_slow { Duration::from_secs(8) } else { Duration::from_millis(100) };
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
    fn ready(&self) -> BoxFuture<'static, ()> {
        let (truth, env, host) = (Arc::clone(&self.truth), self.env.clone(), self.host);
        Box::pin(async move {
            while truth.hangs(host) {
                env.sleep(HANG_LOOK).await;
            }
        })
    }

    fn files(&self, permit: &Permit) -> BTreeMap<TreePath, Bytes> {
        let files: Files = self.truth.state().files.clone();
        self.judge.given((self.host, self.life), &self.instance, files.clone(), permit.deadline());
        files.into_iter().map(|(path, bytes)| (TreePath::new(path).expect("a sound path"), bytes)).collect()
    }
}

/// What a node says.
#[derive(Debug, Clone)]
pub struct Mouth {
    pub host: usize,
    pub life: u64,
    pub node: NodeId,
    pub instance: String,
    pub eligible: Eligible,
    pub world: WorldRef,
    pub truth: Arc<Truth>,
    pub judge: Arc<Judge>,
}

impl Mouth {
    /// The runner of another process of the same node.
    pub fn as_instance(&self, runner: &Runner, instance: InstanceId) -> Runner {
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
        Runner { instance, surroundings, memories: Memories::default(), cancel: Cancel::new(), ..runner.clone() }
    }
}

impl Voice for Mouth {
    fn load(&self) -> Result<Settings, Failure> {
        Err("nobody asks for it".into())
    }

    fn stands(&self, _: &RoleName, stand: &Stand, _: &[Evidence]) {
        if *stand == Stand::Cloned {
            self.judge.called_clone(&self.node.to_string());
        }
        self.truth.say(&self.world, || format!("host {}: {stand:?}", self.host));
        self.truth.state().stands.insert(self.host, (self.life, stand.clone()));
    }

    fn explained(&self, report: &RoleReport, reason: Option<&Reason>) -> RoleReport {
        if reason == Some(&Reason::Cloned) {
            self.judge.called_clone(&self.node.to_string());
        }
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

    fn refusal(&self, _: &RoleName, _: Option<&Stand>, _: &[Evidence]) -> String {
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

//! What is true in a world, what a node sees of it, and what a node says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use parking_lot::{Mutex, MutexGuard};
use tokio_util::sync::CancellationToken;

use crate::invariant_checker::{Files, InvariantChecker};
use crate::node::prune_summary;
use crate::rng::Rng;
use crate::setup::EligibilityRule;
use crate::world::WorldHandle;
use runner::config::{Probe, Settings};
use runner::daemon::{DaemonObserver, Failure, FailureExit};
use runner::env::Env;
use runner::ids::{InstanceId, NodeId, RoleName};
pub(crate) use runner::job::error::{BackupError, GuardError};
use runner::job::local_state::process_memory::ProcessMemory;
use runner::job::node::context::{InlineContent, NodeContext, NodeInputs};
pub(crate) use runner::job::prune::error::PruneError;
use runner::job::report::pruned::PruneReport;
use runner::job::report::{NoCommitReason, RoleReport, RunOutcome, RunReason};
use runner::journal::error::AppendError;
use runner::journal::permit::Permit;
use runner::repo::entry::TreePath;
use runner::role::controller::RoleStatus;
use runner::role::probe::vip::events::ProbeHints;
use runner::role::probe::{CommandVariables, ProbeAnswer, ProbeDetail, ProbeResult, ProbeRunner};
use runner::role::slot::Slot;

/// How often it is looked whether what hangs still does.
const HANG_LOOK: Duration = Duration::from_secs(5);

/// What the story moves, and the nodes see.
#[derive(Debug)]
pub struct GroundTruth {
    state: Mutex<GroundTruthState>,
}

#[derive(Debug)]
struct GroundTruthState {
    here: BTreeMap<usize, ProbeAnswer>,
    files: BTreeMap<Vec<u8>, Bytes>,
    /// On these hosts reading the files does not end.
    hangs: BTreeSet<usize>,
    statuses: BTreeMap<usize, (u64, RoleStatus)>,
    /// Now and then a probe takes seconds.
    probes_are_slow: bool,
    log: Option<Vec<String>>,
}

impl GroundTruth {
    pub fn new() -> Arc<Self> {
        let (here, files, statuses) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let hangs = BTreeSet::new();
        Arc::new(Self {
            state: Mutex::new(GroundTruthState { here, files, hangs, statuses, probes_are_slow: true, log: None }),
        })
    }

    /// From now on the story is written down.
    pub fn log(&self) {
        self.state().log.get_or_insert_default();
    }

    /// Writes it down, if it is.
    pub fn say(&self, world: &WorldHandle, what: impl FnOnce() -> String) {
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
    pub fn put(&self, host: usize, here: ProbeAnswer) {
        self.state().here.insert(host, here);
    }

    pub fn is_here(&self, host: usize) -> ProbeAnswer {
        self.state().here.get(&host).copied().unwrap_or(ProbeAnswer::No)
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
    pub fn status(&self, host: usize, life: u64) -> Option<RoleStatus> {
        self.state().statuses.get(&host).filter(|(of, _)| *of == life).map(|(_, status)| status.clone())
    }

    fn state(&self) -> MutexGuard<'_, GroundTruthState> {
        self.state.lock()
    }
}

/// What a node sees of the truth.
#[derive(Debug)]
pub struct SimProbes {
    pub host: usize,
    pub life: u64,
    pub instance: String,
    pub eligible: EligibilityRule,
    pub env: Env,
    pub rng: Mutex<Rng>,
    pub truth: Arc<GroundTruth>,
    pub judge: Arc<InvariantChecker>,
}

#[async_trait]
impl ProbeRunner for SimProbes {
    async fn ask(&self, _: &Probe, _: &CommandVariables) -> (ProbeAnswer, ProbeDetail) {
        let time = {
            let mut rng = self.rng.lock();
            let is_slow = rng.chance(20) && self.truth.state().probes_are_slow;
            let most = if is_slow { Duration::from_secs(8) } else { Duration::from_millis(100) };
            rng.time(Duration::from_millis(1), most)
        };
        self.env.sleep(time).await;
        let here = self.truth.is_here(self.host);
        if here == ProbeAnswer::Yes {
            self.judge.said_yes(&self.instance);
        }
        let answer = match (self.eligible, here) {
            (EligibilityRule::NotAway, ProbeAnswer::Yes) => ProbeAnswer::No,
            (EligibilityRule::NotAway, ProbeAnswer::No) => ProbeAnswer::Yes,
            (_, here) => here,
        };
        (answer, ProbeDetail::Absent)
    }

    fn hints(&self, _: Option<&Probe>) -> ProbeHints {
        ProbeHints::none()
    }
}

impl InlineContent for SimProbes {
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
pub struct SimObserver {
    pub host: usize,
    pub life: u64,
    pub node: NodeId,
    pub instance: String,
    pub eligible: EligibilityRule,
    pub world: WorldHandle,
    pub truth: Arc<GroundTruth>,
    pub judge: Arc<InvariantChecker>,
}

impl SimObserver {
    /// The runner of another process of the same node.
    pub fn as_instance(&self, node_context: &NodeContext, instance: InstanceId) -> NodeContext {
        let eyes = Arc::new(SimProbes {
            host: self.host,
            life: self.life,
            instance: instance.to_string(),
            eligible: self.eligible,
            env: node_context.env.clone(),
            rng: Mutex::new(self.world.rng()),
            truth: Arc::clone(&self.truth),
            judge: Arc::clone(&self.judge),
        });
        let surroundings = NodeInputs { probes: eyes.clone(), content: Some(eyes) };
        NodeContext {
            instance,
            inputs: surroundings,
            memory: ProcessMemory::default(),
            cancel: CancellationToken::new(),
            ..node_context.clone()
        }
    }
}

impl DaemonObserver for SimObserver {
    fn load_settings(&self) -> Result<Settings, Failure> {
        Err("nobody asks for it".into())
    }

    fn status_changed(&self, _: &RoleName, status: &RoleStatus, _: &[ProbeResult]) {
        if *status == RoleStatus::Cloned {
            self.judge.called_clone(&self.node.to_string());
        }
        self.truth.say(&self.world, || format!("host {}: {status:?}", self.host));
        self.truth.state().statuses.insert(self.host, (self.life, status.clone()));
    }

    fn reason_text(&self, _: &RoleName, reason: &RunReason) -> String {
        format!("{reason:?}")
    }

    fn run_ended(&self, report: &RoleReport) {
        if report.no_commit_reason() == Some(&NoCommitReason::Cloned) {
            self.judge.called_clone(&self.node.to_string());
        }
        self.truth.say(&self.world, || {
            format!("host {}: ran: {:?} slot {:?} {:?}", self.host, report.outcome, report.slot, report.reason)
        });
        if let Some(id) = report.snapshot {
            self.judge.told_commit(&id.to_string());
        }
    }

    fn report_failure(&self, role: &RoleName, _: &GuardError) -> (RoleReport, FailureExit) {
        (RoleReport::nothing(role.clone(), RunOutcome::Failed), FailureExit::Failed)
    }

    fn work_failed(&self, _: &RoleName, error: &GuardError) {
        self.truth.say(&self.world, || format!("host {}: failed: {error}", self.host));
        if let GuardError::Backup(BackupError::Append(
            AppendError::Store { seq, .. } | AppendError::Register { seq, .. },
        )) = error
        {
            self.judge.told_unwritten(&self.instance, seq.0);
        }
    }

    fn prune_ended(&self, report: &PruneReport) {
        self.truth.say(&self.world, || format!("host {}: pruned: {}", self.host, prune_summary(report)));
    }

    fn prune_failed(&self, _: &RoleName, error: &PruneError) {
        self.truth.say(&self.world, || format!("host {}: not pruned: {error}", self.host));
    }

    fn would_run(&self, _: &RoleName, _: Slot) {}

    fn status_summary(&self, _: &BTreeMap<RoleName, Option<RoleStatus>>) -> String {
        String::new()
    }
}

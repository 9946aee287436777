//! `whoami` and `is-active`: the node's identity, its state for each role, and why. Both are read-only: they take no
//! role over, and write neither to the store nor to the state directory, except that `whoami` tests whether the latter
//! is writable.
//!
//! If a daemon runs this node's backups, it is asked for its state, because it knows more: that its lease ran out, or
//! that its last run failed and could not be recorded. The daemon's answer can turn `active` into another state, never
//! another state into `active`.
//!
//! The two commands answer different questions. `whoami` runs the election, so it reports `active` only if the journal
//! was read and does not contradict. `is-active` is a guard that scripts call often, so for a role with probes it uses
//! the probes alone: an unreachable store must not stop a node's other work. For a role with a lease it has to read the
//! lease's holder.
//!
//! Both answer quickly even if the store or a probe hangs, because they are often called during an incident.

pub mod daemon_answer;
mod unread_warnings;
mod verdict;
mod wait_budget;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, join_all};
use jiff::SignedDuration;

use crate::config::{KeySource, LeaseKind, Probe, RoleSettings, Settings, StoreUrl};
use crate::env::Env;
use crate::file::access::FileExposure;
use crate::ids::{InstanceId, NodeId};
use crate::job::admission::lease;
use crate::job::admission::role_journal::election_history;
use crate::job::audit::ledger::recent;
use crate::job::backup::empty_sources;
use crate::job::health::{self, HealthFacts, RoleHistory, RunningBackup};
use crate::job::local_state::saved_state::{LastAnnouncement, SavedState};
use crate::job::local_state::{LocalState, run_failure};
use crate::job::node::leases::LeaseSessions;
use crate::job::node::presence::{self, LivePeers};
use crate::job::node::run_failure_file::RunFailureFile;
use crate::job::report::RunOutcome;
use crate::job::report::run_summary::{RunStep, RunSummary};
use crate::job::report::whoami::{
    EtcdHealth, EtcdState, NodeInfo, PeerPresence, ProbeReport, RoleInfo, RoleState, RoleWarning, StoreState,
    StoreStatus, TermInfo, UnreadableInput, WhoamiReport,
};
use crate::job::repository::known_repository::{self, RepositoryLocation};
use crate::job::repository::loss_notes::{self, LossNote};
use crate::job::repository::open::{OpenError, Repository, UnlockProgress, UnlockStep};
use crate::job::repository::read_only::{JournalEndLookup, ReadOnlyRepository, snapshot_info};
use crate::job::whoami::daemon_answer::{DaemonAnswer, DaemonRoleStatus};
use crate::job::whoami::wait_budget::{KEY_PATIENCE, TimeoutSource, WaitBudget};
use crate::journal::body::WriterNode;
use crate::journal::future_dates::future_dates;
use crate::journal::state::JournalPause;
use crate::journal::view::JournalView;
use crate::outage::no_answer_text;
use crate::role::election::{self, ElectionHistory, ElectionInputs, Eligibility, LeaseView, RetakeReason};
use crate::role::identity;
use crate::role::lease::{LeaseReply, LeaseService as _};
use crate::role::probe::{self, HostProbeRunner, ProbeAssessment};
use crate::store::{Store, StoreError};
use crate::{file, job};

/// Longest wait for stores and probes, so that the whole answer takes less than two seconds.
pub const PATIENCE: Duration = Duration::from_millis(1500);

/// Additional time for etcd after a slow store, as a fraction of the time limit.
const ETCD_AFTER_PART: u32 = 6;

/// Inputs of `whoami` and `is-active`.
#[derive(Debug, Clone, Copy)]
pub struct WhoamiRequest<'a> {
    /// The whole config.
    pub settings: &'a Settings,
    /// The value of `--node`.
    pub name: Option<&'a str>,
    /// This node's ID as reported by its daemon.
    pub daemon_node_id: Option<NodeId>,
    /// This node's state directory, if it has one.
    pub state_dir: Option<&'a Path>,
    /// Files of this node that other users of the host may change or read.
    pub exposures: &'a [FileExposure],
    /// Clock and randomness.
    pub env: &'a Env,
    /// Longest wait for stores and probes.
    pub timeout: Duration,
}

/// Examines all roles at the same time: probes, stores (opened by `connect`), etcd and the `daemon`.
pub async fn whoami(
    request: &WhoamiRequest<'_>,
    roles: &[&RoleSettings],
    connect: impl Future<Output = Result<Arc<dyn Store>, StoreError>> + Send + 'static,
    daemon: impl Future<Output = DaemonAnswer>,
) -> WhoamiReport {
    let (stored, label) = identity::peek_identity(request.state_dir, request.name);
    let id = request.daemon_node_id.or(stored);
    // A node without an ID never held a role; a random ID gives the same result.
    let node = id.unwrap_or_else(|| NodeId(request.env.random_bytes()));
    let connected = connect.boxed().shared();
    let sessions = LeaseSessions::read_only(request.settings, request.env, request.timeout);
    let etcd = etcd_status(request, sessions.clone()).boxed().shared();
    let (daemon, written) = (daemon.shared(), try_state_dir(request).shared());
    let statuses = roles.iter().map(|role| {
        let (connected, label, sessions, etcd) = (connected.clone(), &label, &sessions, etcd.clone());
        let (daemon, written) = (daemon.clone(), written.clone());
        async move {
            let (assessment, looked, etcd, daemon, written) = tokio::join!(
                run_probes(role, label, request.env, Some(request.timeout)),
                inspect_store(request, node, role, connected, sessions),
                async { if role.lease == LeaseKind::Etcd { etcd.await } else { None } },
                daemon,
                written,
            );
            let here = LocalInspection { daemon, state_dir_error: written };
            status(request, role, (node, label), assessment.as_ref(), &looked, etcd, &here)
        }
    });
    WhoamiReport {
        roles: join_all(statuses).await,
        node: NodeInfo {
            id,
            hostname: label.clone(),
            instance: InstanceId(request.env.random_bytes()),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            config_hash: request.settings.hash.clone(),
        },
    }
}

/// Whether this node is active. Without a lease the config and the probes decide, and the store is not asked.
pub async fn is_active(
    request: &WhoamiRequest<'_>,
    role: &RoleSettings,
    connect: impl Future<Output = Result<Arc<dyn Store>, StoreError>> + Send + 'static,
    daemon: impl Future<Output = DaemonAnswer>,
) -> RoleState {
    if role.lease != LeaseKind::None || role.fallback.is_some() {
        let report = Box::pin(whoami(request, &[role], connect, daemon)).await;
        return report.roles.first().map_or(RoleState::Unknown, |role| role.state);
    }
    let (_, label) = identity::peek_identity(request.state_dir, request.name);
    let assessment = run_probes(role, &label, request.env, None).await;
    match election::eligibility(role, &label, assessment.as_ref()) {
        Eligibility::Yes => RoleState::Active,
        Eligibility::No(_) | Eligibility::Fallback => RoleState::Standby,
        Eligibility::Unknown(_) => RoleState::Unknown,
    }
}

/// Runs the probes; `patience` shortens their time limits.
async fn run_probes(
    role: &RoleSettings,
    label: &str,
    env: &Env,
    patience: Option<Duration>,
) -> Option<ProbeAssessment> {
    let mut probe = role.eligible.clone()?;
    let mut fallback = role.fallback.as_ref().map(|fallback| fallback.probe.clone());
    if let Some(patience) = patience {
        [Some(&mut probe), fallback.as_mut()]
            .into_iter()
            .flatten()
            .for_each(|probe| cap_probe_timeouts(probe, patience));
    }
    let environment = role.environment.clone();
    let context = probe::CommandVariables { environment, ..probe::CommandVariables::new(label, role.name.clone()) };
    let asked = probe::assess(&probe, fallback.as_ref(), &context, &HostProbeRunner, env);
    let Some(patience) = patience else { return Some(asked.await) };
    // The number of commands that run at the same time is limited, so the last one may start when the time is over.
    let unknown = ProbeAssessment { answer: probe::ProbeAnswer::Unknown, fallback: None, results: Vec::new() };
    Some(tokio::time::timeout(patience + patience / 10, asked).await.unwrap_or(unknown))
}

fn cap_probe_timeouts(probe: &mut Probe, most: Duration) {
    match probe {
        Probe::Command { timeout, .. } | Probe::Http { timeout, .. } | Probe::Unit { timeout, .. } => {
            *timeout = most.min(*timeout);
        }
        Probe::Vip { .. } | Probe::Mounted { .. } => {}
        Probe::All(probes) | Probe::Any(probes) => probes.iter_mut().for_each(|p| cap_probe_timeouts(p, most)),
        Probe::Not(inner) => cap_probe_timeouts(inner, most),
    }
}

/// What is known without the store and the probes.
#[derive(Debug)]
struct LocalInspection {
    daemon: DaemonAnswer,
    /// Why the state directory is not writable.
    state_dir_error: Option<String>,
}

/// Tests whether the state directory is writable, by writing and removing a small file. Returns the error.
pub(crate) async fn try_state_dir(request: &WhoamiRequest<'_>) -> Option<String> {
    let dir = request.state_dir?.to_owned();
    let shown = dir.display().to_string();
    let tried = tokio::time::timeout(request.timeout, request.env.blocking(move || file::probe_writable(&dir))).await;
    let why = match tried {
        Ok(Some(Err(error))) => error.to_string(),
        Ok(_) => return None,
        Err(_) => no_answer_text(request.timeout, None),
    };
    Some(format!("{shown}: {why}"))
}

/// What was read from the store.
#[derive(Debug)]
struct StoreInspection {
    state: StoreState,
    archive: Option<ReadOnlyRepository>,
    memory: SavedState,
    /// The state of the lease, if the role has one.
    lease: Option<LeaseReply>,
    peers: Vec<PeerPresence>,
    /// The running backup of any node.
    under_way: Option<RunningBackup>,
    /// The newest note about lost packs.
    loss: Option<LossNote>,
    /// The journal's head is in etcd and unusable.
    head: Option<RoleWarning>,
    /// Records that this node has read are missing from the store.
    lost_records: Option<RoleWarning>,
    /// The inputs that could not be read.
    unread: Vec<RoleWarning>,
}

/// Older announcements are not compared, because they may be outdated: a daily cron job renews its announcement once a
/// day.
const DRIFT_MAX: SignedDuration = SignedDuration::from_hours(25);

/// The state of etcd, or a timeout.
async fn etcd_status(request: &WhoamiRequest<'_>, sessions: LeaseSessions) -> Option<EtcdHealth> {
    let asked = tokio::time::timeout(request.timeout, sessions.etcd_status()).await;
    let silent = || EtcdHealth::Failed(etcd_timeout_text(request, &sessions, request.timeout));
    asked.unwrap_or_else(|_| Some(silent()))
}

/// The text for an etcd that did not answer in time.
fn etcd_timeout_text(request: &WhoamiRequest<'_>, sessions: &LeaseSessions, patience: Duration) -> String {
    let endpoints = request.settings.etcd.as_ref().map(|etcd| etcd.endpoints.join(", ")).unwrap_or_default();
    format!("etcd: {endpoints}: {}", no_answer_text(patience, sessions.etcd_last_error().as_deref()))
}

/// The text for a store that did not answer in time. The report shows its URL beside it.
fn store_timeout_text(request: &WhoamiRequest<'_>, connecting: &StoreConnection) -> String {
    let from = request.settings.store.endpoint.as_ref().map(|endpoint| format!("{endpoint}: ")).unwrap_or_default();
    let trouble = connecting.peek().and_then(|store| store.as_ref().ok()?.last_attempt_error());
    format!("{from}{}", no_answer_text(request.timeout, trouble.as_deref()))
}

type StoreConnection = Shared<BoxFuture<'static, Result<Arc<dyn Store>, StoreError>>>;

/// Reads a role's store in a task of its own, so that a blocked thread does not delay the answer.
async fn inspect_store(
    request: &WhoamiRequest<'_>,
    node: NodeId,
    role: &RoleSettings,
    connecting: StoreConnection,
    sessions: &LeaseSessions,
) -> StoreInspection {
    let (env, state_dir) = (request.env.clone(), request.state_dir.map(Path::to_owned));
    let place = RepositoryLocation::new(&request.settings.store, &role.name);
    let deriving = UnlockProgress::default();
    let task =
        tokio::spawn(read(connecting.clone(), role.clone(), place, (env, state_dir), node, Arc::clone(&deriving)));
    let abort = task.abort_handle();
    let failed = |why: String| StoreInspection {
        state: StoreState {
            url: request.settings.store.url.to_string(),
            status: StoreStatus::Failed(why),
            journal: None,
            clock_offset_seconds: None,
        },
        archive: None,
        memory: SavedState::default(),
        lease: None,
        peers: Vec::new(),
        under_way: None,
        loss: None,
        head: None,
        lost_records: None,
        unread: Vec::new(),
    };
    let mut patience = WaitBudget { store: request.timeout, key: KEY_PATIENCE };
    let mut looked = match patience.wait(request.env, &deriving, task).await {
        Ok(Ok(looked)) => looked.unwrap_or_else(|e| failed(e.to_string())),
        Ok(Err(broken)) => failed(broken.to_string()),
        Err(silent) => {
            abort.abort();
            failed(match silent {
                TimeoutSource::Store => store_timeout_text(request, &connecting),
                TimeoutSource::Key(work) => {
                    let most = humantime::format_duration(KEY_PATIENCE);
                    let what = match (work, &role.key) {
                        (UnlockStep::Derive, _) => "the key could not be derived from the passphrase".to_owned(),
                        (UnlockStep::Read, KeySource::KeyFile(path) | KeySource::PassphraseFile(path)) => {
                            format!("{} could not be read", path.display())
                        }
                        (UnlockStep::Read, KeySource::None) => "the key could not be read".to_owned(),
                    };
                    format!("{what} within {most}; the store answers")
                }
            })
        }
    };
    // The key in etcd contains the repository's ID, so the store has to be read first. After a slow store little time
    // is left.
    let left = patience.store + request.timeout / ETCD_AFTER_PART;
    let Some(archive) = &looked.archive else {
        if role.lease == LeaseKind::Etcd && looked.state.status == StoreStatus::NotInitialised {
            looked.lease = Some(LeaseReply::Free);
        }
        return looked;
    };
    let lease = async {
        let asked = Box::pin(sessions.read_etcd_lease(archive.repository.keys.repo()));
        if role.lease != LeaseKind::Etcd {
            return None;
        }
        let silent = |_| Some(LeaseReply::Unknown { why: etcd_timeout_text(request, sessions, left) });
        tokio::time::timeout(left, asked).await.unwrap_or_else(silent)
    };
    let head = async {
        let looked = tokio::time::timeout(left, Box::pin(look_at_head(request.env, archive, sessions))).await;
        looked.unwrap_or_else(|_| {
            Some(RoleWarning::JournalHead { lost: false, why: etcd_timeout_text(request, sessions, left) })
        })
    };
    let (lease, head) = tokio::join!(lease, head);
    if role.lease == LeaseKind::Etcd {
        looked.lease = lease;
    }
    looked.head = head;
    looked
}

/// A warning if the head of `archive`'s journal is unusable.
async fn look_at_head(env: &Env, archive: &ReadOnlyRepository, sessions: &LeaseSessions) -> Option<RoleWarning> {
    let no_writer = WriterNode { id: NodeId([0; NodeId::LEN]), name: String::new() };
    let journal =
        sessions.journal_access().journal(&archive.repository, env, &no_writer, InstanceId([0; InstanceId::LEN]));
    let warning = |lost, why| Some(RoleWarning::JournalHead { lost, why });
    match journal {
        Err(error) => warning(true, error.to_string()),
        Ok(journal) => match journal.check_head(&archive.view).await {
            Ok(conflict) => conflict.and_then(|conflict| warning(true, conflict.to_string())),
            Err(error) => warning(false, error.to_string()),
        },
    }
}

async fn read(
    connecting: StoreConnection,
    role: RoleSettings,
    place: RepositoryLocation,
    (env, state_dir): (Env, Option<PathBuf>),
    node: NodeId,
    deriving: UnlockProgress,
) -> Result<StoreInspection, StoreError> {
    let store = connecting.await?;
    let lease = async {
        match role.lease {
            LeaseKind::Bucket => Some(
                lease::bucket_lease(&store, &role, &env, job::node::leases::anonymous_holder(&env), None)
                    .inspect()
                    .await,
            ),
            LeaseKind::Etcd | LeaseKind::None => None,
        }
    };
    // If they cannot be read in time, a warning says so; this node's state does not depend on them.
    let peers = async |repository: Repository| {
        unread_warnings::in_time(
            UnreadableInput::Peers,
            store.as_ref(),
            presence::read_live_peers(&repository, node, env.clock.now()),
        )
        .await
    };
    let archive = async {
        let slot = LocalState::last_key_slot_of(&env, state_dir.as_deref());
        let opened = Repository::open_watched(store.clone(), &role.name, &role.key, slot, &deriving).await;
        let repository = match opened {
            Err(OpenError::NoRepository { .. }) => {
                let gone = place.load_repository_id(&env, state_dir.as_deref()).is_ok_and(|known| known.is_some());
                let status = if gone { StoreStatus::Gone } else { StoreStatus::NotInitialised };
                return (status, None, SavedState::default(), None, (None, None));
            }
            Err(error) => {
                return (StoreStatus::Failed(error.to_string()), None, SavedState::default(), None, (None, None));
            }
            Ok(repository) => repository,
        };
        let journal = Some(repository.format.journal);
        let local = state_dir.as_ref().map(|dir| LocalState::peek(&env, dir, repository.keys.repo()));
        let memory = local.map(|local| local.load(node)).unwrap_or_default();
        let read = ReadOnlyRepository::read(repository.clone(), &env, state_dir.as_deref(), JournalEndLookup::ListOnly);
        match tokio::join!(read, peers(repository)) {
            (Err(error) | Ok(ReadOnlyRepository { damaged: Some(error), .. }), peers) => {
                (StoreStatus::Failed(error.to_string()), journal, memory, None, peers)
            }
            (Ok(archive), peers) => (StoreStatus::Ok, journal, memory, Some(archive), peers),
        }
    };
    let (lease, (status, journal, memory, archive, (peers, peers_unread))) = tokio::join!(lease, archive);
    let (mut unread, mut loss, mut gaps) = (Vec::from_iter(peers_unread), None, Vec::new());
    let LivePeers { peers, has_losses, under_way } = peers.unwrap_or_default();
    if let Some(archive) = &archive {
        let keys = &archive.repository.keys;
        let local = state_dir.as_ref().map(|dir| LocalState::peek(&env, dir, keys.repo()));
        unread.extend(
            local
                .as_ref()
                .and_then(LocalState::read_error)
                .map(|error| unread_warnings::unread_file(UnreadableInput::Memory, &error)),
        );
        let (store, known) = (store.as_ref(), local.as_ref());
        let noted = unread_warnings::in_time(
            UnreadableInput::Losses,
            store,
            loss_notes::read_newest_note(store, keys, known, has_losses),
        );
        let listed =
            unread_warnings::in_time(UnreadableInput::Records, store, archive.journal.missing_records(&archive.view));
        let ((noted, losses_unread), (listed, records_unread)) = tokio::join!(noted, listed);
        unread.extend(losses_unread.into_iter().chain(records_unread));
        (loss, gaps) = (noted.flatten(), listed.unwrap_or_default());
    }
    let gap = gaps.first().map(|first| RoleWarning::RecordsLost { first: *first, count: gaps.len() as u64 });
    let clock_offset_seconds = store.clock_offset().map(|offset| offset.as_secs());
    let state = StoreState { url: store.describe(), status, journal, clock_offset_seconds };
    Ok(StoreInspection { state, archive, memory, lease, peers, under_way, loss, head: None, lost_records: gap, unread })
}

fn status(
    request: &WhoamiRequest<'_>,
    role: &RoleSettings,
    (node, label): (NodeId, &str),
    assessment: Option<&ProbeAssessment>,
    looked: &StoreInspection,
    etcd: Option<EtcdHealth>,
    here: &LocalInspection,
) -> RoleInfo {
    let now = request.env.clock.now();
    let view = looked.archive.as_ref().map(|archive| &archive.view);
    let history = match &looked.state.status {
        StoreStatus::NotInitialised => Some(ElectionHistory::default()),
        // A store that was rolled back has no valid history, and no run starts on it.
        _ if looked.archive.as_ref().is_some_and(|archive| archive.rolled_back.is_some()) => None,
        _ => view.map(|view| election_history(view, &looked.memory, node)),
    };
    let plan =
        known_repository::recalled_slot_plan(request.settings, role, request.env, request.state_dir).ok().flatten();
    let inputs = ElectionInputs {
        role,
        node,
        label,
        now,
        clock_offset: looked.state.clock_offset_seconds.map(SignedDuration::from_secs),
        assessment,
        lease: LeaseView::Unasked,
        history: history.as_ref(),
        plan: plan.as_ref(),
        retake_reason: RetakeReason::None,
    };
    let decided = election::decide(inputs);
    let evidence: Vec<ProbeReport> = decided.results.iter().map(|e| verdict::describe(e, request.env)).collect();
    let (state, reason) = match decided.state {
        election::ElectionState::Candidate => verdict::state_by_lease(node, looked.lease.as_ref(), history.as_ref()),
        decided => verdict::state_of_election(role, decided),
    };
    let word = here.daemon.of(&role.name);
    let (state, reason) = verdict::state_by_daemon(state, reason, word);

    let holder = view.and_then(|view| view.state.holder.as_ref());
    let held = holder.filter(|holder| holder.node.id == node).map(|holder| holder.term);
    let told = word.and_then(|word| word.under_way.clone());
    let under_way: Vec<RunningBackup> = looked.under_way.iter().cloned().chain(told).collect();
    let past = view.map(|view| {
        let own = view.running.as_ref().is_some_and(|running| running.node.id == node);
        let local = request.state_dir.filter(|_| own).map(|dir| LocalState::peek(request.env, dir, view.repo));
        let running_is_gone = local.and_then(|local| local.is_without_command()).unwrap_or_default();
        RoleHistory { running_ended: running_is_gone, under_way: under_way.clone(), ..RoleHistory::of(view) }
    });
    let mut seen: Vec<RoleWarning> = looked.head.iter().chain(&looked.lost_records).cloned().collect();
    seen.extend(lease_unread(looked, etcd.as_ref()));
    seen.extend(request.exposures.iter().cloned().map(RoleWarning::Exposed));
    let twin = looked.memory.announced.as_ref().and_then(LastAnnouncement::twin);
    seen.extend(twin.map(|other| RoleWarning::Twin { other }));
    seen.extend(looked.loss.as_ref().map(loss_warning));
    let newest = view.and_then(|view| view.state.snapshots.last());
    seen.extend(newest.filter(|newest| newest.bytes == 0 && !role.allow_empty).map(|_| RoleWarning::NoContent));
    let empty = newest.zip(looked.archive.as_ref()).and_then(|(newest, archive)| {
        empty_sources::empty_sources(newest.empty.as_deref(), role, &archive.repository.keys)
            .map(RoleWarning::EmptySources)
    });
    seen.extend(empty);
    let clock_offset = looked.state.clock_offset_seconds.map(SignedDuration::from_secs);
    let future = view.and_then(|view| future_dates(view, node, now, clock_offset));
    seen.extend(future.map(RoleWarning::FutureDates));
    let place = RepositoryLocation::new(&request.settings.store, &role.name);
    seen.extend(looked.unread.iter().cloned());
    seen.extend(
        request.state_dir.map(|dir| unread_warnings::unread_local_files(request.env, dir, &place)).unwrap_or_default(),
    );
    if looked.state.status == StoreStatus::Gone
        && let Ok(Some(repository)) = place.load_repository_id(request.env, request.state_dir)
    {
        seen.push(RoleWarning::RepositoryGone { repository });
    }
    if let Some(archive) = &looked.archive
        && let Some(known) = place.differing_repository(request.env, request.state_dir, &archive.repository)
    {
        seen.push(RoleWarning::AnotherRepository { known, found: archive.repository.keys.repo() });
    }
    // For a node that is registered in etcd, the registration counts, not its announcement in the store.
    let (registered, unlisted) = match &etcd {
        Some(EtcdHealth::Ok { nodes, unread, .. }) => (nodes.as_slice(), unread.clone()),
        _ => (&[][..], None),
    };
    let unlisted = unlisted.map(|why| RoleWarning::Unread {
        what: UnreadableInput::Peers,
        why: format!("etcd: {why}"),
        harmless: false,
    });
    seen.extend(unlisted);
    // A former identity of this node, from before it lost its state directory, is not another node and has no
    // processes.
    let born = request.state_dir.and_then(identity::identity_created_at);
    let is_former = |peer: &PeerPresence| presence::is_former_identity(peer, label, born);
    let lately = looked.peers.iter().filter(|peer| now.duration_since(peer.seen) < DRIFT_MAX);
    let (former, lately): (Vec<&PeerPresence>, Vec<&PeerPresence>) = lately.partition(|peer| is_former(peer));
    if !former.is_empty() {
        seen.push(RoleWarning::FormerNodes { count: former.len() as u64 });
    }
    let told = lately.iter().map(|peer| &peer.node).filter(|peer| registered.iter().all(|other| other.id != peer.id));
    let others = registered.iter().filter(|peer| peer.id != node).chain(told);
    seen.extend(others.filter_map(|peer| presence::config_drift(peer, &request.settings.hash)));
    seen.extend(lately.iter().filter_map(|peer| presence::lease_drift(peer, role.lease)));
    let is_dir = matches!(request.settings.store.url, StoreUrl::Dir(_));
    let others_meant = role.nodes.as_ref().is_none_or(|nodes| nodes.iter().any(|name| name != label));
    let is_alone =
        looked.peers.is_empty() && looked.unread.iter().all(|found| !is_unread_part(found, UnreadableInput::Peers));
    if is_dir && others_meant && is_alone && view.is_some_and(|view| is_only_author(node, view)) {
        seen.push(RoleWarning::OnlyNode);
    }
    if here.daemon == DaemonAnswer::Silent {
        seen.push(RoleWarning::DaemonSilent);
    }
    if let Some(why) = here.state_dir_error.clone() {
        seen.push(RoleWarning::StateUnwritable { why, stands_by: state == RoleState::Standby });
    }
    let failures = failures(request, role, label, looked, word);
    let facts = HealthFacts {
        now,
        state,
        reason: &reason,
        evidence: &evidence,
        plan: plan.as_ref(),
        clock_offset_seconds: looked.state.clock_offset_seconds,
        store: &looked.state.status,
        rolled_back: looked.archive.as_ref().is_some_and(|archive| archive.rolled_back.is_some()),
        past: past.as_ref(),
        failures: &failures,
        daemon: word.map(|word| word.why.as_str()),
        observed: &seen,
    };
    let warnings = health::health_warnings(&facts);
    let paused = view.and_then(|view| view.state.paused.as_ref()).filter(|_| state == RoleState::Paused);
    let last_run = health::failures_since_commit(&facts).into_iter().next().or_else(|| view.and_then(last_commit));
    RoleInfo {
        role: role.name.clone(),
        state,
        reason,
        evidence,
        term: TermInfo {
            mine: held.or(history.and_then(|history| history.own_term)),
            current: holder.map(|holder| holder.term),
            holder: holder.map(|holder| holder.node.name.clone()),
        },
        last_backup: newest.map(|snapshot| snapshot_info(&role.name, snapshot)),
        last_run,
        next_slot: plan.as_ref().and_then(|plan| next_slot(plan, now, paused)),
        slots: plan.as_ref().zip(view).and_then(|(plan, view)| recent(plan, view, &under_way, now)),
        store: looked.state.clone(),
        etcd: etcd.map(|status| EtcdState {
            endpoints: request.settings.etcd.as_ref().map(|etcd| etcd.endpoints.clone()).unwrap_or_default(),
            status,
            holder: match &looked.lease {
                Some(LeaseReply::Taken { by, .. }) => by.as_ref().map(|by| by.label.clone()),
                _ => None,
            },
        }),
        warnings,
        has_daemon: word.is_some(),
        peers: looked.peers.clone(),
    }
}

/// The next slot for which a run may start, after the end of a pause.
fn next_slot(
    plan: &crate::role::slot::SlotSchedule,
    now: jiff::Timestamp,
    paused: Option<&JournalPause>,
) -> Option<jiff::Timestamp> {
    let from = paused.map_or(Some(now), |paused| paused.until.map(|until| until.max(now)))?;
    plan.next(from).map(|slot| slot.at)
}

/// The warning for a note about lost packs.
fn loss_warning(note: &LossNote) -> RoleWarning {
    let (by, time) = (note.node.clone(), note.time);
    match &note.remains {
        Some(remains) if note.met.is_empty() => {
            RoleWarning::Lost { packs: remains.lost.packs(), files: Some(remains.files), by, time }
        }
        _ => RoleWarning::Lost { packs: note.met.packs(), files: None, by, time },
    }
}

/// Whether all work in the journal is this node's.
fn is_only_author(node: NodeId, view: &JournalView) -> bool {
    let snapshots = view.state.snapshots.iter().map(|snapshot| snapshot.node.id);
    let Some(holder) = view.state.holder.as_ref().map(|holder| holder.node.id) else { return false };
    snapshots.chain([holder]).chain(view.authors.keys().copied()).all(|id| id == node)
}

fn is_unread_part(found: &RoleWarning, part: UnreadableInput) -> bool {
    matches!(found, RoleWarning::Unread { what, .. } if *what == part)
}

/// The warning that the lease's holder cannot be read.
fn lease_unread(looked: &StoreInspection, etcd: Option<&EtcdHealth>) -> Option<RoleWarning> {
    let why = match (etcd, &looked.lease) {
        (Some(EtcdHealth::Failed(why)), _) | (_, Some(LeaseReply::Unknown { why })) => why.clone(),
        _ => return None,
    };
    Some(RoleWarning::LeaseUnread { why })
}

/// Failed runs of this node and of the other nodes. The others' reports are encrypted with the repository's key, so
/// their origin is authenticated.
fn failures(
    request: &WhoamiRequest<'_>,
    role: &RoleSettings,
    label: &str,
    looked: &StoreInspection,
    word: Option<&DaemonRoleStatus>,
) -> Vec<RunSummary> {
    let written =
        request.state_dir.and_then(|dir| RunFailureFile::at(request.env, dir, &role.name).try_load().ok().flatten());
    let told = word.and_then(|word| word.failure.clone());
    let own = written.into_iter().chain(told).max_by_key(|failure| failure.time);
    let keys = looked.archive.as_ref().map(|archive| &archive.repository.keys);
    run_failure::known_failures(own, label, &looked.peers, keys)
}

/// The newest snapshot as a run.
fn last_commit(view: &JournalView) -> Option<RunSummary> {
    let snapshots = &view.state.snapshots;
    let snapshot = snapshots.last()?;
    let before = snapshots.len().checked_sub(2).map(|at| snapshots[at].root);
    Some(RunSummary {
        node: snapshot.node.name.clone(),
        outcome: if before == Some(snapshot.root) { RunOutcome::Unchanged } else { RunOutcome::Committed },
        step: RunStep::Run,
        time: snapshot.time,
        slot: snapshot.slot,
        error: String::new(),
        failures: 0,
        after: None,
    })
}

#[cfg(test)]
mod tests;

//! Over real repositories, probes that are real commands, and stores that do not answer.

use std::collections::BTreeMap;
use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::SignedDuration;

use super::*;
use crate::config::{KeySource, Schedule, StoreUrl};
use crate::job::backup::request::BackupOptions;
use crate::job::local_state::run_failure::RunFailure;
use crate::job::report::whoami::StateReason;
use crate::job::testing::{JobFixture, failure};
use crate::store::{
    ListPage, ObjectVersion, PutOutcome, PutPause, ReplaceOutcome, SizeLimit, StoreCapabilities, StoreErrorKind,
};

/// Short for tests in which something hangs on purpose, long for tests in which nothing should.
const SHORT: Duration = Duration::from_millis(400);
pub(super) const LONG: Duration = Duration::from_mins(1);

pub(super) fn settings(rig: &JobFixture) -> Settings {
    let url = StoreUrl::Dir("/srv/backups".into());
    let sources = [rig.src().to_owned()];
    Settings::for_flags(&sources, url, rig.role.name.clone(), rig.role.key.clone()).unwrap()
}

/// The report on the fixture's role.
pub(super) async fn ask(
    rig: &JobFixture,
    store: Result<Arc<dyn Store>, StoreError>,
    patience: Duration,
) -> (NodeInfo, RoleInfo) {
    ask_beside(rig, store, patience, DaemonAnswer::None).await
}

/// The same with a daemon.
async fn ask_beside(
    rig: &JobFixture,
    store: Result<Arc<dyn Store>, StoreError>,
    patience: Duration,
    daemon: DaemonAnswer,
) -> (NodeInfo, RoleInfo) {
    let (settings, state_dir) = (settings(rig), rig.state_dir());
    let request = WhoamiRequest {
        settings: &settings,
        name: Some("east"),
        daemon_node_id: None,
        state_dir: Some(&state_dir),
        exposures: &[],
        env: &rig.env,
        timeout: patience,
    };
    let mut report = whoami(&request, &[&rig.role], async { store }, async { daemon }).await;
    (report.node, report.roles.pop().unwrap())
}

fn command(script: &str) -> Probe {
    let command = vec!["/bin/sh".to_owned(), "-c".to_owned(), script.to_owned()];
    Probe::Command { command, timeout: Duration::from_mins(10) }
}

/// Creates the identity in the fixture's state directory, as a backup would.
pub(super) fn identify(rig: &mut JobFixture) {
    std::fs::create_dir_all(rig.state_dir()).unwrap();
    rig.node = identity::NodeIdentity::open(&rig.state_dir(), Some("east"), &rig.env).unwrap().id;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_node_is_told_without_making_anything() {
    let rig = JobFixture::new().await;
    let (node, role) = ask(&rig, Ok(rig.store.clone()), LONG).await;
    assert_eq!((node.id, node.hostname.as_str()), (None, "east"));
    assert_eq!((role.state, role.reason), (RoleState::Active, StateReason::AlwaysActive));
    assert_eq!((role.term, role.last_backup, role.store.status), (TermInfo::default(), None, StoreStatus::Ok));
    assert_eq!(role.warnings, [RoleWarning::NoSnapshot { since: Some(rig.repository.format.created) }]);
    assert_eq!(role.last_run, None);
    assert!(!rig.state_dir().exists());

    let empty: Arc<dyn Store> = Arc::new(crate::store::memory::MemoryStore::new(&rig.env));
    let (_, role) = ask(&rig, Ok(empty), LONG).await;
    assert_eq!((role.state, role.store.status), (RoleState::Active, StoreStatus::NotInitialised));
    assert_eq!(role.warnings, [RoleWarning::NoRepository]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_word_of_a_daemon_makes_active_less_and_never_more() {
    let mut rig = JobFixture::new().await;
    let failure = RunFailure { time: rig.env.clock.now(), failures: 3, ..failure("no room") };
    let says = |state, failure: Option<&RunFailure>| {
        let word = DaemonRoleStatus { state, why: "words".to_owned(), failure: failure.cloned(), under_way: None };
        DaemonAnswer::Answered(BTreeMap::from([(rig.role.name.clone(), word)]))
    };
    let (unknown, failing) = (says(Some(RoleState::Unknown), None), says(Some(RoleState::Active), Some(&failure)));
    let (settling, active) = (says(None, None), says(Some(RoleState::Active), None));
    let seen = async |rig: &JobFixture, daemon| {
        let (_, role) = ask_beside(rig, Ok(rig.store.clone()), LONG, daemon).await;
        (role.state, role.reason, role.warnings)
    };
    let (state, reason, _) = seen(&rig, unknown.clone()).await;
    assert_eq!((state, reason), (RoleState::Unknown, StateReason::Daemon { why: "words".to_owned() }));
    assert_eq!(seen(&rig, settling).await.0, RoleState::Active, "it has not found out yet");
    assert!(
        matches!(&seen(&rig, failing).await.2[0], RoleWarning::RunFailed(run) if run.error == "no room" && run.failures == 3)
    );
    assert!(seen(&rig, DaemonAnswer::Silent).await.2.contains(&RoleWarning::DaemonSilent));
    rig.role.eligible = Some(command("exit 1"));
    assert_eq!(seen(&rig, active).await.0, RoleState::Standby);
    assert_eq!(seen(&rig, unknown).await.0, RoleState::Standby);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_directory_that_takes_nothing_is_seen() {
    let mut rig = JobFixture::new().await;
    rig.write("a", "1");
    rig.backup().await;
    let is_seen = async |rig: &JobFixture| {
        let (_, role) = ask(rig, Ok(rig.store.clone()), LONG).await;
        role.warnings.iter().find_map(|found| match found {
            RoleWarning::StateUnwritable { stands_by, .. } => Some((*stands_by, health::severity(found))),
            _ => None,
        })
    };
    assert_eq!(is_seen(&rig).await, None);
    // No file can be created below a path that is not a directory, as on a full disk.
    std::fs::rename(rig.state_dir(), rig.state_dir().with_extension("away")).unwrap();
    std::fs::write(rig.state_dir(), "").unwrap();
    assert_eq!(is_seen(&rig).await, Some((false, health::Severity::Critical)));
    rig.role.eligible = Some(command("exit 1"));
    assert_eq!(is_seen(&rig).await, Some((true, health::Severity::Warning)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_journal_tells_who_holds_the_role() {
    let mut rig = JobFixture::new().await;
    rig.write("a", "1");
    identify(&mut rig);
    rig.role.eligible = Some(command("exit 0"));
    let first = rig.backup().await;
    let (node, role) = ask(&rig, Ok(rig.store.clone()), LONG).await;
    assert_eq!(node.id, Some(rig.node));
    assert_eq!((role.state, role.reason), (RoleState::Active, StateReason::ProbesYes));
    assert_eq!(role.evidence[0].probe, "command /bin/sh -c exit 0");
    let one = crate::ids::Term(1);
    assert_eq!(role.term, TermInfo { mine: Some(one), current: Some(one), holder: Some("east".to_owned()) });
    assert_eq!(role.last_backup.unwrap().id, first.snapshot.id);

    // Another node takes over; this node's probes still say yes.
    let state = rig.state_dir();
    std::fs::rename(&state, rig.dir.path().join("kept")).unwrap();
    rig.node = NodeId([2; 16]);
    rig.backup().await;
    std::fs::remove_dir_all(&state).unwrap();
    std::fs::rename(rig.dir.path().join("kept"), &state).unwrap();
    let (_, role) = ask(&rig, Ok(rig.store.clone()), LONG).await;
    let two = crate::ids::Term(2);
    assert_eq!(
        (role.state, role.reason),
        (RoleState::Conflict, StateReason::TakenOver { by: "east".to_owned(), term: two })
    );
    assert_eq!((role.term.mine, role.term.current), (Some(one), Some(two)));
    rig.role.eligible = Some(command("exit 1"));
    let (_, role) = ask(&rig, Ok(rig.store.clone()), LONG).await;
    assert_eq!((role.state, role.reason), (RoleState::Standby, StateReason::ProbesNo));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_store_a_yes_of_the_probes_is_not_enough() {
    let mut rig = JobFixture::new().await;
    rig.role.eligible = Some(command("exit 0"));
    let failed = StoreError::new(StoreErrorKind::Unreachable, "s3://b", None, "connection refused");
    for (store, why) in
        [(Ok(Arc::new(Hanging::default()) as Arc<dyn Store>), "no answer within 400ms"), (Err(failed), "refused")]
    {
        let (_, role) = ask(&rig, store, SHORT).await;
        let StoreStatus::Failed(said) = &role.store.status else { panic!("{role:?}") };
        assert!(said.contains(why), "{said}");
        assert_eq!(role.store.url, "file:///srv/backups");
        assert_eq!(
            (role.state, &role.reason, &role.warnings[..]),
            (
                RoleState::Unknown,
                &StateReason::JournalUnread,
                &[RoleWarning::StoreUnreadable { why: said.clone() }][..]
            )
        );
    }
    // The error of the last attempt is shown.
    let troubled: Arc<dyn Store> = Arc::new(Hanging { trouble: Some("SlowDown, status 503") });
    let (_, role) = ask(&rig, Ok(troubled), SHORT).await;
    let StoreStatus::Failed(said) = &role.store.status else { panic!("{role:?}") };
    assert_eq!(said, "no answer within 400ms; the last try failed: SlowDown, status 503");
    let (_, always) = (rig.role.eligible.take(), ask(&rig, Ok(Arc::new(Hanging::default())), SHORT).await.1);
    assert_eq!((always.state, always.reason), (RoleState::Unknown, StateReason::JournalUnread));
    // A verdict other than active stays as it is.
    rig.role.eligible = Some(command("exit 1"));
    let (_, role) = ask(&rig, Ok(Arc::new(Hanging::default())), SHORT).await;
    assert_eq!((role.state, role.reason), (RoleState::Standby, StateReason::ProbesNo));
    // Probes may hang too.
    rig.role.eligible = Some(command("sleep 600"));
    let (_, role) = ask(&rig, Ok(Arc::new(Hanging::default())), SHORT).await;
    assert_eq!((role.state, role.reason), (RoleState::Unknown, StateReason::ProbesUnknown));
    rig.role.eligible = Some(command("exit 0"));
    rig.role.nodes = Some(vec!["west".to_owned()]);
    let (_, role) = ask(&rig, Ok(Arc::new(Hanging::default())), SHORT).await;
    assert_eq!((role.state, role.reason), (RoleState::Standby, StateReason::NotListed));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_in_which_no_other_node_was_seen_is_noted_unless_none_is_meant() {
    let mut rig = JobFixture::new().await;
    rig.write("a", "1");
    identify(&mut rig);
    rig.backup().await;
    let (_, role) = ask(&rig, Ok(rig.store.clone()), LONG).await;
    assert_eq!(role.warnings, [RoleWarning::OnlyNode]);
    rig.role.nodes = Some(vec!["east".to_owned()]);
    assert_eq!(ask(&rig, Ok(rig.store.clone()), LONG).await.1.warnings, []);
    rig.role.nodes = Some(vec!["east".to_owned(), "west".to_owned()]);
    assert_eq!(ask(&rig, Ok(rig.store.clone()), LONG).await.1.warnings, [RoleWarning::OnlyNode]);
    // Another node has worked for the role.
    let (me, state) = (rig.node, rig.state_dir());
    std::fs::rename(&state, rig.dir.path().join("kept")).unwrap();
    rig.node = NodeId([2; 16]);
    rig.backup().await;
    std::fs::remove_dir_all(&state).unwrap();
    std::fs::rename(rig.dir.path().join("kept"), &state).unwrap();
    rig.node = me;
    assert_eq!(ask(&rig, Ok(rig.store.clone()), LONG).await.1.warnings, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_is_known_and_not_there_is_gone_and_no_new_beginning() {
    let mut rig = JobFixture::new().await;
    identify(&mut rig);
    let place = RepositoryLocation::new(&settings(&rig).store, &rig.role.name);
    place.remember(&rig.env, &rig.state_dir(), &rig.repository).unwrap();
    let empty: Arc<dyn Store> = Arc::new(crate::store::memory::MemoryStore::new(&rig.env));
    let (_, role) = ask(&rig, Ok(empty), LONG).await;
    assert_eq!(
        (role.state, role.reason, role.store.status),
        (RoleState::Unknown, StateReason::JournalUnread, StoreStatus::Gone)
    );
    assert_eq!(role.warnings, [RoleWarning::RepositoryGone { repository: rig.repository.keys.repo() }]);
}

#[test]
fn no_slot_is_next_before_a_pause_is_over() {
    let role = RoleSettings {
        schedule: Some(Schedule::Every(Duration::from_hours(1))),
        ..RoleSettings::new("app".parse().unwrap(), KeySource::None, vec!["/srv".into()])
    };
    let plan = crate::role::slot::SlotSchedule::new(&role, &jiff::tz::TimeZone::UTC).unwrap().unwrap();
    let at = |text: &str| text.parse::<jiff::Timestamp>().unwrap();
    let paused = |until| JournalPause {
        node: WriterNode { id: NodeId([1; 16]), name: "east".to_owned() },
        time: at("2026-11-20T00:10:00Z"),
        until,
        why: None,
    };
    let next = |paused: Option<JournalPause>| next_slot(&plan, at("2026-11-20T00:20:00Z"), paused.as_ref());
    assert_eq!(next(None), Some(at("2026-11-20T01:00:00Z")));
    assert_eq!(next(Some(paused(None))), None);
    assert_eq!(next(Some(paused(Some(at("2027-11-20T00:10:00Z"))))), Some(at("2027-11-20T01:00:00Z")));
    assert_eq!(next(Some(paused(Some(at("2026-11-20T00:15:00Z"))))), Some(at("2026-11-20T01:00:00Z")), "it is over");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_a_person_is_a_warning() {
    let mut rig = JobFixture::new().await;
    rig.write("a", "1");
    identify(&mut rig);
    rig.backup().await;
    rig.backup().await;
    rig.role.nodes = Some(vec!["east".to_owned()]);
    rig.role.schedule = Some(Schedule::Every(Duration::from_hours(1)));
    let (_, role) = ask(&rig, Ok(rig.store.clone()), LONG).await;
    assert_eq!(role.warnings, [], "a role that was made just now has missed none");
    let next = role.next_slot.unwrap();
    assert_eq!(next.as_second() % 3600, 0);
    assert_eq!(role.slots.unwrap().counts.expected, 0, "none is owed from before it was made");
    let slot = crate::role::slot::SlotSchedule::new(&rig.role, &jiff::tz::TimeZone::UTC)
        .unwrap()
        .unwrap()
        .due(rig.env.clock.now())
        .unwrap()
        .at;
    let newest = rig
        .backup_as(&rig.node_context(), &BackupOptions { slot: Some(slot), ..BackupOptions::default() })
        .await
        .snapshot
        .seq;
    let (_, role) = ask(&rig, Ok(rig.store.clone()), LONG).await;
    assert_eq!(role.slots.map(|slots| slots.counts.committed), Some(1));

    rig.memory.set_clock_offset(SignedDuration::from_mins(7));
    rig.memory.tamper(&crate::repo::object_keys::record(&rig.role.name, newest), None);
    let (_, role) = ask(&rig, Ok(rig.store.clone()), LONG).await;
    let [RoleWarning::StoreRolledBack, RoleWarning::ClockOff(seconds)] = role.warnings[..] else { panic!("{role:?}") };
    assert!((415..=425).contains(&seconds), "{seconds}");
    assert_eq!((role.state, role.reason), (RoleState::Unknown, StateReason::ClockOff));
}

#[tokio::test(flavor = "multi_thread")]
async fn is_active_asks_probes_alone() {
    let mut rig = JobFixture::new().await;
    let active = async |rig: &JobFixture| {
        let settings = settings(rig);
        let request = WhoamiRequest {
            settings: &settings,
            name: Some("east"),
            daemon_node_id: None,
            state_dir: None,
            exposures: &[],
            env: &rig.env,
            timeout: SHORT,
        };
        is_active(&request, &rig.role, std::future::pending(), async { DaemonAnswer::None }).await
    };
    assert_eq!(active(&rig).await, RoleState::Active);
    for (script, said) in
        [("exit 0", RoleState::Active), ("exit 1", RoleState::Standby), ("exit 2", RoleState::Unknown)]
    {
        rig.role.eligible = Some(command(script));
        assert_eq!(active(&rig).await, said);
    }
    rig.role.nodes = Some(vec!["west".to_owned()]);
    assert_eq!(active(&rig).await, RoleState::Standby);
}

#[test]
fn evidence_has_an_age() {
    let (env, ago) = (Env::host(), Duration::from_secs(5));
    let evidence = probe::ProbeResult {
        subject: probe::ProbeSubject::Unit("app.service".into()),
        answer: probe::ProbeAnswer::No,
        detail: probe::ProbeDetail::NoUnit,
        latency: Duration::from_millis(3),
        answered_at: env.clock.boottime().saturating_sub(ago),
        fallback: false,
    };
    let described = verdict::describe(&evidence, &env);
    assert_eq!(
        (described.probe.as_str(), described.detail.as_str()),
        ("unit app.service", "systemd knows no such unit")
    );
    assert_eq!(described.latency, evidence.latency);
    assert!((ago..LONG).contains(&described.age), "{:?}", described.age);
}

#[test]
fn every_probe_that_may_take_long_is_cut_short() {
    let http = |timeout| Probe::Http {
        url: "http://127.0.0.1:8008/primary".parse().unwrap(),
        status: Vec::new(),
        body: None,
        timeout,
        ca_file: None,
    };
    let unit = |timeout| Probe::Unit { unit: "app.service".into(), timeout };
    let shell = |timeout| Probe::Command { command: vec!["/bin/true".into()], timeout };
    let mount = Probe::Mounted { path: "/srv/app".into() };
    let nest = |t| Probe::Any(vec![Probe::Not(Box::new(http(t))), Probe::All(vec![unit(t), shell(t)]), mount.clone()]);
    let mut probe = nest(LONG);
    cap_probe_timeouts(&mut probe, SHORT);
    assert_eq!(probe, nest(SHORT));
    cap_probe_timeouts(&mut probe, LONG);
    assert_eq!(probe, nest(SHORT), "never longer than configured");
}

/// A store that never answers.
#[derive(Debug, Default)]
struct Hanging {
    trouble: Option<&'static str>,
}

#[async_trait]
impl Store for Hanging {
    fn describe(&self) -> String {
        "hanging".to_owned()
    }

    fn last_attempt_error(&self) -> Option<String> {
        self.trouble.map(str::to_owned)
    }

    fn capabilities(&self) -> StoreCapabilities {
        StoreCapabilities { put_if_absent: true, replace: true, has_finite_space: false }
    }

    async fn put(&self, _: &str, _: Bytes) -> Result<(), StoreError> {
        std::future::pending().await
    }

    async fn put_if_absent(&self, _: &str, _: Bytes) -> Result<PutOutcome, StoreError> {
        std::future::pending().await
    }

    async fn put_if_absent_paused(&self, _: &str, _: Bytes, _: PutPause) -> Result<PutOutcome, StoreError> {
        std::future::pending().await
    }

    async fn replace(&self, _: &str, _: Bytes, _: &ObjectVersion) -> Result<ReplaceOutcome, StoreError> {
        std::future::pending().await
    }

    async fn get_versioned(&self, _: &str, _: SizeLimit) -> Result<(Bytes, ObjectVersion), StoreError> {
        std::future::pending().await
    }

    async fn get(&self, _: &str, _: SizeLimit) -> Result<Bytes, StoreError> {
        std::future::pending().await
    }

    async fn get_range(&self, _: &str, _: Range<u64>) -> Result<Bytes, StoreError> {
        std::future::pending().await
    }

    async fn list(&self, _: &str, _: Option<&str>, _: usize) -> Result<ListPage, StoreError> {
        std::future::pending().await
    }

    async fn delete(&self, _: &[String]) -> Result<(), StoreError> {
        std::future::pending().await
    }

    fn clock_offset(&self) -> Option<SignedDuration> {
        None
    }
}

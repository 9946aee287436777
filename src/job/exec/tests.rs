//! Commands over a real repository.

use super::*;
use crate::config::{Schedule, StoreUrl};
use crate::job::admission::role_journal::RoleJournal;
use crate::job::report::RunOutcome;
use crate::job::testing::JobFixture;

/// Runs a shell script for the fixture's role.
pub(crate) async fn call(rig: &JobFixture, script: &str, scheduled: bool) -> ExecOutcome {
    let url = StoreUrl::Dir("/srv/backups".into());
    let settings = Settings::for_flags(&rig.role.sources, url, rig.role.name.clone(), rig.role.key.clone()).unwrap();
    let command = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    let request = ExecRequest { command, scheduled, timeout: None };
    let node_context = rig.node_context();
    Box::pin(exec(&node_context, &settings, &rig.role, async || Ok(rig.store.clone()), &request, &|_, _| {}))
        .await
        .unwrap()
}

fn exit(executed: &ExecOutcome) -> i32 {
    let ExecOutcome::Ran { ended: ProcessExit::Exit(code), .. } = executed else { panic!("{executed:?}") };
    *code
}

fn reason(executed: ExecOutcome) -> (RunOutcome, NoCommitReason) {
    let ExecOutcome::Refused(refused) = executed else { panic!("{executed:?}") };
    (refused.outcome, refused.no_commit_reason().unwrap().clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduled_command_does_not_overlap_itself() {
    let mut rig = JobFixture::new().await;
    rig.role.schedule = Some(Schedule::Every(Duration::from_hours(24 * 36_500)));
    let (log, go) = (rig.dir.path().join("log"), rig.dir.path().join("go"));
    let note = format!("echo >> {}", log.display());
    let script = format!("{note}; until test -e {}; do sleep 0.02; done; exit 1", go.display());
    let first = call(&rig, &script, true);
    let beside = async {
        while !log.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let beside = (call(&rig, &note, true).await, call(&rig, "exit 7", false).await);
        std::fs::write(&go, "").unwrap();
        beside
    };
    let (first, (second, by_hand)) = tokio::join!(first, beside);
    let (outcome, why) = reason(second);
    assert!(matches!(why, NoCommitReason::CommandRunning { pid: Some(_) }), "{why:?}");
    assert_eq!((outcome, exit(&first), exit(&by_hand)), (RunOutcome::Skipped, 1, 7));
    // The first command failed, so the slot is still open; the next one commits it.
    assert_eq!(exit(&call(&rig, &note, true).await), 0);
    assert!(matches!(
        reason(call(&rig, &note, true).await),
        (RunOutcome::Skipped, NoCommitReason::SlotCommitted { .. })
    ));
    assert_eq!(std::fs::read(&log).unwrap(), b"\n\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_started_has_an_end_in_the_journal() {
    let mut rig = JobFixture::new().await;
    rig.role.schedule = Some(Schedule::Every(Duration::from_hours(24 * 36_500)));
    let url = StoreUrl::Dir("/srv/backups".into());
    let settings = Settings::for_flags(&rig.role.sources, url, rig.role.name.clone(), rig.role.key.clone()).unwrap();
    let request = ExecRequest { command: vec!["/nowhere/at/all".to_owned()], scheduled: true, timeout: None };
    let (node_context, begun) = (rig.node_context(), std::sync::atomic::AtomicBool::new(false));
    let begins = |_: &crate::journal::view::JournalView, _| begun.store(true, std::sync::atomic::Ordering::Relaxed);
    let run = exec(&node_context, &settings, &rig.role, async || Ok(rig.store.clone()), &request, &begins);
    assert!(matches!(Box::pin(run).await, Err(ExecError::Command { slot: Some(_), .. })));
    assert!(begun.into_inner());
    let view = guard::read_view(&node_context, &rig.role, async || Ok(rig.store.clone())).await.unwrap();
    assert_eq!(view.running, None);
    assert_eq!(view.state.holder.unwrap().command.unwrap().end.exit, 127);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_the_lock_of_the_runs_for_a_moment_makes_no_run_fail() {
    let rig = JobFixture::new().await;
    let local = LocalState::open(&rig.env, &rig.state_dir(), rig.repository.keys.repo()).unwrap();
    let node_context = rig.node_context();
    let held = local.lock().unwrap();
    let (opening, ()) = tokio::join!(RoleJournal::open(&node_context, &rig.repository), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        drop(held);
    });
    assert!(local.lock().is_err(), "it is the run's");
    drop(opening.unwrap());
    let _held = local.lock().unwrap();
    let beside = RoleJournal::open(&node_context, &rig.repository).await;
    assert!(matches!(beside, Err(BackupError::Lock(LockError::Busy { .. }))), "{beside:?}");
}

//! Watches a run from outside: ends it when it makes no progress, and bounds the wait for its end.
//!
//! The invariant that lives here: a run that was left behind cannot commit. A permit is part of the run, and a run that
//! does not end is dropped with it; what may go on is a thread that is blocked in the kernel, and it has no permit.

use std::time::Duration;

use crate::job::node::context::NodeContext;
use crate::job::node::stall::{RunStall, StallDetector, StallState, check_interval};

/// How long a cancelled run is waited for: it leaves behind what is blocked, waits for the answer to an append, and
/// runs its hook `after`.
const END_MAX: Duration = Duration::from_mins(2);

/// How a watched run ended.
#[derive(Debug)]
pub(crate) struct WatchedRun<T> {
    /// Its result; `None`: it did not end, and was dropped.
    pub(crate) done: Option<T>,
    /// The stall, if the run was ended because of one.
    pub(crate) stall: Option<RunStall>,
}

/// Runs `work`, and ends it when nothing moves for longer than `limit`: then `runner.cancel`, which must belong to this
/// run alone, is set. `pace` is called with each observation.
pub(crate) async fn run_watched<T>(
    node_context: &NodeContext,
    limit: Duration,
    pace: &(dyn Fn(StallState) + Sync),
    work: impl Future<Output = T>,
) -> WatchedRun<T> {
    let mut work = Box::pin(work);
    let silent = tokio::select! {
        biased;
        done = &mut work => return WatchedRun { done: Some(done), stall: None },
        silent = wait_for_stall(node_context, limit, pace) => silent,
    };
    let stall = RunStall {
        silent,
        last: node_context.progress.last_activity(),
        store_error: node_context.progress.store_error(),
    };
    tracing::error!("a run {stall}; it is ended");
    node_context.cancel.cancel();
    let done = node_context.env.timeout(END_MAX, &mut work).await;
    WatchedRun { done, stall: Some(stall) }
}

/// Resolves when nothing has moved for longer than `limit`, with the length of the silence.
async fn wait_for_stall(node_context: &NodeContext, limit: Duration, pace: &(dyn Fn(StallState) + Sync)) -> Duration {
    let (env, progress) = (&node_context.env, &node_context.progress);
    let mut judge = StallDetector::new(limit, env.clock.boottime(), progress.mark());
    loop {
        env.sleep(check_interval(limit)).await;
        let seen = judge.observe(env.clock.boottime(), progress.mark());
        pace(seen);
        if let StallState::Stalled(silent) = seen {
            return silent;
        }
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;
    use crate::job::node::stall::RunActivity;
    use crate::job::testing::JobFixture;

    const LIMIT: Duration = Duration::from_millis(300);

    #[tokio::test]
    async fn who_moves_is_left_alone_and_who_does_not_is_ended() {
        let rig = JobFixture::new().await;
        let node_context = rig.node_context();
        let moves = async {
            for _ in 0..20 {
                tokio::time::sleep(LIMIT / 6).await;
                node_context.progress.step();
            }
            7
        };
        let watched = run_watched(&node_context, LIMIT, &|_| {}, moves).await;
        assert!(watched.done == Some(7) && watched.stall.is_none() && !node_context.cancel.is_cancelled());

        let paces = Mutex::new(Vec::new());
        let hangs = async {
            node_context.progress.begin(RunActivity::Hook("before"));
            node_context.cancel.cancelled().await;
        };
        let watched = run_watched(&node_context, LIMIT, &|pace| paces.lock().push(pace), hangs).await;
        let stall = watched.stall.unwrap();
        assert!(watched.done.is_some() && stall.silent >= LIMIT);
        assert_eq!(stall.last, Some(RunActivity::Hook("before")));
        let paces = paces.into_inner();
        assert!(paces.iter().any(|pace| matches!(pace, StallState::Silent(_))) && paces.len() > 3, "{paces:?}");
    }
}

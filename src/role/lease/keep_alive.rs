//! Keeps a lease while work goes on, and tells the work when it is lost.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::{LeaseHolder, LeaseReply, LeaseService};
use crate::env::{Env, TaskHandle};
use crate::outage::no_answer_text;
use crate::role::candidacy::{Deadline, LeaseGrant};

/// A lease is renewed when this part of it is over: two more attempts fit before its end.
pub const RENEW_PART: u32 = 3;

/// The pause after a request that was not granted, as a part of the lease, and its bounds.
const PAUSE_PART: u32 = 12;
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// The pause between two requests for a lease of this length.
pub fn retry_pause(ttl: Duration) -> Duration {
    (ttl / PAUSE_PART).clamp(PAUSE.0, PAUSE.1)
}

/// The interval between requests for a lease that another process has. `watched`: the service reports changes, so the
/// requests only cover missed reports.
pub fn poll_interval(ttl: Duration, watched: bool) -> Duration {
    if watched { ttl / RENEW_PART } else { retry_pause(ttl) }
}

/// Requests a lease until the holder is clear: this process, or another one that is alive. A dead holder's lease is
/// waited out; `patience` bounds all of it.
pub async fn acquire(lease: &mut dyn LeaseService, ttl: Duration, patience: Duration, env: &Env) -> LeaseReply {
    let started = env.clock.boottime();
    loop {
        match lease.acquire_or_renew().await {
            LeaseReply::Taken { by, alive: false } if env.clock.boottime().saturating_sub(started) < patience => {
                tracing::debug!(
                    by = by.as_ref().map(|by| &by.label),
                    "waiting to see whether the lease's holder is alive"
                );
                env.sleep(retry_pause(ttl)).await;
            }
            reply => {
                match &reply {
                    LeaseReply::Held(_) => tracing::debug!("the lease is this process's"),
                    LeaseReply::Taken { .. } => tracing::debug!("the lease is another process's"),
                    LeaseReply::Free => tracing::debug!("the lease is free"),
                    LeaseReply::Unknown { why } => tracing::debug!("the lease cannot be asked for: {why}"),
                }
                return reply;
            }
        }
    }
}

/// A lease that a background task renews. If it is dropped without [`LeaseKeepAlive::release`], it is renewed no
/// longer, and expires.
#[derive(Debug)]
pub struct LeaseKeepAlive {
    deadline: Deadline,
    wait_lost: watch::Receiver<Option<LostTo>>,
    take_renewal_failure: watch::Receiver<Option<RenewalFailure>>,
    stop: Arc<Notify>,
    task: Option<TaskHandle<Box<dyn LeaseService>>>,
    ttl: Duration,
    env: Env,
}

/// A renewal that was not answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenewalFailure {
    /// What came instead of an answer.
    pub why: String,
    /// The lease service refused the renewal.
    pub is_refusal: bool,
}

/// The process that has the lease now; `None` if it cannot be told.
pub type LostTo = Option<LeaseHolder>;

impl LeaseKeepAlive {
    /// Starts to renew `lease`, which was granted.
    pub fn start(lease: Box<dyn LeaseService>, grant: LeaseGrant, env: &Env) -> Self {
        #[cfg(feature = "planted")]
        let grant = late(grant, env);
        let deadline = Deadline::granted(grant);
        let (tell, lost) = watch::channel(None);
        let (tell_doubt, doubt) = watch::channel(None);
        let stop = Arc::new(Notify::new());
        let told = KeepAliveSenders { lost: tell, doubt: tell_doubt };
        let task = env.spawn(run_keep_alive(lease, grant, deadline.clone(), told, Arc::clone(&stop), env.clone()));
        Self {
            deadline,
            wait_lost: lost,
            take_renewal_failure: doubt,
            stop,
            task: Some(task),
            ttl: grant.ttl,
            env: env.clone(),
        }
    }

    /// The deadline for work; it moves while the lease is renewed.
    pub fn deadline(&self) -> &Deadline {
        &self.deadline
    }

    /// The outcome of the last renewal since the previous call: an inner failure, or an inner `None` if it was
    /// answered. `None` if there was no renewal.
    pub fn doubt(&mut self) -> Option<Option<RenewalFailure>> {
        // The end of the task changes nothing.
        self.take_renewal_failure
            .has_changed()
            .unwrap_or(false)
            .then(|| self.take_renewal_failure.borrow_and_update().clone())
    }

    /// Resolves when another process has the lease.
    pub fn lost(&self) -> impl Future<Output = LostTo> + Send + use<> {
        let mut lost = self.wait_lost.clone();
        async move {
            let to = lost.wait_for(Option::is_some).await.ok().map(|to| to.clone().flatten());
            match to {
                Some(to) => to,
                // The task ended without losing the lease.
                None => std::future::pending().await,
            }
        }
    }

    /// Gives the lease up. The work that it guarded has ended.
    pub async fn release(mut self) {
        self.deadline.end();
        self.stop.notify_one();
        let kept = self.task.take().expect("only release takes it").join().await;
        if let Some(mut lease) = kept {
            // If the service does not answer, the lease expires in that time.
            let _ = self.env.timeout(self.ttl, lease.release()).await;
        } else {
            tracing::warn!("the keep-alive task has ended by itself; the lease expires");
        }
    }
}

impl Drop for LeaseKeepAlive {
    fn drop(&mut self) {
        self.deadline.end();
        self.stop.notify_one();
    }
}

/// What the background task reports.
struct KeepAliveSenders {
    lost: watch::Sender<Option<LostTo>>,
    doubt: watch::Sender<Option<RenewalFailure>>,
}

async fn run_keep_alive(
    mut lease: Box<dyn LeaseService>,
    first: LeaseGrant,
    deadline: Deadline,
    told: KeepAliveSenders,
    stop: Arc<Notify>,
    env: Env,
) -> Box<dyn LeaseService> {
    let ttl = first.ttl;
    let mut wait = (first.asked.boot + ttl / RENEW_PART).saturating_sub(env.clock.boottime());
    loop {
        let hints = lease.change_hints();
        tokio::select! {
            biased;
            () = stop.notified() => return lease,
            () = wait_for_hint(hints.as_ref()) => {}
            () = env.sleep(wait) => {}
        }
        let asked = tokio::select! {
            biased;
            () = stop.notified() => return lease,
            asked = env.timeout(ttl, lease.acquire_or_renew()) => asked,
        };
        wait = match asked {
            Some(LeaseReply::Held(grant)) => {
                #[cfg(feature = "planted")]
                let grant = late(grant, &env);
                deadline.renew(grant);
                told.doubt.send_if_modified(|doubt| doubt.take().is_some());
                (grant.asked.boot + ttl / RENEW_PART).saturating_sub(env.clock.boottime())
            }
            Some(LeaseReply::Taken { by: Some(by), .. }) => {
                deadline.end();
                tracing::warn!("the lease is lost: node {} has it now", by.label);
                told.lost.send_replace(Some(Some(by)));
                return lease;
            }
            Some(LeaseReply::Unknown { why }) => {
                told.doubt.send_replace(Some(RenewalFailure { why, is_refusal: lease.is_refused() }));
                retry_pause(ttl)
            }
            None => {
                let why = no_answer_text(ttl, lease.last_failure().as_deref());
                told.doubt.send_replace(Some(RenewalFailure { why, is_refusal: false }));
                retry_pause(ttl)
            }
            // No other holder is known: it may be a race, or damage. The deadline decides.
            Some(LeaseReply::Taken { by: None, .. } | LeaseReply::Free) => retry_pause(ttl),
        };
    }
}

#[cfg(feature = "planted")]
fn late(grant: LeaseGrant, env: &Env) -> LeaseGrant {
    use crate::planted::{self, PlantedBug};
    if planted::is(PlantedBug::DeadlineFromAnswer) { LeaseGrant { asked: env.clock.moment(), ..grant } } else { grant }
}

/// Resolves when the lease may have changed; never if there are no hints.
pub async fn wait_for_hint(hints: Option<&Arc<Notify>>) {
    match hints {
        Some(hints) => hints.notified().await,
        None => std::future::pending().await,
    }
}

//! One role's task: it tells the role's duty what happens, and has done what that decides.
//!
//! Everything that takes time runs beside the loop and comes back as an event, so that a store or a probe that hangs keeps
//! nothing else of the role from being decided.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};

use super::Voice;
use super::limits::Limits;
use super::stores::Stores;
use super::work::{Footing, Work, lost};
use crate::config::{Lease, RoleSettings, Settings};
use crate::job::backup::{BackupError, Runner};
use crate::job::cancel::Cancel;
use crate::job::guard::{self, GuardError};
use crate::role::duty::{Duty, Effect, Event, Journal, LeaseAnswer, Stand, Terms};
use crate::role::election::Occasion;
use crate::role::lease::LeaseService;
use crate::role::lease::keeper::{self, Keeper};
use crate::role::permit::{Deadline, Grant};
use crate::role::slot::{Plan, Slot};

/// Events that wait to be looked at: the loop takes them at once.
const EVENTS_MAX: usize = 64;

/// What a role's task is started with.
pub(super) struct Post {
    pub(super) runner: Runner,
    pub(super) settings: Arc<Settings>,
    pub(super) role: RoleSettings,
    pub(super) stores: Arc<Stores>,
    pub(super) limits: Arc<Limits>,
    pub(super) voice: Arc<dyn Voice>,
    pub(super) observe: bool,
}

/// What comes back from what runs beside the loop.
enum Back {
    Event(Event),
    Asked { lease: Option<Box<dyn LeaseService>>, answer: LeaseAnswer, grant: Option<Grant> },
    Journal { journal: Journal },
}

/// The loop.
struct Loop {
    work: Work,
    voice: Arc<dyn Voice>,
    observe: bool,
    duty: Duty,
    lease: Option<Box<dyn LeaseService>>,
    hints: Option<Arc<Notify>>,
    keeper: Option<Keeper>,
    /// What is running, to be ended.
    running: Option<Cancel>,
    back: mpsc::Sender<Back>,
    stand: watch::Sender<Option<Stand>>,
}

impl Post {
    /// Holds the role until it is told to stop, and everything has ended.
    pub(super) async fn hold(
        self,
        mut stop: watch::Receiver<bool>,
        stand: watch::Sender<Option<Stand>>,
        turns: watch::Sender<u64>,
    ) {
        let Self { runner, settings, role, stores, limits, voice, observe } = self;
        let plan = match Plan::new(&role, &settings.timezone) {
            Ok(plan) => plan,
            Err(error) => {
                let why = error.to_string();
                voice.failed(&role.name, &GuardError::Schedule { role: role.name.clone(), why });
                None
            }
        };
        let ask_interval = keeper::pause(ttl(&role, &settings));
        let (node, label) = (runner.node.id, runner.node.name.clone());
        let duty = Duty::new(Terms { role: role.clone(), node, label, plan, ask_interval, observe });
        let (back, mut events) = mpsc::channel(EVENTS_MAX);
        let repository = Arc::default();
        let work = Work { runner, settings, role: Arc::new(role), stores, limits, repository };
        let mut this =
            Loop { work, voice, observe, duty, lease: None, hints: None, keeper: None, running: None, back, stand };
        let mut event = Event::Tick;
        loop {
            turns.send_modify(|turns| *turns += 1);
            if this.turn(event).await {
                return;
            }
            let now = this.work.runner.env.clock.moment();
            let wait = this.duty.wake(now).saturating_sub(now.boot);
            event = tokio::select! {
                back = events.recv() => match back {
                    Some(back) => this.came_back(back),
                    // The loop itself has a sender.
                    None => return,
                },
                () = tokio::time::sleep(wait) => Event::Tick,
                () = hinted(this.hints.as_ref()) => Event::LeaseHint,
                to = lost(this.keeper.as_ref()) => {
                    this.keeper = None;
                    Event::LeaseLost(to)
                }
                Ok(_) = stop.wait_for(|stop| *stop), if !this.duty.is_stopping() => Event::Stop,
            };
        }
    }
}

impl Loop {
    /// Performs what follows from an event. True: that was all.
    async fn turn(&mut self, event: Event) -> bool {
        let now = self.work.runner.env.clock.moment();
        for effect in self.duty.on(now, event) {
            match effect {
                Effect::Probe => self.beside(|work| async move { Back::Event(Event::Assessed(work.assess().await)) }),
                Effect::AskLease => self.ask(),
                Effect::ReleaseLease => self.release(),
                Effect::Read => self.beside(|work| async move { Back::Journal { journal: work.read().await } }),
                Effect::TakeOver { occasion } => self.take_over(occasion),
                Effect::BackUp(slot) => self.back_up(Some(slot)),
                Effect::BackUpNow => self.back_up(None),
                Effect::RefuseWanted => {}
                Effect::Cancel => self.running.iter().for_each(Cancel::cancel),
                Effect::WouldBackUp(slot) => self.voice.would_run(&self.work.role.name, slot),
                Effect::Tell => self.tell(),
                Effect::End => return true,
            }
        }
        false
    }

    fn came_back(&mut self, back: Back) -> Event {
        match back {
            Back::Event(event) => event,
            Back::Journal { journal } => {
                self.running = None;
                Event::Journal(journal)
            }
            Back::Asked { lease, answer, grant } => {
                self.lease = lease;
                match (grant, self.lease.take()) {
                    (Some(grant), Some(lease)) => {
                        let keeper = Keeper::start(lease, grant, self.work.runner.env.clone());
                        let deadline = keeper.deadline().clone();
                        self.keeper = Some(keeper);
                        Event::Lease(LeaseAnswer::Held(deadline))
                    }
                    (_, lease) => {
                        self.lease = lease;
                        self.hints = self.lease.as_mut().and_then(|lease| lease.hints());
                        Event::Lease(answer)
                    }
                }
            }
        }
    }

    /// Does something beside the loop; what comes back is an event.
    fn beside<F>(&self, what: impl FnOnce(Work) -> F)
    where
        F: Future<Output = Back> + Send + 'static,
    {
        let (task, back) = (what(self.work.clone()), self.back.clone());
        tokio::spawn(async move {
            let came = task.await;
            // Nobody listens any more when the loop has ended, and then nothing is open.
            let _ = back.send(came).await;
        });
    }

    fn ask(&mut self) {
        let (lease, observe, voice) = (self.lease.take(), self.observe, Arc::clone(&self.voice));
        self.beside(move |work| async move {
            let opened = match lease {
                Some(lease) => Ok(lease),
                None => work.lease().await,
            };
            match opened {
                Ok(mut lease) => {
                    let (answer, grant) = work.ask(lease.as_mut(), observe).await;
                    Back::Asked { lease: Some(lease), answer, grant }
                }
                Err(error) => {
                    voice.failed(&work.role.name, &error);
                    Back::Asked { lease: None, answer: LeaseAnswer::Unreachable, grant: None }
                }
            }
        });
    }

    fn release(&mut self) {
        let keeper = self.keeper.take();
        self.beside(move |_| async move {
            guard::release(keeper).await;
            Back::Event(Event::Released)
        });
    }

    fn take_over(&mut self, occasion: Occasion) {
        let (footing, voice) = (self.footing(), Arc::clone(&self.voice));
        self.beside(move |work| async move {
            let taken = work.take_over(&footing, occasion).await;
            let journal = match taken {
                Ok(journal) => journal,
                Err(error) => {
                    voice.failed(&work.role.name, &error);
                    work.after(&Err(error)).await
                }
            };
            Back::Journal { journal }
        });
    }

    fn back_up(&mut self, slot: Option<Slot>) {
        let (footing, voice, lost) = (self.footing(), Arc::clone(&self.voice), lost(self.keeper.as_ref()));
        let cancel = Cancel::new();
        self.running = Some(cancel.clone());
        let request = guard::Request { scheduled: slot.is_some(), rehash: false };
        // By then this node has the role: nothing speaks for taking it back once more.
        let occasion = slot.map(|_| Occasion::None);
        self.beside(move |work| async move {
            let work = Work { runner: Runner { cancel, ..work.runner.clone() }, ..work };
            let result = work.back_up(&footing, request, occasion, lost).await;
            match &result {
                Ok((report, reason)) => voice.ran(&work.role.name, report, reason.as_ref()),
                Err(GuardError::Backup(BackupError::Interrupted)) => {
                    tracing::info!("role {}: the run was ended", work.role.name);
                }
                Err(error) => voice.failed(&work.role.name, error),
            }
            Back::Journal { journal: work.after(&result).await }
        });
    }

    fn footing(&self) -> Footing {
        let deadline: Option<Deadline> = self.keeper.as_ref().map(|keeper| keeper.deadline().clone());
        Footing { assessment: self.duty.assessment().cloned(), deadline }
    }

    fn tell(&self) {
        if let Some(stand) = self.duty.stand() {
            let evidence = self.duty.assessment().map(|assessment| assessment.evidence.as_slice()).unwrap_or_default();
            self.voice.stands(&self.work.role.name, stand, evidence);
            self.stand.send_replace(Some(stand.clone()));
        }
    }
}

/// Resolves when the lease may have come free; never where nobody tells.
async fn hinted(hints: Option<&Arc<Notify>>) {
    match hints {
        Some(hints) => hints.notified().await,
        None => std::future::pending().await,
    }
}

/// How long the role's lease lasts without being renewed.
fn ttl(role: &RoleSettings, settings: &Settings) -> Duration {
    match (&settings.etcd, role.lease) {
        (Some(etcd), Lease::Etcd) => etcd.lease_ttl,
        _ => role.bucket_lease_ttl,
    }
}

//! One role's task: it tells the role's duty what happens, and has done what that decides.
//!
//! Everything that takes time runs beside the loop and comes back as an event, so that a store or a probe that hangs keeps
//! nothing else of the role from being decided.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};

use super::Voice;
use super::callers::{Callers, Command, Ended, Wanted};
use super::doubts::{Cause, Doubts, Step};
use super::limits::Limits;
use super::message::Answer;
use super::stores::Stores;
use super::watcher::Watch;
use super::work::{Footing, Waited, Work};
use crate::config::{Lease, RoleSettings, Settings};
use crate::env::Env;
use crate::ids::NodeId;
use crate::job::backup::BackupError;
use crate::job::cancel::Cancel;
use crate::job::guard::{self, GuardError, Reason};
use crate::job::hook::Hooks;
use crate::job::known;
use crate::job::prune::PruneError;
use crate::job::report::whoami::State;
use crate::job::report::{Outcome, RoleReport};
use crate::job::runner::Runner;
use crate::job::whoami::DaemonWord;
use crate::notice::teller::Teller;
use crate::role::duty::{Duty, Effect, Event, Journal, LeaseAnswer, Stand, Terms, Yield};
use crate::role::election::{Occasion, StandbyReason, UnknownReason};
use crate::role::lease::keeper::{self, Keeper, RenewalDoubt};
use crate::role::lease::{LeaseService, Reply};
use crate::role::permit::Deadline;
use crate::role::probe::Evidence;
use crate::role::slot::Slot;

/// Events that wait to be looked at: the loop takes them at once.
const EVENTS_MAX: usize = 64;

/// How often it is looked whether what a stalled run left behind goes on.
const BLOCKED_POLL: Duration = Duration::from_secs(1);

/// What a role's task is started with.
pub(super) struct Post {
    pub(super) runner: Runner,
    pub(super) settings: Arc<Settings>,
    pub(super) role: RoleSettings,
    pub(super) stores: Arc<Stores>,
    pub(super) limits: Arc<Limits>,
    pub(super) voice: Arc<dyn Voice>,
    pub(super) teller: Arc<Teller>,
    pub(super) observe: bool,
    pub(super) prune_interval: Duration,
}

/// What comes back from what runs beside the loop.
enum Back {
    Event(Event),
    /// A run that leaves the role to another node, and what the journal says after it.
    Yielded(Yield, Journal),
    /// What asking for the lease came to, or why it cannot be asked for.
    Asked(Result<(Box<dyn LeaseService>, Reply), Box<GuardError>>),
}

/// The loop.
struct Loop {
    work: Work,
    voice: Arc<dyn Voice>,
    duty: Duty,
    lease: Option<Box<dyn LeaseService>>,
    doubts: Doubts,
    /// The last renewal of the lease that is kept had no answer.
    is_doubted: bool,
    hints: Option<Arc<Notify>>,
    keeper: Option<Keeper>,
    /// What is running, to be ended.
    running: Option<Cancel>,
    callers: Callers,
    ttl: Duration,
    back: mpsc::Sender<Back>,
    stand: watch::Sender<Option<Stand>>,
}

impl Post {
    /// Holds the role until it is told to stop, and everything has ended.
    pub(super) async fn hold(
        self,
        mut stop: watch::Receiver<bool>,
        mut commands: mpsc::Receiver<Command>,
        stand: watch::Sender<Option<Stand>>,
        turns: watch::Sender<u64>,
    ) {
        let Self { runner, settings, role, stores, limits, voice, teller, observe, prune_interval } = self;
        let plan = match known::plan(&settings, &role, &runner.env, &runner.state_dir) {
            Ok(plan) => plan,
            Err(error) => {
                let why = error.to_string();
                voice.failed(&role.name, &GuardError::Schedule { role: role.name.clone(), why });
                None
            }
        };
        let watch = Arc::new(Watch::new(teller, &runner, &role, plan.clone()));
        let ttl = ttl(&role, &settings);
        let (ask_interval, retry_interval) = (keeper::poll(ttl, role.lease == Lease::Etcd), keeper::pause(ttl));
        let (node, label) = (runner.node.id, runner.node.name.clone());
        let roles = settings.roles.len();
        let terms = Terms { role: role.clone(), node, label, plan, roles, ask_interval, retry_interval, observe };
        let duty = Duty::new(terms);
        let (back, mut events) = mpsc::channel(EVENTS_MAX);
        let repository = Arc::default();
        let (role, ending) = (Arc::new(role), Cancel::new());
        let pruned = Arc::default();
        let verified = Arc::default();
        let work = Work {
            runner,
            settings,
            role,
            stores,
            limits,
            ending,
            watch,
            observe,
            prune_interval,
            pruned,
            verified,
            beat: Arc::default(),
            repository,
            entrance: Arc::default(),
        };
        let mut this = Loop {
            work,
            voice,
            duty,
            lease: None,
            doubts: Doubts::default(),
            is_doubted: false,
            hints: None,
            keeper: None,
            running: None,
            callers: Callers::default(),
            ttl,
            back,
            stand,
        };
        if !observe {
            let work = this.work.clone();
            this.env().spawn(async move { Hooks::new(&work.runner, &work.role).recover().await });
        }
        let senses = Arc::clone(&this.work.runner.surroundings.senses);
        let mut addresses = senses.hints(this.work.role.eligible.as_ref());
        let mut returns = this.work.stores.returns();
        let mut event = Event::Tick;
        loop {
            turns.send_modify(|turns| *turns += 1);
            if matches!(event, Event::Stop) {
                this.work.ending.cancel();
            }
            if this.turn(event) {
                // Where a lease was given up, it was done before.
                if !observe {
                    this.work.lose().await;
                }
                return;
            }
            let now = this.work.runner.env.clock.moment();
            // Those that wait are served one after the other, and guests are counted when they come and go.
            if let Some(news) = this.callers.news(&this.work.role.name, now.boot, this.duty.is_wanted()) {
                event = news;
                continue;
            }
            let wake = this.duty.wake(now).min(this.callers.patience().unwrap_or(Duration::MAX));
            let wait = wake.saturating_sub(now.boot);
            let env = this.env().clone();
            event = tokio::select! {
                biased;
                back = events.recv() => match back {
                    Some(back) => this.came_back(back),
                    // The loop itself has a sender.
                    None => return,
                },
                Some(command) = commands.recv() => this.command(command),
                () = env.sleep(wait) => Event::Tick,
                () = keeper::hinted(this.hints.as_ref()) => Event::LeaseHint,
                () = addresses.changed() => Event::Changed,
                Ok(()) = returns.changed() => Event::StoreAnswered,
                to = guard::lost(this.keeper.as_ref()) => {
                    this.keeper = None;
                    Event::LeaseLost(to)
                }
                Ok(_) = stop.wait_for(|stop| *stop), if !this.duty.is_stopping() => Event::Stop,
            };
        }
    }
}

impl Loop {
    fn env(&self) -> &Env {
        &self.work.runner.env
    }

    /// Performs what follows from an event. True: that was all.
    fn turn(&mut self, event: Event) -> bool {
        let now = self.work.runner.env.clock.moment();
        for effect in self.duty.on(now, event) {
            match effect {
                Effect::Probe => self.beside(|work| async move { Back::Event(Event::Assessed(work.assess().await)) }),
                Effect::AskLease => self.ask(),
                Effect::ReleaseLease => self.release(),
                Effect::Read => {
                    let beat = matches!(self.duty.stand(), Some(Stand::Conflict(_)));
                    self.beside(move |work| async move {
                        let read = work.runner.env.timeout(work.role.stall_timeout, Box::pin(work.read(beat))).await;
                        Back::Event(Event::Journal(read.unwrap_or_else(|| work.hung())))
                    });
                }
                Effect::TakeOver { occasion } => self.take_over(occasion),
                Effect::BackUp(slot) => self.back_up(None, Some(slot)),
                Effect::BackUpNow => {
                    let wanted = self.callers.next();
                    self.back_up(wanted, None);
                }
                Effect::RefuseWanted => self.refuse(),
                // Guests end in the time that their last grant leaves them.
                Effect::Dismiss => self.callers.dismiss(now.boot + self.ttl),
                Effect::Cancel => self.running.iter().for_each(Cancel::cancel),
                Effect::WouldBackUp(slot) => self.voice.would_run(&self.work.role.name, slot),
                Effect::Tell => self.tell(),
                Effect::End => return true,
            }
        }
        self.look_at_keeper();
        false
    }

    fn came_back(&mut self, back: Back) -> Event {
        let (lease, reply) = match back {
            Back::Event(event) => {
                if let Event::Journal(_) = event {
                    self.running = None;
                }
                return event;
            }
            Back::Yielded(why, journal) => {
                self.running = None;
                // Work goes on, so this does not end the loop.
                self.turn(Event::Yielded(why));
                return Event::Journal(journal);
            }
            Back::Asked(Err(error)) => {
                self.no_lease(&error);
                return Event::Lease(LeaseAnswer::Unreachable);
            }
            Back::Asked(Ok(asked)) => asked,
        };
        let answer = match reply {
            Reply::Held(grant) => {
                self.lease_answered();
                let keeper = Keeper::start(lease, grant, self.env());
                let deadline = keeper.deadline().clone();
                self.keeper = Some(keeper);
                return Event::Lease(LeaseAnswer::Held(deadline));
            }
            Reply::Taken { by, .. } => LeaseAnswer::Taken(by),
            Reply::Free => LeaseAnswer::Free,
            Reply::Unknown { why } => {
                self.doubt(RenewalDoubt { why, is_refusal: lease.is_refused() });
                LeaseAnswer::Unreachable
            }
        };
        if !matches!(answer, LeaseAnswer::Unreachable) {
            self.lease_answered();
        }
        self.hints = self.lease.insert(lease).hints();
        Event::Lease(answer)
    }

    /// The lease was asked for in vain. A lost answer is nothing to tell; a store that takes no lease is.
    fn doubt(&mut self, doubt: RenewalDoubt) {
        self.log_doubt(&doubt);
        let RenewalDoubt { why, .. } = doubt;
        if self.doubts.add(&why, self.work.runner.env.clock.boottime()) {
            let reason = Reason::LeaseUnanswered { lease: self.work.role.lease, why };
            let report = RoleReport::nothing(self.work.role.name.clone(), Outcome::Unknown);
            self.work.watch.kept_from_role(&self.voice.explained(&report, Some(&reason)));
        }
    }

    /// What a lease is kept in does not answer, or refuses it. All roles that have theirs there meet the same.
    fn log_doubt(&self, RenewalDoubt { why, is_refusal }: &RenewalDoubt) {
        let cause = match self.work.role.lease {
            Lease::Etcd => Cause::Etcd,
            Lease::Bucket | Lease::None if *is_refusal => Cause::Refusal,
            Lease::Bucket | Lease::None => Cause::Store,
        };
        if self.work.stores.outages().failed(&cause, why) {
            let store = &self.work.settings.store;
            let endpoint = store.endpoint.as_ref().map(|endpoint| format!(" at {endpoint}")).unwrap_or_default();
            // Errors of a store name it already.
            let place = match cause {
                Cause::Store | Cause::Refusal if !why.contains("://") => format!("{}{endpoint}: ", store.url),
                _ => String::new(),
            };
            tracing::warn!("the lease cannot be asked for: {place}{why}");
        }
    }

    /// It cannot be asked for. That is tried as often as a lease is asked for, and told as rarely as a lease that does not answer.
    fn no_lease(&mut self, error: &GuardError) {
        let (role, why) = (&self.work.role.name, error.to_string());
        if self.work.stores.outages().failed_by(&Cause::of(role, Step::Lease, error), error) {
            self.voice.failed(role, error);
        }
        if self.doubts.fail(&why, self.work.runner.env.clock.boottime()) {
            self.work.watch.kept_from_role(&self.voice.report_failure(role, error).0);
        }
    }

    fn lease_answered(&mut self) {
        self.is_doubted = false;
        self.etcd_answered();
        self.work.stores.outages().answered(&Cause::Role(self.work.role.name.clone(), Step::Lease));
        if self.doubts.end() {
            self.work.watch.lease_answered();
        }
    }

    /// The lease was answered. A store's answers are heard as they come.
    fn etcd_answered(&self) {
        if self.work.role.lease == Lease::Etcd {
            self.work.stores.outages().answered(&Cause::Etcd);
        }
    }

    /// How the renewals of the lease that is kept go. One that is late is nothing to tell while the lease lasts.
    fn look_at_keeper(&mut self) {
        let is_lost = matches!(self.duty.stand(), Some(Stand::Unknown(UnknownReason::Lease(_))));
        let Some(keeper) = self.keeper.as_mut().filter(|_| is_lost || self.is_doubted) else { return };
        match keeper.doubt() {
            Some(Some(doubt)) if is_lost => {
                self.is_doubted = true;
                self.log_doubt(&doubt);
            }
            Some(None) if self.is_doubted => {
                self.is_doubted = false;
                self.etcd_answered();
            }
            _ => {}
        }
    }

    /// Does something beside the loop; what comes back is an event.
    fn beside<F>(&self, what: impl FnOnce(Work) -> F)
    where
        F: Future<Output = Back> + Send + 'static,
    {
        let (task, back) = (what(self.work.clone()), self.back.clone());
        self.env().spawn(async move {
            let came = task.await;
            // Nobody listens any more when the loop has ended, and then nothing is open.
            let _ = back.send(came).await;
        });
    }

    fn ask(&mut self) {
        let lease = self.lease.take();
        self.beside(move |work| async move {
            let opened = match lease {
                Some(lease) => Ok(lease),
                None => work.lease().await,
            };
            match opened {
                Ok(mut lease) => {
                    let reply = work.ask(lease.as_mut()).await;
                    Back::Asked(Ok((lease, reply)))
                }
                Err(error) => Back::Asked(Err(Box::new(error))),
            }
        });
    }

    fn release(&mut self) {
        let keeper = self.keeper.take();
        self.beside(move |work| async move {
            work.lose().await;
            guard::release(keeper).await;
            Back::Event(Event::Released)
        });
    }

    fn take_over(&mut self, occasion: Occasion) {
        let (footing, voice) = (self.footing(), Arc::clone(&self.voice));
        self.beside(move |work| async move {
            let taken = Box::pin(work.take_over(&footing, occasion));
            let journal = match work.runner.env.timeout(work.role.stall_timeout + work.role.hooks.timeout, taken).await
            {
                None => work.hung(),
                Some(Ok(journal)) => {
                    if journal.term.is_some() {
                        work.stores.outages().answered(&Cause::Role(work.role.name.clone(), Step::Takeover));
                        work.watch.took_role();
                    }
                    journal
                }
                Some(Err(error)) => {
                    let cause = Cause::of(&work.role.name, Step::Takeover, &error);
                    if work.stores.outages().failed_by(&cause, &error) {
                        voice.failed(&work.role.name, &error);
                    }
                    work.watch.kept_from_role(&voice.report_failure(&work.role.name, &error).0);
                    let result = Err(error);
                    let journal = work.after(&result).await;
                    if is_stalled(&result) {
                        return Back::Yielded(Yield::Stalled { blocked: false }, journal);
                    }
                    journal
                }
            };
            Back::Event(Event::Journal(journal))
        });
    }

    /// A run for the due slot, or the one that somebody wants.
    fn back_up(&mut self, wanted: Option<Wanted>, slot: Option<Slot>) {
        let (footing, voice, keeper) = (self.footing(), Arc::clone(&self.voice), self.keeper.as_ref());
        let (lost, lost_later) = (guard::lost(keeper), guard::lost(keeper));
        let cancel = wanted.as_ref().map_or_else(Cancel::new, |wanted| wanted.cancel.child());
        let progress = wanted.as_ref().map(|wanted| Arc::clone(&wanted.progress)).unwrap_or_default();
        self.running = Some(cancel.clone());
        let back = self.back.clone();
        // By the time of a slot this node has the role: nothing speaks for taking it back once more. A person answers for a run.
        let (request, occasion) = match &wanted {
            Some(wanted) => (wanted.request, wanted.request.stays()),
            None => (guard::Request { scheduled: true, ..guard::Request::default() }, Some(Occasion::None)),
        };
        self.beside(move |work| async move {
            let runner = Runner { cancel, progress, ..work.runner.clone() };
            let work = Work { runner, ..work };
            let waited = work.turn(slot.map(|slot| slot.starts)).await;
            let (result, turn) = match waited {
                Waited::Turn(turn) => (work.back_up(&footing, request, occasion, lost, &turn).await, Some(turn)),
                Waited::Interrupted => (Err(BackupError::Interrupted.into()), None),
                Waited::Crowded => return Back::Yielded(Yield::Crowded, work.read(false).await),
            };
            let role = &work.role.name;
            let mut stalled = is_stalled(&result);
            let ended = match &result {
                Ok((report, reason)) => {
                    if report.snapshot.is_some() {
                        work.stores.outages().answered(&Cause::Runs(role.clone()));
                    }
                    let report = voice.explained(report, reason.as_ref());
                    voice.ran(&report);
                    work.watch.ended(&report, reason.as_ref());
                    Ended { report, exit: None }
                }
                Err(error) => {
                    let (report, exit) = voice.report_failure(role, error);
                    let is_interrupted = matches!(error, GuardError::Backup(BackupError::Interrupted));
                    if !is_interrupted && work.stores.outages().failed_by(&Cause::Runs(role.clone()), error) {
                        voice.failed(role, error);
                    }
                    work.watch.failed(error, &report);
                    Ended { report, exit: Some(exit) }
                }
            };
            if let Some(wanted) = wanted {
                // Whoever wanted it may have gone.
                let _ = wanted.reply.send(ended);
            }
            let is_time = match &result {
                Ok((report, _)) => report.snapshot.is_some(),
                // Until there is room no run will be good again.
                Err(error) => error.is_no_space(),
            };
            if let Some(turn) = turn
                && request.scheduled
                && is_time
            {
                // Whatever comes of it, what the run came to stands.
                match Box::pin(work.prune(&footing, lost_later, &turn)).await {
                    Ok(Some(report)) => voice.pruned(&report),
                    Ok(None) | Err(PruneError::Session(BackupError::Interrupted)) => {}
                    Err(error) => {
                        stalled |= matches!(error, PruneError::Session(BackupError::Stalled(_)));
                        voice.not_pruned(role, &error);
                    }
                }
            }
            let after = work.runner.env.timeout(work.role.stall_timeout, Box::pin(work.after(&result))).await;
            let journal = after.unwrap_or_else(|| work.hung());
            if !stalled {
                return Back::Event(Event::Journal(journal));
            }
            let blocked = work.runner.progress.is_attended();
            if blocked {
                // Until then a further run would only wait as well.
                work.runner.env.spawn(unblocked(work.runner.clone(), back));
            }
            Back::Yielded(Yield::Stalled { blocked }, journal)
        });
    }

    /// What another process of this node wants.
    fn command(&mut self, command: Command) -> Event {
        match command {
            Command::BackUp(wanted) => {
                self.callers.want(wanted);
                Event::Wanted
            }
            Command::Enter { tell } => {
                self.callers.enter(tell);
                Event::Tick
            }
            Command::Lease { reply } => {
                let _ = reply.send(self.lend());
                Event::Tick
            }
            Command::Stand { reply } => {
                // Whoever asked may have gone.
                let _ = reply.send(self.word());
                Event::Tick
            }
            Command::Left => Event::Tick,
            Command::Look => Event::JournalHint,
        }
    }

    /// How the lease stands, for another process of this node.
    fn lend(&self) -> Answer {
        let grant = self.keeper.as_ref().and_then(|keeper| keeper.deadline().grant());
        match (grant, self.duty.stand()) {
            (Some(grant), _) if self.duty.takes_guests() => Answer::Held(grant),
            (_, Some(Stand::Standby(StandbyReason::LeaseTaken(by)))) => Answer::Taken(by.clone()),
            _ => Answer::Unknown { why: self.refusal() },
        }
    }

    /// What the probes said last.
    fn evidence(&self) -> &[Evidence] {
        self.duty.assessment().map(|assessment| assessment.evidence.as_slice()).unwrap_or_default()
    }

    /// Why this node stands as it does, in words.
    fn refusal(&self) -> String {
        self.voice.refusal(&self.work.role.name, self.duty.stand(), self.evidence())
    }

    /// How this node stands, for whoever asks on it.
    fn word(&self) -> DaemonWord {
        let stand = self.duty.stand();
        let state = stand.map(|stand| match stand {
            Stand::Active { .. } => State::Active,
            Stand::Candidate | Stand::Standby(_) | Stand::Away(_) => State::Standby,
            Stand::Unknown(_) => State::Unknown,
            Stand::Conflict(_) | Stand::Cloned => State::Conflict,
            Stand::Paused(_) => State::Paused,
        });
        let why = self.refusal();
        DaemonWord { state, why, failure: self.work.watch.failure(), under_way: self.work.watch.under_way() }
    }

    fn refuse(&mut self) {
        let Some(wanted) = self.callers.next() else { return };
        let role = &self.work.role.name;
        let outcome = match self.duty.stand() {
            Some(Stand::Unknown(_)) | None => Outcome::Unknown,
            Some(Stand::Paused(_)) => Outcome::Skipped,
            Some(_) => Outcome::Standby,
        };
        let reason = Some(self.refusal());
        let report = RoleReport { reason, ..RoleReport::nothing(role.clone(), outcome) };
        let _ = wanted.reply.send(Ended { report, exit: None });
    }

    fn footing(&self) -> Footing {
        let deadline: Option<Deadline> = self.keeper.as_ref().map(|keeper| keeper.deadline().clone());
        Footing { assessment: self.duty.assessment().cloned(), deadline }
    }

    fn tell(&self) {
        if let Some(stand) = self.duty.stand() {
            self.voice.stands(&self.work.role.name, stand, self.evidence());
            self.work.watch.stands(stand, self.refusal());
            // Where a lease is given up, it is done before that.
            let keeps = self.keeper.is_some() && !matches!(stand, Stand::Conflict(_));
            if !self.work.observe && !keeps && is_elsewhere(stand, self.work.runner.node.id) {
                let work = self.work.clone();
                self.env().spawn(async move { work.lose().await });
            }
            self.stand.send_replace(Some(stand.clone()));
        }
    }
}

fn is_stalled(result: &Result<guard::Guarded, GuardError>) -> bool {
    matches!(result, Err(GuardError::Backup(BackupError::Stalled(_))))
}

/// Tells when nothing of a run waits for the kernel any more.
async fn unblocked(runner: Runner, back: mpsc::Sender<Back>) {
    while runner.progress.is_attended() {
        runner.env.sleep(BLOCKED_POLL).await;
    }
    // The loop may have ended.
    let _ = back.send(Back::Event(Event::Unblocked)).await;
}

/// Whether the role is not this node's.
fn is_elsewhere(stand: &Stand, node: NodeId) -> bool {
    match stand {
        Stand::Standby(reason) => reason.is_elsewhere(node),
        Stand::Conflict(_) | Stand::Cloned => true,
        _ => false,
    }
}

/// How long the role's lease lasts without being renewed.
fn ttl(role: &RoleSettings, settings: &Settings) -> Duration {
    match (&settings.etcd, role.lease) {
        (Some(etcd), Lease::Etcd) => etcd.lease_ttl,
        _ => role.bucket_lease_ttl,
    }
}

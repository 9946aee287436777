//! Tests whether a store keeps the promises of [`Store::put_if_absent`] and [`Store::replace`].
//!
//! Some servers ignore the condition and answer success. Some check it when the request begins and write when the body
//! has arrived. Some do both in order, but not for two requests at once. Each of these would let two nodes write one
//! number of a journal. A sequential test finds the first kind only, so there are racing rounds and a writer that is
//! paused.
//!
//! The verdict on the outcomes is a pure function, `judge`.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;

use super::{ObjectVersion, PutOutcome, PutPause, ReplaceOutcome, SizeLimit, Store, StoreError, StoreErrorKind};
use crate::env::Env;

/// Number of racing rounds. On bare s3s-fs 99 of 100 rounds have several winners, so these rounds find such a store
/// many times over. They do not find a race as narrow as the one in `moto_server` 5.2 (one round in about a thousand),
/// nor would any number of rounds that an operator would wait for. The proof rejects stores that do not lock; it cannot
/// certify those that nearly do.
pub const ROUNDS: usize = 12;

/// Writers in one round.
pub const RACERS: usize = 8;

/// Number of inconclusive rounds (timeouts, 409) after which the proof gives up.
const DOUBTS_MAX: usize = 6;

/// Size of a racer's body: more than one network packet, so that the bodies interleave.
const BODY_BYTES: usize = 4096;

/// How long the paused writer may take to begin, and the other one to finish, before the pause ends anyway. A store may
/// make the second writer wait for the first; the client's own timeout is longer than both together.
const HOLD_PATIENCE: Duration = Duration::from_secs(5);

/// How long the paused writer's first half gets to reach the server. It has left the client by then, but the round
/// proves nothing if the other request overtakes it.
const HOLD_SETTLE: Duration = Duration::from_millis(300);

/// How many times [`check`] tries again when no answer comes.
const CHECK_ATTEMPTS: usize = 3;

/// The condition under test, by its S3 name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteCondition {
    /// [`Store::put_if_absent`].
    Absent,
    /// [`Store::replace`].
    Unchanged,
}

impl WriteCondition {
    fn header(self) -> &'static str {
        match self {
            Self::Absent => "`If-None-Match: *`",
            Self::Unchanged => "`If-Match`",
        }
    }

    fn verb(self) -> &'static str {
        match self {
            Self::Absent => "create",
            Self::Unchanged => "replace",
        }
    }

    /// Describes a condition that does not hold.
    fn broken_message(self) -> &'static str {
        match self {
            Self::Absent => "it existed",
            Self::Unchanged => "it had changed",
        }
    }

    /// Describes a condition that holds.
    fn kept_message(self) -> &'static str {
        match self {
            Self::Absent => "it did not exist",
            Self::Unchanged => "it had not changed",
        }
    }
}

/// Why a store cannot hold a journal, or a lease.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ProofFailure {
    /// More than one writer was told that it created the object, or replaced the same content of it.
    #[error(
        "{winners} writers were told that they {}d {key}: this store does not keep {} apart when writers race",
        condition.verb(), condition.header()
    )]
    SeveralWinners {
        /// The condition tested.
        condition: WriteCondition,
        /// The probe key.
        key: String,
        /// Number of winners.
        winners: usize,
    },
    /// The object holds the bytes of a writer that was refused, or that came later.
    #[error("{key} was overwritten although {}: this store ignores {}", condition.broken_message(), condition.header())]
    Overwritten {
        /// The condition tested.
        condition: WriteCondition,
        /// The probe key.
        key: String,
    },
    /// All writers were refused although the condition held.
    #[error("no writer was allowed to {} {key}, although {}", condition.verb(), condition.kept_message())]
    NoWinner {
        /// The condition tested.
        condition: WriteCondition,
        /// The probe key.
        key: String,
    },
    /// Too many answers were missing.
    #[error("it cannot be told whether this store keeps conditional puts: {why}")]
    CannotTell {
        /// What was received instead of answers.
        why: String,
    },
    /// A request failed with a definite error. That proves nothing, unless the store does not support the call at all.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ProofFailure {
    /// Separates what the proof found about the store from failed requests as any call may have them: a full disk, a
    /// lost connection.
    ///
    /// # Errors
    /// The request that failed.
    pub fn into_definite(self) -> Result<Self, StoreError> {
        match self {
            Self::Store(error) if error.kind != StoreErrorKind::Unsupported => Err(error),
            seen => Ok(seen),
        }
    }

    /// Whether the store certainly breaks its promise, or does not support the call.
    pub fn is_certain(&self) -> bool {
        match self {
            Self::SeveralWinners { .. } | Self::Overwritten { .. } | Self::NoWinner { .. } => true,
            Self::CannotTell { .. } => false,
            Self::Store(error) => error.kind == StoreErrorKind::Unsupported,
        }
    }
}

/// Tests [`Store::put_if_absent`] thoroughly, once, at `init`. `prefix` is the probe key, `<role>/live/probe`; keys
/// that begin with it are used and, if permitted, deleted again. The probe key itself stays, for [`check`].
///
/// # Errors
/// What the proof found. The store may still hold data, but no journal.
pub async fn prove(store: &dyn Store, prefix: &str, env: &Env) -> Result<(), ProofFailure> {
    if !store.capabilities().put_if_absent {
        return Err(unsupported(store, "it has no conditional puts"));
    }
    let mut names = ProofKeys::new(prefix, env);
    let result = run_rounds(store, &mut names, env).await;
    names.clear(store).await;
    result?;
    check(store, prefix, env).await
}

/// Tests [`Store::replace`] thoroughly, before the first lease in the store. Otherwise like [`prove`]; the probe key
/// stays for [`check_replace`], and may be the same.
///
/// # Errors
/// What the proof found. The store may still hold data, and a journal if it passed [`prove`], but no lease.
pub async fn prove_replace(store: &dyn Store, prefix: &str, env: &Env) -> Result<(), ProofFailure> {
    if !store.capabilities().replace {
        return Err(unsupported(store, "it cannot replace an object conditionally"));
    }
    let mut names = ProofKeys::new(prefix, env);
    let result = replace_rounds(store, &mut names, env).await;
    names.clear(store).await;
    result?;
    check_replace(store, prefix, env).await
}

fn unsupported(store: &dyn Store, detail: &str) -> ProofFailure {
    StoreError::new(StoreErrorKind::Unsupported, &store.describe(), None, detail).into()
}

/// The keys of one proof. They are random, so that two nodes can run a proof at the same time.
struct ProofKeys {
    stem: String,
    used: Vec<String>,
}

impl ProofKeys {
    fn new(prefix: &str, env: &Env) -> Self {
        Self { stem: format!("{prefix}-{}", hex::encode(env.random_bytes::<8>())), used: Vec::new() }
    }

    fn next_key(&mut self) -> String {
        let key = format!("{}-{}", self.stem, self.used.len() + 1);
        self.used.push(key.clone());
        key
    }

    async fn clear(self, store: &dyn Store) {
        if let Err(e) = store.delete(&self.used).await {
            // Credentials without delete permission are a good practice; a few small objects stay.
            tracing::debug!(error = %e, "the proof's objects cannot be deleted and stay");
        }
    }
}

/// Counts the rounds that proved nothing.
#[derive(Default)]
struct InconclusiveRounds(usize);

impl InconclusiveRounds {
    fn add(&mut self, why: String) -> Result<(), ProofFailure> {
        self.0 += 1;
        if self.0 > DOUBTS_MAX { Err(ProofFailure::CannotTell { why }) } else { Ok(()) }
    }
}

async fn run_rounds(store: &dyn Store, names: &mut ProofKeys, env: &Env) -> Result<(), ProofFailure> {
    let mut doubts = InconclusiveRounds::default();
    let mut left = ROUNDS;
    // The round with the paused writer comes last, so that a bad store has usually failed before.
    while left > 0 {
        let held = left == 1;
        let key = names.next_key();
        let bodies = bodies(env, if held { 2 } else { RACERS });
        let outcomes = if held {
            paused_round(store, &key, &bodies).await?
        } else {
            concurrent_puts(store, &key, &bodies).await?
        };
        let told: Vec<WriterOutcome> = outcomes.into_iter().map(WriterOutcome::from).collect();
        match judge(WriteCondition::Absent, &key, &bodies, &told, content(store, &key).await?.as_ref())? {
            RoundVerdict::Kept => left -= 1,
            RoundVerdict::Inconclusive { why } => doubts.add(why)?,
        }
    }
    Ok(())
}

async fn replace_rounds(store: &dyn Store, names: &mut ProofKeys, env: &Env) -> Result<(), ProofFailure> {
    let mut doubts = InconclusiveRounds::default();
    let mut left = ROUNDS;
    let mut next = None;
    while left > 0 {
        let (key, version) = if let Some(next) = next.take() {
            next
        } else {
            let key = names.next_key();
            store.put(&key, body(env)).await?;
            let (_, version) = store.get_versioned(&key, SizeLimit::LIVE).await?;
            (key, version)
        };
        let bodies = bodies(env, RACERS);
        let racers = bodies.iter().map(|body| store.replace(&key, body.clone(), &version));
        let outcomes: Vec<ReplaceOutcome> = join_all(racers).await.into_iter().collect::<Result<_, _>>()?;
        let told: Vec<WriterOutcome> = outcomes.iter().cloned().map(WriterOutcome::from).collect();
        match judge(WriteCondition::Unchanged, &key, &bodies, &told, content(store, &key).await?.as_ref())? {
            RoundVerdict::Kept => {
                left -= 1;
                // The next round replaces the version that the winner got, as a lease holder would: it must be the
                // object's version.
                let won = outcomes.into_iter().find_map(|o| match o {
                    ReplaceOutcome::Replaced(version) => Some(version),
                    ReplaceOutcome::Changed | ReplaceOutcome::Unknown { .. } => None,
                });
                next = won.map(|version| (key, version));
            }
            // The next round uses another key: a late request of this round may still arrive, and rightly win.
            RoundVerdict::Inconclusive { why } => doubts.add(why)?,
        }
    }
    Ok(())
}

fn body(env: &Env) -> Bytes {
    let mut body = vec![0; BODY_BYTES];
    env.random.fill(&mut body);
    body.into()
}

fn bodies(env: &Env, count: usize) -> Vec<Bytes> {
    (0..count).map(|_| body(env)).collect()
}

async fn content(store: &dyn Store, key: &str) -> Result<Option<Bytes>, StoreError> {
    match store.get(key, SizeLimit::LIVE).await {
        Ok(content) => Ok(Some(content)),
        Err(e) if e.is_not_found() => Ok(None),
        Err(e) => Err(e),
    }
}

async fn concurrent_puts(store: &dyn Store, key: &str, bodies: &[Bytes]) -> Result<Vec<PutOutcome>, StoreError> {
    let racers = bodies.iter().map(|body| store.put_if_absent(key, body.clone()));
    join_all(racers).await.into_iter().collect()
}

/// The first writer begins, the second starts and finishes, the first goes on.
async fn paused_round(store: &dyn Store, key: &str, bodies: &[Bytes]) -> Result<Vec<PutOutcome>, StoreError> {
    let (hold, handle) = PutPause::new();
    let slow = store.put_if_absent_paused(key, bodies[0].clone(), hold);
    let fast = async {
        // If the put ended without a pause, its outcome is judged; if it hangs, the pause ends below.
        let _ = tokio::time::timeout(HOLD_PATIENCE, handle.started).await;
        tokio::time::sleep(HOLD_SETTLE).await;
        let fast = store.put_if_absent(key, bodies[1].clone());
        tokio::pin!(fast);
        let early = tokio::time::timeout(HOLD_PATIENCE, &mut fast).await;
        drop(handle.release);
        match early {
            Ok(outcome) => outcome,
            Err(_) => fast.await,
        }
    };
    let (slow, fast) = tokio::join!(slow, fast);
    Ok(vec![slow?, fast?])
}

/// The answer that a writer got.
#[derive(Debug, Clone, PartialEq, Eq)]
enum WriterOutcome {
    /// The writer was told that it wrote the object.
    Won,
    /// The writer was told that the condition did not hold.
    Refused,
    /// The writer got no clear answer.
    Unknown {
        /// What was received instead.
        why: String,
    },
}

impl From<PutOutcome> for WriterOutcome {
    fn from(outcome: PutOutcome) -> Self {
        match outcome {
            PutOutcome::Created => WriterOutcome::Won,
            PutOutcome::Exists => WriterOutcome::Refused,
            PutOutcome::Unknown { why } => WriterOutcome::Unknown { why },
        }
    }
}

impl From<ReplaceOutcome> for WriterOutcome {
    fn from(outcome: ReplaceOutcome) -> Self {
        match outcome {
            ReplaceOutcome::Replaced(_) => WriterOutcome::Won,
            ReplaceOutcome::Changed => WriterOutcome::Refused,
            ReplaceOutcome::Unknown { why } => WriterOutcome::Unknown { why },
        }
    }
}

/// The verdict on one round.
#[derive(Debug, Clone, PartialEq, Eq)]
enum RoundVerdict {
    /// There is one winner, and the object holds the winner's bytes.
    Kept,
    /// Answers are missing, so that the round proves nothing.
    Inconclusive {
        /// What was received instead.
        why: String,
    },
}

/// Judges a round: writer `i` wrote `bodies[i]` and got the answer `told[i]`, and afterwards the object held `content`.
fn judge(
    condition: WriteCondition,
    key: &str,
    bodies: &[Bytes],
    told: &[WriterOutcome],
    content: Option<&Bytes>,
) -> Result<RoundVerdict, ProofFailure> {
    let key = || key.to_owned();
    let winners: Vec<usize> = (0..told.len()).filter(|i| told[*i] == WriterOutcome::Won).collect();
    let doubt = told.iter().find_map(|t| if let WriterOutcome::Unknown { why } = t { Some(why) } else { None });
    let holder = bodies.iter().position(|body| Some(body) == content);
    if winners.len() > 1 {
        return Err(ProofFailure::SeveralWinners { condition, key: key(), winners: winners.len() });
    }
    // A writer that was refused must not have changed a byte.
    if holder.is_some_and(|i| told[i] == WriterOutcome::Refused) {
        return Err(ProofFailure::Overwritten { condition, key: key() });
    }
    match (winners.first(), doubt) {
        (Some(winner), _) if holder == Some(*winner) => Ok(RoundVerdict::Kept),
        (Some(_), _) => Err(ProofFailure::Overwritten { condition, key: key() }),
        (None, Some(why)) => Ok(RoundVerdict::Inconclusive { why: why.clone() }),
        (None, None) => Err(ProofFailure::NoWinner { condition, key: key() }),
    }
}

/// Tests the store briefly, in each run before it takes the role over or resumes. One conditional put on the probe key
/// that [`prove`] left must be refused. If the key is gone, which is allowed for `live/`, it is written again and then
/// tested.
///
/// # Errors
/// What the test found.
pub async fn check(store: &dyn Store, prefix: &str, env: &Env) -> Result<(), ProofFailure> {
    let mut created: Option<Bytes> = None;
    let mut last = None;
    for _ in 0..CHECK_ATTEMPTS {
        let body = body(env);
        match store.put_if_absent(prefix, body.clone()).await? {
            PutOutcome::Created if created.is_some() => {
                return Err(broken_promise_failure(WriteCondition::Absent, prefix));
            }
            PutOutcome::Created => created = Some(body),
            PutOutcome::Exists => {
                // Only the content that was written just now is known; it must still be there.
                let Some(created) = created else { return Ok(()) };
                let kept = store.get(prefix, SizeLimit::LIVE).await? == created;
                return if kept { Ok(()) } else { Err(broken_promise_failure(WriteCondition::Absent, prefix)) };
            }
            PutOutcome::Unknown { why } => {
                tracing::debug!(why, "no verdict on a conditional put");
                last = Some(why);
                env.sleep(HOLD_SETTLE).await;
            }
        }
    }
    Err(undecided_failure(prefix, last))
}

/// Tests the store briefly, before a process asks for a role's lease in the bucket. One replace of the probe key that
/// expects another version must be refused.
///
/// # Errors
/// What the test found.
pub async fn check_replace(store: &dyn Store, prefix: &str, env: &Env) -> Result<(), ProofFailure> {
    match store.get_versioned(prefix, SizeLimit::LIVE).await {
        Ok(_) => {}
        // `live/` may have been emptied. It does not matter which node writes the object: it only has to exist.
        Err(e) if e.is_not_found() => drop(store.put_if_absent(prefix, body(env)).await?),
        // Another program put something there that is no object; it is replaced.
        Err(StoreError { version: Some(version), .. }) => drop(store.replace(prefix, body(env), &version).await?),
        Err(e) => return Err(e.into()),
    }
    let mut last = None;
    for _ in 0..CHECK_ATTEMPTS {
        match store.replace(prefix, body(env), &ObjectVersion::matching_nothing()).await? {
            ReplaceOutcome::Changed => return Ok(()),
            ReplaceOutcome::Replaced(_) => return Err(broken_promise_failure(WriteCondition::Unchanged, prefix)),
            ReplaceOutcome::Unknown { why } => {
                tracing::debug!(why, "no verdict on a conditional replace");
                last = Some(why);
                env.sleep(HOLD_SETTLE).await;
            }
        }
    }
    Err(undecided_failure(prefix, last))
}

fn broken_promise_failure(condition: WriteCondition, key: &str) -> ProofFailure {
    ProofFailure::Overwritten { condition, key: key.to_owned() }
}

/// The failure for missing answers, with the store's last message.
fn undecided_failure(key: &str, last: Option<String>) -> ProofFailure {
    let last = last.unwrap_or_else(|| "it was made only now".to_owned());
    ProofFailure::CannotTell { why: format!("{key}: {last}") }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::faulty::{FaultPlan, FaultyStore, InjectedFault};
    use crate::store::memory::MemoryStore;
    use WriterOutcome::{Refused, Won};

    fn bodies() -> Vec<Bytes> {
        (0..3).map(|i| Bytes::from(format!("body {i}"))).collect()
    }

    fn doubt() -> WriterOutcome {
        WriterOutcome::Unknown { why: "timeout".to_owned() }
    }

    fn verdict(told: &[WriterOutcome], holder: Option<usize>) -> Result<RoundVerdict, ProofFailure> {
        let bodies = bodies();
        judge(WriteCondition::Absent, "k", &bodies, told, holder.map(|i| &bodies[i]))
    }

    #[test]
    fn one_winner_whose_bytes_are_there_is_what_is_asked() {
        assert_eq!(verdict(&[Refused, Won, Refused], Some(1)).unwrap(), RoundVerdict::Kept);
        assert_eq!(verdict(&[doubt(), Won, Refused], Some(1)).unwrap(), RoundVerdict::Kept);
    }

    #[test]
    fn each_broken_promise_has_its_name() {
        let several = verdict(&[Won, Won, Refused], Some(0)).unwrap_err();
        assert!(matches!(several, ProofFailure::SeveralWinners { winners: 2, .. }), "{several}");
        for (told, holder) in [
            ([Refused, Won, Refused], Some(0)),
            ([Refused, Won, Refused], None),
            ([Refused, Won, doubt()], Some(2)),
            ([Refused, Refused, doubt()], Some(0)),
        ] {
            let e = verdict(&told, holder).unwrap_err();
            assert!(matches!(e, ProofFailure::Overwritten { .. }), "{told:?}: {e}");
        }
        let no_winner = verdict(&[Refused, Refused, Refused], None).unwrap_err();
        assert!(matches!(no_winner, ProofFailure::NoWinner { .. }), "{no_winner}");
    }

    #[tokio::test]
    async fn what_came_instead_of_a_verdict_is_told() {
        let env = Env::host();
        let refusing = FaultPlan::random(1, 1000, &[InjectedFault::Refused]);
        let store = FaultyStore::new(Arc::new(MemoryStore::new(&env)), refusing);
        let undecided = check(&store, "app/live/probe", &env).await.unwrap_err().to_string();
        assert!(undecided.contains("app/live/probe: ") && undecided.contains("503"), "{undecided}");
    }

    #[test]
    fn missing_answers_prove_nothing() {
        for holder in [None, Some(2)] {
            assert!(matches!(verdict(&[Refused, Refused, doubt()], holder), Ok(RoundVerdict::Inconclusive { .. })));
        }
    }
}

//! Whether a store keeps what [`Store::put_if_absent`] promises. It is not believed, it is tried.
//!
//! Some servers ignore the condition and answer success; some check it when the request begins and write when the body has
//! come; some do both in order, but not for two at once. Each of these would let two nodes write one number of a
//! journal. A sequential test finds the first kind only, so there are racing rounds and a writer that is held back.
//!
//! What is read off the outcomes is a pure function, [`judge`].

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;

use super::{Hold, PutOutcome, Store, StoreError, StoreErrorKind};
use crate::env::Env;

/// Racing rounds. Of rounds on bare s3s-fs 99 in 100 have several winners, so these find its like many times over. They do not find a
/// race as narrow as the one in `moto_server` 5.2 (one round in about a thousand), nor would any number that a person
/// waits for: the proof refuses stores that do not lock, it is no licence for those that nearly do.
pub const ROUNDS: usize = 12;

/// Writers in one round.
pub const RACERS: usize = 8;

/// Rounds that may end in doubt (timeouts, 409) before nothing can be told.
const DOUBTS_MAX: usize = 6;

/// Size of a racer's body: more than one network packet, so that the bodies interleave.
const BODY_BYTES: usize = 4096;

/// How long the held writer is given to begin, and the other one to finish, before the hold is released anyway. A store may well
/// make the second wait for the first; the client's own timeout is longer than both together.
const HOLD_PATIENCE: Duration = Duration::from_secs(5);

/// How long the held writer's first half is given to reach the server: it has left the client, but the proof is none
/// if the other request overtakes it.
const HOLD_SETTLE: Duration = Duration::from_millis(300);

/// How often [`check`] asks again when no answer comes.
const CHECK_ATTEMPTS: usize = 3;

/// Why a store may not hold a journal.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ProofFailure {
    /// More than one writer was told that it created the object.
    #[error(
        "{winners} writers were told that they created {key}: this store does not keep `If-None-Match: *` apart when writers race"
    )]
    SeveralWinners {
        /// The probe key.
        key: String,
        /// How many.
        winners: usize,
    },
    /// The object holds what a writer wrote that was refused, or that came later.
    #[error("{key} was overwritten although it existed: this store ignores `If-None-Match: *`")]
    Overwritten {
        /// The probe key.
        key: String,
    },
    /// All writers were refused although the key was free.
    #[error("nobody was allowed to create {key}, although it did not exist")]
    NobodyWon {
        /// The probe key.
        key: String,
    },
    /// Too many answers were missing.
    #[error("it cannot be told whether this store keeps conditional puts: {why}")]
    CannotTell {
        /// What came instead of answers.
        why: String,
    },
    /// A request failed for good.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Tries the store thoroughly: once, at `init`. `prefix` names the probe key, `<role>/live/probe`; keys that begin with it are used
/// and, where that is allowed, deleted again. The probe key itself stays, for [`check`].
///
/// # Errors
/// How the store failed. It may still hold data, but no journal.
pub async fn prove(store: &dyn Store, prefix: &str, env: &Env) -> Result<(), ProofFailure> {
    if !store.capabilities().put_if_absent {
        let detail = "it has no conditional puts";
        return Err(StoreError::new(StoreErrorKind::Unsupported, &store.describe(), None, detail).into());
    }
    // Fresh names, also when two nodes prove at once.
    let run = hex::encode(env.random_bytes::<8>());
    let mut used = Vec::new();
    let result = rounds(store, prefix, &run, env, &mut used).await;
    if let Err(e) = store.delete(&used).await {
        // Credentials that may not delete are a good idea; a few small objects stay.
        tracing::debug!(error = %e, "the proof's keys stay behind");
    }
    result?;
    check(store, prefix, env).await
}

async fn rounds(
    store: &dyn Store,
    prefix: &str,
    run: &str,
    env: &Env,
    used: &mut Vec<String>,
) -> Result<(), ProofFailure> {
    let mut doubts = 0;
    let mut number = 0;
    let mut left = ROUNDS;
    // The held writer's round is one more; it is the last, so that slow stores have failed before.
    while left > 0 {
        let held = left == 1;
        number += 1;
        let key = format!("{prefix}-{run}-{number}");
        used.push(key.clone());
        let bodies: Vec<Bytes> = (0..if held { 2 } else { RACERS }).map(|_| body(env)).collect();
        let outcomes = if held { held_round(store, &key, &bodies).await? } else { race(store, &key, &bodies).await? };
        let content = match store.get(&key).await {
            Ok(content) => Some(content),
            Err(e) if e.is_not_found() => None,
            Err(e) => return Err(e.into()),
        };
        match judge(&key, &bodies, &outcomes, content.as_ref())? {
            Verdict::Kept => left -= 1,
            Verdict::Doubtful { why } => {
                doubts += 1;
                if doubts > DOUBTS_MAX {
                    return Err(ProofFailure::CannotTell { why });
                }
            }
        }
    }
    Ok(())
}

fn body(env: &Env) -> Bytes {
    let mut body = vec![0; BODY_BYTES];
    env.random.fill(&mut body);
    body.into()
}

async fn race(store: &dyn Store, key: &str, bodies: &[Bytes]) -> Result<Vec<PutOutcome>, StoreError> {
    let racers = bodies.iter().map(|body| store.put_if_absent(key, body.clone()));
    join_all(racers).await.into_iter().collect()
}

/// The first writer begins, the second starts and finishes, the first goes on.
async fn held_round(store: &dyn Store, key: &str, bodies: &[Bytes]) -> Result<Vec<PutOutcome>, StoreError> {
    let (hold, handle) = Hold::new();
    let slow = store.put_if_absent_held(key, bodies[0].clone(), hold);
    let fast = async {
        // If it ended without ever being held, its outcome tells; if it hangs, the hold is released below.
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

/// What one round says.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    /// One winner, and the object is the winner's.
    Kept,
    /// Answers are missing, so that the round proves nothing.
    Doubtful {
        /// What came instead.
        why: String,
    },
}

/// Reads a round: writer `i` put `bodies[i]` and got `outcomes[i]`, and afterwards `content` was there.
fn judge(
    key: &str,
    bodies: &[Bytes],
    outcomes: &[PutOutcome],
    content: Option<&Bytes>,
) -> Result<Verdict, ProofFailure> {
    let key = || key.to_owned();
    let winners: Vec<usize> = (0..outcomes.len()).filter(|i| outcomes[*i] == PutOutcome::Created).collect();
    let unknown = outcomes.iter().find_map(|o| if let PutOutcome::Unknown { why } = o { Some(why) } else { None });
    let holder = bodies.iter().position(|body| Some(body) == content);
    if winners.len() > 1 {
        return Err(ProofFailure::SeveralWinners { key: key(), winners: winners.len() });
    }
    // Whoever was refused must not have changed a byte.
    if holder.is_some_and(|i| outcomes[i] == PutOutcome::Exists) {
        return Err(ProofFailure::Overwritten { key: key() });
    }
    match (winners.first(), unknown) {
        (Some(winner), _) if holder == Some(*winner) => Ok(Verdict::Kept),
        (Some(_), _) => Err(ProofFailure::Overwritten { key: key() }),
        (None, Some(why)) => Ok(Verdict::Doubtful { why: why.clone() }),
        (None, None) => Err(ProofFailure::NobodyWon { key: key() }),
    }
}

/// Tries the store briefly: at each start. One conditional put on the probe key that [`prove`] left must be refused. If the key is gone,
/// which `live/` may be, it is made again and then tried.
///
/// # Errors
/// How the store failed.
pub async fn check(store: &dyn Store, prefix: &str, env: &Env) -> Result<(), ProofFailure> {
    let mut created: Option<Bytes> = None;
    for _ in 0..CHECK_ATTEMPTS {
        let body = body(env);
        match store.put_if_absent(prefix, body.clone()).await? {
            PutOutcome::Created if created.is_some() => {
                return Err(ProofFailure::Overwritten { key: prefix.to_owned() });
            }
            PutOutcome::Created => created = Some(body),
            PutOutcome::Exists => {
                // Only what was created just now is known; that one must still be there.
                let Some(created) = created else { return Ok(()) };
                let kept = store.get(prefix).await? == created;
                return if kept { Ok(()) } else { Err(ProofFailure::Overwritten { key: prefix.to_owned() }) };
            }
            PutOutcome::Unknown { why } => {
                tracing::debug!(why, "no answer to a conditional put");
                tokio::time::sleep(HOLD_SETTLE).await;
            }
        }
    }
    Err(ProofFailure::CannotTell { why: "no answer to a conditional put on the probe key".to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use PutOutcome::{Created, Exists};

    fn bodies() -> Vec<Bytes> {
        (0..3).map(|i| Bytes::from(format!("body {i}"))).collect()
    }

    fn unknown() -> PutOutcome {
        PutOutcome::Unknown { why: "timeout".to_owned() }
    }

    fn verdict(outcomes: &[PutOutcome], holder: Option<usize>) -> Result<Verdict, ProofFailure> {
        let bodies = bodies();
        judge("k", &bodies, outcomes, holder.map(|i| &bodies[i]))
    }

    #[test]
    fn one_winner_whose_bytes_are_there_is_what_is_asked() {
        assert_eq!(verdict(&[Exists, Created, Exists], Some(1)).unwrap(), Verdict::Kept);
        assert_eq!(verdict(&[unknown(), Created, Exists], Some(1)).unwrap(), Verdict::Kept);
    }

    #[test]
    fn each_broken_promise_has_its_name() {
        let several = verdict(&[Created, Created, Exists], Some(0)).unwrap_err();
        assert!(matches!(several, ProofFailure::SeveralWinners { winners: 2, .. }), "{several}");
        for (outcomes, holder) in [
            ([Exists, Created, Exists], Some(0)),
            ([Exists, Created, Exists], None),
            ([Exists, Created, unknown()], Some(2)),
            ([Exists, Exists, unknown()], Some(0)),
        ] {
            let e = verdict(&outcomes, holder).unwrap_err();
            assert!(matches!(e, ProofFailure::Overwritten { .. }), "{outcomes:?}: {e}");
        }
        let nobody = verdict(&[Exists, Exists, Exists], None).unwrap_err();
        assert!(matches!(nobody, ProofFailure::NobodyWon { .. }), "{nobody}");
    }

    #[test]
    fn missing_answers_prove_nothing() {
        for holder in [None, Some(2)] {
            assert!(matches!(verdict(&[Exists, Exists, unknown()], holder), Ok(Verdict::Doubtful { .. })));
        }
    }
}

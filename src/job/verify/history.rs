//! The journal, from its first record on: MAC, chain, fold, checkpoints.
//!
//! After a damaged record the rest is still worth checking, so the fold is taken up again at the next sound record, from what was
//! known before (and, at the next checkpoint, from what that says). Each damage is told once; nobody is told that the records
//! after a lost one do not continue it.

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::found::Found;
use super::{MISSING, VerifyError, each_listed, object_trouble};
use crate::ids::{Digest, Seq, Term};
use crate::job::report::verified::DamageKind;
use crate::job::repository::Repository;
use crate::journal::record::{self, Body, Record, RecordError, TakeoverWhy};
use crate::journal::state::{FoldError, Head, Holder, State, View};
use crate::repo::crypto::Keys;
use crate::repo::names;

/// Records fetched at once.
const READ_AHEAD: usize = 16;

/// What the journal says.
pub(super) struct History {
    /// Records read.
    pub(super) records: u64,
    /// What they add up to, as far as they can be read.
    pub(super) state: State,
    /// Objects beside the records that are none.
    pub(super) strangers: u64,
}

/// Reads it all.
pub(super) async fn read(
    repository: &Repository,
    known: Option<&View>,
    found: &mut Found,
) -> Result<History, VerifyError> {
    let (store, role) = (repository.store.as_ref(), repository.role());
    let (mut last, mut strangers) = (0, 0);
    let prefix = names::journal_prefix(role);
    each_listed(store, &prefix, |object| match parse_seq(&object.key[prefix.len()..]) {
        Some(seq) => last = last.max(seq),
        None => strangers += 1,
    })
    .await?;
    // The newest record that this node saw was there once, whatever the listing says.
    last = last.max(known.and_then(|view| view.head.as_ref()).map_or(0, |head| head.seq.0));

    let get = |seq| async move {
        match store.get(&names::record(role, seq)).await {
            Ok(object) => Ok(Ok(object)),
            Err(error) => object_trouble(error).map(Err),
        }
    };
    let mut fold = Fold::new(&repository.keys, known, found);
    let mut objects = stream::iter((1..=last).map(Seq))
        .map(|seq| async move { Ok::<_, VerifyError>((seq, get(seq).await?)) })
        .buffered(READ_AHEAD);
    while let Some((seq, object)) = objects.try_next().await? {
        fold.take(seq, object)?;
    }
    drop(objects);
    // A listing may lag behind what was written.
    let mut next = Seq(last + 1);
    loop {
        match get(next).await? {
            Err(what) if what == MISSING => break,
            object => fold.take(next, object)?,
        }
        next = next.next();
    }
    let Fold { view, records, .. } = fold;
    if !view.understood() {
        let kinds = view.unknown_kinds.iter().chain(view.state.unknown.keys()).cloned().collect::<Vec<_>>();
        return Err(VerifyError::NotUnderstood(kinds.join(", ")));
    }
    Ok(History { records, state: view.state, strangers })
}

/// The number that the last part of a record's key is.
fn parse_seq(name: &str) -> Option<u64> {
    let sound = name.len() == 16 && name.bytes().all(|b| b.is_ascii_digit());
    sound.then(|| name.parse().ok()).flatten().filter(|&seq| seq > 0)
}

struct Fold<'a> {
    keys: &'a Keys,
    /// The newest record that this node saw.
    known: Option<&'a Head>,
    found: &'a mut Found,
    view: View,
    records: u64,
    /// The record before the next one was not used, so the next one cannot be held against it.
    gap: bool,
    /// Something is missing from the state until a checkpoint brings it back.
    partial: bool,
}

impl<'a> Fold<'a> {
    fn new(keys: &'a Keys, known: Option<&'a View>, found: &'a mut Found) -> Self {
        let view = View::empty(keys.role().clone(), keys.repo());
        let known = known.and_then(|view| view.head.as_ref());
        Self { keys, known, found, view, records: 0, gap: false, partial: false }
    }

    fn take(&mut self, seq: Seq, object: Result<Bytes, String>) -> Result<(), VerifyError> {
        let object = match object {
            Ok(object) => object,
            Err(what) => {
                self.broken(seq, &what);
                return Ok(());
            }
        };
        self.records += 1;
        let digest = record::digest(&object);
        if let Some(known) = self.known
            && known.seq == seq
            && known.digest != digest
        {
            self.damage(seq, &format!("is another one than this node saw there ({})", known.digest));
        }
        match Record::decode(&object, Some(self.keys)) {
            Ok(record) => self.apply(seq, &record, digest),
            Err(error @ RecordError::Newer(_)) => return Err(VerifyError::Newer { seq, error }),
            Err(error) => self.broken(seq, &error.to_string()),
        }
        Ok(())
    }

    fn apply(&mut self, seq: Seq, record: &Record, digest: Digest) {
        if self.gap {
            self.anchor(seq, record);
        } else if self.partial
            && let Some(state) = &record.state
        {
            self.view.state = state.clone();
            self.partial = false;
        }
        match self.view.apply(record, digest) {
            Ok(()) => self.gap = false,
            Err(error @ (FoldError::Foreign { .. } | FoldError::Number { .. })) => {
                self.broken(seq, &error.to_string());
            }
            Err(error) => {
                self.damage(seq, &error.to_string());
                self.anchor(seq, record);
                self.gap = self.view.apply(record, digest).is_err();
            }
        }
    }

    /// Takes the fold up again at this record, as if everything before it were in order.
    fn anchor(&mut self, seq: Seq, record: &Record) {
        let before = self.view.term();
        if record.term < before {
            self.damage(seq, &FoldError::Term { found: record.term, before }.to_string());
        }
        self.partial = record.state.is_none();
        if let Some(state) = &record.state {
            self.view.state = state.clone();
        } else {
            // Whoever held the role before this record, as the record itself tells.
            let (term, takeover) = match record.body {
                Body::Takeover(_) => (Term(record.term.0.saturating_sub(1)), None),
                _ => (record.term, record.takeover),
            };
            self.view.state.holder = Some(Holder {
                term,
                takeover: takeover.unwrap_or(Digest([0; Digest::LEN])),
                seq,
                node: record.node.clone(),
                instance: record.instance,
                time: record.time,
                why: TakeoverWhy::Moved,
            });
        }
        self.view.head = record.prev.filter(|_| seq > Seq::FIRST).map(|digest| Head {
            seq: Seq(seq.0 - 1),
            digest,
            node: record.node.clone(),
            time: record.time,
        });
    }

    /// A record that cannot be used at all.
    fn broken(&mut self, seq: Seq, what: &str) {
        self.damage(seq, what);
        self.gap = true;
        self.partial = true;
    }

    fn damage(&mut self, seq: Seq, what: &str) {
        let number = self.found.damage(DamageKind::Record, names::record(self.keys.role(), seq), what);
        // It may have named index objects.
        self.found.lose_index(number);
    }
}

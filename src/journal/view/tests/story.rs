//! Any story of a role, as records, against a model of plain sets: what must never happen in a fold, and what each act
//! does.

use proptest::prelude::*;

use super::*;
use crate::ids::{InstanceId, PackId};
use crate::journal::body::{EndBody, PauseBody, SweepBody};
use crate::journal::state::PAST_SLOTS_KEPT;

/// One act of a story. Numbers pick among what there is.
#[derive(Debug, Clone)]
enum Act {
    Takeover(u8),
    /// For this slot, with so many index objects.
    Snapshot(Option<i64>, u8),
    /// A guarded command for a slot: its exit code, and whether it was stopped.
    End(Option<i64>, u8, bool),
    /// Forgets the snapshots whose bits are set, condemns so many packs, keeps the index objects whose bits are set,
    /// writes a new one, and finds a stray one.
    Prune(u16, u8, u16, bool, bool),
    /// Deletes what the prunes condemned whose bits are set.
    Swept(u16),
    Pause(Option<i64>),
    Resume,
    /// A node says that it exists twice.
    Clone(u8),
    /// What a later version does, with a permit or without.
    Unknown(bool),
}

fn act() -> impl Strategy<Value = Act> {
    let slot = || prop::option::of(0..40i64);
    prop_oneof![
        2 => (0..4u8).prop_map(Act::Takeover),
        6 => (slot(), 0..3u8).prop_map(|(slot, indexes)| Act::Snapshot(slot, indexes)),
        1 => (slot(), 0..2u8, any::<bool>()).prop_map(|(slot, exit, stopped)| Act::End(slot, exit, stopped)),
        3 => any::<(u16, bool, bool)>().prop_flat_map(|(snapshots, new, stray)| {
            (0..3u8, any::<u16>()).prop_map(move |(packs, indexes)| Act::Prune(snapshots, packs, indexes, new, stray))
        }),
        2 => any::<u16>().prop_map(Act::Swept),
        1 => prop::option::of(0..99i64).prop_map(Act::Pause),
        1 => Just(Act::Resume),
        1 => (0..4u8).prop_map(Act::Clone),
        1 => any::<bool>().prop_map(Act::Unknown),
    ]
}

/// Acts, and after which of them the whole state is written down. A story begins with a takeover.
fn acts() -> impl Strategy<Value = Vec<(Act, bool)>> {
    let rest = prop::collection::vec((act(), prop::bool::weighted(0.2)), 0..60);
    (0..4u8, rest).prop_map(|(node, rest)| {
        let first = (Act::Takeover(node), false);
        std::iter::once(first).chain(rest).collect()
    })
}

/// What a role is, told without a journal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Model {
    term: u64,
    holder: Option<u8>,
    live: BTreeSet<u64>,
    forgotten: BTreeSet<u64>,
    indexes: BTreeSet<IndexId>,
    /// By the number of the prune.
    condemned_packs: BTreeSet<(u64, PackId)>,
    condemned_indexes: BTreeSet<(u64, IndexId)>,
    last_slot: Option<i64>,
    /// The slots of guarded commands, in order.
    commands: Vec<i64>,
    /// Of every snapshot that was ever committed.
    slots: BTreeMap<u64, i64>,
    /// Whether it is paused, and until when.
    paused: (bool, Option<i64>),
    clones: BTreeSet<u8>,
    strange: bool,
}

fn at(slot: i64) -> Timestamp {
    Timestamp::from_second(slot * 3600).unwrap()
}

fn index(n: u64) -> IndexId {
    IndexId(u128::from(n).to_le_bytes())
}

fn pack(n: u64) -> PackId {
    PackId(u128::from(n).to_le_bytes())
}

/// Those whose bits are set, of the newest ones.
fn pick<T: Copy>(all: impl DoubleEndedIterator<Item = T>, bits: u16) -> Vec<T> {
    all.rev().take(16).enumerate().filter(|(n, _)| bits >> n & 1 == 1).map(|(_, item)| item).collect()
}

/// One record of a story, as it is stored.
#[derive(Debug, Clone)]
struct Told {
    record: Record,
    digest: Digest,
    /// What has come of it.
    model: Model,
}

impl Told {
    fn of(record: Record, model: Model) -> Self {
        let object = record.encode(&keys(Cipher::None));
        assert_eq!(Record::decode(&object, Some(&keys(Cipher::None))).as_ref(), Ok(&record));
        Told { record, digest: record::digest(&object), model }
    }

    fn push(&self, view: &mut JournalView) -> Result<(), FoldError> {
        view.apply(&self.record, self.digest)
    }
}

/// Writes the record of an act that continues `view`, and tells the model.
fn write(view: &JournalView, model: &mut Model, ids: &BTreeMap<u64, Digest>, act: &Act, fresh: &mut u64) -> Record {
    let mut new = || {
        *fresh += 1;
        *fresh
    };
    let seq = view.next_seq().0;
    let holder = model.holder.unwrap_or_default();
    let mut slot = None;
    let mut without_permit = false;
    let (by, body) = match act {
        Act::Takeover(node) => {
            (model.term, model.holder) = (model.term + 1, Some(*node));
            (*node, takeover())
        }
        Act::Snapshot(for_slot, count) => {
            slot = *for_slot;
            let indexes: Vec<IndexId> = (0..*count).map(|_| index(new())).collect();
            model.live.insert(seq);
            model.indexes.extend(&indexes);
            model.slots.extend(slot.map(|slot| (seq, slot)));
            model.last_slot = slot.or(model.last_slot);
            let RecordBody::Snapshot(body) = snapshot(seq as u8) else { unreachable!() };
            (holder, RecordBody::Snapshot(SnapshotBody { indexes, ..body }))
        }
        Act::End(for_slot, exit, stopped) => {
            slot = *for_slot;
            if *exit == 0 && !stopped {
                model.last_slot = slot.or(model.last_slot);
                model.commands.extend(slot);
            }
            (holder, RecordBody::End(EndBody { exit: *exit, stopped: *stopped, duration_ms: 1, ..EndBody::default() }))
        }
        Act::Prune(snapshots, packs, kept, writes, stray) => {
            let forgotten = pick(model.live.iter().copied(), *snapshots);
            let mut indexes = pick(model.indexes.iter().copied(), *kept);
            indexes.extend(writes.then(|| index(new())));
            let packs: Vec<PackId> = (0..*packs).map(|_| pack(new())).collect();
            let strays: Vec<IndexId> = stray.then(|| index(new())).into_iter().collect();
            model.live.retain(|seq| !forgotten.contains(seq));
            model.forgotten.extend(&forgotten);
            model.condemned_packs.extend(packs.iter().map(|pack| (seq, *pack)));
            let replaced = model.indexes.iter().filter(|id| !indexes.contains(id)).chain(&strays);
            model.condemned_indexes.extend(replaced.map(|id| (seq, *id)));
            model.indexes = indexes.iter().copied().collect();
            let forgotten = forgotten.iter().map(|seq| ids[seq]).collect();
            (holder, RecordBody::Prune(PruneBody { forgotten, indexes, packs, strays }))
        }
        Act::Swept(bits) => {
            let packs = model.condemned_packs.iter().map(|(seq, _)| *seq);
            let all: BTreeSet<u64> = packs.chain(model.condemned_indexes.iter().map(|(seq, _)| *seq)).collect();
            let prunes = pick(all.into_iter(), *bits);
            model.condemned_packs.retain(|(seq, _)| !prunes.contains(seq));
            model.condemned_indexes.retain(|(seq, _)| !prunes.contains(seq));
            (holder, RecordBody::Swept(SweepBody { prunes: prunes.into_iter().map(Seq).collect() }))
        }
        Act::Pause(until) => {
            (without_permit, model.paused) = (true, (true, *until));
            (9, RecordBody::Pause(PauseBody { until: until.map(at), why: None }))
        }
        Act::Resume => {
            (without_permit, model.paused) = (true, (false, None));
            (9, RecordBody::Resume)
        }
        Act::Clone(node) => {
            without_permit = true;
            model.clones.insert(*node);
            (*node, RecordBody::Clone(CloneBody { other: InstanceId([9; 8]) }))
        }
        Act::Unknown(free) => {
            (without_permit, model.strange) = (*free, true);
            (holder, RecordBody::Unknown { kind: "point".to_owned(), body: serde_json::json!({"id": seq}) })
        }
    };
    let mut record = next(view, by, body);
    if without_permit {
        (record.takeover, record.term) = (None, view.term());
    }
    record.slot = slot.map(at);
    record
}

/// Tells a story; every record of it, with what must have come of it.
fn tell(acts: &[(Act, bool)]) -> Vec<Told> {
    let (mut view, mut model, mut fresh) = (empty(), Model::default(), 0);
    let (mut ids, mut story) = (BTreeMap::new(), Vec::<Told>::new());
    for (act, checkpoint) in acts {
        let mut record = write(&view, &mut model, &ids, act, &mut fresh);
        record.state = checkpoint.then(|| view.state.clone());
        let told = Told::of(record, model.clone());
        ids.insert(told.record.seq.0, told.digest);
        told.push(&mut view).unwrap();
        story.push(told);
    }
    story
}

/// The view before record number `n` (from 0).
fn before(story: &[Told], n: usize) -> JournalView {
    let mut view = empty();
    story[..n].iter().for_each(|told| told.push(&mut view).unwrap());
    view
}

fn assert_is(view: &JournalView, model: &Model, story: &[Told]) {
    let state = &view.state;
    assert_eq!(view.term().0, model.term);
    assert_eq!(state.holder.as_ref().map(|h| h.node.id.0[0]), model.holder);
    assert_eq!(state.snapshots.iter().map(|s| s.seq.0).collect::<Vec<_>>(), Vec::from_iter(model.live.clone()));
    for snapshot in &state.snapshots {
        let told = &story[snapshot.seq.0 as usize - 1];
        assert_eq!((snapshot.id, snapshot.term, snapshot.slot), (told.digest, told.record.term, told.record.slot));
    }
    assert_eq!(state.indexes.iter().copied().collect::<BTreeSet<_>>(), model.indexes);
    assert_eq!(state.indexes.len(), model.indexes.len(), "each once");
    let packs = state.condemned.iter().flat_map(|c| c.packs.iter().map(|pack| (c.seq.0, *pack)));
    assert_eq!(packs.collect::<BTreeSet<_>>(), model.condemned_packs);
    let indexes = state.condemned.iter().flat_map(|c| c.indexes.iter().map(|index| (c.seq.0, *index)));
    assert_eq!(indexes.collect::<BTreeSet<_>>(), model.condemned_indexes);
    assert_eq!(state.last_slot, model.last_slot.map(at));
    let (is_paused, until) = model.paused;
    assert_eq!(state.paused.as_ref().map(|p| p.until), is_paused.then(|| until.map(at)));
    assert_eq!(state.clones.iter().map(|node| node.0[0]).collect::<BTreeSet<_>>(), model.clones);
    assert_eq!(view.is_understood(), !model.strange);
    let past: BTreeSet<i64> = model.forgotten.iter().filter_map(|seq| model.slots.get(seq)).copied().collect();
    let newest: BTreeSet<Timestamp> = past.into_iter().rev().take(PAST_SLOTS_KEPT).map(at).collect();
    assert_eq!(state.past_slots, newest);
    let commands: Vec<Timestamp> =
        model.commands.iter().rev().take(COMMAND_SLOTS_KEPT).rev().copied().map(at).collect();
    assert_eq!(state.command_slots, commands);
    // Whatever was forgotten or came out of order, a slot that has a commit is refused another one.
    let commits = view.commits();
    let all = model.slots.values().chain(&model.commands).copied().map(at);
    for slot in all {
        assert!(commits.is_closed(slot, Timestamp::MAX), "{slot}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Each act does what it says and nothing else; and what is over is over.
    #[test]
    fn a_state_is_what_its_story_tells(acts in acts()) {
        let story = tell(&acts);
        let mut view = empty();
        let mut was = view.state.clone();
        let mut gone = BTreeSet::new();
        for told in &story {
            told.push(&mut view).unwrap();
            assert_is(&view, &told.model, &story);
            prop_assert!(view.state.holder.as_ref().map(|h| h.term) >= was.holder.as_ref().map(|h| h.term));
            let live: BTreeSet<Digest> = view.state.snapshots.iter().map(|s| s.id).collect();
            gone.extend(was.snapshots.iter().map(|s| s.id).filter(|id| !live.contains(id)));
            prop_assert!(gone.is_disjoint(&live), "a snapshot came back");
            if !matches!(told.record.body, RecordBody::Swept(_)) {
                prop_assert!(was.condemned.iter().all(|c| view.state.condemned.contains(c)), "a sentence was lifted");
            }
            was = view.state.clone();
        }
    }

    /// A reader that begins at a checkpoint gets the same state as one that read everything; a false checkpoint is
    /// refused.
    #[test]
    fn a_checkpoint_stands_for_everything_before_it(acts in acts(), lie in act()) {
        let story = tell(&acts);
        let whole = before(&story, story.len());
        for (n, told) in story.iter().enumerate().skip(1).filter(|(_, told)| told.record.state.is_some()) {
            let mut view = JournalView::before_checkpoint(&told.record).unwrap();
            let full = before(&story, n);
            prop_assert_eq!((&view.state, view.next_seq(), view.term()), (&full.state, full.next_seq(), full.term()));
            for told in &story[n..] {
                prop_assert_eq!(told.push(&mut view), Ok(()));
            }
            prop_assert_eq!((&view.state, &view.head), (&whole.state, &whole.head));
            // The state that there would be after something else had happened.
            let (mut other, mut model, ids) = (full.clone(), story[n - 1].model.clone(), ids(&story));
            let act = write(&full, &mut model, &ids, &lie, &mut 1_000_000);
            Told::of(act, model).push(&mut other).unwrap();
            let lying = Told::of(Record { state: Some(other.state.clone()), ..told.record.clone() }, Model::default());
            let verdict = lying.push(&mut full.clone());
            prop_assert_eq!(verdict == Err(FoldError::Checkpoint), other.state != full.state);
        }
    }

    /// A record that is left out, doubled, out of its place, or not by whom it should be.
    #[test]
    fn no_other_story_is_believed(acts in acts(), at: prop::sample::Index, back in 1..9usize, by in 4..9u8) {
        let story = tell(&acts);
        let n = at.index(story.len());
        let refused = |view: &JournalView, told: &Told| told.push(&mut view.clone()).is_err();
        let (here, told) = (before(&story, n), &story[n]);
        let mut after = here.clone();
        told.push(&mut after).unwrap();
        prop_assert!(refused(&after, told), "doubled");
        if let Some(next) = story.get(n + 1) {
            prop_assert!(refused(&here, next), "the one before was left out, or comes later");
        }
        for old in &story[n.saturating_sub(back)..n] {
            prop_assert!(refused(&here, old), "told again");
        }
        // The same number again, by another writer: the next record does not continue that.
        let other = Told::of(Record { node: node(by), ..told.record.clone() }, Model::default());
        let mut forked = here.clone();
        other.push(&mut forked).unwrap();
        prop_assert!(story.get(n + 1).is_none_or(|next| refused(&forked, next)));
        for seq in [0, told.record.seq.0 - 1, told.record.seq.0 + 1] {
            let elsewhere = Record { seq: Seq(seq), ..told.record.clone() };
            prop_assert_eq!(here.clone().apply(&elsewhere, told.digest), Err(FoldError::Number { found: Seq(seq) }));
        }
        // Written under an older permit: with its own term, and with the term that it should have.
        let holders: Vec<RoleHolder> = (0..=n).filter_map(|m| before(&story, m).state.holder).collect();
        let newest = after.state.holder.clone().unwrap();
        for old in holders.iter().filter(|holder| holder.takeover != newest.takeover) {
            for term in [old.term, newest.term] {
                let mut late = next(&after, by, snapshot(1));
                (late.takeover, late.term) = (Some(old.takeover), term);
                prop_assert!(refused(&after, &Told::of(late, Model::default())));
            }
        }
        // Terms are counted one by one, by takeovers alone.
        for (body, steps) in [(takeover(), [0, 2, u64::MAX]), (snapshot(1), [1, 2, u64::MAX]), (RecordBody::Resume, [1, 2, u64::MAX])] {
            for step in steps {
                let mut record = next(&after, by, body.clone());
                record.takeover = record.takeover.filter(|_| !matches!(body, RecordBody::Resume));
                record.term = Term(after.term().0.wrapping_add(step));
                prop_assert!(refused(&after, &Told::of(record, Model::default())), "{body:?} {step}");
            }
        }
        // Work without any permit, and of another role.
        let free = Record { takeover: None, ..next(&after, by, snapshot(1)) };
        prop_assert!(refused(&after, &Told::of(free, Model::default())));
        let foreign = Record { role: "db".parse().unwrap(), ..next(&after, by, takeover()) };
        prop_assert!(refused(&after, &Told::of(foreign, Model::default())));
    }
}

fn ids(story: &[Told]) -> BTreeMap<u64, Digest> {
    story.iter().map(|told| (told.record.seq.0, told.digest)).collect()
}

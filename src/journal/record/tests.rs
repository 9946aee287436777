//! Any record there can be is written and read back, and no changed one passes.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::ids::{ChunkId, ClusterId, IndexId, KeyId, Mac, NodeId, PackId, SourceMark};
use crate::journal::body::{
    AmendBody, BeginBody, ChangeCounts, CloneBody, EndBody, LostTail, PauseBody, PruneBody, RunCost, SnapshotBody,
    SweepBody, TakeoverBody, TakeoverReason,
};
use crate::journal::repair_history::RepairEntry;
use crate::journal::rotation::{RotateBody, RotationState};
use crate::journal::state::{CommandEnd, CondemnedObjects, JournalPause, RoleHolder, Snapshot};
use crate::repo::crypto::Cipher;
use crate::repo::crypto::tests::keys;
use crate::role::slot_commits::ScheduleInForce;

fn id<const N: usize, T: std::fmt::Debug>(of: fn([u8; N]) -> T) -> impl Strategy<Value = T> {
    any::<[u8; N]>().prop_map(of)
}

fn time() -> impl Strategy<Value = Timestamp> {
    (-4_000_000_000..8_000_000_000i64, 0..1_000_000_000i32).prop_map(|(s, ns)| Timestamp::new(s, ns).unwrap())
}

fn node() -> impl Strategy<Value = WriterNode> {
    (id(NodeId), "(?s).{0,8}").prop_map(|(id, name)| WriterNode { id, name })
}

fn why() -> impl Strategy<Value = TakeoverReason> {
    use TakeoverReason::{Adopt, Fallback, First, Moved, Operator, Repair, Restart};
    prop::sample::select(vec![First, Moved, Restart, Operator, Fallback, Adopt, Repair])
}

fn changes() -> impl Strategy<Value = ChangeCounts> {
    any::<[u64; 5]>().prop_map(|[new, changed, unchanged, removed, unreadable]| ChangeCounts {
        new,
        changed,
        unchanged,
        removed,
        unreadable,
    })
}

fn cost() -> impl Strategy<Value = RunCost> {
    any::<[u64; 4]>().prop_map(|[read_bytes, new_bytes, uploaded_bytes, duration_ms]| RunCost {
        read_bytes,
        new_bytes,
        uploaded_bytes,
        duration_ms,
    })
}

/// What a later version may say: floating point is left out, because two spellings of one number are no damage.
fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(".{0,4}", inner, 0..4).prop_map(|map| json!(map)),
        ]
    })
}

fn snapshot_body() -> impl Strategy<Value = SnapshotBody> {
    let empty = of(vec(id(SourceMark), 0..3));
    let parts = (id(ChunkId), vec(id(IndexId), 0..3), any::<[u64; 3]>(), changes(), id(ChunkId), cost(), empty);
    parts.prop_map(|(root, indexes, [entries, files, bytes], changes, changed_set, cost, empty)| SnapshotBody {
        root,
        indexes,
        entries,
        files,
        bytes,
        changes,
        changed_set,
        cost,
        empty,
    })
}

fn void() -> impl Strategy<Value = Vec<Seq>> {
    vec(1..u64::MAX, 0..3).prop_map(|seqs| seqs.into_iter().map(Seq).collect())
}

fn lost() -> impl Strategy<Value = LostTail> {
    (any::<(u64, u64)>(), id(Digest)).prop_map(|((from, to), digest)| LostTail { from: Seq(from), to: Seq(to), digest })
}

fn end() -> impl Strategy<Value = EndBody> {
    let parts = (any::<(u8, bool, u64)>(), of(any::<u8>()), any::<bool>());
    parts.prop_map(|((exit, stopped, duration_ms), signal, timed_out)| EndBody {
        exit,
        stopped,
        duration_ms,
        signal,
        timed_out,
    })
}

fn body() -> impl Strategy<Value = RecordBody> {
    prop_oneof![
        (why(), of(id(ClusterId)), any::<bool>(), void(), of(lost())).prop_map(|(why, cluster, forced, void, lost)| {
            RecordBody::Takeover(TakeoverBody { why, cluster, forced, void, lost })
        }),
        snapshot_body().prop_map(RecordBody::Snapshot),
        Just(RecordBody::Begin(BeginBody {})),
        end().prop_map(RecordBody::End),
        id(InstanceId).prop_map(|other| RecordBody::Clone(CloneBody { other })),
        (of(time()), of("(?s).{0,9}")).prop_map(|(until, why)| RecordBody::Pause(PauseBody { until, why })),
        Just(RecordBody::Resume),
        Just(RecordBody::Amend(AmendBody {})),
        (vec(id(Digest), 0..3), vec(id(IndexId), 0..3), vec(id(PackId), 0..3), vec(id(IndexId), 0..2)).prop_map(
            |(forgotten, indexes, packs, strays)| RecordBody::Prune(PruneBody { forgotten, indexes, packs, strays })
        ),
        vec(1..u64::MAX, 0..3)
            .prop_map(|prunes| RecordBody::Swept(SweepBody { prunes: prunes.into_iter().map(Seq).collect() })),
        (1..u16::MAX, vec(id(KeyId), 0..3), id(Mac)).prop_map(|(generation, slots, proof)| {
            RecordBody::Rotate(RotateBody { generation: KeyGeneration(generation), slots, proof })
        }),
        ("later_[a-z]{0,5}", json()).prop_map(|(kind, body)| RecordBody::Unknown { kind, body }),
    ]
}

fn state() -> impl Strategy<Value = JournalState> {
    let command = (any::<u64>(), node(), time(), time(), end());
    let command = command.prop_map(|(seq, node, time, slot, end)| CommandEnd { seq: Seq(seq), node, time, slot, end });
    let holder =
        (any::<u64>(), id(Digest), any::<u64>(), node(), id(InstanceId), time(), why(), of((command, time(), time())));
    let holder = holder.prop_map(|(term, takeover, seq, node, instance, time, why, given)| RoleHolder {
        term: Term(term),
        takeover,
        seq: Seq(seq),
        node,
        instance,
        time,
        why,
        store_time: given.as_ref().map(|(_, store_time, _)| *store_time),
        handed_over: given.as_ref().map(|(_, _, handed_over)| *handed_over),
        command: given.map(|(command, _, _)| command),
    });
    let snapshot = (id(Digest), any::<(u64, u64)>(), node(), time(), of(time()), snapshot_body());
    let snapshot = snapshot.prop_map(|(id, (seq, term), node, time, slot, body)| Snapshot {
        id,
        seq: Seq(seq),
        term: Term(term),
        node,
        time,
        slot,
        root: body.root,
        entries: body.entries,
        files: body.files,
        bytes: body.bytes,
        changes: body.changes,
        cost: body.cost,
        empty: body.empty,
    });
    let paused = (node(), time(), of(time()), of(".{0,9}"));
    let paused = paused.prop_map(|(node, time, until, why)| JournalPause { node, time, until, why });
    let condemned = (any::<u64>(), time(), vec(id(PackId), 0..3), vec(id(IndexId), 0..3));
    let condemned =
        condemned.prop_map(|(seq, time, packs, indexes)| CondemnedObjects { seq: Seq(seq), time, packs, indexes });
    let repaired = (any::<(u64, u64)>(), void(), of(lost()));
    let repaired =
        repaired.prop_map(|((seq, term), void, lost)| RepairEntry { seq: Seq(seq), term: Term(term), void, lost });
    let lists = (vec(snapshot, 0..3), vec(id(IndexId), 0..3), vec(condemned, 0..3), vec(repaired, 0..2));
    let sets =
        (prop::collection::btree_set(id(NodeId), 0..3), prop::collection::btree_set(time(), 0..3), vec(time(), 0..3));
    let schedule = (id(ScheduleId), of(time())).prop_map(|(id, since)| ScheduleInForce { id, since });
    let single = (of(holder), of(time()), of(paused), of(id(ClusterId)), of(time()), of(schedule));
    // Words of a later version: none of this one's begins so.
    let unknown = prop::collection::btree_map("later_[a-z]{1,4}", json(), 0..2);
    let rotated = any::<(u16, u64)>()
        .prop_map(|(generation, seq)| RotationState { generation: KeyGeneration(generation), seq: Seq(seq) });
    let amends = (of(time()), vec(time(), 0..3), of(rotated));
    (lists, sets, single, amends, unknown).prop_map(|(lists, sets, single, amends, unknown)| {
        let (snapshots, indexes, condemned, repaired) = lists;
        let (clones, past_slots, command_slots) = sets;
        let (amended, amended_slots, rotated) = amends;
        let (command_slots, amended_slots) = (command_slots.into(), Vec::into(amended_slots));
        let (holder, last_slot, paused, cluster, pruned, schedule) = single;
        let unknown: BTreeMap<String, Value> = unknown;
        JournalState {
            holder,
            last_slot,
            snapshots,
            indexes,
            paused,
            clones,
            cluster,
            condemned,
            pruned,
            past_slots,
            command_slots,
            schedule,
            repaired,
            amended,
            amended_slots,
            rotated,
            unknown,
        }
    })
}

prop_compose! {
    fn records()(
        numbers in (1..=Seq::MAX.0, any::<u64>()), of_whom in (node(), id(InstanceId), id(RepoId)),
        times in (time(), of(time()), of(time()), of(time())), links in (of(id(Digest)), of(id(Digest))),
        body in body(), state in of(state()), schedule in of(id(ScheduleId)),
    ) -> Record {
        let ((seq, term), (node, instance, repo)) = (numbers, of_whom);
        let ((time, store_time, slot, last_slot), (takeover, prev)) = (times, links);
        let role = "app".parse().unwrap();
        Record {
            role, repo, seq: Seq(seq), term: Term(term), takeover, node, instance, time, store_time, slot, last_slot,
            schedule, prev, body, state, generation: KeyGeneration::FIRST,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_record_reads_back_and_no_changed_one_passes(record in records(), at: prop::sample::Index, bit in 0..8u8) {
        let keys = keys(Cipher::None);
        let object = record.encode(&keys);
        prop_assert_eq!(object.split(|byte| *byte == b'\n').count(), 3, "two lines, whatever was typed");
        prop_assert_eq!(&Record::decode(&object, Some(&keys)), &Ok(record.clone()));
        prop_assert_eq!(&Record::decode(&object, None), &Ok(record));
        let at = at.index(object.len());
        let mut flipped = object.clone();
        flipped[at] ^= 1 << bit;
        let doubled = [&object[..], &object[..]].concat();
        for damaged in [&flipped[..], &object[..at], &doubled, &[&object[..], b"\n"].concat()] {
            prop_assert!(Record::decode(damaged, Some(&keys)).is_err());
            // Without a key the shape is all there is to see; what has it is written again as it is.
            if let Ok(other) = Record::decode(damaged, None) {
                prop_assert_eq!(&Record::decode(&other.encode(&keys), Some(&keys)), &Ok(other));
            }
        }
    }
}

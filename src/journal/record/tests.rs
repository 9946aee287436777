//! Any record there can be is written and read back, and no changed one passes.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::ids::{KeyId, Mac};
use crate::journal::repaired::Repaired;
use crate::journal::rotation::Rotated;
use crate::journal::state::{CommandEnd, Condemned, Holder, Paused, Snapshot};
use crate::repo::crypto::Cipher;
use crate::repo::crypto::tests::keys;
use crate::role::commits::ScheduleInForce;

fn id<const N: usize, T: std::fmt::Debug>(of: fn([u8; N]) -> T) -> impl Strategy<Value = T> {
    any::<[u8; N]>().prop_map(of)
}

fn time() -> impl Strategy<Value = Timestamp> {
    (-4_000_000_000..8_000_000_000i64, 0..1_000_000_000i32).prop_map(|(s, ns)| Timestamp::new(s, ns).unwrap())
}

fn node() -> impl Strategy<Value = NodeRef> {
    (id(NodeId), "(?s).{0,8}").prop_map(|(id, name)| NodeRef { id, name })
}

fn why() -> impl Strategy<Value = TakeoverWhy> {
    use TakeoverWhy::{Adopt, Fallback, First, Moved, Operator, Repair, Restart};
    prop::sample::select(vec![First, Moved, Restart, Operator, Fallback, Adopt, Repair])
}

fn changes() -> impl Strategy<Value = Changes> {
    any::<[u64; 5]>().prop_map(|[new, changed, unchanged, removed, unreadable]| Changes {
        new,
        changed,
        unchanged,
        removed,
        unreadable,
    })
}

fn cost() -> impl Strategy<Value = Cost> {
    any::<[u64; 4]>().prop_map(|[read_bytes, new_bytes, uploaded_bytes, duration_ms]| Cost {
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

fn lost() -> impl Strategy<Value = LostEnd> {
    (any::<(u64, u64)>(), id(Digest)).prop_map(|((from, to), digest)| LostEnd { from: Seq(from), to: Seq(to), digest })
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

fn body() -> impl Strategy<Value = Body> {
    prop_oneof![
        (why(), of(id(ClusterId)), any::<bool>(), void(), of(lost())).prop_map(|(why, cluster, forced, void, lost)| {
            Body::Takeover(Takeover { why, cluster, forced, void, lost })
        }),
        snapshot_body().prop_map(Body::Snapshot),
        Just(Body::Begin(BeginBody {})),
        end().prop_map(Body::End),
        id(InstanceId).prop_map(|other| Body::Clone(CloneBody { other })),
        (of(time()), of("(?s).{0,9}")).prop_map(|(until, why)| Body::Pause(PauseBody { until, why })),
        Just(Body::Resume),
        Just(Body::Amend(AmendBody {})),
        (vec(id(Digest), 0..3), vec(id(IndexId), 0..3), vec(id(PackId), 0..3), vec(id(IndexId), 0..2)).prop_map(
            |(forgotten, indexes, packs, strays)| Body::Prune(PruneBody { forgotten, indexes, packs, strays })
        ),
        vec(1..u64::MAX, 0..3)
            .prop_map(|prunes| Body::Swept(SweptBody { prunes: prunes.into_iter().map(Seq).collect() })),
        (1..u16::MAX, vec(id(KeyId), 0..3), id(Mac)).prop_map(|(generation, slots, proof)| {
            Body::Rotate(RotateBody { generation: Generation(generation), slots, proof })
        }),
        ("later_[a-z]{0,5}", json()).prop_map(|(kind, body)| Body::Unknown { kind, body }),
    ]
}

fn state() -> impl Strategy<Value = State> {
    let command = (any::<u64>(), node(), time(), time(), end());
    let command = command.prop_map(|(seq, node, time, slot, end)| CommandEnd { seq: Seq(seq), node, time, slot, end });
    let holder =
        (any::<u64>(), id(Digest), any::<u64>(), node(), id(InstanceId), time(), why(), of((command, time(), time())));
    let holder = holder.prop_map(|(term, takeover, seq, node, instance, time, why, given)| Holder {
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
    let paused = paused.prop_map(|(node, time, until, why)| Paused { node, time, until, why });
    let condemned = (any::<u64>(), time(), vec(id(PackId), 0..3), vec(id(IndexId), 0..3));
    let condemned = condemned.prop_map(|(seq, time, packs, indexes)| Condemned { seq: Seq(seq), time, packs, indexes });
    let repaired = (any::<(u64, u64)>(), void(), of(lost()));
    let repaired =
        repaired.prop_map(|((seq, term), void, lost)| Repaired { seq: Seq(seq), term: Term(term), void, lost });
    let lists = (vec(snapshot, 0..3), vec(id(IndexId), 0..3), vec(condemned, 0..3), vec(repaired, 0..2));
    let sets =
        (prop::collection::btree_set(id(NodeId), 0..3), prop::collection::btree_set(time(), 0..3), vec(time(), 0..3));
    let schedule = (id(ScheduleId), of(time())).prop_map(|(id, since)| ScheduleInForce { id, since });
    let single = (of(holder), of(time()), of(paused), of(id(ClusterId)), of(time()), of(schedule));
    // Words of a later version: none of this one's begins so.
    let unknown = prop::collection::btree_map("later_[a-z]{1,4}", json(), 0..2);
    let rotated =
        any::<(u16, u64)>().prop_map(|(generation, seq)| Rotated { generation: Generation(generation), seq: Seq(seq) });
    let amends = (of(time()), vec(time(), 0..3), of(rotated));
    (lists, sets, single, amends, unknown).prop_map(|(lists, sets, single, amends, unknown)| {
        let (snapshots, indexes, condemned, repaired) = lists;
        let (clones, past_slots, command_slots) = sets;
        let (amended, amended_slots, rotated) = amends;
        let (command_slots, amended_slots) = (command_slots.into(), Vec::into(amended_slots));
        let (holder, last_slot, paused, cluster, pruned, schedule) = single;
        let unknown: BTreeMap<String, Value> = unknown;
        State {
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
        Record { role, repo, seq: Seq(seq), term: Term(term), takeover, node, instance, time, store_time, slot, last_slot, schedule, prev, body, state, generation: Generation::FIRST }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_record_reads_back_and_no_changed_one_passes(record in records(), at: prop::sample::Index, bit in 0..8u8) {
        let keys = keys(Cipher::None);
        let object = record.encode(&keys);
        prop_assert_eq!(object.split(|byte| *byte == b'\n').count(), 3, "two lines, whatever somebody typed");
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

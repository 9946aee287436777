//! The keys of a role's objects in the store. All of them begin with the role's own prefix. Pure.

use crate::ids::{IndexId, KeyId, NodeId, PackId, RoleName, Seq};

/// The key of the `format` object, which describes the repository; written once, unless `repair` replaces an unreadable
/// one.
pub fn format(role: &RoleName) -> String {
    format!("{role}/format")
}

/// The key of a key slot: one wrapped copy of the repository key.
pub fn key(role: &RoleName, id: KeyId) -> String {
    format!("{role}/keys/{id}")
}

/// The prefix of the key slots.
pub fn keys_prefix(role: &RoleName) -> String {
    format!("{role}/keys/")
}

/// The key of a key slot of a rotation that is not finished. Readers do not look for slots here.
pub fn staged_key(role: &RoleName, id: KeyId) -> String {
    format!("{}{id}", staged_keys_prefix(role))
}

/// The prefix of the staged key slots.
pub fn staged_keys_prefix(role: &RoleName) -> String {
    format!("{role}/rotate/")
}

/// The key of the copy of a rotation's record, which has this number in the journal.
pub fn rotation(role: &RoleName, seq: Seq) -> String {
    format!("{}{:016}", rotations_prefix(role), seq.0)
}

/// The record number in the key of such a copy; `None` for any other key.
pub fn parse_rotation(role: &RoleName, key: &str) -> Option<Seq> {
    parse_seq(&rotations_prefix(role), key)
}

/// The prefix of the copies of rotation records.
pub fn rotations_prefix(role: &RoleName) -> String {
    format!("{role}/rotated/")
}

/// Whether a key, or a prefix, is below the role's `live/`, where its nodes publish their status.
pub fn is_live(key: &str) -> bool {
    key.split_once('/').is_some_and(|(_, rest)| rest.starts_with("live/"))
}

/// The key of a journal record. The number has sixteen decimal digits, so that a listing is in order.
pub fn record(role: &RoleName, seq: Seq) -> String {
    format!("{role}/journal/{:016}", seq.0)
}

/// The record number in a journal record's key; `None` for any other key.
pub fn parse_record(role: &RoleName, key: &str) -> Option<Seq> {
    parse_seq(&journal_prefix(role), key)
}

/// The number of sixteen digits that follows this prefix in a key.
fn parse_seq(prefix: &str, key: &str) -> Option<Seq> {
    let digits = key.strip_prefix(prefix)?;
    let seq = Seq(digits.parse().ok()?);
    (seq <= Seq::MAX && format!("{:016}", seq.0) == digits).then_some(seq)
}

/// The prefix of the journal.
pub fn journal_prefix(role: &RoleName) -> String {
    format!("{role}/journal/")
}

/// The key of a pack, grouped by the first byte of its ID.
pub fn pack(role: &RoleName, id: PackId) -> String {
    let id = id.to_string();
    format!("{role}/packs/{}/{id}", &id[..2])
}

/// The prefix of the packs.
pub fn packs_prefix(role: &RoleName) -> String {
    format!("{role}/packs/")
}

/// The pack ID in a pack's key; `None` for any other key.
pub fn parse_pack(role: &RoleName, key: &str) -> Option<PackId> {
    let rest = key.strip_prefix(&packs_prefix(role))?;
    let id = rest.split_once('/')?.1.parse().ok()?;
    (pack(role, id) == key).then_some(id)
}

/// The key of an index object.
pub fn index(role: &RoleName, id: IndexId) -> String {
    format!("{role}/index/{id}")
}

/// The ID in an index object's key; `None` for any other key.
pub fn parse_index(role: &RoleName, key: &str) -> Option<IndexId> {
    let id = key.strip_prefix(&index_prefix(role))?.parse().ok()?;
    (index(role, id) == key).then_some(id)
}

/// The prefix of the index objects.
pub fn index_prefix(role: &RoleName) -> String {
    format!("{role}/index/")
}

/// The prefix of the only keys that normal work overwrites: probe objects, leases, heartbeats, node status, the
/// reserve, the note on losses.
pub fn live_prefix(role: &RoleName) -> String {
    format!("{role}/live/")
}

/// The probe key for the store's conditional puts.
pub fn probe(role: &RoleName) -> String {
    format!("{role}/live/probe")
}

/// The key of the role's lease, if the lease is in the bucket.
pub fn lease(role: &RoleName) -> String {
    format!("{role}/live/lease")
}

/// The key of the heartbeat that a node without a lease updates while it works.
pub fn beat(role: &RoleName) -> String {
    format!("{role}/live/beat")
}

/// The key of a node's status.
pub fn node(role: &RoleName, node: NodeId) -> String {
    format!("{role}/live/nodes/{node}")
}

/// The prefix of the nodes' status.
pub fn nodes_prefix(role: &RoleName) -> String {
    format!("{role}/live/nodes/")
}

/// The key of the losses that readers found, for the next run.
pub fn loss(role: &RoleName) -> String {
    format!("{role}/live/loss")
}

/// The probe key for the store's compare-and-set.
pub fn lease_probe(role: &RoleName) -> String {
    format!("{role}/live/lease-probe")
}

/// The key of the space reserve for a prune, in a store on a disk.
pub fn reserve(role: &RoleName) -> String {
    format!("{role}/live/reserve")
}

/// The key that a prune writes to find out whether there is free space.
pub fn room_probe(role: &RoleName) -> String {
    format!("{role}/live/room")
}

/// The prefix of all objects of a role.
pub fn role_prefix(role: &RoleName) -> String {
    format!("{role}/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pack_names_are_recognised_and_nothing_else() {
        let role: RoleName = "app".parse().unwrap();
        let id = PackId([0xab; 16]);
        assert_eq!(parse_pack(&role, &pack(&role, id)), Some(id));
        assert_eq!(parse_pack(&role, &format!("app/packs/00/{id}")), None);
        assert_eq!(parse_pack(&role, "app/packs/ab/x"), None);
        assert_eq!(record(&role, Seq(7)), "app/journal/0000000000000007");
    }

    #[test]
    fn a_record_has_sixteen_digits_and_nothing_else() {
        let role: RoleName = "app".parse().unwrap();
        assert_eq!(parse_record(&role, "app/journal/0000000000000007"), Some(Seq(7)));
        for stray in [
            "18446744073709551615",
            "10000000000000000",
            "7",
            "0000000000000007.bak",
            "00000000000000007",
            "+000000000000007",
            "notes",
            "",
        ] {
            assert_eq!(parse_record(&role, &format!("app/journal/{stray}")), None, "{stray}");
        }
        assert_eq!(parse_record(&role, "db/journal/0000000000000007"), None);
    }

    #[test]
    fn what_nodes_tell_each_other_is_live() {
        let role = "app".parse().unwrap();
        for key in [lease(&role), beat(&role), probe(&role), lease_probe(&role)] {
            assert!(is_live(&key), "{key}");
        }
        for key in [format(&role), record(&role, Seq(7)), packs_prefix(&role)] {
            assert!(!is_live(&key), "{key}");
        }
    }
}

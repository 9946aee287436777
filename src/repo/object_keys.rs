//! Key names: where in the store each object of a role is. All are below the role's own prefix.

use crate::ids::{IndexId, KeyId, NodeId, PackId, RoleName, Seq};

/// What the repository is and how it is read; written once.
pub fn format(role: &RoleName) -> String {
    format!("{role}/format")
}

/// One wrapped copy of the repository key.
pub fn key(role: &RoleName, id: KeyId) -> String {
    format!("{role}/keys/{id}")
}

/// Where the wrapped keys are.
pub fn keys_prefix(role: &RoleName) -> String {
    format!("{role}/keys/")
}

/// A key slot of a rotation that is not finished. No reader looks for slots here.
pub fn staged_key(role: &RoleName, id: KeyId) -> String {
    format!("{}{id}", staged_keys_prefix(role))
}

/// Where those are.
pub fn staged_keys_prefix(role: &RoleName) -> String {
    format!("{role}/rotate/")
}

/// A copy of the record of a rotation, which has this number in the journal.
pub fn rotation(role: &RoleName, seq: Seq) -> String {
    format!("{}{:016}", rotations_prefix(role), seq.0)
}

/// The number that a listed key names, if it is one of those.
pub fn parse_rotation(role: &RoleName, key: &str) -> Option<Seq> {
    parse_seq(&rotations_prefix(role), key)
}

/// Where those are.
pub fn rotations_prefix(role: &RoleName) -> String {
    format!("{role}/rotated/")
}

/// Whether a key, or a prefix, is below the part of a role in which its nodes tell each other how they are.
pub fn is_live(key: &str) -> bool {
    key.split_once('/').is_some_and(|(_, rest)| rest.starts_with("live/"))
}

/// One journal record: sixteen decimal digits, so that a listing is in order.
pub fn record(role: &RoleName, seq: Seq) -> String {
    format!("{role}/journal/{:016}", seq.0)
}

/// The record's number that a listed key names, if it is one.
pub fn parse_record(role: &RoleName, key: &str) -> Option<Seq> {
    parse_seq(&journal_prefix(role), key)
}

/// The number of sixteen digits that a listed key has after this prefix.
fn parse_seq(prefix: &str, key: &str) -> Option<Seq> {
    let digits = key.strip_prefix(prefix)?;
    let seq = Seq(digits.parse().ok()?);
    (seq <= Seq::MAX && format!("{:016}", seq.0) == digits).then_some(seq)
}

/// Where the journal is.
pub fn journal_prefix(role: &RoleName) -> String {
    format!("{role}/journal/")
}

/// One pack, under the first byte of its ID.
pub fn pack(role: &RoleName, id: PackId) -> String {
    let id = id.to_string();
    format!("{role}/packs/{}/{id}", &id[..2])
}

/// Where the packs are.
pub fn packs_prefix(role: &RoleName) -> String {
    format!("{role}/packs/")
}

/// The pack that a listed key names, if it is one.
pub fn parse_pack(role: &RoleName, key: &str) -> Option<PackId> {
    let rest = key.strip_prefix(&packs_prefix(role))?;
    let id = rest.split_once('/')?.1.parse().ok()?;
    (pack(role, id) == key).then_some(id)
}

/// One index object.
pub fn index(role: &RoleName, id: IndexId) -> String {
    format!("{role}/index/{id}")
}

/// The ID in an index object's key; `None` for any other key.
pub fn parse_index(role: &RoleName, key: &str) -> Option<IndexId> {
    let id = key.strip_prefix(&index_prefix(role))?.parse().ok()?;
    (index(role, id) == key).then_some(id)
}

/// Where the index objects are.
pub fn index_prefix(role: &RoleName) -> String {
    format!("{role}/index/")
}

/// The only keys that are ever overwritten: probes of the store's conditional puts, leases, beats, nodes.
pub fn live_prefix(role: &RoleName) -> String {
    format!("{role}/live/")
}

/// Where the store's conditional puts are proved.
pub fn probe(role: &RoleName) -> String {
    format!("{role}/live/probe")
}

/// The role's lease, where it is one in the bucket.
pub fn lease(role: &RoleName) -> String {
    format!("{role}/live/lease")
}

/// What changes while a node works without a lease.
pub fn beat(role: &RoleName) -> String {
    format!("{role}/live/beat")
}

/// What a node tells of itself.
pub fn node(role: &RoleName, node: NodeId) -> String {
    format!("{role}/live/nodes/{node}")
}

/// Where the nodes tell of themselves.
pub fn nodes_prefix(role: &RoleName) -> String {
    format!("{role}/live/nodes/")
}

/// What readers met that is lost, for the next run.
pub fn loss(role: &RoleName) -> String {
    format!("{role}/live/loss")
}

/// Where the store's compare-and-set is proved.
pub fn lease_probe(role: &RoleName) -> String {
    format!("{role}/live/lease-probe")
}

/// Room that is kept back for a prune in a store on a disk.
pub fn reserve(role: &RoleName) -> String {
    format!("{role}/live/reserve")
}

/// What a prune writes to find out whether there is room.
pub fn room_probe(role: &RoleName) -> String {
    format!("{role}/live/room")
}

/// Everything of a role.
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

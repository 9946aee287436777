//! Index objects of bounded size for the packs of a run.

use bytes::Bytes;

use crate::ids::IndexId;
use crate::job::error::BackupError;
use crate::job::node::context::NodeContext;
use crate::job::node::progress::JobProgress;
use crate::job::repository::open::Repository;
use crate::repo::index::{self, encode_index};
use crate::repo::object_keys;
use crate::repo::pack::PackTable;

/// Puts the index of these packs, in objects of bounded size.
pub(crate) async fn put_indexes(
    node_context: &NodeContext,
    repository: &Repository,
    packs: &[PackTable],
) -> Result<Vec<IndexId>, BackupError> {
    let mut ids = Vec::new();
    let mut rest = packs;
    while !rest.is_empty() {
        let (part, more) = rest.split_at(index::count_fitting_packs(rest));
        let id = IndexId(node_context.env.random_bytes());
        let object: Bytes = encode_index(&repository.keys, id, node_context.env.random_bytes(), part);
        JobProgress::add(&node_context.progress.bytes_uploaded, object.len() as u64);
        repository.store.put(&object_keys::index(repository.role(), id), object).await?;
        ids.push(id);
        rest = more;
    }
    Ok(ids)
}

/// Size in bytes of the index objects of these packs.
pub(crate) fn indexes_len(repository: &Repository, packs: &[PackTable]) -> u64 {
    let (mut bytes, mut rest) = (0, packs);
    while !rest.is_empty() {
        let (part, more) = rest.split_at(index::count_fitting_packs(rest));
        bytes += encode_index(&repository.keys, IndexId([0; IndexId::LEN]), Default::default(), part).len() as u64;
        rest = more;
    }
    bytes
}

//! Writes what the fuzz targets start from, into `seeds/`: one sound example of each thing that is decoded.

use std::error::Error;
use std::path::Path;

use jiff::Timestamp;
use runner::config::{ConfigEnvironment, Settings};
use runner::env::Env;
use runner::ids::{ChunkId, IndexId, InstanceId, NodeId, PackId, RepoId, Seq, Term};
use runner::journal::body::{
    ChangeCounts, RecordBody, RunCost, SnapshotBody, TakeoverBody, TakeoverReason, WriterNode,
};
use runner::journal::record::{Record, digest, is_checkpoint};
use runner::journal::view::JournalView;
use runner::repo::crypto::{Cipher, DerivedKeys, SealedPart};
use runner::repo::entry::{EntryKind, Extent, ManifestEntry, OwnerAndMode, TreePath, UnixNanos, Xattr};
use runner::repo::format::{ChunkerParams, JournalLocation, RepositoryFormat, VERSION};
use runner::repo::index::encode_index;
use runner::repo::keyring::{Keyring, RepositoryKey};
use runner::repo::keyslot::{KeySlot, SlotSecret};
use runner::repo::manifest::{ManifestChunkSink, ManifestWriter};
use runner::repo::pack::{ChunkEntry, FrameCompressor, PackBuilder, PackTable};

/// What the config that comes with the program leaves out.
const CONFIGS: [&str; 2] = [
    r#"[store]
url = "s3://bucket"
ca_file = "/c"
path_style = true
storage_class = "S"
sse = "aws:kms"
sse_kms_key_id = "k"
profile = "p"
encryption = "none"
journal = "bucket"
limit_upload = "1.5kB"
[role.a]
lease = "none"
eligible = { any = [{ vip = "::1", interface = "lo" }, { not = { command = ["t", ""], timeout = "1m30s" } }] }
sources = ["/r", "/s"]
exclude = ["!a"]
exclude_larger_than = "7"
every = "1h30m"
"#,
    r#"store = { url = "/b%/x", passphrase_file = "/p" }
role.a = { lease = "none", sources = ["/"] }
role."b.c" = { lease = "none", dumps."d" = { command = ["e"] }, key_file = "/k", takeover_trust = "mtime" }
"#,
];

type Failure = Box<dyn Error>;

fn main() -> Result<(), Failure> {
    let (repo, master) = (RepoId([7; 16]), Keyring::from(RepositoryKey::new([7; 32])));
    let keys = DerivedKeys::new(Cipher::None, repo, "app".parse()?, master.clone());
    let (journal, checkpoint) = records(&keys)?;
    write("record", "journal", &journal)?;
    write("record", "checkpoint", &checkpoint)?;
    let format = RepositoryFormat {
        v: VERSION,
        role: "app".parse()?,
        repo,
        created: Timestamp::UNIX_EPOCH,
        cipher: Cipher::None,
        journal: JournalLocation::Bucket,
        chunker: ChunkerParams::default(),
        clear_key: Some("07".repeat(32)),
    };
    write("format", "clear", &format.encode(&keys))?;
    let secret = SlotSecret::parse_key_file(&format!("runner-key-1:{}", "07".repeat(32)))?;
    let phrase = SlotSecret::parse_passphrase(b"correct horse")?;
    for (name, secret) in [("file", &secret), ("phrase", &phrase)] {
        let slot = KeySlot::wrap(secret, &master, repo, &Env::host()).ok_or("a secret that needs no slot")?;
        write("keyslot", name, &slot.encode())?;
    }
    let exported = SlotSecret::Exported(repo, master);
    for (name, secret) in [("file", secret), ("export", exported)] {
        write("secret", name, secret.to_key_file_text().ok_or("a secret without a text")?.as_bytes())?;
    }
    tables(&keys)?;
    let manifest = manifest();
    for (number, chunk) in manifest.iter().rev().enumerate() {
        write("manifest", &format!("chunk-{number}"), chunk)?;
    }
    // The larger one, as it is read: the root, then its segments in order.
    let mut walk = Vec::new();
    let [_, segments @ .., root] = &manifest[..] else { return Err("a manifest of one chunk".into()) };
    for chunk in std::iter::once(root).chain(segments) {
        walk.extend_from_slice(&u16::try_from(chunk.len())?.to_le_bytes());
        walk.extend_from_slice(chunk);
    }
    write("manifest", "walk", &walk)?;
    if let [b'S', block @ ..] = &manifest[0][..] {
        let entries = entries().len();
        let mut block = block.to_vec();
        block.extend(std::iter::repeat_n(0, entries));
        write("cache", "block", &block)?;
    }
    for (number, text) in CONFIGS.iter().enumerate() {
        Settings::parse(&[("/etc/runner.toml".into(), (*text).to_owned())], &ConfigEnvironment::default())?;
        write("config", &format!("keys-{number}"), text.as_bytes())?;
    }
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../config"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "toml") {
            let name = path.file_name().and_then(|n| n.to_str()).ok_or("a file without a name")?.to_owned();
            write("config", &name, &std::fs::read(path)?)?;
        }
    }
    Ok(())
}

fn write(target: &str, name: &str, bytes: &[u8]) -> Result<(), Failure> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
    std::fs::create_dir_all(&dir)?;
    Ok(std::fs::write(dir.join(name), bytes)?)
}

/// A journal of four records, and one of two that starts at a checkpoint.
fn records(keys: &DerivedKeys) -> Result<(Vec<u8>, Vec<u8>), Failure> {
    let mut view = JournalView::empty("app".parse()?, keys.repo());
    let snapshot = RecordBody::Snapshot(SnapshotBody {
        root: ChunkId([4; 32]),
        indexes: vec![IndexId([5; 16])],
        entries: 3,
        files: 2,
        bytes: 1000,
        changes: ChangeCounts::default(),
        changed_set: ChunkId([6; 32]),
        cost: RunCost::default(),
        empty: None,
    });
    let point = RecordBody::Unknown { kind: "point".to_owned(), body: true.into() };
    let takeover = |why| RecordBody::Takeover(TakeoverBody::new(why));
    let first = [takeover(TakeoverReason::First), snapshot.clone(), point, takeover(TakeoverReason::Moved)];
    let journal = continued(&mut view, first, keys)?;
    if let Some(head) = &mut view.head {
        head.seq = Seq(63);
    }
    let checkpoint = continued(&mut view, [snapshot, takeover(TakeoverReason::Restart)], keys)?;
    Ok((journal, checkpoint))
}

/// The records with these bodies, as they continue `view`.
fn continued(
    view: &mut JournalView,
    bodies: impl IntoIterator<Item = RecordBody>,
    keys: &DerivedKeys,
) -> Result<Vec<u8>, Failure> {
    let mut all = Vec::new();
    for body in bodies {
        let takes_over = matches!(body, RecordBody::Takeover(_));
        let record = Record {
            role: view.role.clone(),
            repo: view.repo,
            seq: view.next_seq(),
            term: Term(view.term().0 + u64::from(takes_over)),
            takeover: view.state.holder.as_ref().map(|h| h.takeover).filter(|_| !takes_over),
            node: WriterNode { id: NodeId([1; 16]), name: "east".to_owned() },
            instance: InstanceId([2; 8]),
            time: Timestamp::UNIX_EPOCH,
            store_time: Some(Timestamp::UNIX_EPOCH),
            slot: (!takes_over).then_some(Timestamp::UNIX_EPOCH),
            last_slot: view.state.last_slot,
            schedule: None,
            prev: view.head.as_ref().map(|h| h.digest),
            body,
            state: is_checkpoint(view.next_seq(), &view.state).then(|| view.state.clone()),
            generation: view.generation(),
        };
        let object = record.encode(keys);
        view.apply(&record, digest(&object))?;
        all.extend(object);
    }
    Ok(all)
}

fn tables(keys: &DerivedKeys) -> Result<(), Failure> {
    let (id, salt) = (PackId([5; 16]), [6; 32]);
    let mut pack = PackBuilder::new(keys, id, salt);
    let mut compressor = FrameCompressor::default();
    for text in ["one one one one one one one one one", "two"] {
        let chunk = ChunkEntry { id: keys.chunk_id(text.as_bytes()), len: text.len() as u32 };
        pack.push(compressor.pack(text.as_bytes(), vec![chunk]));
    }
    let (_, table): (_, PackTable) = pack.finish();
    let index = IndexId([4; 16]);
    let object = encode_index(keys, index, salt, std::slice::from_ref(&table));
    let plain = keys.object_sealer(index.0, salt).open(SealedPart::Index, &object[40..])?;
    write("index", "two-frames", &plain)?;
    // A count of packs, the pack's ID and its salt stand before the table.
    write("trailer", "two-frames", &plain[1 + 16 + 32..])
}

fn entries() -> Vec<ManifestEntry> {
    let chunk = ChunkId([9; 32]);
    let kinds = [
        ("a", EntryKind::Dir),
        ("a/block", EntryKind::BlockDevice { major: 8, minor: 1 }),
        ("a/char", EntryKind::CharDevice { major: 1, minor: 3 }),
        ("a/fifo", EntryKind::Fifo),
        ("a/file", EntryKind::File { size: 5, extents: None, chunks: vec![chunk] }),
        ("a/link", EntryKind::Hardlink { target: TreePath::new("a/file").unwrap_or_default() }),
        (
            "a/sparse",
            EntryKind::File { size: 9000, extents: Some(vec![Extent { offset: 4096, len: 5 }]), chunks: vec![chunk] },
        ),
        ("a/symlink", EntryKind::Symlink { target: b"file".to_vec() }),
    ];
    let entry = |(path, kind)| ManifestEntry {
        path: TreePath::new(path).unwrap_or_default(),
        kind,
        owner: OwnerAndMode { mode: 0o644, uid: 1, gid: 2, user: "u".into(), group: "".into() },
        mtime: UnixNanos(1_700_000_000_123_456_789),
        xattrs: vec![Xattr { name: b"user.x".to_vec(), value: b"y".to_vec() }],
    };
    kinds.into_iter().map(entry).collect()
}

/// Chunks of a manifest of more than one segment, in the order in which they are written.
fn manifest() -> Vec<Vec<u8>> {
    struct Chunks(Vec<Vec<u8>>);
    impl ManifestChunkSink for Chunks {
        type Error = std::convert::Infallible;
        fn put(&mut self, bytes: Vec<u8>) -> Result<ChunkId, Self::Error> {
            let id = ChunkId(*blake3::hash(&bytes).as_bytes());
            self.0.push(bytes);
            Ok(id)
        }
    }
    let mut all = Vec::new();
    for more in [0, 300] {
        let mut writer = ManifestWriter::new(Chunks(Vec::new()));
        let numbered = (0..more).filter_map(|n| TreePath::new(format!("b/{n:04}")));
        let more = numbered.map(|path| ManifestEntry { path, kind: EntryKind::Dir, ..entries()[0].clone() });
        for entry in entries().into_iter().chain(more) {
            let Ok(()) = writer.push(entry);
        }
        let Ok((_, _, chunks)) = writer.finish();
        all.extend(chunks.0);
    }
    all
}

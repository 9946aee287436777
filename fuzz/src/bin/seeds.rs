//! Writes what the fuzz targets start from, into `seeds/`: one sound example of each thing that is decoded.

use std::error::Error;
use std::path::Path;

use jiff::Timestamp;
use runner::config::{Host, Settings};
use runner::env::Env;
use runner::ids::{ChunkId, IndexId, InstanceId, NodeId, PackId, RepoId, Seq, Term};
use runner::journal::body::SnapshotBody;
use runner::journal::record::{Body, Changes, Cost, NodeRef, Record, Takeover, TakeoverWhy, digest, is_checkpoint};
use runner::journal::state::View;
use runner::repo::crypto::{Cipher, Keys, Part};
use runner::repo::entry::{Entry, Extent, Kind, Nanos, Owner, TreePath, Xattr};
use runner::repo::format::{ChunkerParams, Format, JournalHome, VERSION};
use runner::repo::index::encode_index;
use runner::repo::keyring::{Keyring, RepositoryKey};
use runner::repo::keyslot::{KeySlot, Secret};
use runner::repo::manifest::{ManifestWriter, NodeSink};
use runner::repo::pack::{ChunkEntry, Compressor, PackBuilder, PackTable};

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
    let keys = Keys::new(Cipher::None, repo, "app".parse()?, master.clone());
    let (journal, checkpoint) = records(&keys)?;
    write("record", "journal", &journal)?;
    write("record", "checkpoint", &checkpoint)?;
    let format = Format {
        v: VERSION,
        role: "app".parse()?,
        repo,
        created: Timestamp::UNIX_EPOCH,
        cipher: Cipher::None,
        journal: JournalHome::Bucket,
        chunker: ChunkerParams::default(),
        clear_key: Some("07".repeat(32)),
    };
    write("format", "clear", &format.encode(&keys))?;
    let secret = Secret::parse_key_file(&format!("runner-key-1:{}", "07".repeat(32)))?;
    let phrase = Secret::parse_passphrase(b"correct horse")?;
    for (name, secret) in [("file", &secret), ("phrase", &phrase)] {
        let slot = KeySlot::wrap(secret, &master, repo, &Env::host()).ok_or("a secret that needs no slot")?;
        write("keyslot", name, &slot.encode())?;
    }
    let exported = Secret::Exported(repo, master);
    for (name, secret) in [("file", secret), ("export", exported)] {
        write("secret", name, secret.to_text().ok_or("a secret without a text")?.as_bytes())?;
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
        Settings::parse(&[("/etc/runner.toml".into(), (*text).to_owned())], &Host::default())?;
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
fn records(keys: &Keys) -> Result<(Vec<u8>, Vec<u8>), Failure> {
    let mut view = View::empty("app".parse()?, keys.repo());
    let snapshot = Body::Snapshot(SnapshotBody {
        root: ChunkId([4; 32]),
        indexes: vec![IndexId([5; 16])],
        entries: 3,
        files: 2,
        bytes: 1000,
        changes: Changes::default(),
        changed_set: ChunkId([6; 32]),
        cost: Cost::default(),
    });
    let point = Body::Unknown { kind: "point".to_owned(), body: true.into() };
    let takeover = |why| Body::Takeover(Takeover::new(why));
    let first = [takeover(TakeoverWhy::First), snapshot.clone(), point, takeover(TakeoverWhy::Moved)];
    let journal = continued(&mut view, first, keys)?;
    if let Some(head) = &mut view.head {
        head.seq = Seq(63);
    }
    let checkpoint = continued(&mut view, [snapshot, takeover(TakeoverWhy::Restart)], keys)?;
    Ok((journal, checkpoint))
}

/// The records with these bodies, as they continue `view`.
fn continued(view: &mut View, bodies: impl IntoIterator<Item = Body>, keys: &Keys) -> Result<Vec<u8>, Failure> {
    let mut all = Vec::new();
    for body in bodies {
        let takes_over = matches!(body, Body::Takeover(_));
        let record = Record {
            role: view.role.clone(),
            repo: view.repo,
            seq: view.next_seq(),
            term: Term(view.term().0 + u64::from(takes_over)),
            takeover: view.state.holder.as_ref().map(|h| h.takeover).filter(|_| !takes_over),
            node: NodeRef { id: NodeId([1; 16]), name: "east".to_owned() },
            instance: InstanceId([2; 8]),
            time: Timestamp::UNIX_EPOCH,
            store_time: Some(Timestamp::UNIX_EPOCH),
            slot: (!takes_over).then_some(Timestamp::UNIX_EPOCH),
            last_slot: view.state.last_slot,
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

fn tables(keys: &Keys) -> Result<(), Failure> {
    let (id, salt) = (PackId([5; 16]), [6; 32]);
    let mut pack = PackBuilder::new(keys, id, salt);
    let mut compressor = Compressor::default();
    for text in ["one one one one one one one one one", "two"] {
        let chunk = ChunkEntry { id: keys.chunk_id(text.as_bytes()), len: text.len() as u32 };
        pack.push(compressor.pack(text.as_bytes(), vec![chunk]));
    }
    let (_, table): (_, PackTable) = pack.finish();
    let index = IndexId([4; 16]);
    let object = encode_index(keys, index, salt, std::slice::from_ref(&table));
    let plain = keys.object(index.0, salt).open(Part::Index, &object[40..])?;
    write("index", "two-frames", &plain)?;
    // A count of packs, the pack's ID and its salt stand before the table.
    write("trailer", "two-frames", &plain[1 + 16 + 32..])
}

fn entries() -> Vec<Entry> {
    let chunk = ChunkId([9; 32]);
    let kinds = [
        ("a", Kind::Dir),
        ("a/block", Kind::BlockDevice { major: 8, minor: 1 }),
        ("a/char", Kind::CharDevice { major: 1, minor: 3 }),
        ("a/fifo", Kind::Fifo),
        ("a/file", Kind::File { size: 5, extents: None, chunks: vec![chunk] }),
        ("a/link", Kind::Hardlink { target: TreePath::new("a/file").unwrap_or_default() }),
        (
            "a/sparse",
            Kind::File { size: 9000, extents: Some(vec![Extent { offset: 4096, len: 5 }]), chunks: vec![chunk] },
        ),
        ("a/symlink", Kind::Symlink { target: b"file".to_vec() }),
    ];
    let entry = |(path, kind)| Entry {
        path: TreePath::new(path).unwrap_or_default(),
        kind,
        owner: Owner { mode: 0o644, uid: 1, gid: 2, user: "u".into(), group: "".into() },
        mtime: Nanos(1_700_000_000_123_456_789),
        xattrs: vec![Xattr { name: b"user.x".to_vec(), value: b"y".to_vec() }],
    };
    kinds.into_iter().map(entry).collect()
}

/// Chunks of a manifest of more than one segment, in the order in which they are written.
fn manifest() -> Vec<Vec<u8>> {
    struct Chunks(Vec<Vec<u8>>);
    impl NodeSink for Chunks {
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
        let more = numbered.map(|path| Entry { path, kind: Kind::Dir, ..entries()[0].clone() });
        for entry in entries().into_iter().chain(more) {
            let Ok(()) = writer.push(entry);
        }
        let Ok((_, _, chunks)) = writer.finish();
        all.extend(chunks.0);
    }
    all
}

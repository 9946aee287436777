//! The examples of `docs/FORMAT.md` are what this program reads and writes.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use runner::env::{Env, RandomSource};
use runner::ids::{ChunkId, IndexId, InstanceId, KeyGeneration, Mac, NodeId, PackId, RepoId, Seq, Term};
use runner::journal::body::{RecordBody, TakeoverBody, TakeoverReason, WriterNode};
use runner::journal::record::{Record, digest};
use runner::journal::rotation::RotateBody;
use runner::repo::crypto::{Cipher, DerivedKeys, SealedPart};
use runner::repo::entry::{EntryKind, Extent, ManifestEntry, OwnerAndMode, TreePath, UnixNanos, Xattr};
use runner::repo::index::{decode_index, encode_index};
use runner::repo::keyring::{Keyring, RepositoryKey};
use runner::repo::keyslot::{KeySlot, SlotSecret};
use runner::repo::manifest::{ManifestChunkSink, ManifestNode, ManifestWriter, decode};
use runner::repo::pack::{
    ChunkEntry, FOOTER_LEN, FrameCompressor, PackBuilder, PackTable, open_frame, open_header, open_trailer, trailer_len,
};

fn master() -> Keyring {
    Keyring::from(RepositoryKey::new([9; 32]))
}

fn keys() -> DerivedKeys {
    DerivedKeys::new(Cipher::Aes256GcmSiv, RepoId([7; 16]), "app".parse().unwrap(), master())
}

/// The content of the document's block with this name.
fn block(name: &str) -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/FORMAT.md");
    let text = std::fs::read_to_string(path).unwrap();
    let start = ["hex", "json"].iter().find_map(|kind| text.find(&format!("```{kind} {name}\n")));
    let start = start.unwrap_or_else(|| panic!("the document has no block {name}"));
    let body = text[start..].split_once('\n').unwrap().1;
    body.split_once("```").unwrap().0.to_owned()
}

fn example(name: &str) -> Vec<u8> {
    hex::decode(block(name).split_whitespace().collect::<String>()).unwrap()
}

/// What the program writes is what stands in the document.
fn assert_example(name: &str, bytes: &[u8]) {
    let lines: Vec<String> = bytes.chunks(48).map(hex::encode).collect();
    assert_eq!(block(name).trim_end(), lines.join("\n"), "block {name}");
}

const CHUNKS: [&[&str]; 2] = [&["hello, hello, hello, hello, hello, hello, hello, hello", "world"], &["raw"]];

fn pack() -> (Bytes, PackTable) {
    let keys = keys();
    let mut pack = PackBuilder::new(&keys, PackId([5; 16]), [6; 32]);
    for texts in CHUNKS {
        let chunk = |text: &&str| ChunkEntry { id: keys.chunk_id(text.as_bytes()), len: text.len() as u32 };
        let chunks = texts.iter().map(chunk).collect();
        pack.push(FrameCompressor::default().pack(texts.concat().as_bytes(), chunks));
    }
    pack.finish()
}

#[test]
fn names_and_macs() {
    assert_example("chunk-id", &keys().chunk_id(b"content").0);
    assert_example("line-mac", &keys().line_mac(b"line"));
}

#[test]
fn a_pack() {
    // A later zstd may compress otherwise; then the example is written anew, after the old one was read.
    assert_example("pack", &pack().0);
    let (keys, object) = (keys(), example("pack"));
    let salt = open_header(&keys, &object).unwrap();
    let end = object.len() - FOOTER_LEN;
    let start = end - trailer_len(&object[end..]).unwrap();
    let table = open_trailer(&keys, PackId([5; 16]), salt, &object[start..end]).unwrap();
    assert_eq!(table.object_len(), object.len() as u64);
    let key = keys.object_sealer(table.id.0, salt);
    for (number, (offset, frame)) in (0..).zip(table.offsets().zip(&table.frames)) {
        let sealed = &object[offset as usize..][..frame.stored_len as usize];
        let content = open_frame(&key, number, sealed, frame.compressed, frame.raw_len() as usize).unwrap();
        assert_eq!(content, CHUNKS[number as usize].concat().as_bytes());
        assert_eq!(frame.compressed, number == 0);
    }
}

#[test]
fn an_index_object() {
    let (keys, id) = (keys(), IndexId([4; 16]));
    let (_, table) = pack();
    let object = encode_index(&keys, id, [8; 32], std::slice::from_ref(&table));
    assert_example("index", &object);
    assert_eq!(decode_index(&keys, id, &example("index")).unwrap(), [table]);
    assert!(keys.object_sealer(id.0, [8; 32]).open(SealedPart::Index, &object[40..]).is_ok());
}

fn entries() -> Vec<ManifestEntry> {
    let (chunks, path) = (vec![ChunkId([0xaa; 32])], |text: &str| TreePath::new(text).unwrap());
    let extents = Some(vec![Extent { offset: 4096, len: 5 }]);
    let kinds = [
        ("a", EntryKind::Dir),
        ("a/fifo", EntryKind::Fifo),
        ("a/file", EntryKind::File { size: 5, extents: None, chunks: chunks.clone() }),
        ("a/link", EntryKind::Hardlink { target: path("a/file") }),
        ("a/sparse", EntryKind::File { size: 9000, extents, chunks }),
        ("a/sym", EntryKind::Symlink { target: b"file".to_vec() }),
        ("b", EntryKind::BlockDevice { major: 8, minor: 1 }),
    ];
    let owner = OwnerAndMode { mode: 0o644, uid: 1, gid: 2, user: "u".into(), group: "".into() };
    let attribute = Xattr { name: b"user.x".to_vec(), value: b"y".to_vec() };
    let entry = |(n, (name, kind)): (i64, (&str, EntryKind))| ManifestEntry {
        path: path(name),
        xattrs: if name == "a/file" { vec![attribute.clone()] } else { Vec::new() },
        kind,
        owner: owner.clone(),
        mtime: UnixNanos::new(1_700_000_000 + n, 1),
    };
    (0..).zip(kinds).map(entry).collect()
}

#[test]
fn a_segment() {
    struct Only(Vec<u8>);
    impl ManifestChunkSink for Only {
        type Error = std::convert::Infallible;
        fn put(&mut self, bytes: Vec<u8>) -> Result<ChunkId, Self::Error> {
            self.0 = bytes;
            Ok(ChunkId([0; 32]))
        }
    }
    let mut writer = ManifestWriter::new(Only(Vec::new()));
    for entry in entries() {
        writer.push(entry).unwrap();
    }
    let (_, _, sink) = writer.finish().unwrap();
    assert_example("segment", &sink.0);
    assert_eq!(decode(&example("segment")), Ok(ManifestNode::Segment(entries())));
}

#[derive(Debug)]
struct Twos;
impl RandomSource for Twos {
    fn fill(&self, buffer: &mut [u8]) {
        buffer.fill(2);
    }
}

#[test]
fn a_key_slot() {
    let env = Env { random: Arc::new(Twos), ..Env::host() };
    let secret = SlotSecret::parse_key_file(&format!("runner-key-1:{}\n", "03".repeat(32))).unwrap();
    let slot = KeySlot::wrap(&secret, &master(), RepoId([7; 16]), &env).unwrap();
    assert_eq!(block("keyslot"), String::from_utf8(slot.encode()).unwrap());
    let key = slot.unwrap(&secret, RepoId([7; 16])).unwrap();
    let same = DerivedKeys::new(Cipher::Aes256GcmSiv, RepoId([7; 16]), "app".parse().unwrap(), key);
    assert_eq!(same.chunk_id(b"content"), keys().chunk_id(b"content"));
}

fn record() -> Record {
    Record {
        role: "app".parse().unwrap(),
        repo: RepoId([7; 16]),
        seq: Seq(1),
        term: Term(1),
        takeover: None,
        node: WriterNode { id: NodeId([1; 16]), name: "east".to_owned() },
        instance: InstanceId([2; 8]),
        time: "2026-11-21T10:00:00Z".parse::<Timestamp>().unwrap(),
        store_time: None,
        slot: None,
        last_slot: None,
        schedule: None,
        prev: None,
        body: RecordBody::Takeover(TakeoverBody::new(TakeoverReason::First)),
        state: None,
        generation: KeyGeneration::FIRST,
    }
}

#[test]
fn a_record() {
    let record = record();
    let text = String::from_utf8(record.encode(&keys())).unwrap();
    assert_eq!(block("record"), text);
    assert_eq!(Record::decode(block("record").as_bytes(), Some(&keys())), Ok(record));
}

/// The same repository after a rotation: the second key is `0a…`.
fn rotated_keys() -> DerivedKeys {
    let keyring = Keyring::parse(&[[9; 32], [10; 32]].concat()).unwrap();
    DerivedKeys::new(Cipher::Aes256GcmSiv, RepoId([7; 16]), "app".parse().unwrap(), keyring)
}

#[test]
fn a_rotation_and_what_comes_after_it() {
    let (env, keys) = (Env { random: Arc::new(Twos), ..Env::host() }, rotated_keys());
    let secret = SlotSecret::parse_key_file(&format!("runner-key-1:{}\n", "03".repeat(32))).unwrap();
    let slot = KeySlot::wrap(&secret, keys.keyring(), RepoId([7; 16]), &env).unwrap();
    assert_eq!(block("keyslot-1"), String::from_utf8(slot.encode()).unwrap());
    let body = RotateBody { generation: KeyGeneration(1), slots: vec![slot.id()], proof: Mac([0; 32]) };
    let first = record();
    let mut rotate = Record {
        seq: Seq(2),
        takeover: Some(digest(&first.encode(&keys))),
        prev: Some(digest(&first.encode(&keys))),
        body: RecordBody::Rotate(body),
        ..first.clone()
    };
    rotate.add_rotation_proof(&keys);
    let object = rotate.encode(&keys);
    assert_eq!(block("rotate"), String::from_utf8(object.clone()).unwrap());
    let after = Record {
        seq: Seq(3),
        prev: Some(digest(&object)),
        body: RecordBody::Resume,
        generation: KeyGeneration(1),
        ..rotate
    };
    assert_eq!(block("record-1"), String::from_utf8(after.encode(&keys)).unwrap());
    assert_eq!(Record::decode(block("record-1").as_bytes(), Some(&keys)), Ok(after));

    let mut pack = PackBuilder::new(&keys, PackId([5; 16]), [6; 32]);
    let chunks = vec![ChunkEntry { id: keys.chunk_id(b"raw"), len: 3 }];
    pack.push(FrameCompressor::default().pack(b"raw", chunks));
    let (object, table) = pack.finish();
    assert_example("pack-1", &object);
    let object = encode_index(&keys, IndexId([4; 16]), [8; 32], std::slice::from_ref(&table));
    assert_example("index-1", &object);
    assert_eq!(decode_index(&keys, IndexId([4; 16]), &object), Ok(vec![table]));
}

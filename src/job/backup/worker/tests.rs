//! Cutting content into chunks: the chunks are the whole content, within the size limits, and depend on the content
//! alone.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crossbeam_channel::unbounded;
use proptest::prelude::*;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::env::Env;
use crate::ids::PackId;
use crate::job::backup::dedup_index::KnownChunks;
use crate::job::backup::shared::{BufferPool, WorkerCounters};
use crate::job::testing::noise;
use crate::repo::crypto::Cipher;
use crate::repo::crypto::tests::keys;
use crate::repo::pack::PackBuilder;
use crate::tree::owner_names::OwnerNames;
use crate::tree::roots::SourceRoots;
use crate::tree::testing::tree_path;

/// The smallest allowed chunk sizes.
pub(crate) const SMALL: ChunkerParams =
    ChunkerParams { min: 4 << 10, average: 8 << 10, max: 16 << 10, segment: 64 << 10 };

pub(crate) fn shared(chunker: ChunkerParams, sources: &Path) -> PipelineContext {
    PipelineContext {
        keys: keys(Cipher::None),
        chunker,
        env: Env::host(),
        names: OwnerNames::new(),
        roots: Arc::new(SourceRoots::open(&[sources.to_owned()]).unwrap()),
        stop: CancellationToken::new(),
        failed: AtomicBool::new(false),
        progress: Arc::default(),
        counts: WorkerCounters::default(),
        buffers: BufferPool::default(),
        stall_timeout: Duration::from_mins(15),
        presence: JobProgress::default().enter_uninterruptible(),
    }
}

/// Runs `work` on a worker; returns its result, and the ID and length of each stored chunk.
fn cut<T>(shared: &PipelineContext, work: impl FnOnce(&mut ReadWorker<'_>) -> T) -> (T, HashMap<ChunkId, usize>) {
    let (frames_in, frames) = unbounded();
    let ledger = DedupIndex::new(HashSet::new(), Some(KnownChunks::default()), || unreachable!());
    let mut worker = ReadWorker::new(shared, &ledger, frames_in);
    let result = work(&mut worker);
    worker.finish().unwrap();
    let mut pack = PackBuilder::new(&shared.keys, PackId([1; 16]), [2; 32]);
    for frame in frames {
        let PackerInput::Data(frame) = frame else { panic!("content is no manifest") };
        pack.push(frame);
    }
    let mut stored = HashMap::new();
    for chunk in pack.finish().1.frames.iter().flat_map(|frame| &frame.chunks) {
        assert_eq!(stored.insert(chunk.id, chunk.len as usize), None, "each is stored once");
    }
    (result, stored)
}

/// A reader that gives its content in pieces of these sizes, repeated.
struct Pieces<'a>(&'a [u8], std::iter::Cycle<std::slice::Iter<'a, usize>>);

impl io::Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.1.next().copied().unwrap_or(usize::MAX).min(buffer.len()).min(self.0.len());
        let (piece, rest) = self.0.split_at(len);
        buffer[..len].copy_from_slice(piece);
        self.0 = rest;
        Ok(len)
    }
}

/// The chunks of a stream, as slices of it.
fn chunks<'a>(shared: &PipelineContext, bytes: &'a [u8], pieces: &[usize]) -> Vec<&'a [u8]> {
    let (read, stored) = cut(shared, |worker| {
        let mut source = Pieces(bytes, pieces.iter().cycle());
        worker.stream(&mut source).unwrap().unwrap()
    });
    let (ids, len) = read;
    assert_eq!(len, bytes.len() as u64);
    let mut rest = bytes;
    let mut chunks = Vec::new();
    for id in ids {
        let (chunk, after) = rest.split_at(stored[&id]);
        assert_eq!(shared.keys.chunk_id(chunk), id, "what was stored is what is there");
        chunks.push(chunk);
        rest = after;
    }
    assert_eq!(rest.len(), 0, "all of it");
    chunks
}

/// Runs of noise, of one repeated byte, and of earlier content.
fn content(max: usize) -> impl Strategy<Value = Vec<u8>> {
    let run = prop_oneof![
        4 => (any::<u64>(), 1..max).prop_map(|(seed, len)| noise(seed, len)),
        1 => (any::<u8>(), 1..max).prop_map(|(byte, len)| vec![byte; len]),
        1 => (0..3u64, 1..max).prop_map(|(seed, len)| noise(seed, len)),
    ];
    prop::collection::vec(run, 0..5).prop_map(|runs| runs.concat())
}

fn lens(chunks: &[&[u8]]) -> Vec<usize> {
    chunks.iter().map(|chunk| chunk.len()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn chunks_are_the_content_between_the_bounds_however_it_is_read(
        bytes in content(60 << 10), pieces in prop::collection::vec(1..100_000usize, 1..6),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let shared = shared(SMALL, dir.path());
        let all = chunks(&shared, &bytes, &pieces);
        prop_assert_eq!(lens(&chunks(&shared, &bytes, &[])), lens(&all), "read otherwise");
        let (segment, min, max) = (SMALL.segment as usize, SMALL.min as usize, SMALL.max as usize);
        let mut at = 0;
        for chunk in &all {
            let end = at + chunk.len();
            prop_assert!(!chunk.is_empty() && chunk.len() <= max);
            prop_assert!(chunk.len() >= min || end.is_multiple_of(segment) || end == bytes.len(), "{} bytes at {at}", chunk.len());
            prop_assert_eq!(at / segment, (end - 1) / segment, "a chunk in two segments");
            at = end;
        }
        // The window does not influence the cuts: they are those of each segment as a whole.
        let whole = bytes.chunks(segment).flat_map(|part| {
            FastCDC::new(part, min, SMALL.average as usize, max).map(|chunk| chunk.length)
        });
        prop_assert_eq!(lens(&all), whole.collect::<Vec<_>>());
    }

    /// An insertion, removal or change near the start moves everything behind it, and costs a few chunks.
    #[test]
    fn most_chunks_outlive_a_change(seed: u64, at in 0..1000usize, put in 0..3000usize, cut in 0..3000usize) {
        let dir = tempfile::tempdir().unwrap();
        let shared = shared(ChunkerParams { segment: 1 << 30, ..SMALL }, dir.path());
        let before = noise(seed, 600_000);
        let mut after = before.clone();
        after.splice(at..(at + cut).min(before.len()), noise(!seed, put));
        let (before, after) = (chunks(&shared, &before, &[]), chunks(&shared, &after, &[]));
        let known: BTreeSet<&[u8]> = before.iter().copied().collect();
        let new = after.iter().filter(|chunk| !known.contains(*chunk)).count();
        prop_assert!(before.len() > 36, "{} chunks", before.len());
        prop_assert!(new <= 24, "{new} of {} are new", after.len());
    }

    /// A large file is read by several threads, or from start to end, or as a stream: its chunks are the same.
    #[test]
    fn a_files_chunks_do_not_depend_on_who_reads_it(
        runs in prop::collection::vec((0..40usize, content(40 << 10)), 1..4), sparse: bool,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let shared = shared(SMALL, dir.path());
        let path = dir.path().join("file");
        let file = File::create(&path).unwrap();
        let mut end = 0;
        for (hole, bytes) in &runs {
            end += if sparse { (*hole as u64) << 12 } else { 0 };
            file.write_all_at(bytes, end).unwrap();
            end += bytes.len() as u64;
        }
        file.set_len(end).unwrap();
        file.sync_all().unwrap();
        let tree_path = tree_path(&path);
        let open = || Arc::new(FileContent::of(read::open_file(&shared.roots, &tree_path).unwrap()).unwrap());
        let content = open();
        let mut plain = vec![0; content.len() as usize];
        prop_assert_eq!(content.read_at(&mut plain, 0).unwrap(), plain.len());
        let whole = std::fs::read(&path).unwrap();
        let data: Vec<u8> = match &content.extents {
            None => whole,
            Some(extents) => {
                let data = |e: &Extent| whole[e.offset as usize..][..e.len as usize].to_vec();
                extents.iter().flat_map(data).collect()
            }
        };
        prop_assert!(plain == data, "the content is the extents one after another");

        let (streamed, _) = cut(&shared, |worker| worker.stream(&mut &plain[..]).unwrap().unwrap().0);
        let (read, _) = cut(&shared, |worker| worker.all_segments(&open()).unwrap().unwrap());
        prop_assert_eq!((read.len, read.changed), (plain.len() as u64, false));
        prop_assert_eq!(&read.chunks, &streamed);
        // The last segment first, which may happen.
        let (mut parts, _) = cut(&shared, |worker| {
            let starts: Vec<u64> = (0..plain.len() as u64).step_by(SMALL.segment as usize).collect();
            let part = |start: u64| FileSegment { content: open(), start, len: SMALL.segment.min(plain.len() as u64 - start) };
            starts.into_iter().rev().map(|start| worker.segment(&part(start)).unwrap()).collect::<Vec<_>>()
        });
        parts.reverse();
        prop_assert!(parts.iter().all(|part| part.error.is_none()));
        prop_assert_eq!(parts.into_iter().flat_map(|part| part.chunks).collect::<Vec<_>>(), streamed);
    }
}

/// A file that shrank since it was opened: the missing part is reported, and the rest is not lost.
#[test]
fn a_file_that_shrinks_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let shared = shared(SMALL, dir.path());
    let path = dir.path().join("file");
    std::fs::write(&path, noise(1, 100_000)).unwrap();
    let tree_path = tree_path(&path);
    let content = Arc::new(FileContent::of(read::open_file(&shared.roots, &tree_path).unwrap()).unwrap());
    File::options().write(true).open(&path).unwrap().set_len(70_000).unwrap();
    let (read, stored) = cut(&shared, |worker| worker.all_segments(&content).unwrap().unwrap());
    assert_eq!((read.len, read.changed, stored.values().sum::<usize>()), (70_000, true, 70_000));
    let last = FileSegment { content, start: SMALL.segment, len: 100_000 - SMALL.segment };
    let (done, _) = cut(&shared, |worker| worker.segment(&last).unwrap());
    assert_eq!(done.error.map(|e| e.kind()), Some(io::ErrorKind::UnexpectedEof));
}

/// A sparse file that keeps changing: its holes are not read as data.
#[test]
fn a_sparse_file_keeps_its_holes_however_often_it_changes() {
    const SIZE: u64 = 1 << 40;
    // Reading this takes longer than a scheduler's time slice, so the file changes meanwhile even on a single
    // processor.
    const DATA: usize = 16 << 20;
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let shared = shared(SMALL, dir.path());
    let path = dir.path().join("file");
    let file = File::create(&path).unwrap();
    file.set_len(SIZE).unwrap();
    file.write_all_at(&noise(1, DATA), 1 << 30).unwrap();
    let tree_path = tree_path(&path);
    let (over, mut restless) = (AtomicBool::new(false), false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut second = 1;
            while !over.load(Ordering::Relaxed) {
                second += 1;
                file.set_modified(std::time::UNIX_EPOCH + Duration::from_secs(second)).unwrap();
            }
        });
        for _ in 0..100 {
            let (done, stored) = cut(&shared, |worker| worker.read(&tree_path, None).unwrap());
            let EntryKind::File { size, extents, .. } = &done.entry.unwrap().kind else { panic!("a file") };
            assert_eq!((*size, extents.as_ref().map(Vec::len)), (SIZE, Some(1)));
            assert_eq!(stored.values().sum::<usize>(), DATA);
            restless = done.problems.iter().any(|problem| problem.kind == PathProblemKind::Changed);
            if restless {
                break;
            }
        }
        over.store(true, Ordering::Relaxed);
    });
    assert!(restless, "it changed during each of the attempts once");
}

/// Content that was truncated during the read is not in the extents either: size, extents and content agree.
#[test]
fn a_sparse_file_that_shrinks_ends_with_what_was_read() {
    let dir = tempfile::tempdir().unwrap();
    let shared = shared(SMALL, dir.path());
    let path = dir.path().join("file");
    let file = File::create(&path).unwrap();
    file.write_all_at(&noise(1, 8192), 1 << 20).unwrap();
    file.write_all_at(&noise(2, 8192), 2 << 20).unwrap();
    file.set_len(4 << 20).unwrap();
    file.sync_all().unwrap();
    let tree_path = tree_path(&path);
    let content = || FileContent::of(read::open_file(&shared.roots, &tree_path).unwrap()).unwrap();
    let extents =
        |ends: &[(u64, u64)]| Some(ends.iter().map(|&(offset, len)| Extent { offset, len }).collect::<Vec<_>>());
    assert_eq!(content().measure(16_384), (4 << 20, extents(&[(1 << 20, 8192), (2 << 20, 8192)])));
    assert_eq!(content().measure(8200), ((2 << 20) + 8, extents(&[(1 << 20, 8192), (2 << 20, 8)])));
    assert_eq!(content().measure(100), ((1 << 20) + 100, extents(&[(1 << 20, 100)])));
    assert_eq!(content().measure(0), (0, extents(&[])));
}

/// A file with more data than allowed is reported, and no memory is reserved for it.
#[test]
fn a_file_that_claims_more_than_there_can_be_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let shared = shared(SMALL, dir.path());
    let path = dir.path().join("file");
    std::fs::write(&path, noise(1, 100_000)).unwrap();
    let tree_path = tree_path(&path);
    let content = |data_max| FileContent::within(read::open_file(&shared.roots, &tree_path).unwrap(), 2, data_max);
    assert_eq!(content(100_000).unwrap().len(), 100_000);
    assert!(content(99_999).unwrap_err().to_string().contains("TiB of data"));
}

#[test]
fn a_file_of_proc_has_its_content() {
    let shared = shared(SMALL, Path::new("/proc/version"));
    let tree_path = TreePath::new("proc/version").unwrap();
    let (done, stored) = cut(&shared, |worker| worker.read(&tree_path, None).unwrap());
    let len = std::fs::read("/proc/version").unwrap().len();
    assert_eq!((done.problems, done.entry.unwrap().kind.size()), (vec![], len as u64));
    assert_eq!(stored.values().sum::<usize>(), len);
}

/// The walk saw one file, and another has its name now: the known content of the first is not used for the second.
#[test]
fn what_is_believed_of_a_file_is_not_believed_of_its_successor() {
    let dir = tempfile::tempdir().unwrap();
    let shared = shared(SMALL, dir.path());
    let path = dir.path().join("file");
    std::fs::write(&path, "before").unwrap();
    let tree_path = tree_path(&path);
    let stat = *read::open_file(&shared.roots, &tree_path).unwrap().stat();
    let scanned = ScannedEntry { path: tree_path.clone(), stat };
    let known = EntryKind::File { size: 6, extents: None, chunks: vec![shared.keys.chunk_id(b"before")] };
    let entry = |worker: &mut ReadWorker<'_>| {
        let decision = EntryDecision::Trust(known.clone());
        worker
            .entry(PendingEntry { scanned: scanned.clone(), decision, base: None })
            .unwrap()
            .entry
            .unwrap()
            .kind
            .clone()
    };
    assert_eq!(cut(&shared, entry).0, known);
    std::fs::write(dir.path().join("new"), "after!").unwrap();
    std::fs::rename(dir.path().join("new"), &path).unwrap();
    assert_eq!(cut(&shared, entry).0.chunks(), [shared.keys.chunk_id(b"after!")]);
}

/// Entries with large attributes do not accumulate: they are sent as they come.
#[test]
fn a_batch_is_handed_on_in_parts() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let shared = shared(SMALL, dir.path());
    let names: Vec<_> = (0..12).map(|i| dir.path().join(format!("d{i:02}"))).collect();
    for name in &names {
        std::fs::create_dir(name).unwrap();
        for i in 0..16 {
            let value = vec![i; 60_000];
            let attribute = format!("trusted.a{i}");
            rustix::fs::setxattr(name, attribute.as_str(), &value, rustix::fs::XattrFlags::empty()).unwrap();
        }
    }
    let todo = |name: &std::path::PathBuf| {
        let path = tree_path(name);
        let stat = crate::tree::stat::Stat::of(File::open(name).unwrap()).unwrap();
        PendingEntry { scanned: ScannedEntry { path, stat }, decision: EntryDecision::Describe, base: None }
    };
    let (reply, answer) = unbounded();
    cut(&shared, |worker| worker.entries(names.iter().map(todo).collect(), &reply));
    drop(reply);
    let parts: Vec<usize> = answer.iter().map(|part| part.unwrap().len()).collect();
    assert_eq!(parts, [5, 5, 2]);
}

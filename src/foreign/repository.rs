//! Pure. Repositories of known backup programs in a listing. Their blobs are no series; their snapshots are counted where the
//! program stores an object for each.
//!
//! Layouts: restic's and rustic's `doc/design.rst`, borg's `docs/internals/data-structures.rst`, kopia's `kopia.repository`,
//! pgBackRest's repository (`backup/<stanza>/<label>/`), and this program's own `docs/FORMAT.md`.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::civil_time::civil;
use super::listing::BucketListing;
use super::report::ForeignRepository;
use super::series::SeriesEntry;

/// A repository, and its snapshots.
#[derive(Debug, Clone)]
pub(super) struct FoundRepository {
    pub(super) report: ForeignRepository,
    /// A slot a snapshot, oldest first. Empty if the program stores none as objects.
    pub(super) snapshots: Vec<SeriesEntry>,
}

/// What makes a prefix a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum RepositoryMark {
    ResticData,
    ResticIndex,
    ResticKeys,
    ResticSnapshots,
    BorgData,
    BorgState,
    Kopia,
    ProxmoxChunks,
    LonghornBlocks,
    PgBackRest,
    RunnerFormat,
    RunnerJournal,
}

/// Repositories of a listing, and which objects are theirs.
#[derive(Debug, Default)]
pub(super) struct RepositoryIndex {
    programs: HashMap<String, &'static str>,
}

fn is_hex(text: &str, len: usize) -> bool {
    text.len() == len && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// `20261001-010003F`, `20261001-010003F_20261002-010004I`.
fn is_pgbackrest_label(text: &str) -> bool {
    text.len() >= 16 && text.as_bytes()[8] == b'-' && text.as_bytes()[15] == b'F'
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The prefix, with its last `/`, of the key's directory that stands `depth` segments above the last one.
fn prefix_above(key: &str, depth: usize) -> &str {
    let mut end = key.len();
    for _ in 0..=depth {
        end = key[..end].rfind('/').unwrap_or(0);
    }
    if end == 0 { "" } else { &key[..=end] }
}

/// What a key says about its prefix.
fn mark_of(key: &str) -> Option<(&str, RepositoryMark)> {
    let mut segments = key.rsplit('/');
    let name = segments.next()?;
    let parent = segments.next().unwrap_or_default();
    let grand = segments.next().unwrap_or_default();
    if is_hex(name, 64) {
        let mark = match (parent, grand) {
            ("snapshots", _) => RepositoryMark::ResticSnapshots,
            ("index", _) => RepositoryMark::ResticIndex,
            ("keys", _) => RepositoryMark::ResticKeys,
            ("data", _) => RepositoryMark::ResticData,
            (_, ".chunks") => return Some((prefix_above(key, 1), RepositoryMark::ProxmoxChunks)),
            (two, "data") if is_hex(two, 2) => return Some((prefix_above(key, 2), RepositoryMark::ResticData)),
            _ => return None,
        };
        return Some((prefix_above(key, 1), mark));
    }
    if is_number(name) && is_number(parent) && grand == "data" {
        return Some((prefix_above(key, 2), RepositoryMark::BorgData));
    }
    if let Some((stem, number)) = name.split_once('.')
        && matches!(stem, "index" | "hints" | "integrity")
        && is_number(number)
    {
        return Some((prefix_above(key, 0), RepositoryMark::BorgState));
    }
    if name.strip_suffix(".blk").is_some() && is_hex(parent, 2) && is_hex(grand, 2) && segments.next() == Some("blocks")
    {
        return Some((prefix_above(key, 2), RepositoryMark::LonghornBlocks));
    }
    match name {
        "kopia.repository" | "kopia.repository.f" | "kopia.blobcfg" | "kopia.blobcfg.f" => {
            Some((prefix_above(key, 0), RepositoryMark::Kopia))
        }
        "backup.manifest" if is_pgbackrest_label(parent) && segments.next() == Some("backup") => {
            Some((prefix_above(key, 3), RepositoryMark::PgBackRest))
        }
        "format" => Some((prefix_above(key, 0), RepositoryMark::RunnerFormat)),
        _ if parent == "journal" && name.len() >= 10 && name.bytes().take(10).all(|byte| byte.is_ascii_digit()) => {
            Some((prefix_above(key, 1), RepositoryMark::RunnerJournal))
        }
        _ => None,
    }
}

impl RepositoryIndex {
    /// Finds them.
    pub(super) fn find(listing: &BucketListing) -> Self {
        let mut marks: BTreeMap<&str, BTreeSet<RepositoryMark>> = BTreeMap::new();
        for index in 0..listing.len() {
            if let Some((prefix, mark)) = mark_of(listing.key(index)) {
                marks.entry(prefix).or_default().insert(mark);
            }
        }
        let programs = marks.into_iter().filter_map(|(prefix, marks)| {
            use RepositoryMark as M;
            let has = |mark: M| marks.contains(&mark);
            let restic = [M::ResticData, M::ResticIndex, M::ResticKeys, M::ResticSnapshots]
                .into_iter()
                .filter(|mark| has(*mark));
            let program = if has(M::Kopia) {
                "kopia"
            } else if has(M::ProxmoxChunks) {
                "Proxmox Backup Server (chunks)"
            } else if has(M::LonghornBlocks) {
                "Longhorn (blocks)"
            } else if has(M::RunnerFormat) && has(M::RunnerJournal) {
                "runner"
            } else if restic.count() >= 2 {
                "restic"
            } else if has(M::BorgData) && has(M::BorgState) {
                "borg"
            } else if has(M::PgBackRest) {
                "pgBackRest"
            } else {
                return None;
            };
            Some((prefix.to_owned(), program))
        });
        Self { programs: programs.collect() }
    }

    /// The prefix of the repository to which a key belongs.
    pub(super) fn prefix_of<'k>(&self, key: &'k str) -> Option<&'k str> {
        if self.programs.is_empty() {
            return None;
        }
        if self.programs.contains_key("") {
            return Some("");
        }
        key.match_indices('/').map(|(at, _)| &key[..=at]).find(|prefix| self.programs.contains_key(*prefix))
    }

    /// Counts what each has.
    pub(super) fn count(&self, listing: &BucketListing) -> Vec<FoundRepository> {
        let mut found: BTreeMap<&str, FoundRepository> = BTreeMap::new();
        let mut labels: BTreeMap<&str, BTreeMap<&str, SeriesEntry>> = BTreeMap::new();
        let mut newest: BTreeMap<&str, i64> = BTreeMap::new();
        for index in 0..listing.len() {
            let key = listing.key(index);
            let Some(prefix) = self.prefix_of(key) else { continue };
            let object = listing.object(index);
            let program = self.programs[prefix];
            let repository = found.entry(prefix).or_insert_with(|| FoundRepository {
                report: ForeignRepository {
                    program,
                    prefix: prefix.to_owned(),
                    objects: 0,
                    bytes: 0,
                    snapshots: None,
                    newest: None,
                },
                snapshots: Vec::new(),
            });
            repository.report.objects += 1;
            repository.report.bytes = repository.report.bytes.saturating_add(object.size);
            let last = newest.entry(prefix).or_insert(object.modified);
            *last = (*last).max(object.modified);
            if !object.is_latest {
                continue;
            }
            if let Some(label) = snapshot_label(program, &key[prefix.len()..]) {
                let at = object.modified;
                let entry = SeriesEntry { at, modified: at, size: object.size, object: index as u32 };
                let known = labels.entry(prefix).or_default().entry(label).or_insert(entry);
                known.at = known.at.min(at);
            }
        }
        for (prefix, repository) in &mut found {
            let counts = matches!(repository.report.program, "restic" | "pgBackRest");
            repository.snapshots = labels.remove(prefix).unwrap_or_default().into_values().collect();
            repository.snapshots.sort_unstable_by_key(|entry| entry.at);
            repository.report.snapshots = counts.then_some(repository.snapshots.len() as u64);
            let last = repository.snapshots.last().map(|entry| entry.at).or_else(|| newest.get(prefix).copied());
            repository.report.newest = last.map(civil);
        }
        found.into_values().collect()
    }
}

/// The snapshot to which an object belongs, by its key below the repository's prefix.
fn snapshot_label<'k>(program: &str, rest: &'k str) -> Option<&'k str> {
    match program {
        "restic" => rest.strip_prefix("snapshots/").filter(|name| is_hex(name, 64)),
        "pgBackRest" => {
            let label = rest.strip_prefix("backup/")?.split('/').nth(1)?;
            is_pgbackrest_label(label).then_some(label)
        }
        _ => None,
    }
}

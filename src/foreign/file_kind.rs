//! Pure. What a file beside others is, by its name: the backup itself, or what belongs to one.

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum FileKind {
    /// A backup, or a part of one.
    Content,
    /// A small description of a backup. If there is nothing else, it is the backup.
    Metadata,
    /// A checksum, a signature or a log of a backup.
    Companion,
    /// Not finished: what an upload left behind.
    Unfinished,
    /// A copy of the newest backup under a fixed name.
    LatestCopy,
}

const COMPRESSION: [&str; 14] =
    ["gz", "zst", "zstd", "xz", "bz2", "lz4", "lzo", "lzma", "br", "gpg", "pgp", "enc", "age", "aes"];

const CHECKSUM: [&str; 14] = [
    "md5",
    "md5sum",
    "sha1",
    "sha1sum",
    "sha256",
    "sha256sum",
    "sha512",
    "sha512sum",
    "sha2",
    "sum",
    "crc",
    "crc32",
    "b3",
    "b2sum",
];

const SIGNATURE: [&str; 4] = ["sig", "asc", "minisig", "sign"];

const LOG: [&str; 7] = ["log", "out", "err", "stdout", "stderr", "trace", "audit"];

const METADATA: [&str; 30] = [
    "json",
    "yaml",
    "yml",
    "xml",
    "txt",
    "info",
    "meta",
    "metadata",
    "manifest",
    "notes",
    "note",
    "cfg",
    "conf",
    "ini",
    "list",
    "lst",
    "toc",
    "html",
    "md",
    "idx",
    "index",
    "status",
    "ok",
    "done",
    "success",
    "complete",
    "nfo",
    "properties",
    "stats",
    "vbm",
];

const UNFINISHED: [&str; 14] = [
    "tmp",
    "temp",
    "part",
    "partial",
    "filepart",
    "crdownload",
    "incomplete",
    "inprogress",
    "progress",
    "writing",
    "uploading",
    "swp",
    "pending",
    "new",
];

/// What the file with this name is. The name is that of a series: `{date}` and the like stand for what varies.
pub(super) fn file_kind(path: &str) -> FileKind {
    let name = path.rsplit('/').next().unwrap_or(path).to_ascii_lowercase();
    let mut extensions: Vec<&str> = name.split('.').skip(1).collect();
    if name.ends_with('~') || name.starts_with(".~") || name.starts_with("~$") {
        return FileKind::Unfinished;
    }
    let last = extensions.last().copied().unwrap_or_default();
    let stripped = |word: &str| word.trim_start_matches(['-', '_']).trim_end_matches("{id}").to_owned();
    if UNFINISHED.contains(&last) || (name.starts_with('.') && last.starts_with("{id}")) {
        return FileKind::Unfinished;
    }
    if CHECKSUM.contains(&last) || SIGNATURE.contains(&last) {
        return FileKind::Companion;
    }
    while extensions.last().is_some_and(|extension| COMPRESSION.contains(extension)) {
        extensions.pop();
    }
    let last = extensions.last().copied().unwrap_or_default();
    if last.is_empty() && extensions.is_empty() {
        let stem = stripped(name.split('.').next().unwrap_or_default());
        let tail = stem.rsplit(['-', '_', '}']).next().unwrap_or_default();
        if matches!(
            tail,
            "logs" | "log" | "checksums" | "checksum" | "sha256sums" | "md5sums" | "sha512sums" | "results"
        ) {
            return FileKind::Companion;
        }
        if matches!(tail, "success" | "version" | "readme" | "manifest" | "metadata" | "done" | "timestamp" | "label") {
            return FileKind::Metadata;
        }
    }
    if LOG.contains(&last) {
        return FileKind::Companion;
    }
    if CHECKSUM.contains(&last) || SIGNATURE.contains(&last) {
        return FileKind::Companion;
    }
    if METADATA.contains(&last) {
        return FileKind::Metadata;
    }
    if !path.contains("{date}") && is_latest_name(path) {
        return FileKind::LatestCopy;
    }
    FileKind::Content
}

/// Whether a name without a date says that it is the newest of several.
fn is_latest_name(path: &str) -> bool {
    path.to_ascii_lowercase()
        .split(|letter: char| !letter.is_ascii_alphanumeric())
        .any(|word| matches!(word, "latest" | "current" | "newest" | "last"))
}

/// Extensions of what a program makes only with content in it: an archive or a dump of nothing is no backup.
const ARCHIVE: [&str; 18] = [
    "tar", "tgz", "tbz", "txz", "tzst", "zip", "7z", "sql", "dump", "dmp", "bak", "img", "vma", "qcow2", "rdb", "db",
    "sqlite", "archive",
];

/// Whether the name says that it is an archive or a dump.
pub(super) fn is_archive(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path).to_ascii_lowercase();
    name.split('.').skip(1).any(|extension| ARCHIVE.contains(&extension) || COMPRESSION.contains(&extension))
}

/// Whether the name says that a backup holds changes only, whose size says nothing.
pub(super) fn is_increment(path: &str) -> bool {
    path.to_ascii_lowercase().split(|letter: char| !letter.is_ascii_alphabetic()).any(|word| {
        matches!(
            word,
            "inc"
                | "incr"
                | "incremental"
                | "diff"
                | "differential"
                | "trn"
                | "vib"
                | "wal"
                | "binlog"
                | "oplog"
                | "archivelog"
                | "xlog"
                | "redo"
                | "log"
                | "logs"
        )
    })
}

/// Whether a word is an extension of files, and no part of a host's name.
pub(super) fn is_extension_word(word: &str) -> bool {
    let word = word.to_ascii_lowercase();
    [&ARCHIVE[..], &COMPRESSION[..], &CHECKSUM[..], &SIGNATURE[..], &LOG[..], &METADATA[..], &UNFINISHED[..]]
        .iter()
        .any(|known| known.contains(&word.as_str()))
        || matches!(word.as_str(), "snap" | "vbk" | "vib" | "trn" | "raw" | "iso" | "csv" | "dmg" | "bson" | "parquet")
}

/// The name without what says how it is compressed or encrypted: two programs that write one content differ in that.
pub(super) fn without_compression(path: &str) -> String {
    let mut rest = path;
    while let Some((before, extension)) = rest.rsplit_once('.') {
        if extension.contains('/') || !COMPRESSION.contains(&extension.to_ascii_lowercase().as_str()) {
            break;
        }
        rest = before;
    }
    for (short, long) in [(".tgz", ".tar"), (".tbz", ".tar"), (".tbz2", ".tar"), (".txz", ".tar"), (".tzst", ".tar")] {
        if let Some(stem) = rest.strip_suffix(short) {
            return format!("{stem}{long}");
        }
    }
    rest.to_owned()
}

//! Pure. What an audit of a listing found.

use jiff::civil::{Date, DateTime};

/// What is wrong with foreign backups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ForeignFindingKind {
    /// Two or more writers store the same backup.
    Stereo,
    /// Slots have no backup, and later ones have.
    Missed,
    /// There is no backup any more, while others go on.
    Stopped,
    /// The size varied, and is the same to the byte since.
    Frozen,
    /// Backups with no content.
    Empty,
    /// Backups lost more than half of their size.
    Shrunk,
    /// Several versions of one key were written within a slot, and their sizes are not those of one content.
    Overwritten,
    /// Increments that do not join one chain.
    TwoChains,
}

/// How certain a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FindingConfidence {
    /// A careful person could not decide it from a listing. It fails no check.
    Ask,
    /// More likely than not.
    Likely,
    /// Nothing else explains what was listed.
    Sure,
}

/// A range of bytes: which of two copies is the surplus cannot be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteRange {
    /// The least.
    pub min: u64,
    /// The most.
    pub max: u64,
}

/// How the finding `Stereo` was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StereoEvidence {
    /// Series that differ in one name.
    TwinSeries,
    /// Two objects a slot in one series.
    TwoPerSlot,
    /// Two versions of one key a slot.
    TwoVersions,
}

/// One finding.
#[derive(Debug, Clone, PartialEq)]
pub struct ForeignFinding {
    /// What is wrong.
    pub kind: ForeignFindingKind,
    /// How certain it is.
    pub confidence: FindingConfidence,
    /// The series: its keys with `{date}`, `{host}` and the like for what varies.
    pub series: String,
    /// `Stereo`: the names of the writers. Empty if no name in the keys tells them apart.
    pub hosts: Vec<String>,
    /// `Stereo`: how it was seen.
    pub evidence: Option<StereoEvidence>,
    /// The first day on which it was so. For `Stopped` the day of the first backup that is not there.
    pub since: Option<Date>,
    /// The last day on which it was so, if it is not so any more.
    pub until: Option<Date>,
    /// Number of slots concerned.
    pub slots: u64,
    /// `Missed`: the slots, oldest first, bounded by [`MISSED_NAMED_MAX`]; `slots` is their number.
    pub missed: Vec<DateTime>,
    /// Bytes that need not have been stored.
    pub surplus: Option<ByteRange>,
    /// The same for an average month (30 days).
    pub surplus_month: Option<ByteRange>,
    /// Bytes stored by the writer that came later, the best guess of the surplus.
    pub surplus_guess: Option<u64>,
    /// Size of a usual backup before the finding, and of those that it names. `Frozen`, `Empty` and `Shrunk`.
    pub sizes: Option<(u64, u64)>,
    /// A key that shows it.
    pub example: String,
}

/// How many missed slots a finding names.
pub const MISSED_NAMED_MAX: usize = 100;

/// How many findings of one kind are listed; the rest is counted.
pub const FINDINGS_LISTED_MAX: usize = 200;

/// What is worth knowing, and no finding.
#[derive(Debug, Clone, PartialEq)]
pub enum ForeignNote {
    /// A series continues under another name.
    Moved {
        /// The series.
        series: String,
        /// The name until then.
        from: String,
        /// The name since then.
        to: String,
        /// Its first day.
        on: Date,
    },
    /// The listing has one entry a key: overwritten keys cannot be seen.
    OverwrittenUnseen,
    /// Objects that are no series: too few, or without a rhythm.
    Unjudged {
        /// Number of objects.
        objects: u64,
        /// Their bytes.
        bytes: u64,
    },
}

/// A repository of a known backup program.
#[derive(Debug, Clone, PartialEq)]
pub struct ForeignRepository {
    /// The program: `restic`, `borg`, `kopia`, `runner`, …
    pub program: &'static str,
    /// The prefix of its keys. Empty if it is the whole bucket.
    pub prefix: String,
    /// Number of objects.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Number of snapshots, if the program stores an object for each.
    pub snapshots: Option<u64>,
    /// When the newest snapshot was written; without snapshots, the newest object.
    pub newest: Option<DateTime>,
}

/// The rhythm of a series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeriesRhythm {
    /// A fixed distance, in seconds.
    Seconds(i64),
    /// A number of days.
    Days(u16),
    /// A number of months.
    Months(u16),
}

/// What one slot of a series has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotMark {
    /// One backup.
    One,
    /// Two or more.
    Several,
    /// None.
    Missed,
}

/// One series that was judged: the backups of one role, under one or several names.
#[derive(Debug, Clone, PartialEq)]
pub struct ForeignSeries {
    /// Its keys with `{date}`, `{host}` and the like for what varies.
    pub name: String,
    /// The names under which it is stored, if several.
    pub hosts: Vec<String>,
    /// Number of backups.
    pub backups: u64,
    /// Their bytes, with checksums, logs and parts.
    pub bytes: u64,
    /// The first and the last slot.
    pub span: (DateTime, DateTime),
    /// The rhythm.
    pub rhythm: SeriesRhythm,
    /// Each slot, for a calendar, oldest first; the newest [`CALENDAR_SLOTS_MAX`].
    pub slots: Vec<(DateTime, SlotMark)>,
}

/// How many slots a series keeps for a calendar.
pub const CALENDAR_SLOTS_MAX: usize = 400;

/// What an audit of a listing found.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ForeignAudit {
    /// Number of objects, versions included.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The first and the last time of writing.
    pub span: Option<(DateTime, DateTime)>,
    /// The series that were judged.
    pub series: Vec<ForeignSeries>,
    /// Repositories of known programs.
    pub repositories: Vec<ForeignRepository>,
    /// The findings, the worst first.
    pub findings: Vec<ForeignFinding>,
    /// Number of findings that are not listed, because there are too many of a kind.
    pub unlisted: u64,
    /// What else is worth knowing.
    pub notes: Vec<ForeignNote>,
}

impl ForeignAudit {
    /// Whether a finding fails the check: one that is sure or likely.
    pub fn is_sick(&self) -> bool {
        self.findings.iter().any(|finding| finding.confidence >= FindingConfidence::Likely)
    }
}

//! Pure. Which series differ in one name only, and what the names are.
//!
//! No pair of all is looked at: each series is put under each of its names left out, and only those that meet there are
//! compared. Of many that meet, only neighbours in size or in the course of their sizes are.

use std::collections::{BTreeMap, HashSet};

use super::civil_time::DAY;
use super::file_kind::{is_extension_word, without_compression};
use super::key_token::uuid_end;
use super::series::BackupSeries;

/// Up to so many series that meet are all compared with each other.
const COMPARED_ALL: usize = 12;

/// Of more, each is compared with so many neighbours.
const NEIGHBOURS: usize = 6;

/// Up to so many series of a listing are also looked for that differ in two names.
const TWO_NAMES_MAX: usize = 300;

/// A whole part of the keys differs, not a name in it. Weaker than one name, so one name or two are preferred.
pub(super) const WHOLE_CHUNK: u8 = 3;

/// Two series that differ in their names only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TwinCandidate {
    pub(super) first: usize,
    pub(super) second: usize,
    /// Where in the name of each series the differing name stands; `None` if only the compression differs.
    pub(super) at: Option<(usize, usize)>,
    /// How many names differ; [`WHOLE_CHUNK`] for a part with any number of them.
    pub(super) names: u8,
    /// How many comparisons of this kind there are.
    pub(super) rivals: usize,
}

/// A name in the text of a series: letters and digits, outside braces.
fn names_of(text: &str) -> Vec<(usize, usize)> {
    let bytes = text.as_bytes();
    let mut names = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == b'{' {
            at += text[at..].find('}').map_or(1, |end| end + 1);
        } else if let Some(end) = uuid_end(bytes, at) {
            names.push((at, end));
            at = end;
        } else if bytes[at].is_ascii_alphanumeric() || !bytes[at].is_ascii() {
            let len = bytes[at..].iter().take_while(|byte| byte.is_ascii_alphanumeric() || !byte.is_ascii()).count();
            names.push((at, at + len));
            at += len;
        } else {
            at += 1;
        }
    }
    names
}

/// Words that name a generation of copies or a kind of backup, not a writer.
fn is_generation(name: &str) -> bool {
    let word = name.trim_end_matches(|letter: char| letter.is_ascii_digit()).to_ascii_lowercase();
    matches!(
        word.as_str(),
        "hourly"
            | "daily"
            | "weekly"
            | "monthly"
            | "quarterly"
            | "yearly"
            | "annual"
            | "nightly"
            | "hour"
            | "day"
            | "week"
            | "month"
            | "year"
            | "taeglich"
            | "woechentlich"
            | "monatlich"
            | "jaehrlich"
            | "son"
            | "father"
            | "grandfather"
            | "full"
            | "inc"
            | "incr"
            | "incremental"
            | "diff"
            | "differential"
            | "base"
            | "wal"
            | "binlog"
            | "schema"
            | "data"
    )
}

/// Words that say that a file is a copy of another one, kept elsewhere.
fn is_copy_word(name: &str) -> bool {
    matches!(
        name.to_ascii_lowercase().as_str(),
        "copy"
            | "copies"
            | "offsite"
            | "onsite"
            | "mirror"
            | "archive"
            | "archived"
            | "vault"
            | "glacier"
            | "cold"
            | "remote"
            | "offline"
            | "dr"
            | "longterm"
            | "keep"
    )
}

/// Words that name a stage of a system: a copy of production is made there on purpose.
fn is_stage(name: &str) -> bool {
    let word = name.trim_end_matches(|letter: char| letter.is_ascii_digit()).to_ascii_lowercase();
    matches!(
        word.as_str(),
        "prod"
            | "production"
            | "live"
            | "staging"
            | "stage"
            | "stg"
            | "test"
            | "testing"
            | "dev"
            | "qa"
            | "uat"
            | "preprod"
            | "demo"
    )
}

/// What two differing names say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NameRelation {
    /// They may be two writers.
    Writers,
    /// A stage and its copy, or shards that grow evenly: a listing does not tell.
    Undecided,
    /// Generations or kinds of one backup, or a copy of it.
    OneWriter,
}

impl TwinCandidate {
    /// What the differing names say.
    pub(super) fn relation(&self, series: &[BackupSeries]) -> NameRelation {
        let Some((first, second)) = self.at else { return NameRelation::OneWriter };
        if self.names == WHOLE_CHUNK {
            let (a, b) = (chunk_at(&series[self.first].name, first), chunk_at(&series[self.second].name, second));
            return relation_of_chunks(a, b);
        }
        let (a, b) = (name_at(&series[self.first].name, first), name_at(&series[self.second].name, second));
        if is_generation(a) || is_generation(b) || is_copy_word(a) || is_copy_word(b) {
            return NameRelation::OneWriter;
        }
        if is_extension(&series[self.first].name, first) {
            return NameRelation::OneWriter;
        }
        if (is_stage(a) && is_stage(b)) || are_shards(&series[self.first].name, first) {
            return NameRelation::Undecided;
        }
        NameRelation::Writers
    }

    /// The differing names as a person writes them.
    pub(super) fn labels(&self, series: &[BackupSeries]) -> (String, String) {
        match self.at {
            Some((first, second)) => {
                let (a, b) = (&series[self.first].name, &series[self.second].name);
                if self.names == WHOLE_CHUNK {
                    return (chunk_label(a, first), chunk_label(b, second));
                }
                (label(a, first), label(b, second))
            }
            None => (series[self.first].name.clone(), series[self.second].name.clone()),
        }
    }
}

/// Whether the names are numbers of shards.
fn are_shards(text: &str, start: usize) -> bool {
    let before = text[..start].trim_end_matches(['-', '_', '.', ' ']);
    let whole = name_at(text, start).to_ascii_lowercase();
    ["shard", "partition", "slice", "bucket", "stripe"]
        .iter()
        .any(|word| before.to_ascii_lowercase().ends_with(word) || whole.starts_with(word))
}

fn name_at(text: &str, start: usize) -> &str {
    names_of(text).into_iter().find(|(at, _)| *at == start).map_or("", |(start, end)| &text[start..end])
}

/// Whether a name is the extension of its file.
fn is_extension(text: &str, start: usize) -> bool {
    let file = text.rfind('/').map_or(0, |slash| slash + 1);
    let plain = without_compression(text);
    let last_dot = plain.rfind('.').filter(|dot| *dot > file);
    last_dot.is_some_and(|dot| dot + 1 == start) && !name_at(text, start).bytes().all(|byte| byte.is_ascii_digit())
}

/// A name with what belongs to it: `b` of `node-b` alone says nothing, neither does one number of an address.
///
/// A directory that has no date is a name as a whole. In the name of a file the words that stand around are part of it if they
/// look like one name: `fra1-vm3`, `db5.example.net`, but not the `backup-` of `backup-app01`.
fn label(text: &str, start: usize) -> String {
    let names = names_of(text);
    let Some((_, wanted_end)) = names.iter().copied().find(|(at, _)| *at == start) else { return String::new() };
    let name = &text[start..wanted_end];
    let directories = text.rfind('/').map_or(0, |slash| slash + 1);
    let mut at = 0;
    for segment in text[..directories].split_inclusive('/') {
        let directory = segment.trim_end_matches('/');
        let has_name =
            names.iter().any(|(from, to)| *from >= at && *to <= at + directory.len() && &text[*from..*to] == name);
        if has_name && !directory.contains('{') && (at == 0 || directory.len() <= 80) {
            let words = directory.split(['-', '_', '.']).count();
            if words <= 6 {
                return directory.to_owned();
            }
        }
        at += segment.len();
    }
    chain_label(text, &names, start)
}

/// Words in the names of files that name no host.
fn is_plain_word(word: &str) -> bool {
    matches!(
        word.to_ascii_lowercase().as_str(),
        "backup"
            | "backups"
            | "bak"
            | "bkp"
            | "dump"
            | "dumps"
            | "snapshot"
            | "snap"
            | "export"
            | "archive"
            | "files"
            | "data"
            | "full"
            | "daily"
            | "nightly"
            | "weekly"
            | "db"
            | "database"
            | "mysql"
            | "mariadb"
            | "postgres"
            | "postgresql"
            | "pgdump"
            | "pg"
            | "mongo"
            | "mongodb"
            | "redis"
            | "etcd"
            | "home"
            | "www"
            | "etc"
            | "var"
            | "srv"
            | "on"
            | "from"
            | "at"
            | "host"
            | "server"
    )
}

/// Words that name no host without the word before.
fn is_role_word(word: &str) -> bool {
    matches!(
        word.to_ascii_lowercase().as_str(),
        "primary"
            | "replica"
            | "master"
            | "slave"
            | "standby"
            | "active"
            | "passive"
            | "secondary"
            | "main"
            | "left"
            | "right"
            | "blue"
            | "green"
            | "old"
            | "new"
    )
}

/// The name with the words before and behind it that belong to it.
fn chain_label(text: &str, names: &[(usize, usize)], start: usize) -> String {
    let Some(index) = names.iter().position(|(at, _)| *at == start) else { return String::new() };
    let word = |at: usize| &text[names[at].0..names[at].1];
    let between = |left: usize| &text[names[left].1..names[left + 1].0];
    let has_digit = |word: &str| word.bytes().any(|byte| byte.is_ascii_digit());
    let is_digits = |word: &str| word.bytes().all(|byte| byte.is_ascii_digit());
    let (mut first, mut last) = (index, index);
    // An address: four numbers.
    while first > 0 && matches!(between(first - 1), "." | "-") && is_digits(word(first - 1)) && is_digits(word(first)) {
        first -= 1;
    }
    while last + 1 < names.len()
        && matches!(between(last), "." | "-")
        && is_digits(word(last + 1))
        && is_digits(word(last))
    {
        last += 1;
    }
    if last - first != 3 {
        (first, last) = (index, index);
    }
    // The rest of a full name: `db5.example.net`.
    while last + 1 < names.len()
        && between(last) == "."
        && !is_extension_word(word(last + 1))
        && !is_digits(word(last + 1))
    {
        last += 1;
    }
    while first > 0 && matches!(between(first - 1), "-" | "_" | ".") {
        let so_far = &text[names[first].0..names[last].1];
        let is_address = last - first == 3 && is_digits(word(first));
        let needs = so_far.len() <= 2 || so_far.bytes().all(|byte| !byte.is_ascii_alphabetic()) || is_role_word(so_far);
        let needs = needs && (!is_address || word(first - 1) == "ip");
        let before = word(first - 1);
        let belongs = has_digit(before) && !is_digits(before) && between(first - 1) == "-";
        let is_id = matches!(before, "i" | "ip" | "vm" | "node") && between(first - 1) == "-";
        if !(needs || belongs || is_id) || (is_plain_word(before) && !needs) {
            break;
        }
        first -= 1;
    }
    text[names[first].0..names[last].1].to_owned()
}

/// All pairs of series that differ in one name, or in none but the compression.
pub(super) fn find_candidates(series: &[BackupSeries], judged: &[usize]) -> Vec<TwinCandidate> {
    let texts: Vec<(usize, String)> =
        judged.iter().map(|index| (*index, without_compression(&series[*index].name))).collect();
    // What is left of a series' name without one of its names → the series that have that, and where the name stood.
    let mut meeting: BTreeMap<String, Vec<(usize, Option<usize>)>> = BTreeMap::new();
    for (index, text) in &texts {
        meeting.entry(text.clone()).or_default().push((*index, None));
        let names = names_of(text);
        let mut seen = HashSet::new();
        for (start, end) in &names {
            let name = &text[*start..*end];
            if seen.insert(name) {
                let places: Vec<(usize, usize)> =
                    names.iter().copied().filter(|(from, to)| &text[*from..*to] == name).collect();
                meeting.entry(without(text, &places)).or_default().push((*index, Some(*start)));
                if places.len() > 1 {
                    for place in places {
                        meeting.entry(without(text, &[place])).or_default().push((*index, Some(place.0)));
                    }
                }
            }
        }
    }
    let mut found: BTreeMap<(usize, usize), TwinCandidate> = BTreeMap::new();
    for group in meeting.into_values().filter(|group| group.len() >= 2) {
        add_pairs(series, &group, 1, &mut found);
    }
    if judged.len() <= TWO_NAMES_MAX {
        let mut meeting: BTreeMap<String, Vec<(usize, Option<usize>)>> = BTreeMap::new();
        for (index, text) in &texts {
            let names = names_of(text);
            let distinct: Vec<&str> = names.iter().map(|(from, to)| &text[*from..*to]).collect();
            for (one, first) in names.iter().enumerate() {
                for second in &names[one + 1..] {
                    let (a, b) = (&text[first.0..first.1], &text[second.0..second.1]);
                    if a == b || distinct.iter().position(|name| *name == a) != Some(one) {
                        continue;
                    }
                    let places: Vec<(usize, usize)> = names
                        .iter()
                        .copied()
                        .filter(|(from, to)| &text[*from..*to] == a || &text[*from..*to] == b)
                        .collect();
                    meeting.entry(without(text, &places)).or_default().push((*index, Some(first.0)));
                }
            }
        }
        for group in meeting.into_values().filter(|group| group.len() >= 2) {
            add_pairs(series, &group, 2, &mut found);
        }
    }
    add_chunk_pairs(series, &texts, &mut found);
    found.into_values().collect()
}

/// Pairs of which a whole part of the keys differs, whatever words it has: `mail` and `mail-old`, `db1` and `db1.example.net`.
fn add_chunk_pairs(
    series: &[BackupSeries],
    texts: &[(usize, String)],
    found: &mut BTreeMap<(usize, usize), TwinCandidate>,
) {
    let mut meeting: BTreeMap<String, Vec<(usize, Option<usize>)>> = BTreeMap::new();
    for (index, text) in texts {
        let chunks = chunks_of(text);
        let mut seen = HashSet::new();
        for (start, end) in &chunks {
            let chunk = &text[*start..*end];
            if !seen.insert(chunk) {
                continue;
            }
            let places: Vec<(usize, usize)> =
                chunks.iter().copied().filter(|(from, to)| &text[*from..*to] == chunk).collect();
            meeting.entry(without(text, &places)).or_default().push((*index, Some(*start)));
        }
    }
    for group in meeting.into_values().filter(|group| group.len() >= 2) {
        add_pairs(series, &group, WHOLE_CHUNK, found);
    }
}

/// The parts of a series' name between `/` and placeholders, without separators at their ends and without the extension.
fn chunks_of(text: &str) -> Vec<(usize, usize)> {
    let mut chunks = Vec::new();
    let mut start = 0;
    let mut add = |from: usize, to: usize, is_tail: bool| {
        let mut part = &text[from..to];
        if is_tail {
            // The extension: from the first dot behind which only extensions follow.
            while let Some((before, extension)) = part.rsplit_once('.') {
                if !is_extension_word(extension) {
                    break;
                }
                part = before;
            }
        }
        let separators = ['-', '_', '.', ' ', '@', '~', '+'];
        let left = part.len() - part.trim_start_matches(separators).len();
        let part = part.trim_matches(separators);
        if part.bytes().any(|byte| byte.is_ascii_alphanumeric() || !byte.is_ascii()) {
            chunks.push((from + left, from + left + part.len()));
        }
    };
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == b'{' {
            add(start, at, false);
            at += text[at..].find('}').map_or(1, |end| end + 1);
            start = at;
        } else if bytes[at] == b'/' {
            add(start, at, false);
            at += 1;
            start = at;
        } else {
            at += 1;
        }
    }
    add(start, text.len(), true);
    chunks
}

/// What two differing chunks say, by the words that only one of them has.
fn relation_of_chunks(a: &str, b: &str) -> NameRelation {
    let words = |text: &str| -> HashSet<String> {
        text.split(|letter: char| !letter.is_alphanumeric())
            .filter(|word| !word.is_empty())
            .map(str::to_ascii_lowercase)
            .collect()
    };
    let (a, b) = (words(a), words(b));
    let mut differing = a.symmetric_difference(&b);
    if differing.clone().any(|word| is_generation(word) || is_copy_word(word)) {
        NameRelation::OneWriter
    } else if differing.any(|word| is_stage(word)) {
        NameRelation::Undecided
    } else {
        NameRelation::Writers
    }
}

/// The chunk that begins here.
fn chunk_at(text: &str, start: usize) -> &str {
    chunks_of(text).into_iter().find(|(from, _)| *from == start).map_or("", |(from, to)| &text[from..to])
}

/// A chunk without the words before it that name no host.
fn chunk_label(text: &str, start: usize) -> String {
    let mut chunk = chunk_at(text, start);
    while let Some((word, rest)) = chunk.split_once(['-', '_']) {
        if !is_plain_word(word) || rest.is_empty() {
            break;
        }
        chunk = rest;
    }
    chunk.to_owned()
}

fn without(text: &str, places: &[(usize, usize)]) -> String {
    let mut rest = String::with_capacity(text.len());
    let mut at = 0;
    for (start, end) in places {
        rest.push_str(&text[at..*start]);
        rest.push('\u{1}');
        at = *end;
    }
    rest.push_str(&text[at..]);
    rest
}

fn add_pairs(
    series: &[BackupSeries],
    group: &[(usize, Option<usize>)],
    names: u8,
    found: &mut BTreeMap<(usize, usize), TwinCandidate>,
) {
    let rivals = group.len() * (group.len() - 1) / 2;
    let mut add = |a: (usize, Option<usize>), b: (usize, Option<usize>)| {
        if a.0 == b.0 {
            return;
        }
        let (a, b) = if a.0 < b.0 { (a, b) } else { (b, a) };
        let at = a.1.zip(b.1);
        let names = if at.is_none() { 0 } else { names };
        let candidate = TwinCandidate { first: a.0, second: b.0, at, names, rivals };
        let known = found.entry((a.0, b.0)).or_insert(candidate);
        if candidate.names < known.names {
            *known = candidate;
        } else if candidate.names == known.names {
            known.rivals = known.rivals.min(rivals);
        }
    };
    if group.len() <= COMPARED_ALL {
        for (index, a) in group.iter().enumerate() {
            for b in &group[index + 1..] {
                add(*a, *b);
            }
        }
        return;
    }
    let mut by_size: Vec<(u64, usize)> =
        group.iter().enumerate().map(|(place, (index, _))| (middle_size(&series[*index]), place)).collect();
    by_size.sort_unstable();
    let mut by_course: Vec<(u32, usize)> =
        group.iter().enumerate().map(|(place, (index, _))| (course(&series[*index]), place)).collect();
    by_course.sort_unstable();
    for place in 0..group.len() {
        for step in 1..=NEIGHBOURS {
            if let Some(other) = by_size.get(place + step) {
                add(group[by_size[place].1], group[other.1]);
            }
            if let Some(other) = by_course.get(place + step).filter(|other| other.0 == by_course[place].0) {
                add(group[by_course[place].1], group[other.1]);
            }
        }
    }
}

/// The size of a usual backup of a series, of its newest ones.
pub(super) fn middle_size(series: &BackupSeries) -> u64 {
    let newest = series.entries.len().saturating_sub(15);
    let mut sizes: Vec<u64> = series.entries[newest..].iter().map(|entry| entry.size).collect();
    sizes.sort_unstable();
    sizes.get(sizes.len() / 2).copied().unwrap_or(0)
}

/// Whether the size rose, for each of the last days that a series has: equal for series of one content.
fn course(series: &BackupSeries) -> u32 {
    let mut bits = 0_u32;
    for pair in series.entries.windows(2) {
        let day = pair[1].at.div_euclid(DAY).rem_euclid(16) as u32;
        let bit = 1 << day;
        bits = if pair[1].size > pair[0].size { bits | bit } else { bits & !bit };
    }
    bits
}

/// The name of a group of series: the differing name becomes `{host}`.
pub(super) fn common_name(series: &BackupSeries, at: Option<usize>) -> String {
    let Some(start) = at else { return series.name.clone() };
    let name = name_at(&series.name, start);
    let places: Vec<(usize, usize)> =
        names_of(&series.name).into_iter().filter(|(from, to)| &series.name[*from..*to] == name).collect();
    without(&series.name, &places).replace('\u{1}', "{host}")
}

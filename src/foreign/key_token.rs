//! Pure. A key cut into words, numbers, random tokens and separators.
//!
//! Keys of one *shape* differ only in numbers, random tokens and names of weekdays and months. What these mean is decided for
//! all keys of a shape at once, see [`super::key_plan`].

use std::hash::{Hash, Hasher};

use super::calendar_word::is_calendar_word;

/// What a token is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum TokenKind {
    /// Letters.
    Word,
    /// Letters that may name a weekday or a month.
    CalendarWord,
    /// Digits.
    Number,
    /// Letters and digits that look as if a program had drawn them: a container's ID, a pod's suffix, a UUID.
    Random,
    /// `aa`, `ab`, … behind the extension of an archive: the letters that `split` appends.
    PartLetters,
    /// One other character.
    Separator,
}

/// One token: a range of bytes of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KeyToken {
    pub(super) kind: TokenKind,
    pub(super) start: usize,
    pub(super) end: usize,
}

impl KeyToken {
    /// Its text.
    pub(super) fn text<'k>(&self, key: &'k str) -> &'k str {
        &key[self.start..self.end]
    }

    /// Its number of bytes.
    pub(super) fn len(&self) -> usize {
        self.end - self.start
    }
}

/// The characters of Kubernetes' suffixes: no vowels, and no digits that look like letters.
const POD_ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// Words of five such characters.
const POD_LOOKALIKES: [&str; 5] = ["html5", "pgsql", "mssql", "xhtml", "https"];

/// Cuts a key. Fills `tokens`, which is emptied before.
pub(super) fn tokenize(key: &str, tokens: &mut Vec<KeyToken>) {
    tokens.clear();
    let bytes = key.as_bytes();
    let is_run = |byte: u8| byte.is_ascii_alphanumeric() || !byte.is_ascii();
    let mut at = 0;
    while at < bytes.len() {
        if !is_run(bytes[at]) {
            tokens.push(KeyToken { kind: TokenKind::Separator, start: at, end: at + 1 });
            at += 1;
            continue;
        }
        if let Some(end) = uuid_end(bytes, at) {
            tokens.push(KeyToken { kind: TokenKind::Random, start: at, end });
            at = end;
            continue;
        }
        let end = at + bytes[at..].iter().take_while(|byte| is_run(**byte)).count();
        if is_hash_directory(key, at, end) {
            tokens.push(KeyToken { kind: TokenKind::Random, start: at, end });
            at = end;
            continue;
        }
        push_run(key, at, end, tokens);
        at = end;
    }
    mark_part_letters(key, tokens);
}

/// Whether this is a directory of two to four hexadecimal digits over a file that is named by a hash: content is spread over
/// such directories.
fn is_hash_directory(key: &str, start: usize, end: usize) -> bool {
    let bytes = key.as_bytes();
    let is_hex = |part: &[u8]| part.iter().all(u8::is_ascii_hexdigit);
    let is_directory = (start == 0 || bytes[start - 1] == b'/') && bytes.get(end) == Some(&b'/');
    if !is_directory || !(2..=4).contains(&(end - start)) || !is_hex(&bytes[start..end]) {
        return false;
    }
    let name = key.rsplit('/').next().unwrap_or_default();
    let hash = name.bytes().take_while(u8::is_ascii_hexdigit).count();
    hash >= 24 || (hash >= 16 && hash == name.len())
}

/// The end of the UUID that begins here.
pub(super) fn uuid_end(bytes: &[u8], start: usize) -> Option<usize> {
    const DASHES: [usize; 4] = [8, 13, 18, 23];
    let text = bytes.get(start..start + 36)?;
    let follows = bytes.get(start + 36).is_some_and(u8::is_ascii_alphanumeric);
    let is_uuid = text
        .iter()
        .enumerate()
        .all(|(index, byte)| if DASHES.contains(&index) { *byte == b'-' } else { byte.is_ascii_hexdigit() });
    (is_uuid && !follows).then_some(start + 36)
}

/// One run of letters and digits.
fn push_run(key: &str, start: usize, end: usize, tokens: &mut Vec<KeyToken>) {
    let run = &key.as_bytes()[start..end];
    if let Some(year) = date_behind_name(key, start, end) {
        push_run(key, start, year, tokens);
        tokens.push(KeyToken { kind: TokenKind::Number, start: year, end });
        return;
    }
    let digits = run.iter().filter(|byte| byte.is_ascii_digit()).count();
    if digits == run.len() && !may_be_time(&key[start..end]) {
        tokens.push(KeyToken { kind: TokenKind::Random, start, end });
        return;
    }
    if is_pod_suffix(key, start, end, tokens) || (digits < run.len() && is_random(run, digits)) {
        tokens.push(KeyToken { kind: TokenKind::Random, start, end });
        return;
    }
    let mut at = start;
    while at < end {
        let is_digit = key.as_bytes()[at].is_ascii_digit();
        let count = key.as_bytes()[at..end].iter().take_while(|byte| byte.is_ascii_digit() == is_digit).count();
        let kind = match is_digit {
            true => TokenKind::Number,
            false if is_calendar_word(&key[at..at + count]) => TokenKind::CalendarWord,
            false => TokenKind::Word,
        };
        tokens.push(KeyToken { kind, start: at, end: at + count });
        at += count;
    }
}

/// Where the year begins, if a name and a date stand side by side: `DC01D2026-11-16`.
fn date_behind_name(key: &str, start: usize, end: usize) -> Option<usize> {
    let bytes = key.as_bytes();
    let year = end.checked_sub(4).filter(|year| *year > start)?;
    let is_year = matches!(&bytes[year..year + 2], b"19" | b"20") && bytes[year..end].iter().all(u8::is_ascii_digit);
    let goes_on = matches!(bytes.get(end)?, b'-' | b'_' | b'.')
        && bytes.get(end + 1..end + 3).is_some_and(|month| month.iter().all(u8::is_ascii_digit));
    (is_year && goes_on && !bytes[year - 1].is_ascii_digit()).then_some(year)
}

/// Whether a number may be a date or a time, or is short. Others are drawn at random: a hash without a letter.
fn may_be_time(digits: &str) -> bool {
    let value: u64 = digits.parse().unwrap_or(u64::MAX);
    let is_year = |year: u64| (1990..=2099).contains(&year);
    let is_epoch = |factor: u64| (900_000_000 * factor..2_200_000_000 * factor).contains(&value);
    match digits.len() {
        0..=6 => true,
        8 => is_year(value / 10_000) || is_year(value % 10_000) || (20_000_000..40_000_000).contains(&value),
        10 => is_epoch(1) || is_year(value / 1_000_000),
        12 => is_year(value / 100_000_000),
        13 => is_epoch(1_000),
        14 => is_year(value / 10_000_000_000),
        16 => is_epoch(1_000_000),
        17 => is_year(value / 10_000_000_000_000),
        19 => is_epoch(1_000_000_000),
        _ => false,
    }
}

/// Whether these five characters are what Kubernetes appends to the name of a pod, whose name ends in a number or a random
/// token: `-28812345-x7k2p`, `-7d9f8b6c5d-bcdfg`.
fn is_pod_suffix(key: &str, start: usize, end: usize, tokens: &[KeyToken]) -> bool {
    let run = &key.as_bytes()[start..end];
    if run.len() != 5 || !run.iter().all(|byte| POD_ALPHABET.contains(byte)) {
        return false;
    }
    let [.., name, dash] = tokens else { return false };
    if dash.kind != TokenKind::Separator || dash.text(key) != "-" {
        return false;
    }
    let letters = run.iter().filter(|byte| byte.is_ascii_alphabetic()).count();
    let is_drawn = letters > 0 && !POD_LOOKALIKES.contains(&&key[start..end]);
    let of_pod = (name.kind == TokenKind::Number && name.len() == 8)
        || (name.kind == TokenKind::Random && (8..=10).contains(&name.len()));
    is_drawn || of_pod
}

/// Whether letters and digits are mixed as no person would do it.
fn is_random(run: &[u8], digits: usize) -> bool {
    if digits == 0 {
        return is_mixed_case(run);
    }
    if is_time_run(run) || !run.is_ascii() {
        return false;
    }
    let changes = run.windows(2).filter(|pair| pair[0].is_ascii_digit() != pair[1].is_ascii_digit()).count();
    let is_hex = run.iter().all(u8::is_ascii_hexdigit);
    (run.len() >= 5 && changes >= 3) || (is_hex && ((run.len() >= 8 && changes >= 2) || run.len() >= 12))
}

/// `aBcDeF`: what mktemp draws, unlike `BackupOfShop`.
fn is_mixed_case(run: &[u8]) -> bool {
    let changes = run.windows(2).filter(|pair| pair[0].is_ascii_lowercase() && pair[1].is_ascii_uppercase()).count();
    run.len() >= 6 && changes * 3 >= run.len()
}

/// `20261001T010003Z`, `03h15m`, `2026W45`, `01Oct2026`, `2026y10m01d`: numbers with letters that belong to a time.
fn is_time_run(run: &[u8]) -> bool {
    let mut numbers = run.split(|byte| !byte.is_ascii_digit()).filter(|number| !number.is_empty());
    if !numbers.all(|number| matches!(number.len(), 1 | 2 | 4 | 6 | 8)) {
        return false;
    }
    let mut words = run.split(u8::is_ascii_digit).filter(|word| !word.is_empty());
    words.all(|word| {
        let word = str::from_utf8(word).unwrap_or_default();
        matches!(word, "T" | "t" | "Z" | "z" | "W" | "w" | "h" | "H" | "m" | "M" | "s" | "S" | "y" | "Y" | "d" | "D")
            || (word.len() >= 3 && super::calendar_word::month(word).is_some())
    })
}

/// Extensions behind which the letters of `split` may stand.
const SPLIT_AFTER: [&str; 22] = [
    "gz", "zst", "xz", "bz2", "lz4", "zip", "7z", "tar", "tgz", "vma", "sql", "dump", "gpg", "enc", "age", "img",
    "raw", "qcow2", "iso", "bak", "br", "lzo",
];

fn mark_part_letters(key: &str, tokens: &mut [KeyToken]) {
    let [.., extension, dot, last] = tokens else { return };
    let text = last.text(key);
    let is_part = matches!(last.kind, TokenKind::Word | TokenKind::CalendarWord)
        && dot.text(key) == "."
        && (2..=3).contains(&text.len())
        && text.starts_with(['a', 'b', 'c'])
        && text.bytes().all(|byte| byte.is_ascii_lowercase())
        && !matches!(text, "asc" | "age" | "bak" | "bz" | "br" | "ar" | "cfg" | "csv" | "crc");
    // `7z` and `bz2` are two tokens: their end is compared.
    let before = &key[..extension.end];
    if is_part && SPLIT_AFTER.iter().any(|known| before.len() > known.len() && before.ends_with(known)) {
        last.kind = TokenKind::PartLetters;
    }
}

/// The class of a number's length: lengths that dates and times have are told apart.
pub(super) fn number_class(len: usize) -> u8 {
    if matches!(len, 4 | 6 | 8 | 10 | 12 | 13 | 14 | 16 | 17 | 19) { len as u8 } else { 0 }
}

/// Feeds a key's shape to a hash.
pub(super) fn hash_shape(key: &str, tokens: &[KeyToken], hasher: &mut impl Hasher) {
    for token in tokens {
        token.kind.hash(hasher);
        match token.kind {
            TokenKind::Word => hasher.write(token.text(key).as_bytes()),
            TokenKind::Separator => hasher.write_u8(key.as_bytes()[token.start]),
            TokenKind::Number => hasher.write_u8(number_class(token.len())),
            TokenKind::Random => hasher.write_u8(token.len().min(255) as u8),
            TokenKind::CalendarWord | TokenKind::PartLetters => {}
        }
    }
}

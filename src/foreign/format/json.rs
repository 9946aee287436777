//! Pure. Objects in JSON: of `mc ls --json`, `rclone lsjson`, and the entries of `aws s3api`.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::collector::{EntryVersion, ListedEntry, ListedLine};
use super::error::ListingError;
use super::time;

/// What one JSON object says about an object of a bucket.
#[derive(Debug, Default)]
pub(super) struct JsonEntry {
    key: Option<Vec<u8>>,
    size: Option<i64>,
    modified: Option<i64>,
    is_latest: Option<bool>,
    has_version: bool,
    /// The version is that of a bucket that keeps none.
    is_null_version: bool,
    is_delete_marker: bool,
    is_folder: bool,
    /// The program reports an error instead of an object.
    is_error: bool,
    /// The listing goes on in another document.
    is_cut: bool,
    /// The object is the manifest of an inventory.
    is_manifest: bool,
    /// It has a name of the documents of `aws s3api`.
    is_document: bool,
}

impl JsonEntry {
    /// What is to be collected.
    pub(super) fn into_line(self) -> ListedLine<'static> {
        let Some(key) = self.key.filter(|_| !self.is_error) else { return ListedLine::Unread };
        let key = Cow::Owned(key);
        if self.is_folder {
            return ListedLine::Nothing;
        }
        if self.is_delete_marker {
            return ListedLine::DeleteMarker(key);
        }
        let version = match (self.is_latest, self.has_version) {
            (Some(true) | None, _) if self.is_null_version => EntryVersion::Unknown,
            (Some(is_latest), _) => EntryVersion::Named { is_latest },
            (None, true) => EntryVersion::Ordered,
            (None, false) => EntryVersion::Unknown,
        };
        match (self.size, self.modified) {
            (Some(size @ 0..), Some(modified)) => {
                ListedLine::Object(ListedEntry { key, size: size as u64, modified, version })
            }
            // rclone: the size is not known.
            (Some(_), Some(_)) => ListedLine::Nothing,
            _ => ListedLine::Unread,
        }
    }
}

/// What receives the entries of a document.
pub(super) trait EntrySink {
    /// Takes an entry; an error ends the reading.
    fn entry(&mut self, entry: JsonEntry) -> Result<(), ListingError>;
}

/// Walks through a value: objects with a key are entries, and arrays and known names hold more of them.
pub(super) struct EntryWalk<'a, S> {
    pub(super) sink: &'a mut S,
    /// The error of the sink, which serde cannot carry.
    pub(super) failed: &'a mut Option<ListingError>,
    pub(super) are_delete_markers: bool,
    /// Versions are listed: each of them, also the only one of a key.
    pub(super) are_versions: bool,
}

impl<S> EntryWalk<'_, S> {
    fn below(&mut self, name: EntryField) -> EntryWalk<'_, S> {
        EntryWalk {
            sink: self.sink,
            failed: self.failed,
            are_delete_markers: self.are_delete_markers || name == EntryField::DeleteMarkers,
            are_versions: self.are_versions || name == EntryField::Versions,
        }
    }
}

impl<'de, S: EntrySink> DeserializeSeed<'de> for EntryWalk<'_, S> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, S: EntrySink> Visitor<'de> for EntryWalk<'_, S> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("objects of a bucket")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(self.below(EntryField::Other))?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        let mut entry = JsonEntry { is_delete_marker: self.are_delete_markers, ..JsonEntry::default() };
        entry.has_version = self.are_versions;
        while let Some(name) = map.next_key_seed(EntryField::Other)? {
            match name {
                EntryField::Contents | EntryField::Versions | EntryField::DeleteMarkers => {
                    entry.is_document = true;
                    map.next_value_seed(self.below(name))?;
                }
                name => scalar(&mut entry, name, &mut map)?,
            }
        }
        if let Err(error) = self.sink.entry(entry) {
            *self.failed = Some(error);
            return Err(A::Error::custom("given up"));
        }
        Ok(())
    }
}

impl JsonEntry {
    /// Whether the object is an envelope, not an object of a bucket.
    pub(super) fn is_envelope(&self) -> bool {
        self.key.is_none() && !self.is_error
    }

    /// What the envelope says about the listing as a whole.
    pub(super) fn check_envelope(&self) -> Result<(), ListingError> {
        if self.is_cut {
            return Err(ListingError::Incomplete("it says that there are more objects"));
        }
        if self.is_manifest {
            return Err(ListingError::Manifest);
        }
        Ok(())
    }

    /// Whether the envelope is a document of `aws s3api`, perhaps without objects.
    pub(super) fn is_document(&self) -> bool {
        self.is_document
    }
}

fn scalar<'de, A: MapAccess<'de>>(entry: &mut JsonEntry, name: EntryField, map: &mut A) -> Result<(), A::Error> {
    match name {
        EntryField::Key => entry.key = Some(map.next_value_seed(KeyBytes)?),
        EntryField::Size => entry.size = map.next_value_seed(ScalarSeed)?.integer(),
        EntryField::Modified => entry.modified = map.next_value_seed(ScalarSeed)?.time(),
        EntryField::IsLatest => entry.is_latest = map.next_value_seed(ScalarSeed)?.flag(),
        EntryField::VersionId => {
            let id = map.next_value_seed(ScalarSeed)?;
            entry.is_null_version = id.is_word("null");
            entry.has_version |= id.is_text();
        }
        EntryField::IsDeleteMarker => entry.is_delete_marker |= map.next_value_seed(ScalarSeed)?.is(true),
        EntryField::IsDir => entry.is_folder |= map.next_value_seed(ScalarSeed)?.is(true),
        EntryField::Type => entry.is_folder |= map.next_value_seed(ScalarSeed)?.is_word("folder"),
        EntryField::Status => entry.is_error |= map.next_value_seed(ScalarSeed)?.is_word("error"),
        EntryField::IsTruncated => entry.is_cut |= map.next_value_seed(ScalarSeed)?.is(true),
        EntryField::NextToken => entry.is_cut |= map.next_value_seed(ScalarSeed)?.is_text(),
        EntryField::FileSchema => {
            entry.is_manifest = true;
            map.next_value::<IgnoredAny>()?;
        }
        EntryField::Document => {
            entry.is_document = true;
            map.next_value::<IgnoredAny>()?;
        }
        EntryField::Other | EntryField::Contents | EntryField::Versions | EntryField::DeleteMarkers => {
            map.next_value::<IgnoredAny>()?;
        }
    }
    Ok(())
}

/// The names that matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EntryField {
    Key,
    Size,
    Modified,
    IsLatest,
    VersionId,
    IsDeleteMarker,
    IsDir,
    Type,
    Status,
    IsTruncated,
    NextToken,
    FileSchema,
    Contents,
    Versions,
    DeleteMarkers,
    /// Another name of a document of `aws s3api`.
    Document,
    Other,
}

impl<'de> DeserializeSeed<'de> for EntryField {
    type Value = Self;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for EntryField {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self, E> {
        Ok(match name {
            "Key" | "key" | "Path" | "path" => Self::Key,
            "Size" | "size" => Self::Size,
            "LastModified" | "lastModified" | "last_modified" | "ModTime" => Self::Modified,
            "IsLatest" | "isLatest" | "is_latest" => Self::IsLatest,
            "VersionId" | "versionId" | "version_id" => Self::VersionId,
            "IsDeleteMarker" | "isDeleteMarker" => Self::IsDeleteMarker,
            "IsDir" => Self::IsDir,
            "type" => Self::Type,
            "status" => Self::Status,
            "IsTruncated" => Self::IsTruncated,
            "NextToken" => Self::NextToken,
            "fileSchema" => Self::FileSchema,
            "Contents" => Self::Contents,
            "Versions" => Self::Versions,
            "DeleteMarkers" => Self::DeleteMarkers,
            "RequestCharged" | "Prefix" | "Name" | "CommonPrefixes" | "KeyCount" => Self::Document,
            _ => Self::Other,
        })
    }
}

/// A key, also one that is no UTF-8.
struct KeyBytes;

impl<'de> DeserializeSeed<'de> for KeyBytes {
    type Value = Vec<u8>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<u8>, D::Error> {
        deserializer.deserialize_bytes(self)
    }
}

impl Visitor<'_> for KeyBytes {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
        Ok(bytes.to_vec())
    }

    fn visit_str<E>(self, text: &str) -> Result<Vec<u8>, E> {
        Ok(text.as_bytes().to_vec())
    }
}

/// A value that is no container.
enum JsonScalar {
    Integer(i64),
    Flag(bool),
    /// A text, with what it says as a time.
    Text {
        time: Option<i64>,
        integer: Option<i64>,
        word: &'static str,
        is_empty: bool,
    },
    Other,
}

/// The words that are compared.
const WORDS: [&str; 5] = ["folder", "error", "true", "false", "null"];

impl JsonScalar {
    fn integer(&self) -> Option<i64> {
        match self {
            Self::Integer(value) => Some(*value),
            Self::Text { integer, .. } => *integer,
            Self::Flag(_) | Self::Other => None,
        }
    }

    fn time(&self) -> Option<i64> {
        match self {
            Self::Integer(value) => time::epoch(value.to_string().as_bytes()),
            Self::Text { time, .. } => *time,
            Self::Flag(_) | Self::Other => None,
        }
    }

    fn flag(&self) -> Option<bool> {
        match self {
            Self::Flag(flag) => Some(*flag),
            Self::Text { word, .. } => ["false", "true"].iter().position(|known| known == word).map(|at| at == 1),
            Self::Integer(_) | Self::Other => None,
        }
    }

    fn is(&self, flag: bool) -> bool {
        self.flag() == Some(flag)
    }

    fn is_text(&self) -> bool {
        matches!(self, Self::Text { is_empty: false, .. })
    }

    fn is_word(&self, wanted: &str) -> bool {
        matches!(self, Self::Text { word, .. } if *word == wanted)
    }
}

struct ScalarSeed;

impl<'de> DeserializeSeed<'de> for ScalarSeed {
    type Value = JsonScalar;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<JsonScalar, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ScalarSeed {
    type Value = JsonScalar;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, a text or a truth value")
    }

    fn visit_unit<E>(self) -> Result<JsonScalar, E> {
        Ok(JsonScalar::Other)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<JsonScalar, E> {
        Ok(JsonScalar::Flag(flag))
    }

    fn visit_i64<E>(self, value: i64) -> Result<JsonScalar, E> {
        Ok(JsonScalar::Integer(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<JsonScalar, E> {
        Ok(i64::try_from(value).map_or(JsonScalar::Other, JsonScalar::Integer))
    }

    fn visit_f64<E>(self, value: f64) -> Result<JsonScalar, E> {
        let is_exact = value.is_finite() && value.abs() < 9e15;
        Ok(if is_exact { JsonScalar::Integer(value as i64) } else { JsonScalar::Other })
    }

    fn visit_str<E>(self, text: &str) -> Result<JsonScalar, E> {
        Ok(JsonScalar::Text {
            time: time::parse(text.as_bytes()),
            integer: text.parse().ok(),
            word: WORDS.iter().find(|word| **word == text).copied().unwrap_or_default(),
            is_empty: text.is_empty(),
        })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<JsonScalar, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(JsonScalar::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<JsonScalar, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(JsonScalar::Other)
    }
}

/// The brackets of an array whose entries have a line each.
#[derive(Debug, Default)]
pub(super) struct ArrayBrackets {
    is_open: bool,
}

impl ArrayBrackets {
    /// Whether an array began and has no end.
    pub(super) fn is_open(&self) -> bool {
        self.is_open
    }
}

/// Reads a line: an object, with a comma behind it where it is part of an array, or a bracket of that array.
pub(super) fn line(line: &[u8], brackets: &mut ArrayBrackets) -> ListedLine<'static> {
    match line.trim_ascii() {
        b"[" => brackets.is_open = true,
        b"]" => brackets.is_open = false,
        b"[]" => {}
        line => return parse(line).map_or(ListedLine::Unread, JsonEntry::into_line),
    }
    ListedLine::Nothing
}

/// Whether a line is an object of a bucket, or what its program says instead of one.
pub(super) fn is_entry(line: &[u8]) -> bool {
    parse(line.trim_ascii()).is_some_and(|entry| !entry.is_envelope())
}

/// Parses the entry of a line; `None` if it is none.
fn parse(line: &[u8]) -> Option<JsonEntry> {
    struct OuterEntry(Option<JsonEntry>);
    impl EntrySink for OuterEntry {
        fn entry(&mut self, entry: JsonEntry) -> Result<(), ListingError> {
            self.0 = Some(entry);
            Ok(())
        }
    }
    let object = line.strip_suffix(b",").unwrap_or(line);
    if object.first() != Some(&b'{') {
        return None;
    }
    let (mut sink, mut failed) = (OuterEntry(None), None);
    let mut parser = serde_json::Deserializer::from_slice(object);
    let walk = EntryWalk { sink: &mut sink, failed: &mut failed, are_delete_markers: false, are_versions: false };
    walk.deserialize(&mut parser).and_then(|()| parser.end()).ok()?;
    sink.0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> ListedLine<'static> {
        line(text.as_bytes(), &mut ArrayBrackets::default())
    }

    fn object(key: &[u8], size: u64, modified: i64, version: EntryVersion) -> ListedLine<'static> {
        ListedLine::Object(ListedEntry { key: Cow::Owned(key.to_vec()), size, modified, version })
    }

    #[test]
    fn lines_of_mc_and_rclone() {
        let mc = r#"{"status":"success","type":"file","lastModified":"1970-01-01T01:00:05.123+01:00","size":7,"key":"a/b c","etag":"9","url":"http://127.0.0.1:9000/b/","versionId":"V2","versionOrdinal":2,"storageClass":"STANDARD"}"#;
        assert_eq!(read(mc), object(b"a/b c", 7, 5, EntryVersion::Ordered));
        let marker = r#"{"status":"success","type":"file","lastModified":"1970-01-01T00:00:05Z","size":0,"key":"a","versionId":"V3","isDeleteMarker":true}"#;
        assert_eq!(read(marker), ListedLine::DeleteMarker(Cow::Borrowed(b"a")));
        let folder =
            r#"{"status":"success","type":"folder","lastModified":"1970-01-01T00:00:05Z","size":0,"key":"a/"}"#;
        assert_eq!(read(folder), ListedLine::Nothing);
        assert_eq!(read(r#"{"status":"error","error":{"message":"Access Denied.","key":"x"}}"#), ListedLine::Unread);
        let rclone = r#"{"Path":"a/b","Name":"b","Size":7,"MimeType":"x","ModTime":"1970-01-01T00:00:05.000000000Z","IsDir":false,"Tier":"STANDARD","Metadata":{"Key":"z"}},"#;
        assert_eq!(read(rclone), object(b"a/b", 7, 5, EntryVersion::Unknown));
        assert_eq!(read(&rclone.replace(":7,", ":-1,")), ListedLine::Nothing);
    }

    #[test]
    fn a_key_that_is_no_utf_8_is_kept() {
        let text = b"{\"key\":\"a\xff\",\"size\":1,\"lastModified\":5}";
        let read = line(text, &mut ArrayBrackets::default());
        assert_eq!(read, object(b"a\xff", 1, 5, EntryVersion::Unknown));
    }

    proptest! {
        #[test]
        fn a_key_comes_back_exactly(key in ".{0,30}") {
            let text = serde_json::json!({ "key": key, "size": 1, "lastModified": "1970-01-01T00:00:05Z" }).to_string();
            prop_assert_eq!(read(&text), object(key.as_bytes(), 1, 5, EntryVersion::Unknown));
        }

        #[test]
        fn no_line_panics(bytes: Vec<u8>, text in "[\\[\\]{}:,\"0-9a-zK]{0,40}") {
            line(&bytes, &mut ArrayBrackets::default());
            line(text.as_bytes(), &mut ArrayBrackets::default());
        }
    }
}

//! Whole listings, from the first byte to the last.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;

use super::*;
use crate::foreign::listing::VersionColumn;

/// Key, size, time, and whether it is the newest version.
type Row = (String, u64, i64, bool);

fn rows(read: &ForeignListing) -> Vec<Row> {
    let listing = &read.listing;
    (0..listing.len())
        .map(|at| {
            let object = listing.object(at);
            (listing.key(at).to_owned(), object.size, object.modified, object.is_latest)
        })
        .collect()
}

fn read(text: impl AsRef<[u8]>) -> ForeignListing {
    read_listing(text.as_ref()).unwrap()
}

fn refused(text: impl AsRef<[u8]>) -> String {
    read_listing(text.as_ref()).unwrap_err().to_string()
}

fn row(key: &str, size: u64, modified: i64) -> Row {
    (key.to_owned(), size, modified, true)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

const AWS: &str = "2026-10-01 01:04:16  815250957 app/a b.tar.gz\n2026-10-02 01:04:48          7 app/c\n\nTotal Objects: 2\n   Total Size: 815250964\n";

fn aws_rows() -> [Row; 2] {
    [row("app/a b.tar.gz", 815_250_957, 1_790_816_656), row("app/c", 7, 1_790_903_088)]
}

/// The same two objects in each format.
fn every_format() -> Vec<(ListingFormat, String)> {
    let rclone = [
        r#"{"Path":"app/a b.tar.gz","Name":"a b.tar.gz","Size":815250957,"MimeType":"application/gzip","ModTime":"2026-10-01T03:04:16.000000000+02:00","IsDir":false}"#,
        r#"{"Path":"app/c","Name":"c","Size":7,"MimeType":"","ModTime":"2026-10-02T01:04:48Z","IsDir":false}"#,
    ];
    let mc = [
        r#"{"status":"success","type":"file","lastModified":"2026-10-01T01:04:16Z","size":815250957,"key":"app/a b.tar.gz","etag":""}"#,
        r#"{"status":"success","type":"file","lastModified":"2026-10-02T01:04:48.5Z","size":7,"key":"app/c","etag":""}"#,
    ];
    let s3api = r#"{
    "Contents": [
        {"Key": "app/a b.tar.gz", "LastModified": "2026-10-01T01:04:16+00:00", "ETag": "\"9\"", "ChecksumAlgorithm": ["CRC32"], "Size": 815250957, "Owner": {"ID": "x", "Key": "no"}},
        {"Key": "app/c", "LastModified": "2026-10-02T01:04:48.000Z", "Size": 7, "StorageClass": "STANDARD"}
    ],
    "RequestCharged": null
}"#;
    vec![
        (ListingFormat::AwsLs, AWS.to_owned()),
        (
            ListingFormat::CsvWithHeader,
            "last_modified,size,key\n2026-10-01T01:04:16Z,815250957,app/a b.tar.gz\n2026-10-02T01:04:48Z,7,app/c\n".into(),
        ),
        (
            ListingFormat::CsvWithoutHeader,
            "\"prod-1\",\"app/a+b.tar.gz\",\"815250957\",\"2026-10-01T01:04:16.000Z\",\"STANDARD\"\n\"prod-1\",\"app%2Fc\",\"7\",\"2026-10-02T01:04:48.000Z\",\"STANDARD\"\n"
                .into(),
        ),
        (ListingFormat::JsonLines, mc.join("\n")),
        (ListingFormat::JsonLines, format!("[\n{}\n]\n", rclone.join(",\n"))),
        (ListingFormat::JsonDocument, format!("[{}]", rclone.join(","))),
        (ListingFormat::JsonDocument, s3api.to_owned()),
        (
            ListingFormat::FindPrintf,
            "1790816600.5 4096 .\n1790816600.5 4096 ./app\n1790816656.1234567890 815250957 ./app/a b.tar.gz\n1790903088.0000000000 7 ./app/c\n".into(),
        ),
        (
            ListingFormat::RcloneLsl,
            "815250957 2026-10-01 01:04:16.000000000 app/a b.tar.gz\n        7 2026-10-02 01:04:48.062626927 app/c\n".into(),
        ),
    ]
}

#[test]
fn each_format_is_recognised_whatever_its_line_ends_and_compression() {
    for (format, text) in every_format() {
        let mut texts = vec![text.clone().into_bytes(), text.trim_end().as_bytes().to_vec()];
        texts.push([b"\xef\xbb\xbf", text.as_bytes()].concat());
        if format != ListingFormat::JsonDocument {
            texts.push(text.replace('\n', "\r\n").into_bytes());
            texts.push(text.replacen('\n', "\r\n", 1).into_bytes());
        }
        texts.push(gzip(text.as_bytes()));
        texts.push(zstd::encode_all(text.as_bytes(), 1).unwrap());
        for text in texts {
            let read = read_listing(text.as_slice()).unwrap_or_else(|error| panic!("{format}: {error}"));
            assert_eq!(rows(&read), aws_rows(), "{format}");
            assert_eq!((read.format, read.unread_lines), (Some(format), 0), "{format}");
            assert_eq!(read.listing.versions, VersionColumn::Absent, "{format}");
        }
    }
}

#[test]
fn joined_gzip_files_are_one_listing() {
    let (first, second) = AWS.split_at(AWS.find('\n').unwrap() + 1);
    let joined = [gzip(first.as_bytes()), gzip(second.as_bytes())].concat();
    assert_eq!(rows(&read(&joined)), aws_rows());
    assert!(refused(&joined[..joined.len() - 12]).starts_with("cannot be read: "));
}

#[test]
fn versions_are_told_from_the_newest_one() {
    let expected = [("k".to_owned(), 3, 3, false), ("k".to_owned(), 2, 2, false), ("l".to_owned(), 1, 1, true)];
    let csv = "key,size,last_modified,version_id,is_latest\nk,3,3,v3,false\nk,2,2,v2,false\nl,1,1,v1,TRUE\n";
    let inventory = concat!(
        "bkt,k,v4,true,true,,1970-01-01T00:00:04Z\nbkt,k,v3,false,false,3,1970-01-01T00:00:03Z\n",
        "bkt,k,v2,false,false,2,1970-01-01T00:00:02Z\nbkt,l,v1,true,false,1,1970-01-01T00:00:01Z\n"
    );
    let mc = |key: &str, n: u64, more: &str| {
        format!(
            r#"{{"type":"file","lastModified":"1970-01-01T00:00:0{n}Z","size":{n},"key":"{key}","versionId":"v{n}"{more}}}"#
        )
    };
    let mc = [mc("k", 4, r#","isDeleteMarker":true"#), mc("k", 3, ""), mc("k", 2, ""), mc("l", 1, "")].join("\n");
    let version = |key: &str, n: u64, latest: bool| {
        format!(
            r#"{{"Size":{n},"Key":"{key}","VersionId":"v","IsLatest":{latest},"LastModified":"1970-01-01T00:00:0{n}+00:00"}}"#
        )
    };
    let s3api = format!(
        r#"{{"Versions":[{},{},{}],"DeleteMarkers":[{{"Key":"k","VersionId":"v4","IsLatest":true,"LastModified":"1970-01-01T00:00:04Z"}}]}}"#,
        version("k", 3, false),
        version("k", 2, false),
        version("l", 1, true)
    );
    for text in [csv, inventory, &mc, &s3api] {
        let read = read(text);
        assert_eq!(rows(&read), expected, "{text}");
        assert_eq!(read.listing.versions, VersionColumn::Present);
    }
}

#[test]
fn a_bucket_without_versions_shows_no_overwritten_keys() {
    for text in [
        "key,size,last_modified,version_id,is_latest\nk,3,3,null,true\n",
        "bkt,k,,true,false,3,1970-01-01T00:00:03Z\n",
        r#"{"Versions":[{"Size":3,"Key":"k","VersionId":"null","IsLatest":true,"LastModified":"1970-01-01T00:00:03Z"}]}"#,
        r#"{"lastModified":"1970-01-01T00:00:03Z","size":3,"key":"k","versionId":"null"}"#,
    ] {
        let read = read(text);
        assert_eq!((rows(&read), read.listing.versions), (vec![row("k", 3, 3)], VersionColumn::Absent), "{text}");
    }
}

#[test]
fn nothing_is_an_answer() {
    for text in [
        "",
        "\n\n",
        "\u{feff}",
        "[]",
        "[\n]\n",
        "last_modified,size,key\n",
        "{\"RequestCharged\":null,\"Prefix\":\"\"}",
    ] {
        let read = read(text);
        assert!(read.listing.is_empty(), "{text}");
    }
}

#[test]
fn folders_are_left_out_and_those_that_were_not_listed_are_counted() {
    let read = read(
        "                           PRE app/\n2026-10-01 01:04:16          0 app/\n2026-10-01 01:04:16          1 x\n",
    );
    assert_eq!(rows(&read), [row("x", 1, 1_790_816_656)]);
    assert_eq!(read.unlisted_folders, 1);
}

#[test]
fn a_few_bad_lines_are_counted_and_more_are_refused() {
    let good = "2026-10-01 01:04:16          1 x\n";
    let few = read(format!("{}An error occurred (Expired)\n", good.repeat(9)));
    assert_eq!((few.listing.len(), few.unread_lines), (9, 1));
    assert_eq!(few.first_unread.unwrap().to_string(), "line 10: An error occurred (Expired)");
    let more = refused(format!("{}damaged\ndamaged\n", good.repeat(9)));
    assert_eq!(more, "read as aws s3 ls, but 2 of 11 lines do not fit, the first is line 10: damaged");
    let long = read(format!("{}2026-10-01 01:04:16 1 {}\n{good}", good.repeat(9), "k".repeat(70_000)));
    assert_eq!((long.listing.len(), long.unread_lines), (10, 1));
}

#[test]
fn what_is_no_listing_is_refused_in_words() {
    for (bytes, expected) in [
        (&b"Dear Sir or Madam,\nhello\n"[..], "not a listing that is known: line 1: Dear Sir or Madam,"),
        (b"\n\n{\"a\":1}", "not a listing that is known: line 1: JSON without the key, size and time of objects"),
        (b"ORC\x11\x00", "this is Apache ORC, which is not read"),
        (b"PAR1\x15\x04", "this is Apache Parquet, which is not read"),
        (b"\xff\xfe2\x000\x00", "this is UTF-16 text, which is not read"),
        (
            b"2026-10-01 01:04:16    1.2 MiB app/x\n",
            "the sizes are rounded: line 1: 2026-10-01 01:04:16    1.2 MiB app/x",
        ),
        (
            b"{\"fileSchema\":\"Bucket, Key\",\"files\":[]}",
            "this is the manifest of an S3 Inventory, not the inventory itself",
        ),
        (b"key,size\na,1\n", "the table has no column with the time"),
        (b"{\"Contents\":[],\"IsTruncated\":true}", "the listing is not complete: it says that there are more objects"),
        (
            b"[\n{\"Path\":\"a\",\"Size\":1,\"ModTime\":\"2026-10-01T01:04:16Z\",\"IsDir\":false},\n",
            "the listing is not complete: the array has no end, so the program that listed was interrupted",
        ),
        (
            b"{\"Contents\":[{\"Key\":\"a\",",
            "the JSON document is damaged or breaks off: EOF while parsing a value at line 1 column 24",
        ),
        (b"\x1f\x8b\x08", "cannot be read: "),
    ] {
        let said = refused(bytes);
        assert!(said.starts_with(expected), "{said}");
    }
}

#[test]
fn a_key_that_is_no_utf_8_is_kept_apart() {
    let read = read(b"2026-10-01 01:04:16          1 a\xe9\n2026-10-01 01:04:16          1 a\xe8\n");
    let keys: Vec<String> = rows(&read).into_iter().map(|(key, ..)| key).collect();
    assert_eq!(keys, ["a\u{fffd}e9", "a\u{fffd}e8"]);
}

proptest! {
    #[test]
    fn no_input_panics(bytes: Vec<u8>, at in 0..9_usize, cut in 0..400_usize, byte: u8) {
        let _ = read_listing(bytes.as_slice());
        let (_, text) = &every_format()[at];
        let mut text = text.clone().into_bytes();
        let cut = cut % text.len();
        text[cut] = byte;
        let _ = read_listing(text.as_slice());
        let _ = read_listing(&text[..cut]);
        let mut packed = gzip(&text);
        let cut = cut % packed.len();
        packed[cut] = byte;
        let _ = read_listing(packed.as_slice());
    }

    #[test]
    fn csv_keys_come_back_exactly(keys in proptest::collection::vec("[^\r/]{1,30}", 1..20)) {
        let quoted = |key: &String| format!("2026-10-01T01:04:16Z,1,\"{}\"\n", key.replace('"', "\"\""));
        let text: String = std::iter::once("mtime,size,key\n".to_owned()).chain(keys.iter().map(quoted)).collect();
        let back: Vec<String> = rows(&read(text)).into_iter().map(|(key, ..)| key).collect();
        prop_assert_eq!(back, keys);
    }
}

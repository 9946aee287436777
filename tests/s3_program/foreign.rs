//! `audit --bucket` over real S3 requests: with versions, without, refused, and page by page.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use serde_json::Value;

use crate::s3_foreign::ForeignS3Server;
use crate::s3_server::{BUCKET, S3Server, environment};
use crate::support::cli::TestNode;

/// What rclone is started with.
const KEYS: [&str; 2] = ["rclone-key", "rclone-secret"];

fn laptop(dir: &std::path::Path) -> TestNode {
    let node = TestNode::new(dir, "laptop").without_config();
    environment().into_iter().fold(node, |node, (name, value)| node.with_env(name, &value))
}

fn listed(node: &TestNode, endpoint: &str, url: &str, code: i32) -> Value {
    let run = node.run(["audit", "--json", "--bucket", url, "--endpoint", endpoint]).expect(code);
    assert!(run.stderr.contains("US$ 0.005"), "{}", run.stderr);
    run.json()
}

/// One request with a signature that moto does not check.
fn ask(server: &ForeignS3Server, method: &str, path: &str, body: &str) {
    let mut socket = TcpStream::connect(server.endpoint.split_once("://").unwrap().1).unwrap();
    let signature = "AWS4-HMAC-SHA256 Credential=k/20261201/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0";
    let length = body.len();
    let head = format!("{method} /{BUCKET}{path} HTTP/1.1\r\nhost: s3.amazonaws.com\r\ncontent-length: {length}\r\n");
    let head = format!("{head}authorization: {signature}\r\n");
    write!(socket, "{head}connection: close\r\n\r\n{body}").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(answer.split(' ').nth(1).is_some_and(|status| status.starts_with('2')), "{answer}");
}

fn unseen(audited: &Value) -> bool {
    audited["notes"].as_array().unwrap().iter().any(|note| note["kind"] == "overwritten_unseen")
}

#[test]
fn a_server_without_versions_lists_its_objects_page_by_page() {
    let server = S3Server::start();
    let dir = tempfile::tempdir().unwrap();
    let prefix = server.root.join(BUCKET).join("prod/app");
    fs::create_dir_all(&prefix).unwrap();
    for number in 0..1005 {
        fs::write(prefix.join(format!("{number:04} a+b.tar")), "12").unwrap();
    }
    fs::write(server.root.join(BUCKET).join("other"), "12").unwrap();
    let url = format!("s3://{BUCKET}/prod");
    let audited = listed(&laptop(dir.path()), &server.endpoint, &url, 0);
    assert_eq!((&audited["objects"], &audited["bytes"]), (&1005.into(), &2010.into()), "{audited}");
    let requests = server.requests();
    assert!(requests.iter().all(|request| request.method == "GET"), "{requests:?}");
    assert!((2..=6).contains(&requests.len()), "{requests:?}");
    let quiet = laptop(dir.path()).run(["audit", "-q", "--bucket", &url, "--endpoint", &server.endpoint]).expect(0);
    assert!(quiet.stderr.is_empty() && quiet.stdout.is_empty(), "{quiet:?}");
    let run = laptop(dir.path()).run(["audit", "--bucket", "s3://no-such-bucket", "--endpoint", &server.endpoint]);
    let run = run.expect(1);
    assert!(run.stderr.contains("hint: check the bucket's name"), "{}", run.stderr);
}

#[test]
fn rclone_has_no_versions_and_is_listed() {
    let rclone = ForeignS3Server::rclone(BUCKET, KEYS[0], KEYS[1]);
    let dir = tempfile::tempdir().unwrap();
    let node = laptop(dir.path()).with_env("AWS_ACCESS_KEY_ID", KEYS[0]).with_env("AWS_SECRET_ACCESS_KEY", KEYS[1]);
    let audited = listed(&node, &rclone.endpoint, &format!("s3://{BUCKET}"), 0);
    assert_eq!((&audited["objects"], &audited["bytes"]), (&0.into(), &0.into()), "{audited}");
}

#[test]
fn each_version_is_listed_where_a_bucket_keeps_them() {
    let moto = ForeignS3Server::moto(BUCKET);
    let dir = tempfile::tempdir().unwrap();
    let enabled = "<VersioningConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Status>Enabled</Status></VersioningConfiguration>";
    ask(&moto, "PUT", "?versioning", enabled);
    for body in ["1", "22", "333"] {
        ask(&moto, "PUT", "/rke/etcd.zip", body);
    }
    ask(&moto, "PUT", "/gone", "1");
    ask(&moto, "DELETE", "/gone", "");
    let audited = listed(&laptop(dir.path()), &moto.endpoint, &format!("s3://{BUCKET}"), 0);
    let totals = (&audited["objects"], &audited["bytes"]);
    assert_eq!(totals, (&4.into(), &7.into()), "without the delete marker: {audited}");
    assert!(!unseen(&audited), "{audited}");
    let now = Timestamp::try_from(fs::metadata(dir.path()).unwrap().modified().unwrap()).unwrap();
    let first = now.to_zoned(TimeZone::UTC).date() - 5.days();
    for day in 0_i32..6 {
        for more in [0, 1] {
            let key = format!("/etcd/{}.zip", first + day.days());
            ask(&moto, "PUT", &key, &"x".repeat(1000 + (day * day * 13) as usize + more));
        }
    }
    let audited = listed(&laptop(dir.path()), &moto.endpoint, &format!("s3://{BUCKET}/etcd"), 7);
    let facts = &audited["facts"];
    let (verdict, since) = (&audited["verdict"], &facts["since"]);
    assert_eq!(
        (verdict, &facts["slots"], since),
        (&"STEREO".into(), &6.into(), &first.to_string().into()),
        "{audited}"
    );
}

//! `audit --bucket` over real S3 requests: with versions, without, refused, and page by page.

use std::fs;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Builder, Region};
use aws_sdk_s3::types::{BucketVersioningStatus, VersioningConfiguration};
use serde_json::Value;

use crate::s3_foreign::ForeignS3Server;
use crate::s3_server::{BUCKET, S3Server, credentials, environment};
use crate::support::cli::TestNode;

/// What rclone is started with.
const KEYS: [&str; 2] = ["rclone-key", "rclone-secret"];

fn laptop(dir: &std::path::Path) -> TestNode {
    let node = TestNode::new(dir, "laptop").without_config();
    environment().into_iter().fold(node, |node, (name, value)| node.with_env(name, &value))
}

fn listed(node: &TestNode, endpoint: &str, url: &str) -> Value {
    let run = node.run(["audit", "--json", "--bucket", url, "--endpoint", endpoint]).expect(0);
    assert!(run.stderr.contains("US$ 0.005"), "{}", run.stderr);
    run.json()
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
    let audited = listed(&laptop(dir.path()), &server.endpoint, &url);
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
    let audited = listed(&node, &rclone.endpoint, &format!("s3://{BUCKET}"));
    assert_eq!(audited["objects"], 0, "{audited}");
}

#[test]
fn each_version_is_listed_where_a_bucket_keeps_them() {
    let moto = ForeignS3Server::moto(BUCKET);
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let config = Builder::new()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(credentials())
        .endpoint_url(&moto.endpoint)
        .force_path_style(true);
    runtime.block_on(async {
        let client = Client::from_conf(config.build());
        let enabled = VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled).build();
        client.put_bucket_versioning().bucket(BUCKET).versioning_configuration(enabled).send().await.unwrap();
        for body in ["1", "22", "333"] {
            let body = body.as_bytes().to_vec().into();
            client.put_object().bucket(BUCKET).key("rke/etcd.zip").body(body).send().await.unwrap();
        }
        client.put_object().bucket(BUCKET).key("gone").body(b"1".to_vec().into()).send().await.unwrap();
        client.delete_object().bucket(BUCKET).key("gone").send().await.unwrap();
    });
    let audited = listed(&laptop(dir.path()), &moto.endpoint, &format!("s3://{BUCKET}"));
    assert_eq!((&audited["objects"], &audited["bytes"]), (&4.into(), &7.into()), "{audited}");
    assert!(!unseen(&audited), "{audited}");
}

//! The S3 store against real servers, and what goes over the wire.

use bytes::Bytes;
use runner::store::s3::{Options, S3Store};
use runner::store::{PutOutcome, Store, StoreErrorKind, list_all};

use crate::contract::contract;
use crate::s3_foreign::Foreign;
use crate::s3_server::{self, S3Server, Trouble};

const BODY: Bytes = Bytes::from_static(b"body");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contract_in_process() {
    let server = S3Server::start();
    contract(&server.store("").await).await;
    contract(&server.store("deep/er").await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contract_moto() {
    let moto = Foreign::moto(s3_server::BUCKET);
    let server = S3Server::start();
    contract(&server.store_with(s3_server::settings(&moto.endpoint, "prod"), Options::default()).await).await;
    assert_eq!(server.requests().len(), 0, "it was the other server that was asked");
}

#[tokio::test]
async fn a_conditional_put_is_one_request_whatever_comes_of_it() {
    for trouble in [Trouble::Status(500), Trouble::Status(503), Trouble::Status(409), Trouble::Hangup] {
        let server = S3Server::start();
        let store = server.store("").await;
        server.trouble("PUT", "", trouble, 9);
        let outcome = store.put_if_absent("a/1", BODY).await.unwrap();
        assert!(matches!(outcome, PutOutcome::Unknown { .. }), "{trouble:?}: {outcome:?}");
        assert_eq!(server.requests().len(), 1, "{trouble:?}");
        assert_eq!(store.get("a/1").await.unwrap_err().kind, StoreErrorKind::NotFound);
    }
    for trouble in [Trouble::StatusAfter(500), Trouble::HangupAfter] {
        let server = S3Server::start();
        let store = server.store("").await;
        // On a connection that was used before, where HTTP libraries like to try again.
        store.put("other", BODY).await.unwrap();
        server.forget_requests();
        server.trouble("PUT", "", trouble, 9);
        let outcome = store.put_if_absent("a/1", BODY).await.unwrap();
        assert!(matches!(outcome, PutOutcome::Unknown { .. }), "{trouble:?}: {outcome:?}");
        assert_eq!(server.requests().len(), 1, "{trouble:?}");
        assert_eq!(store.get("a/1").await.unwrap(), BODY, "it did take effect");
    }
    let server = S3Server::start();
    let store = server.store("").await;
    server.trouble("PUT", "", Trouble::Status(403), 9);
    assert_eq!(store.put_if_absent("a/1", BODY).await.unwrap_err().kind, StoreErrorKind::Denied);
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn the_other_calls_try_again() {
    let server = S3Server::start();
    let store = server.store("").await;
    for (method, trouble) in [
        ("PUT", Trouble::Status(503)),
        ("PUT", Trouble::HangupAfter),
        ("GET", Trouble::Status(500)),
        ("GET", Trouble::HalfBody),
        ("POST", Trouble::Status(503)),
    ] {
        server.trouble(method, "", trouble, 1);
        server.forget_requests();
        store.put("a/1", BODY).await.unwrap();
        assert_eq!(store.get("a/1").await.unwrap(), BODY);
        store.delete(&["a/1".to_owned()]).await.unwrap();
        assert_eq!(server.count(method, ""), 2, "{method} {trouble:?}");
        assert_eq!(server.requests().len(), 4, "{method} {trouble:?}");
    }
    server.trouble("GET", "list-type", Trouble::Status(503), 1);
    assert_eq!(store.list("", None, 1).await.unwrap().objects.len(), 0);
    // What is refused for good is not asked again.
    server.forget_requests();
    server.trouble("GET", "", Trouble::Status(403), 9);
    assert_eq!(store.get("a/1").await.unwrap_err().kind, StoreErrorKind::Denied);
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unreachable_and_leaves_doubt() {
    let server = S3Server::start();
    let nowhere = s3_server::settings("http://127.0.0.1:9", "");
    let store = server.store_with(nowhere, Options::default()).await;
    assert!(matches!(store.put_if_absent("a", BODY).await.unwrap(), PutOutcome::Unknown { .. }));
    assert_eq!(store.clock_offset(), None);
}

#[tokio::test]
async fn refusals_are_told_apart() {
    let server = S3Server::start();
    let mut settings = server.settings("");
    settings.url = runner::config::StoreUrl::S3 { bucket: "elsewhere".to_owned(), prefix: String::new() };
    let store = server.store_with(settings, Options::default()).await;
    let kinds = [
        store.put("a", BODY).await.unwrap_err().kind,
        store.put_if_absent("a", BODY).await.unwrap_err().kind,
        store.get("a").await.unwrap_err().kind,
        store.list("", None, 1).await.unwrap_err().kind,
        store.delete(&["a".to_owned()]).await.unwrap_err().kind,
    ];
    assert_eq!(kinds, [StoreErrorKind::NoSuchStore; 5]);

    let wrong = runner::store::s3::Credentials::new(s3_server::ACCESS_KEY, "wrong", None, None, "test");
    let options = Options { credentials: Some(wrong), ..Options::default() };
    let env = runner::env::Env::host();
    let settings = server.settings("");
    let store = S3Store::connect(&settings, s3_server::BUCKET, "", &env, options).await.unwrap();
    assert_eq!(store.get("a").await.unwrap_err().kind, StoreErrorKind::Denied);
    assert_eq!(store.put_if_absent("a", BODY).await.unwrap_err().kind, StoreErrorKind::Denied);
}

#[tokio::test]
async fn large_bodies_go_in_parts_and_a_failed_upload_is_given_up() {
    const MIB: usize = 1 << 20;
    let server = S3Server::start();
    let options = Options { single_put_bytes: 6 * MIB, part_bytes: 5 * MIB, credentials: None };
    let store = server.store_with(server.settings("p"), options).await;
    let body = Bytes::from((0..13 * MIB).map(|i| (i % 251) as u8).collect::<Vec<_>>());
    server.trouble("PUT", "partNumber=2", Trouble::Status(503), 1);
    store.put("app/packs/00/big", body.clone()).await.unwrap();
    assert_eq!(store.get("app/packs/00/big").await.unwrap(), body);
    assert_eq!(server.count("POST", "?uploads"), 1);
    assert_eq!(server.count("PUT", "partNumber"), 4, "three, and one of them again");
    assert_eq!(server.count("POST", "uploadId"), 1);
    assert_eq!(server.count("PUT", ""), 4);

    server.forget_requests();
    store.put("app/packs/00/small", body.slice(..6 * MIB)).await.unwrap();
    assert_eq!(server.requests().len(), 1);

    server.forget_requests();
    server.trouble("PUT", "partNumber=3", Trouble::Status(403), 1);
    assert_eq!(store.put("app/packs/00/no", body.clone()).await.unwrap_err().kind, StoreErrorKind::Denied);
    assert_eq!(server.count("DELETE", "uploadId"), 1);
    assert_eq!(store.get("app/packs/00/no").await.unwrap_err().kind, StoreErrorKind::NotFound);

    // The answer to the completion is lost; the upload is gone, the object is there.
    server.forget_requests();
    server.trouble("POST", "uploadId", Trouble::StatusAfter(500), 1);
    store.put("app/packs/00/twice", body.clone()).await.unwrap();
    assert_eq!(store.get("app/packs/00/twice").await.unwrap(), body);
}

#[tokio::test]
async fn what_is_configured_is_on_the_wire() {
    let server = S3Server::start();
    let mut settings = server.settings("root/of/it");
    settings.storage_class = Some("REDUCED_REDUNDANCY".to_owned());
    settings.sse = Some("aws:kms".to_owned());
    settings.sse_kms_key_id = Some("key-1".to_owned());
    settings.region = Some("eu-central-1".to_owned());
    let store = server.store_with(settings, Options::default()).await;
    store.put("app/packs/ab/cd", BODY).await.unwrap();
    store.put("app/index/ab", BODY).await.unwrap();
    store.put_if_absent("app/journal/1", BODY).await.unwrap();
    let requests = server.requests();
    let header = |i: usize, name: &str| requests[i].headers.get(name).map(String::as_str);
    assert_eq!(requests[0].path, "/backups/root/of/it/app/packs/ab/cd");
    assert_eq!(header(0, "x-amz-storage-class"), Some("REDUCED_REDUNDANCY"));
    assert_eq!(header(1, "x-amz-storage-class"), None);
    assert_eq!(header(2, "x-amz-storage-class"), None);
    for i in 0..3 {
        assert_eq!(header(i, "x-amz-server-side-encryption"), Some("aws:kms"));
        assert_eq!(header(i, "x-amz-server-side-encryption-aws-kms-key-id"), Some("key-1"));
        assert_eq!(header(i, "x-amz-content-sha256"), Some("UNSIGNED-PAYLOAD"), "loopback needs no second hash");
        assert!(header(i, "x-amz-checksum-crc32c").is_some());
        assert!(header(i, "authorization").unwrap().contains("/eu-central-1/s3/"));
    }
    assert_eq!(header(0, "if-none-match"), None);
    assert_eq!(header(2, "if-none-match"), Some("*"));
}

#[tokio::test]
async fn foreign_keys_under_the_prefix_are_not_listed() {
    let server = S3Server::start();
    let store = server.store("p").await;
    store.put("a", BODY).await.unwrap();
    store.put("z", BODY).await.unwrap();
    for i in 0..5 {
        std::fs::write(server.root.join(format!("backups/p/b {i}")), "not ours").unwrap();
    }
    let page = store.list("", Some("a"), 2).await.unwrap();
    assert_eq!(page.objects.iter().map(|o| o.key.as_str()).collect::<Vec<_>>(), ["z"]);
    assert_eq!(list_all(&store, "").await.unwrap().len(), 2);
}

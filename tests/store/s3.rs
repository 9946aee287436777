//! The S3 store against real servers, and what goes over the wire.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use runner::config::StoreUrl;
use runner::env::Env;
use runner::store::s3::{S3Options, S3Store};
use runner::store::{PutOutcome, ReplaceOutcome, SizeLimit, Store, StoreErrorKind, list_all};
use tokio::net::{TcpListener, TcpStream};

use crate::contract::contract;
use crate::s3_foreign::{self, ForeignS3Server};
use crate::s3_server::{self, S3Server, ServerFault};

const BODY: Bytes = Bytes::from_static(b"body");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contract_in_process() {
    let server = S3Server::start();
    contract(&server.store("").await).await;
    contract(&server.store("deep/er").await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contract_moto() {
    let moto = ForeignS3Server::moto(s3_server::BUCKET);
    let server = S3Server::start();
    contract(&server.store_with(s3_server::settings(&moto.endpoint, "prod"), S3Options::default()).await).await;
    assert_eq!(server.requests().len(), 0, "it was the other server that was asked");
}

#[tokio::test]
async fn a_conditional_put_is_one_request_whatever_comes_of_it() {
    for trouble in [ServerFault::Status(500), ServerFault::Status(503), ServerFault::Status(409), ServerFault::Hangup] {
        let server = S3Server::start();
        let store = server.store("").await;
        server.trouble("PUT", "", trouble, 9);
        let outcome = store.put_if_absent("a/1", BODY).await.unwrap();
        assert!(matches!(outcome, PutOutcome::Unknown { .. }), "{trouble:?}: {outcome:?}");
        assert_eq!(server.requests().len(), 1, "{trouble:?}");
        assert_eq!(store.get("a/1", SizeLimit::INDEX).await.unwrap_err().kind, StoreErrorKind::NotFound);
    }
    for trouble in [ServerFault::StatusAfter(500), ServerFault::HangupAfter] {
        let server = S3Server::start();
        let store = server.store("").await;
        // On a connection that was used before, where HTTP libraries like to try again.
        store.put("other", BODY).await.unwrap();
        server.forget_requests();
        server.trouble("PUT", "", trouble, 9);
        let outcome = store.put_if_absent("a/1", BODY).await.unwrap();
        assert!(matches!(outcome, PutOutcome::Unknown { .. }), "{trouble:?}: {outcome:?}");
        assert_eq!(server.requests().len(), 1, "{trouble:?}");
        assert_eq!(store.get("a/1", SizeLimit::INDEX).await.unwrap(), BODY, "it did take effect");
    }
    let server = S3Server::start();
    let store = server.store("").await;
    server.trouble("PUT", "", ServerFault::Status(403), 9);
    assert_eq!(store.put_if_absent("a/1", BODY).await.unwrap_err().kind, StoreErrorKind::Denied);
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn a_replace_is_one_request_whatever_comes_of_it() {
    const NEW: Bytes = Bytes::from_static(b"new");
    for (trouble, there) in [
        (ServerFault::Status(500), BODY),
        (ServerFault::Status(503), BODY),
        (ServerFault::Status(409), BODY),
        (ServerFault::Hangup, BODY),
        (ServerFault::StatusAfter(500), NEW),
        (ServerFault::HangupAfter, NEW),
    ] {
        let server = S3Server::start();
        let store = server.store("").await;
        store.put_if_absent("a/1", BODY).await.unwrap();
        let (_, version) = store.get_versioned("a/1", SizeLimit::INDEX).await.unwrap();
        server.forget_requests();
        server.trouble("PUT", "", trouble, 9);
        let outcome = store.replace("a/1", NEW, &version).await.unwrap();
        assert!(matches!(outcome, ReplaceOutcome::Unknown { .. }), "{trouble:?}: {outcome:?}");
        assert_eq!(server.requests().len(), 1, "{trouble:?}");
        assert_eq!(store.get("a/1", SizeLimit::INDEX).await.unwrap(), there, "{trouble:?}");
    }
    let server = S3Server::start();
    let store = server.store("").await;
    store.put_if_absent("a/1", BODY).await.unwrap();
    let (_, version) = store.get_versioned("a/1", SizeLimit::INDEX).await.unwrap();
    server.forget_requests();
    server.trouble("PUT", "", ServerFault::Status(403), 1);
    server.trouble("PUT", "", ServerFault::Status(404), 1);
    server.trouble("PUT", "", ServerFault::Status(412), 1);
    assert_eq!(store.replace("a/1", NEW, &version).await.unwrap_err().kind, StoreErrorKind::Denied);
    for _ in 0..2 {
        assert_eq!(store.replace("a/1", NEW, &version).await.unwrap(), ReplaceOutcome::Changed);
    }
    assert!(matches!(store.replace("a/1", NEW, &version).await.unwrap(), ReplaceOutcome::Replaced(_)));
    let requests = server.requests();
    assert_eq!(requests.len(), 4);
    let etag = "\"841a2d689ad86bd1611447453c22c6fc\"";
    assert!(requests.iter().all(|r| r.headers["if-match"] == etag && !r.headers.contains_key("if-none-match")));
}

#[tokio::test]
async fn answers_without_a_version_are_no_base_for_a_replace() {
    for (header, said) in [("", "no ETag"), ("etag: W/\"1\"\r\n", "weak")] {
        let endpoint = answering(format!("HTTP/1.1 200 OK\r\n{header}connection: close\r\ncontent-length: 0\r\n\r\n"));
        let server = S3Server::start();
        let store = server.store_with(s3_server::settings(&endpoint, ""), S3Options::default()).await;
        let e = store.get_versioned("a", SizeLimit::INDEX).await.unwrap_err();
        assert_eq!(e.kind, StoreErrorKind::Unsupported);
        assert!(e.to_string().contains(said), "{e}");
        assert_eq!(store.get("a", SizeLimit::INDEX).await.unwrap(), Bytes::new(), "who needs no version reads on");

        let own = server.store("").await;
        own.put("a", BODY).await.unwrap();
        let (_, version) = own.get_versioned("a", SizeLimit::LIVE).await.unwrap();
        let outcome = store.replace("a", BODY, &version).await.unwrap();
        assert!(matches!(&outcome, ReplaceOutcome::Unknown { why } if why.contains(said)), "{outcome:?}");
    }
}

/// What a proxy, a captive portal or a load balancer says is not the store's word: a write may have happened, and nothing is shown to be absent.
#[tokio::test]
async fn answers_that_are_not_the_stores_leave_doubt() {
    const PAGES: [ServerFault; 14] = [
        ServerFault::Page(200),
        ServerFault::Page(302),
        ServerFault::Page(400),
        ServerFault::Page(401),
        ServerFault::Page(403),
        ServerFault::Page(404),
        ServerFault::Page(407),
        ServerFault::Page(412),
        ServerFault::Page(501),
        ServerFault::Page(507),
        ServerFault::Bare(200),
        ServerFault::Bare(403),
        ServerFault::Bare(404),
        ServerFault::Bare(511),
    ];
    let server = S3Server::start();
    let store = server.store("").await;
    store.put("there", BODY).await.unwrap();
    let (_, version) = store.get_versioned("there", SizeLimit::INDEX).await.unwrap();
    let offset = store.clock_offset().unwrap();
    for trouble in PAGES {
        let planted = |method: &str| {
            server.calm();
            server.trouble(method, "", trouble, usize::MAX);
        };
        planted("PUT");
        let put = store.put_if_absent("new", BODY).await.unwrap();
        assert!(matches!(put, PutOutcome::Unknown { .. }), "{trouble:?}: {put:?}");
        let replaced = store.replace("there", BODY, &version).await.unwrap();
        assert!(matches!(replaced, ReplaceOutcome::Unknown { .. }), "{trouble:?}: {replaced:?}");
        assert_eq!(store.put("new", BODY).await.unwrap_err().kind, StoreErrorKind::Unreachable, "{trouble:?}");
        planted("GET");
        assert_eq!(store.list("", None, 9).await.unwrap_err().kind, StoreErrorKind::Unreachable, "{trouble:?}");
        if !matches!(trouble, ServerFault::Bare(200)) {
            assert_eq!(
                store.get("there", SizeLimit::INDEX).await.unwrap_err().kind,
                StoreErrorKind::Unreachable,
                "{trouble:?}"
            );
        }
        planted("POST");
        let deleted = store.delete(&["there".to_owned()]).await.unwrap_err();
        assert_eq!(deleted.kind, StoreErrorKind::Unreachable, "{trouble:?}: {deleted}");
    }
    let moved = (store.clock_offset().unwrap() - offset).abs();
    assert!(moved < jiff::SignedDuration::from_hours(1), "a proxy's clock was believed");
    server.calm();
    assert_eq!(store.get("new", SizeLimit::INDEX).await.unwrap_err().kind, StoreErrorKind::NotFound);

    for status in [200, 403, 404, 412] {
        let key = format!("after{status}");
        server.trouble("PUT", &key, ServerFault::PageAfter(status), 9);
        let put = store.put_if_absent(&key, BODY).await.unwrap();
        assert!(matches!(put, PutOutcome::Unknown { .. }), "{status}: {put:?}");
        assert_eq!(store.get(&key, SizeLimit::INDEX).await.unwrap(), BODY, "it did take effect");
    }
}

/// Answers that are no HTTP, or stop in the middle of it.
#[tokio::test]
async fn answers_that_are_no_http_leave_doubt() {
    for garbage in [
        "\0\0 upstream reset \r\n\r\n",
        "HTTP/1.0 garbage\r\n\r\n",
        "HTTP/1.1 999999 What\r\n\r\n",
        "HTTP/1.1 200",
        "HTTP/1.1 200 OK\r\netag: \"x",
        "HTTP/1.1 200 OK\r\nbad header\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: nine\r\n\r\n",
        "HTTP/1.1 403 Forbidden\r\ncontent-length: 500\r\n\r\n<Error><Code>AccessDenied",
        "\x15\x03\x03\0\x02\x02\x28",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "RFB 003.008\n",
        "\r\n\r\n\r\n",
    ] {
        let server = S3Server::start();
        let endpoint = answering(garbage.to_owned());
        let store = server.store_with(s3_server::settings(&endpoint, ""), S3Options::default()).await;
        let put = store.put_if_absent("a", BODY).await.unwrap();
        assert!(matches!(put, PutOutcome::Unknown { .. }), "{garbage:?}: {put:?}");
        assert_eq!(store.clock_offset(), None, "{garbage:?}");
    }
}

/// A page of a listing, as XML.
fn page(inner: &str) -> String {
    let body = format!("<ListBucketResult>{inner}</ListBucketResult>");
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/xml\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// What is absent is only told by a listing that was read to its end.
#[tokio::test]
async fn a_listing_without_its_end_says_nothing_of_what_it_lacks() {
    let shown = "<Contents><Key>a</Key><Size>1</Size><LastModified>2026-11-20T00:00:00.000Z</LastModified></Contents>";
    for (inner, refused) in [
        ("<IsTruncated>false</IsTruncated>", false),
        ("<IsTruncated>false</IsTruncated><KeyCount>0</KeyCount>", false),
        ("", true),
        ("<KeyCount>0</KeyCount>", true),
        ("<IsTruncated>true</IsTruncated>", true),
        ("<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>", true),
        ("<IsTruncated>false</IsTruncated><NextContinuationToken>t</NextContinuationToken>", true),
        ("<NextContinuationToken>t</NextContinuationToken>", true),
        (&format!("<IsTruncated>false</IsTruncated><KeyCount>3</KeyCount>{shown}"), true),
        (&format!("<IsTruncated>false</IsTruncated><KeyCount>1</KeyCount>{shown}"), false),
        (&format!("<IsTruncated>false</IsTruncated>{shown}"), false),
    ] {
        let server = S3Server::start();
        let store = server.store_with(s3_server::settings(&answering(page(inner)), ""), S3Options::default()).await;
        match list_all(&store, "").await {
            Ok(objects) => assert!(!refused, "{inner}: {objects:?}"),
            Err(e) => assert!(refused && e.kind == StoreErrorKind::Unreachable, "{inner}: {e}"),
        }
    }
}

/// A server that answers every request alike; it ends with the test.
fn answering(answer: String) -> String {
    use std::io::{BufRead, BufReader, Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            let mut reader = BufReader::new(socket.try_clone().unwrap());
            let mut body = 0;
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line).unwrap_or(0) == 0 {
                    break;
                }
                if let Some(length) = line.to_lowercase().strip_prefix("content-length:") {
                    body = length.trim().parse().unwrap();
                }
                if line == "\r\n" {
                    std::io::copy(&mut reader.by_ref().take(body), &mut std::io::sink()).unwrap();
                    socket.write_all(answer.as_bytes()).unwrap();
                    break;
                }
            }
        }
    });
    endpoint
}

#[tokio::test]
async fn the_other_calls_try_again() {
    let server = S3Server::start();
    let store = server.store("").await;
    for (method, trouble) in [
        ("PUT", ServerFault::Status(503)),
        ("PUT", ServerFault::HangupAfter),
        ("GET", ServerFault::Status(500)),
        ("GET", ServerFault::HalfBody),
        ("POST", ServerFault::Status(503)),
    ] {
        server.trouble(method, "", trouble, 1);
        server.forget_requests();
        store.put("a/1", BODY).await.unwrap();
        assert_eq!(store.get("a/1", SizeLimit::INDEX).await.unwrap(), BODY);
        store.delete(&["a/1".to_owned()]).await.unwrap();
        assert_eq!(server.count(method, ""), 2, "{method} {trouble:?}");
        assert_eq!(server.requests().len(), 4, "{method} {trouble:?}");
    }
    server.trouble("GET", "list-type", ServerFault::Status(503), 1);
    assert_eq!(store.list("", None, 1).await.unwrap().objects.len(), 0);
    // What is refused for good is not asked again.
    server.forget_requests();
    server.trouble("GET", "", ServerFault::Status(403), 9);
    assert_eq!(store.get("a/1", SizeLimit::INDEX).await.unwrap_err().kind, StoreErrorKind::Denied);
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unreachable_and_leaves_doubt() {
    let server = S3Server::start();
    let nowhere = s3_server::settings("http://127.0.0.1:9", "");
    let store = server.store_with(nowhere, S3Options::default()).await;
    assert!(matches!(store.put_if_absent("a", BODY).await.unwrap(), PutOutcome::Unknown { .. }));
    assert_eq!(store.clock_offset(), None);
}

#[tokio::test]
async fn refusals_are_told_apart() {
    let server = S3Server::start();
    let mut settings = server.settings("");
    settings.url = StoreUrl::S3 { bucket: "elsewhere".to_owned(), prefix: String::new() };
    let store = server.store_with(settings, S3Options::default()).await;
    let kinds = [
        store.put("a", BODY).await.unwrap_err().kind,
        store.put_if_absent("a", BODY).await.unwrap_err().kind,
        store.get("a", SizeLimit::INDEX).await.unwrap_err().kind,
        store.list("", None, 1).await.unwrap_err().kind,
        store.delete(&["a".to_owned()]).await.unwrap_err().kind,
    ];
    assert_eq!(kinds, [StoreErrorKind::NoSuchStore; 5]);

    let wrong = runner::store::s3::Credentials::new(s3_server::ACCESS_KEY, "wrong", None, None, "test");
    let options = S3Options { credentials: Some(wrong), ..S3Options::default() };
    let env = Env::host();
    let settings = server.settings("");
    let store = S3Store::connect(&settings, s3_server::BUCKET, "", &env, options).await.unwrap();
    assert_eq!(store.get("a", SizeLimit::INDEX).await.unwrap_err().kind, StoreErrorKind::Denied);
    assert_eq!(store.put_if_absent("a", BODY).await.unwrap_err().kind, StoreErrorKind::Denied);
}

#[tokio::test]
async fn large_bodies_go_in_parts_and_a_failed_upload_is_given_up() {
    const MIB: usize = 1 << 20;
    let server = S3Server::start();
    let options = S3Options { single_put_bytes: 6 * MIB, part_bytes: 5 * MIB, credentials: None };
    let store = server.store_with(server.settings("p"), options).await;
    let body = Bytes::from((0..13 * MIB).map(|i| (i % 251) as u8).collect::<Vec<_>>());
    server.trouble("PUT", "partNumber=2", ServerFault::Status(503), 1);
    store.put("app/packs/00/big", body.clone()).await.unwrap();
    assert_eq!(store.get("app/packs/00/big", SizeLimit::INDEX).await.unwrap(), body);
    assert_eq!(server.count("POST", "?uploads"), 1);
    assert_eq!(server.count("PUT", "partNumber"), 4, "three, and one of them again");
    assert_eq!(server.count("POST", "uploadId"), 1);
    assert_eq!(server.count("PUT", ""), 4);

    server.forget_requests();
    store.put("app/packs/00/small", body.slice(..6 * MIB)).await.unwrap();
    assert_eq!(server.requests().len(), 1);

    server.forget_requests();
    server.trouble("PUT", "partNumber=3", ServerFault::Status(403), 1);
    assert_eq!(store.put("app/packs/00/no", body.clone()).await.unwrap_err().kind, StoreErrorKind::Denied);
    assert_eq!(server.count("DELETE", "uploadId"), 1);
    assert_eq!(store.get("app/packs/00/no", SizeLimit::INDEX).await.unwrap_err().kind, StoreErrorKind::NotFound);

    // The answer to the completion is lost; the upload is gone, the object is there.
    server.forget_requests();
    server.trouble("POST", "uploadId", ServerFault::StatusAfter(500), 1);
    store.put("app/packs/00/twice", body.clone()).await.unwrap();
    assert_eq!(store.get("app/packs/00/twice", SizeLimit::INDEX).await.unwrap(), body);
}

#[tokio::test]
async fn what_is_configured_is_on_the_wire() {
    let server = S3Server::start();
    let mut settings = server.settings("root/of/it");
    settings.storage_class = Some("REDUCED_REDUNDANCY".to_owned());
    settings.sse = Some("aws:kms".to_owned());
    settings.sse_kms_key_id = Some("key-1".to_owned());
    settings.region = Some("eu-central-1".to_owned());
    let store = server.store_with(settings, S3Options::default()).await;
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

#[tokio::test]
async fn a_ca_of_ones_own_is_trusted_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let made = Command::new(s3_foreign::test_tool("venv/bin/python"))
        .args([s3_foreign::support_file("make_certificates.py"), dir.path().display().to_string()])
        .status()
        .unwrap();
    assert!(made.success());
    let moto = ForeignS3Server::moto_tls(&dir.path().join("server.pem"), &dir.path().join("server.key"));
    let with_ca = |ca: Option<&Path>| {
        let mut settings = s3_server::settings(&moto.endpoint, "");
        settings.ca_file = ca.map(Path::to_owned);
        settings
    };
    let options = || S3Options { credentials: Some(s3_server::credentials()), ..S3Options::default() };
    let env = Env::host();
    let trusting = with_ca(Some(&dir.path().join("ca.pem")));
    let store = S3Store::connect(&trusting, s3_server::BUCKET, "", &env, options()).await.unwrap();
    // The server answers; it has no bucket.
    assert_eq!(store.get("a", SizeLimit::INDEX).await.unwrap_err().kind, StoreErrorKind::NoSuchStore);

    std::fs::write(dir.path().join("bad.pem"), "hello").unwrap();
    for (ca, said) in [("bad.pem", "no certificate"), ("none.pem", "No such file"), ("server.key", "no certificate")] {
        let settings = with_ca(Some(&dir.path().join(ca)));
        let e = S3Store::connect(&settings, s3_server::BUCKET, "", &env, options()).await.unwrap_err();
        assert_eq!(e.kind, StoreErrorKind::Invalid);
        assert!(e.to_string().contains(ca) && e.to_string().contains(said), "{e}");
    }

    let other = tempfile::tempdir().unwrap();
    let made = Command::new(s3_foreign::test_tool("venv/bin/python"))
        .args([s3_foreign::support_file("make_certificates.py"), other.path().display().to_string()])
        .status();
    assert!(made.unwrap().success());
    let (endpoint, connections) = counting_connections(&moto.endpoint).await;
    let mut wary = with_ca(Some(&other.path().join("ca.pem")));
    wary.endpoint = Some(endpoint);
    let store = S3Store::connect(&wary, s3_server::BUCKET, "", &env, options()).await.unwrap();
    // No retry would mend it, and a conditional put that was not even sent is no unknown outcome.
    for refused in [store.get("a", SizeLimit::INDEX).await.map(drop), store.put_if_absent("a", BODY).await.map(drop)] {
        let e = refused.unwrap_err();
        assert_eq!(e.kind, StoreErrorKind::Untrusted, "{e}");
        assert!(e.to_string().contains("ertificate"), "{e}");
    }
    assert_eq!(connections.load(Ordering::SeqCst), 2);
}

/// Another way to `endpoint` that counts how often it is taken.
async fn counting_connections(endpoint: &str) -> (String, Arc<AtomicUsize>) {
    let port: u16 = endpoint.rsplit(':').next().unwrap().parse().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let way = endpoint.replace(&format!(":{port}"), &format!(":{}", listener.local_addr().unwrap().port()));
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = connections.clone();
    tokio::spawn(async move {
        while let Ok((mut from, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            let mut to = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut from, &mut to).await });
        }
    });
    (way, connections)
}

/// In the child: the key on disk is exchanged between requests.
async fn ask_while_keys_change(file: &str) {
    let settings = s3_server::settings(&std::env::var(ENDPOINT).unwrap(), "");
    let store = runner::store::connect(&settings, &Env::host()).await.unwrap();
    let ask = async || match store.list("", None, 1).await {
        Ok(_) => println!("listed"),
        Err(e) => println!("{:?}", e.kind),
    };
    let write = |id: &str| {
        let secret = s3_server::SECRET_KEY;
        std::fs::write(file, format!("[default]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n"))
            .unwrap();
    };
    write("OTHER");
    ask().await;
    ask().await;
    write(s3_server::ACCESS_KEY);
    store.reload_credentials();
    ask().await;
    // Nobody says so.
    write("OTHER");
    store.reload_credentials();
    store.list("", None, 1).await.unwrap_err();
    write(s3_server::ACCESS_KEY);
    for _ in 0..200 {
        if store.list("", None, 1).await.is_ok() {
            println!("listed again");
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn credentials_that_are_exchanged_on_disk_are_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("credentials").display().to_string();
    if std::env::var_os(CHILD).is_some() {
        return ask_while_keys_change(&std::env::var("AWS_SHARED_CREDENTIALS_FILE").unwrap()).await;
    }
    let server = S3Server::start();
    let environment = [
        (ENDPOINT, server.endpoint.clone()),
        ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
        ("AWS_CONFIG_FILE", "/dev/null".to_owned()),
        ("AWS_SHARED_CREDENTIALS_FILE", file),
    ];
    let run = child("credentials_that_are_exchanged_on_disk_are_read_again", &environment);
    let said = String::from_utf8(run.stdout).unwrap();
    let lines: Vec<&str> = said.lines().filter(|l| l.starts_with("listed") || *l == "Denied").collect();
    assert_eq!(lines, ["Denied", "Denied", "listed", "listed again"], "{said}");
    // The first refusal is asked again once, the second stands: both keys' requests up to the first that is heard.
    let keys: Vec<bool> =
        server.requests().iter().map(|r| r.headers["authorization"].contains(s3_server::ACCESS_KEY)).collect();
    assert_eq!(keys.iter().position(|right| *right), Some(3), "{keys:?}");
}

/// Runs one of the tests below in a process of its own, whose environment can be set.
fn child(test: &str, environment: &[(&str, String)]) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("s3::{test}"), "--nocapture"]).env(CHILD, "1");
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("AWS_")) {
        command.env_remove(name);
    }
    command.envs(environment.iter().map(|(k, v)| (k, v))).output().unwrap()
}

const CHILD: &str = "RUNNER_TEST_CHILD";
const ENDPOINT: &str = "RUNNER_TEST_ENDPOINT";
const PROFILE: &str = "RUNNER_TEST_PROFILE";

/// In the child: one request with whatever credentials there are.
async fn ask_in_child() {
    let mut settings = s3_server::settings(&std::env::var(ENDPOINT).unwrap(), "");
    settings.profile = std::env::var(PROFILE).ok();
    let store = runner::store::connect(&settings, &Env::host()).await.unwrap();
    match store.put_if_absent("a", BODY).await {
        Ok(outcome) => println!("outcome {outcome:?}"),
        Err(e) => println!("outcome {:?} {e}", e.kind),
    }
}

#[tokio::test]
async fn credentials_come_from_the_environment_or_the_profile() {
    if std::env::var_os(CHILD).is_some() {
        return ask_in_child().await;
    }
    let test = "credentials_come_from_the_environment_or_the_profile";
    let server = S3Server::start();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("credentials");
    let (id, secret) = (s3_server::ACCESS_KEY, s3_server::SECRET_KEY);
    let text = format!("[good]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\nregion = eu-west-3\n");
    std::fs::write(&file, text).unwrap();
    let base = [
        (ENDPOINT, server.endpoint.clone()),
        ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
        ("AWS_CONFIG_FILE", "/dev/null".to_owned()),
        ("AWS_SHARED_CREDENTIALS_FILE", file.display().to_string()),
        // Where the store is stands in the config alone.
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:9".to_owned()),
    ];
    let run = |more: &[(&'static str, &str)]| {
        server.forget_requests();
        let more = more.iter().map(|(k, v)| (*k, (*v).to_owned()));
        let output = child(test, &base.iter().cloned().chain(more).collect::<Vec<_>>());
        let output = String::from_utf8(output.stdout).unwrap();
        let line = output.lines().find_map(|line| line.split_once("outcome ")).map(|(_, rest)| rest.to_owned());
        line.unwrap_or_else(|| panic!("the child said {output}"))
    };
    let sent = |name: &str| server.requests()[0].headers.get(name).cloned().unwrap_or_default();

    let from_env = [("AWS_ACCESS_KEY_ID", id), ("AWS_SECRET_ACCESS_KEY", secret), ("AWS_SESSION_TOKEN", "token-1")];
    assert_eq!(run(&from_env), "Created");
    assert_eq!(sent("x-amz-security-token"), "token-1");
    assert!(sent("authorization").contains("/us-east-1/s3/"), "{}", sent("authorization"));

    // A profile that the config names goes before the environment.
    let wrong = [("AWS_ACCESS_KEY_ID", "AKIAWRONG"), ("AWS_SECRET_ACCESS_KEY", "x"), (PROFILE, "good")];
    assert_eq!(run(&wrong), "Exists");
    assert!(sent("authorization").contains("/eu-west-3/s3/"), "{}", sent("authorization"));

    let none = run(&[]);
    assert!(none.starts_with("NoCredentials") && none.contains("profile \"default\""), "{none}");
    assert_eq!(server.requests().len(), 0);
}

/// A server whose answers to everything have this head, and a body that never ends. It counts the requests.
fn endless(head: &'static str) -> (String, Arc<AtomicUsize>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let requests = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&requests);
    std::thread::spawn(move || {
        for socket in listener.incoming().map_while(Result::ok) {
            let count = Arc::clone(&count);
            std::thread::spawn(move || {
                use std::io::{BufRead as _, Write as _};
                let mut socket = socket;
                let reader = std::io::BufReader::new(socket.try_clone().unwrap());
                // Of requests without a body: up to the empty line.
                if reader.lines().map_while(Result::ok).any(|line| line.is_empty()) {
                    count.fetch_add(1, Ordering::SeqCst);
                    let part = format!("10000\r\n{}\r\n", " ".repeat(0x1_0000));
                    let mut sent = socket.write_all(head.as_bytes());
                    while sent.is_ok() {
                        sent = socket.write_all(part.as_bytes());
                    }
                }
            });
        }
    });
    (endpoint, requests)
}

#[tokio::test]
async fn a_body_without_end_is_read_up_to_the_limit_and_not_again() {
    let server = S3Server::start();
    const CHUNKED: &str = "HTTP/1.1 200 OK\r\netag: \"x\"\r\ntransfer-encoding: chunked\r\n\r\n";
    // Longer than anything, and by its own word longer still.
    const LYING: &str = "HTTP/1.1 200 OK\r\netag: \"x\"\r\ncontent-length: 9000000000000000000\r\n\r\n";
    const REFUSAL: &str = "HTTP/1.1 500 No\r\ncontent-type: application/xml\r\ntransfer-encoding: chunked\r\n\r\n";
    for head in [CHUNKED, LYING] {
        let (endpoint, requests) = endless(head);
        let store = server.store_with(s3_server::settings(&endpoint, ""), S3Options::default()).await;
        for error in [
            store.get("a", SizeLimit::LIVE).await.unwrap_err(),
            store.get_versioned("a", SizeLimit::LIVE).await.map(drop).unwrap_err(),
            // A server that gives more than the range that was asked for.
            store.get_range("a", 0..100).await.map(drop).unwrap_err(),
        ] {
            assert_eq!((error.kind, error.key.as_deref()), (StoreErrorKind::TooLarge, Some("a")), "{error}");
        }
        assert_eq!(requests.load(Ordering::SeqCst), 3, "once each");
    }
    for head in [CHUNKED, REFUSAL] {
        let (endpoint, requests) = endless(head);
        let store = server.store_with(s3_server::settings(&endpoint, ""), S3Options::default()).await;
        let error = store.list("", None, 1).await.unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Unreachable, "{error}");
        assert!(error.detail.contains("longer than"), "{error}");
        assert_eq!(requests.load(Ordering::SeqCst), 1);
    }
}

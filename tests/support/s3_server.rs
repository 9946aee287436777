//! A real S3 server in this process, over a real socket, with signatures checked: s3s-fs, with its race taken out. It checks
//! the condition of a put before the body has come and never again, so here a conditional put is collected first, and then
//! checked and written under a lock for each key. It keeps an object's ETag in a file of its own, so reads take that lock too.
//!
//! It writes every request down, and can be told to misbehave. Include it with
//! `#[path = "../support/s3_server.rs"] mod s3_server;`.

#![allow(unreachable_pub, dead_code, reason = "each test that includes this uses a part of it")]

use std::collections::HashMap;
use std::convert::Infallible;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::BytesMut;
use futures_util::TryStreamExt;
use hyper::body::{Body as _, Incoming};
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use parking_lot::Mutex;
use s3s::auth::{S3Auth, SecretKey};
use s3s::dto::*;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{Body, S3, S3Request, S3Response, S3Result};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, crypto};

use runner::config::{KeySource, StoreSettings, StoreUrl};
use runner::env::Env;
use runner::store::s3::{Credentials, S3Options, S3Store};

/// The bucket that is there.
pub const BUCKET: &str = "backups";
/// Who may use it.
pub const ACCESS_KEY: &str = "AKIATEST";
/// And how.
pub const SECRET_KEY: &str = "secret/of+test";

/// A running server. It stops when dropped.
pub struct S3Server {
    /// `http://127.0.0.1:port`, or `https:`.
    pub endpoint: String,
    /// Where s3s-fs keeps what it has: a folder for each bucket.
    pub root: PathBuf,
    front: RequestRecorder,
    door: Arc<AccessControl>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    _dir: tempfile::TempDir,
}

/// One request as it came.
#[derive(Debug, Clone)]
pub struct RecordedRequest {
    /// `PUT` and the like.
    pub method: String,
    /// `/bucket/key`.
    pub path: String,
    /// What stood behind the question mark.
    pub query: String,
    /// Names in lower case.
    pub headers: HashMap<String, String>,
}

/// A way to misbehave.
#[derive(Debug, Clone, Copy)]
pub enum ServerFault {
    /// Answer this status with the error document that S3 has for it, change nothing.
    Status(u16),
    /// Answer this status with a page, as a proxy or a captive portal does, change nothing.
    Page(u16),
    /// Do what is asked, then answer this status with a page.
    PageAfter(u16),
    /// Answer this status with no body at all, change nothing.
    Bare(u16),
    /// Close the connection without an answer, change nothing.
    Hangup,
    /// Do what is asked, then close the connection without an answer.
    HangupAfter,
    /// Do what is asked, then answer this status with the error document that S3 has for it.
    StatusAfter(u16),
    /// Answer the headers and half of the body, then close the connection.
    HalfBody,
    /// Wait before doing what is asked.
    Delay(Duration),
}

/// Who gets in, and how.
struct AccessControl {
    /// The access key that is known, and its secret.
    keys: Mutex<(String, String)>,
    /// `None`: without TLS.
    tls: Mutex<Option<TlsAcceptor>>,
    is_shut: AtomicBool,
}

impl Default for AccessControl {
    fn default() -> Self {
        let keys = Mutex::new((ACCESS_KEY.to_owned(), SECRET_KEY.to_owned()));
        Self { keys, tls: Mutex::default(), is_shut: AtomicBool::default() }
    }
}

struct AccessKeys(Arc<AccessControl>);

#[async_trait::async_trait]
impl S3Auth for AccessKeys {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        let (known, secret) = self.0.keys.lock().clone();
        if known == access_key { Ok(secret.into()) } else { Err(s3s::s3_error!(InvalidAccessKeyId)) }
    }
}

#[derive(Clone, Default)]
struct RequestRecorder {
    requests: Arc<Mutex<Vec<RecordedRequest>>>,
    troubles: Arc<Mutex<Vec<PlannedFault>>>,
    said: Arc<Mutex<HashMap<String, String>>>,
}

struct PlannedFault {
    method: String,
    part: String,
    trouble: ServerFault,
    left: usize,
}

impl S3Server {
    /// A server that keeps the promise of conditional puts.
    pub fn start() -> Self {
        Self::run(false, AccessControl::default())
    }

    /// The same with TLS: a certificate and its key, as PEM.
    pub fn start_with_tls(pem: &(String, String)) -> Self {
        let door = AccessControl { tls: Mutex::new(Some(acceptor(pem))), ..AccessControl::default() };
        Self::run(false, door)
    }

    /// Bare s3s-fs, which does not.
    pub fn start_bare() -> Self {
        Self::run(true, AccessControl::default())
    }

    fn run(bare: bool, door: AccessControl) -> Self {
        let door = Arc::new(door);
        let scheme = if door.tls.lock().is_some() { "https" } else { "http" };
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(BUCKET)).unwrap();
        let files = s3s_fs::FileSystem::new(dir.path()).unwrap();
        let mut builder = if bare {
            S3ServiceBuilder::new(files)
        } else {
            S3ServiceBuilder::new(AtomicS3Files::new(files, dir.path().to_owned()))
        };
        builder.set_auth(AccessKeys(Arc::clone(&door)));
        let service = builder.build();

        let front = RequestRecorder::default();
        let (stop, stopped) = oneshot::channel();
        let (ready, address) = std::sync::mpsc::channel();
        let thread = std::thread::spawn({
            let (front, door) = (front.clone(), Arc::clone(&door));
            move || {
                let runtime =
                    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
                runtime.block_on(async {
                    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                    ready.send(listener.local_addr().unwrap()).unwrap();
                    tokio::select! {
                        () = accept(listener, service, front, door) => {}
                        _ = stopped => {}
                    }
                });
                runtime.shutdown_background();
            }
        });
        let endpoint = format!("{scheme}://{}", address.recv().unwrap());
        let root = dir.path().to_owned();
        Self { endpoint, root, front, door, stop: Some(stop), thread: Some(thread), _dir: dir }
    }

    /// A store in `prefix` of the bucket.
    pub async fn store(&self, prefix: &str) -> S3Store {
        self.store_with(self.settings(prefix), S3Options::default()).await
    }

    /// A store with settings of its own; the credentials are the server's.
    pub async fn store_with(&self, settings: StoreSettings, options: S3Options) -> S3Store {
        let StoreUrl::S3 { bucket, prefix } = settings.url.clone() else { panic!("an S3 URL") };
        let options = S3Options { credentials: Some(credentials()), ..options };
        S3Store::connect(&settings, &bucket, &prefix, &Env::host(), options).await.unwrap()
    }

    /// What the config file would say.
    pub fn settings(&self, prefix: &str) -> StoreSettings {
        settings(&self.endpoint, prefix)
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<RecordedRequest> {
        self.front.requests.lock().clone()
    }

    /// Requests with this method whose path and query contain `part`.
    pub fn count(&self, method: &str, part: &str) -> usize {
        self.front.requests.lock().iter().filter(|r| r.is(method, part)).count()
    }

    /// Forgets the requests so far.
    pub fn forget_requests(&self) {
        self.front.requests.lock().clear();
    }

    /// Misbehaves at the next `times` requests with this method whose path and query contain `part`.
    pub fn trouble(&self, method: &str, part: &str, trouble: ServerFault, times: usize) {
        let planned = PlannedFault { method: method.to_owned(), part: part.to_owned(), trouble, left: times };
        self.front.troubles.lock().push(planned);
    }

    /// Answers questions on the bucket with this query with this document.
    pub fn bucket_says(&self, query: &str, document: &str) {
        self.front.said.lock().insert(query.to_owned(), document.to_owned());
    }

    /// From now on this access key is known, and no other.
    pub fn know(&self, access_key: &str, secret: &str) {
        *self.door.keys.lock() = (access_key.to_owned(), secret.to_owned());
    }

    /// New connections get this certificate.
    pub fn show(&self, pem: &(String, String)) {
        *self.door.tls.lock() = Some(acceptor(pem));
    }

    /// Hangs up on all, or lets them in again.
    pub fn shut(&self, is_shut: bool) {
        self.door.is_shut.store(is_shut, Ordering::Relaxed);
    }

    /// Behaves from now on.
    pub fn calm(&self) {
        self.front.troubles.lock().clear();
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The server's credentials.
pub fn credentials() -> Credentials {
    Credentials::new(ACCESS_KEY, SECRET_KEY, None, None, "test")
}

/// The environment of a program that shall use the bucket: credentials, and nothing of the host's own.
pub fn environment() -> Vec<(&'static str, String)> {
    vec![
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
        ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
        ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
        ("AWS_CONFIG_FILE", "/dev/null".to_owned()),
        ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null".to_owned()),
    ]
}

/// Settings for the bucket on any server.
pub fn settings(endpoint: &str, prefix: &str) -> StoreSettings {
    let url = StoreUrl::S3 { bucket: BUCKET.to_owned(), prefix: prefix.to_owned() };
    StoreSettings { endpoint: Some(endpoint.to_owned()), ..StoreSettings::new(url, KeySource::None) }
}

impl RecordedRequest {
    fn is(&self, method: &str, part: &str) -> bool {
        self.method == method && format!("{}?{}", self.path, self.query).contains(part)
    }
}

impl RequestRecorder {
    fn says(&self, request: &hyper::Request<Incoming>) -> Option<String> {
        let is_of_bucket = request.method() == "GET" && request.uri().path().trim_matches('/') == BUCKET;
        let query = request.uri().query().filter(|_| is_of_bucket)?;
        self.said.lock().get(query.trim_end_matches('=')).cloned()
    }

    fn note(&self, request: &hyper::Request<Incoming>) -> Option<ServerFault> {
        let header = |value: &hyper::header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let noted = RecordedRequest {
            method: request.method().to_string(),
            path: request.uri().path().to_owned(),
            query: request.uri().query().unwrap_or("").to_owned(),
            headers: request.headers().iter().map(|(k, v)| (k.to_string(), header(v))).collect(),
        };
        let mut troubles = self.troubles.lock();
        let planned = troubles.iter_mut().find(|p| p.left > 0 && noted.is(&p.method, &p.part));
        let trouble = planned.map(|planned| {
            planned.left -= 1;
            planned.trouble
        });
        self.requests.lock().push(noted);
        trouble
    }
}

fn acceptor((certificate, key): &(String, String)) -> TlsAcceptor {
    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let provider = Arc::new(crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    TlsAcceptor::from(Arc::new(builder.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap()))
}

async fn accept(listener: TcpListener, service: S3Service, front: RequestRecorder, door: Arc<AccessControl>) {
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        if door.is_shut.load(Ordering::Relaxed) {
            continue;
        }
        let (service, front, door) = (service.clone(), front.clone(), Arc::clone(&door));
        let tls = door.tls.lock().clone();
        tokio::spawn(async move {
            // Broken connections are part of the tests.
            match tls {
                Some(tls) => {
                    if let Ok(socket) = tls.accept(socket).await {
                        serve(socket, service, front, door).await;
                    }
                }
                None => serve(socket, service, front, door).await,
            }
        });
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    socket: S,
    service: S3Service,
    front: RequestRecorder,
    door: Arc<AccessControl>,
) {
    let handler = service_fn(move |request| answer(service.clone(), front.clone(), Arc::clone(&door), request));
    let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), handler).await;
}

async fn answer(
    service: S3Service,
    front: RequestRecorder,
    door: Arc<AccessControl>,
    request: hyper::Request<Incoming>,
) -> Result<hyper::Response<Body>, Box<dyn std::error::Error + Send + Sync>> {
    if door.is_shut.load(Ordering::Relaxed) {
        return Err("hung up".into());
    }
    let trouble = front.note(&request);
    match trouble {
        Some(trouble @ (ServerFault::Status(_) | ServerFault::Page(_) | ServerFault::Bare(_))) => {
            // A client that is still sending would find the connection closed, and not see the answer.
            let mut body = request.into_body();
            while std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await.is_some() {}
            return Ok(fault_response(trouble));
        }
        Some(ServerFault::Hangup) => return Err("hung up".into()),
        Some(ServerFault::Delay(time)) => tokio::time::sleep(time).await,
        _ => {}
    }
    if let Some(document) = front.says(&request) {
        let answer = hyper::Response::builder().header("content-type", "application/xml");
        return Ok(answer.body(Body::from(document)).unwrap());
    }
    if request.method() == "PUT" && !carries_checksum(request.headers()) {
        let mut body = request.into_body();
        while std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await.is_some() {}
        return Ok(refuse_put());
    }
    let answer = Service::call(&service, request).await.map_err(|e| format!("{e:?}"))?;
    match trouble {
        Some(trouble @ (ServerFault::StatusAfter(_) | ServerFault::PageAfter(_))) => Ok(fault_response(trouble)),
        Some(ServerFault::HangupAfter) => Err("hung up".into()),
        Some(ServerFault::HalfBody) => {
            let (head, body) = answer.into_parts();
            let whole: BytesMut = body.try_collect().await.map_err(|e| format!("{e:?}"))?;
            let half = whole.freeze().split_to(head.headers["content-length"].to_str()?.parse::<usize>()? / 2);
            let broken = futures_util::stream::iter([Ok(half), Err(std::io::Error::other("hung up"))]);
            Ok(hyper::Response::from_parts(head, Body::from(StreamingBlob::wrap(broken))))
        }
        _ => Ok(answer),
    }
}

/// What a bucket with a default retention asks of every put.
fn carries_checksum(headers: &hyper::HeaderMap) -> bool {
    let is_checksum =
        |name: &str| name == "content-md5" || name.starts_with("x-amz-checksum-") && name.matches('-').count() == 3;
    headers.keys().any(|name| is_checksum(name.as_str()))
}

fn refuse_put() -> hyper::Response<Body> {
    let said =
        "Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object requests with Object Lock parameters";
    let document = format!("<Error><Code>InvalidRequest</Code><Message>{said}</Message></Error>");
    let answer = hyper::Response::builder().status(400).header("content-type", "application/xml");
    answer.body(Body::from(document)).unwrap()
}

/// The answer that is given instead of the server's own.
fn fault_response(trouble: ServerFault) -> hyper::Response<Body> {
    let answer = |status: u16| hyper::Response::builder().status(status).header("date", PROXY_DATE);
    match trouble {
        ServerFault::Status(status) | ServerFault::StatusAfter(status) => {
            let code = match status {
                403 => "AccessDenied",
                404 => "NoSuchKey",
                409 => "ConditionalRequestConflict",
                412 => "PreconditionFailed",
                500 => "InternalError",
                503 => "SlowDown",
                507 => "XMinioStorageFull",
                _ => panic!("no code is known for status {status}"),
            };
            let document = format!("<Error><Code>{code}</Code><Message>planted</Message></Error>");
            let answer = hyper::Response::builder().status(status).header("content-type", "application/xml");
            answer.body(Body::from(document)).unwrap()
        }
        ServerFault::Page(status) | ServerFault::PageAfter(status) => {
            let answer = answer(status).header("content-type", "text/html; charset=utf-8").header("etag", "\"page\"");
            answer.body(Body::from("<html><body>Please sign in</body></html>".to_owned())).unwrap()
        }
        ServerFault::Bare(status) => answer(status).body(Body::empty()).unwrap(),
        other => panic!("{other:?} is no answer"),
    }
}

/// The clock of what is no store.
pub const PROXY_DATE: &str = "Sat, 01 Jan 2000 00:00:00 GMT";

/// s3s-fs, careful about conditional puts.
struct AtomicS3Files {
    files: s3s_fs::FileSystem,
    root: PathBuf,
    locks: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl AtomicS3Files {
    fn new(files: s3s_fs::FileSystem, root: PathBuf) -> Self {
        Self { files, root, locks: Mutex::default() }
    }

    /// s3s-fs would make one.
    fn check_bucket(&self, bucket: &str) -> S3Result<()> {
        if self.root.join(bucket).is_dir() { Ok(()) } else { Err(s3s::s3_error!(NoSuchBucket)) }
    }

    fn lock(&self, key: &str) -> Arc<tokio::sync::Mutex<()>> {
        Arc::clone(self.locks.lock().entry(key.to_owned()).or_default())
    }
}

#[async_trait::async_trait]
impl S3 for AtomicS3Files {
    async fn put_object(&self, mut request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        self.check_bucket(&request.input.bucket)?;
        if request.input.if_none_match.is_none() && request.input.if_match.is_none() {
            return self.files.put_object(request).await;
        }
        let body: Vec<bytes::Bytes> = match request.input.body.take() {
            Some(body) => body.try_collect().await.map_err(|e| s3s::s3_error!(IncompleteBody, "{e}"))?,
            None => Vec::new(),
        };
        let stream = futures_util::stream::iter([Ok::<_, Infallible>(bytes::Bytes::from(body.concat()))]);
        request.input.body = Some(StreamingBlob::wrap(stream));
        let lock = self.lock(&request.input.key);
        let _held = lock.lock().await;
        self.files.put_object(request).await
    }

    async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        self.check_bucket(&request.input.bucket)?;
        // s3s-fs would open the directory.
        if self.root.join(&request.input.bucket).join(&request.input.key).is_dir() {
            return Err(s3s::s3_error!(NoSuchKey));
        }
        let lock = self.lock(&request.input.key);
        let _held = lock.lock().await;
        self.files.get_object(request).await
    }

    async fn head_object(&self, request: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        self.files.head_object(request).await
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        self.files.list_objects_v2(request).await
    }

    async fn delete_objects(
        &self,
        request: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        self.check_bucket(&request.input.bucket)?;
        // s3s-fs makes an error of a key whose parent is an object.
        let mut request = request;
        let folder = self.root.join(&request.input.bucket);
        request.input.delete.objects.retain(|o| folder.join(&o.key).is_file());
        self.files.delete_objects(request).await
    }

    async fn create_multipart_upload(
        &self,
        request: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        self.check_bucket(&request.input.bucket)?;
        self.files.create_multipart_upload(request).await
    }

    async fn upload_part(&self, request: S3Request<UploadPartInput>) -> S3Result<S3Response<UploadPartOutput>> {
        self.files.upload_part(request).await
    }

    async fn complete_multipart_upload(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        // s3s-fs says `AccessDenied`.
        if !self.root.join(format!(".upload-{}.json", request.input.upload_id)).exists() {
            return Err(s3s::s3_error!(NoSuchUpload));
        }
        self.files.complete_multipart_upload(request).await
    }

    async fn abort_multipart_upload(
        &self,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        self.files.abort_multipart_upload(request).await
    }
}

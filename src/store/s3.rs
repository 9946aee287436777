//! A store in an S3 bucket, over the AWS SDK.
//!
//! The invariant that lives here: [`put_if_absent`](Store::put_if_absent) sends one request with `If-None-Match: *`,
//! [`replace`](Store::replace) one with `If-Match`, and no layer below repeats them. A retry would meet the first
//! attempt's own object and report `Exists` where it was `Created`; worse, it could take effect after the caller has
//! gone on.
//!
//! **Payload signing.** Bodies carry a CRC32C. Over TLS, and over plain HTTP on the loopback, they are not hashed a
//! second time for the signature: that costs half a second of CPU for each GB and adds nothing to TLS. Over plain HTTP
//! to another host they are, because there only the signature protects them against changes in transit.

use std::ops::Range;

use async_trait::async_trait;
use aws_sdk_s3::Client;
pub use aws_sdk_s3::config::Credentials;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::{Builder, StalledStreamProtectionConfig};
use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use aws_sdk_s3::operation::put_object::builders::PutObjectFluentBuilder;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, Delete, Object, ObjectIdentifier, ServerSideEncryption, StorageClass};
use bytes::{Bytes, BytesMut};
use jiff::{SignedDuration, Timestamp};

mod bounded_http;
pub mod bucket_pages;
mod client;
mod credentials;
mod error;
mod multipart;
mod paused_body;
mod versioning;

use self::client::{LastAttemptError, ServerClock};
use self::error::S3Failure;
use super::{
    LIST_PAGE_MAX, ListPage, ObjectMeta, ObjectVersion, PutOutcome, PutPause, ReplaceOutcome, SizeLimit, Store,
    StoreCapabilities, StoreError, StoreErrorKind, Versioning, key,
};
use crate::config::StoreSettings;
use crate::env::Env;

/// Settings that are not in the config file.
#[derive(Debug, Clone)]
pub struct S3Options {
    /// Bodies larger than this are sent in parts.
    pub single_put_bytes: usize,
    /// Size of a part; S3 allows at least 5 MiB.
    pub part_bytes: usize,
    /// Credentials to use instead of those from the profile, the environment or the machine's role.
    pub credentials: Option<Credentials>,
}

impl Default for S3Options {
    /// Packs of the usual size are sent in one request, because S3 charges for each; a part is the amount worth sending
    /// again.
    fn default() -> Self {
        Self { single_put_bytes: 64 << 20, part_bytes: 16 << 20, credentials: None }
    }
}

/// How many times a download that breaks off in its body is started; the SDK retries only up to the headers.
const BODY_ATTEMPTS: u32 = 4;

/// How many pages of one listing in a row may contain none of our objects before it fails. Buckets with many deleted
/// versions have some.
const EMPTY_PAGES_MAX: usize = 10_000;

/// The most memory reserved at once for a body by the length that the server states. More is allocated as the body
/// arrives.
const BODY_RESERVE_MAX: u64 = 16 << 20;

/// A store in a bucket, or under a prefix in one.
#[derive(Debug, Clone)]
pub struct S3Store {
    client: Client,
    url: String,
    /// The bucket and its endpoint, as errors name them.
    place: String,
    bucket: String,
    /// The prefix: empty, or with a slash at its end.
    root: String,
    storage_class: Option<StorageClass>,
    sse: Option<ServerSideEncryption>,
    sse_kms_key_id: Option<String>,
    sign_bodies: bool,
    options: S3Options,
    clock: ServerClock,
    troubles: LastAttemptError,
}

impl S3Store {
    /// Makes a client for `bucket`; no request is sent yet.
    ///
    /// # Errors
    /// A CA file cannot be read or contains no certificates.
    pub async fn connect(
        settings: &StoreSettings,
        bucket: &str,
        prefix: &str,
        env: &Env,
        options: S3Options,
    ) -> Result<Self, StoreError> {
        let prefix = prefix.trim_matches('/');
        let root = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        let url = format!("s3://{bucket}/{prefix}");
        let (clock, troubles) = (ServerClock::default(), LastAttemptError::default());
        let heard = (clock.clone(), troubles.clone());
        let client = client::connect(settings, &url, env, heard, options.credentials.clone()).await?;
        let at = match (&settings.endpoint, client.config().region()) {
            (Some(endpoint), _) => format!("at {endpoint}"),
            (None, Some(region)) => format!("in AWS region {region}"),
            (None, None) => "in AWS".to_owned(),
        };
        let place = format!("{url} {at}");
        Ok(Self {
            client,
            url,
            place,
            bucket: bucket.to_owned(),
            root,
            storage_class: settings.storage_class.as_deref().map(StorageClass::from),
            sse: settings.sse.as_deref().map(ServerSideEncryption::from),
            sse_kms_key_id: settings.sse_kms_key_id.clone(),
            sign_bodies: settings.endpoint.as_deref().is_some_and(is_unencrypted_remote),
            options,
            clock,
            troubles,
        })
    }

    fn full_key(&self, key: &str) -> String {
        format!("{}{key}", self.root)
    }

    /// Only packs get a storage class: all other objects are small and read often, and colder classes charge for both.
    fn storage_class(&self, key: &str) -> Option<StorageClass> {
        let is_pack = key.split('/').nth(1) == Some("packs");
        self.storage_class.clone().filter(|_| is_pack)
    }

    fn sse(&self) -> Option<ServerSideEncryption> {
        self.sse.clone()
    }

    fn put_request(&self, key: &str) -> PutObjectFluentBuilder {
        self.client
            .put_object()
            .bucket(&self.bucket)
            .key(self.full_key(key))
            .set_storage_class(self.storage_class(key))
            .set_server_side_encryption(self.sse())
            .set_ssekms_key_id(self.sse_kms_key_id.clone())
    }

    /// Writes the object and returns its ETag, if the server sends one. Every S3 server does; a caller that writes
    /// without a condition must treat a missing one as an error.
    async fn put_whole(
        &self,
        key: &str,
        body: Bytes,
        config: Builder,
        condition: PutCondition<'_>,
    ) -> Result<Option<String>, S3Failure> {
        let timeouts = client::timeouts(body.len() as u64);
        let request = match condition {
            PutCondition::None => self.put_request(key),
            PutCondition::Absent => self.put_request(key).if_none_match("*"),
            PutCondition::Version(version) => self.put_request(key).if_match(&version.0),
        };
        let request = request.checksum_algorithm(ChecksumAlgorithm::Crc32C).body(ByteStream::from(body)).customize();
        let request = if self.sign_bodies { request } else { request.disable_payload_signing() };
        Ok(request.config_override(config.timeout_config(timeouts)).send().await?.e_tag)
    }

    /// One download, from the request to the last byte, with its ETag. The length that the server states is used only
    /// to reject a body that is too long.
    async fn read(
        &self,
        key: &str,
        range: Option<String>,
        limit: SizeLimit,
    ) -> Result<(Bytes, Option<String>), DownloadFailure> {
        let request = self.client.get_object().bucket(&self.bucket).key(self.full_key(key)).set_range(range);
        let mut answer = request.send().await.map_err(|e| DownloadFailure::Answer(e.into()))?;
        let expected = answer.content_length.and_then(|len| u64::try_from(len).ok()).unwrap_or(0);
        if expected > limit.bytes() {
            return Err(DownloadFailure::Answer(S3Failure::too_large(limit, Some(expected), answer.e_tag)));
        }
        let mut whole = BytesMut::with_capacity(expected.min(BODY_RESERVE_MAX) as usize);
        let collect = async {
            while let Some(part) = answer.body.next().await {
                let part = part.map_err(|e| DownloadFailure::Body(e.to_string()))?;
                if (whole.len() + part.len()) as u64 > limit.bytes() {
                    return Err(DownloadFailure::Answer(S3Failure::too_large(limit, None, answer.e_tag.clone())));
                }
                whole.extend_from_slice(&part);
            }
            Ok(())
        };
        match tokio::time::timeout(client::attempt_timeout(expected), collect).await {
            Ok(collected) => collected.map(|()| (whole.freeze(), answer.e_tag)),
            Err(_) => Err(DownloadFailure::Body("the body did not arrive in time".to_owned())),
        }
    }

    async fn read_with_attempts(
        &self,
        key: &str,
        range: Option<String>,
        limit: SizeLimit,
    ) -> Result<(Bytes, Option<String>), S3Failure> {
        let mut left = BODY_ATTEMPTS;
        loop {
            left -= 1;
            match self.read(key, range.clone(), limit).await {
                Ok(whole) => return Ok(whole),
                Err(DownloadFailure::Answer(failure)) => return Err(failure),
                Err(DownloadFailure::Body(detail)) if left == 0 => {
                    return Err(S3Failure::interrupted_download(detail));
                }
                // The connection worked a moment ago, so no pause is needed; the next attempt backs off if necessary.
                Err(DownloadFailure::Body(detail)) => tracing::debug!(key, detail, "a download broke off"),
            }
        }
    }
}

/// The condition of a put.
enum PutCondition<'a> {
    None,
    Absent,
    Version(&'a ObjectVersion),
}

/// What one page of a listing says about the following page.
#[derive(Debug, PartialEq, Eq)]
enum ListContinuation {
    /// This is the last page.
    End,
    /// There are more objects, to be continued with this token if there is one.
    More(Option<String>),
    /// The page does not say, or contradicts itself: an object missing in the listing may exist.
    Unclear(String),
}

impl ListContinuation {
    /// From an answer to a request with `token`; also returns the objects on the page.
    fn of(answer: ListObjectsV2Output, token: Option<&str>) -> (Self, Vec<Object>) {
        let contents = answer.contents.unwrap_or_default();
        let next = answer.next_continuation_token.filter(|next| !next.is_empty());
        let shown = contents.len() + answer.common_prefixes.map_or(0, |prefixes| prefixes.len());
        let end = match (answer.is_truncated, next) {
            // By its own count the page lacks some. A count larger than a page is taken for the total number of
            // objects.
            _ if answer.key_count.is_some_and(|count| usize::try_from(count).is_ok_and(|count| count > shown))
                && answer.key_count <= answer.max_keys.or(Some(LIST_PAGE_MAX as i32)) =>
            {
                let count = answer.key_count.unwrap_or_default();
                Self::Unclear(format!("the listing counts {count} objects and shows {shown}"))
            }
            (_, Some(next)) if contents.is_empty() && token == Some(&next) => {
                Self::Unclear("the listing continues from the same place for ever".to_owned())
            }
            (_, Some(next)) => Self::More(Some(next)),
            (Some(true), None) => Self::More(None),
            (Some(false), None) => Self::End,
            (None, None) => Self::Unclear("the listing does not say whether there is more".to_owned()),
        };
        (end, contents)
    }
}

enum DownloadFailure {
    /// The request was refused, or all retries failed.
    Answer(S3Failure),
    /// The body broke off.
    Body(String),
}

/// Whether bodies sent to `endpoint` could be changed in transit.
fn is_unencrypted_remote(endpoint: &str) -> bool {
    endpoint.starts_with("http://") && !client::is_on_loopback(endpoint)
}

/// The error for a success without an ETag: nothing shows that the store sent it.
const NO_ETAG: &str = "the server's answer has no ETag";

/// The outcome of a conditional put whose answer has a status of success.
fn put_outcome(etag: Option<&str>) -> PutOutcome {
    match etag {
        Some(_) => PutOutcome::Created,
        None => PutOutcome::Unknown { why: NO_ETAG.to_owned() },
    }
}

/// The version that an answer names.
fn version_from_etag(etag: Option<String>) -> Result<ObjectVersion, &'static str> {
    match etag {
        None => Err(NO_ETAG),
        // `If-Match` never matches weak ETags. nginx makes them when it compresses a body.
        Some(weak) if weak.starts_with("W/") => Err("the server, or a proxy before it, gives weak ETags only"),
        Some(etag) => Ok(ObjectVersion::new(etag)),
    }
}

fn without_retries() -> Builder {
    Builder::new().retry_config(RetryConfig::disabled())
}

#[async_trait]
impl Store for S3Store {
    fn describe(&self) -> String {
        self.url.clone()
    }

    fn capabilities(&self) -> StoreCapabilities {
        StoreCapabilities { put_if_absent: true, replace: true, has_finite_space: false }
    }

    async fn put(&self, key: &str, body: Bytes) -> Result<(), StoreError> {
        key::check(&self.place, key)?;
        if body.len() > self.options.single_put_bytes {
            return self.put_in_parts(key, body).await;
        }
        let put = self.put_whole(key, body, Builder::new(), PutCondition::None).await;
        match put.map_err(|f| f.for_bucket(&self.place, Some(key)))? {
            Some(_) => Ok(()),
            None => Err(StoreError::new(StoreErrorKind::Unreachable, &self.place, Some(key), NO_ETAG)),
        }
    }

    async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<PutOutcome, StoreError> {
        key::check(&self.place, key)?;
        match self.put_whole(key, body, without_retries(), PutCondition::Absent).await {
            Ok(etag) => Ok(put_outcome(etag.as_deref())),
            Err(failure) => failure.into_outcome(&self.place, key),
        }
    }

    async fn put_if_absent_paused(&self, key: &str, body: Bytes, hold: PutPause) -> Result<PutOutcome, StoreError> {
        key::check(&self.place, key)?;
        let config = without_retries()
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .timeout_config(client::timeouts(body.len() as u64));
        // Unsigned and with a checksum made here, because the SDK would otherwise wrap the stream into its own chunks.
        // Buckets with a default retention reject puts without a checksum.
        let checksum = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &body);
        let checksum = aws_smithy_types::base64::encode(checksum.as_ref());
        let request = self
            .put_request(key)
            .if_none_match("*")
            .checksum_sha256(checksum)
            .body(paused_body::paused_body(body, hold));
        match request.customize().disable_payload_signing().config_override(config).send().await {
            Ok(answer) => Ok(put_outcome(answer.e_tag.as_deref())),
            Err(e) => S3Failure::from(e).into_outcome(&self.place, key),
        }
    }

    async fn replace(&self, key: &str, body: Bytes, expected: &ObjectVersion) -> Result<ReplaceOutcome, StoreError> {
        key::check(&self.place, key)?;
        match self.put_whole(key, body, without_retries(), PutCondition::Version(expected)).await {
            Ok(etag) => Ok(match version_from_etag(etag) {
                Ok(version) => ReplaceOutcome::Replaced(version),
                // Not a refusal, because the object has changed: a caller that reads it back finds that it has no
                // version.
                Err(why) => ReplaceOutcome::Unknown { why: why.to_owned() },
            }),
            Err(failure) => failure.into_replace_outcome(&self.place, key),
        }
    }

    async fn get(&self, key: &str, limit: SizeLimit) -> Result<Bytes, StoreError> {
        key::check(&self.place, key)?;
        let read = self.read_with_attempts(key, None, limit).await;
        read.map(|(body, _)| body).map_err(|f| f.for_key(&self.place, Some(key)))
    }

    async fn get_versioned(&self, key: &str, limit: SizeLimit) -> Result<(Bytes, ObjectVersion), StoreError> {
        key::check(&self.place, key)?;
        let read = self.read_with_attempts(key, None, limit).await;
        let (body, etag) = read.map_err(|mut f| {
            let there = f.etag.take().and_then(|etag| version_from_etag(Some(etag)).ok());
            f.for_key(&self.place, Some(key)).with_version(there)
        })?;
        match version_from_etag(etag) {
            Ok(version) => Ok((body, version)),
            Err(why) => Err(StoreError::new(StoreErrorKind::Unsupported, &self.place, Some(key), why)),
        }
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        key::check(&self.place, key)?;
        // HTTP has no empty range.
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        // Servers hold numbers in 63 bits.
        let header = match i64::try_from(range.end - 1) {
            Ok(last) => format!("bytes={}-{last}", range.start),
            Err(_) => format!("bytes={}-", range.start),
        };
        let limit = SizeLimit::range(range.end - range.start);
        match self.read_with_attempts(key, Some(header), limit).await {
            Ok((bytes, _)) => Ok(bytes),
            Err(f) if f.status == Some(416) && (f.is_bare || f.code.as_deref() == Some("InvalidRange")) => {
                Ok(Bytes::new())
            }
            Err(f) => Err(f.for_key(&self.place, Some(key))),
        }
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<ListPage, StoreError> {
        key::check_prefix(&self.place, prefix)?;
        let limit = limit.clamp(1, LIST_PAGE_MAX);
        let (mut after, mut token) = (after.map(|after| self.full_key(after)), None);
        for _ in 0..EMPTY_PAGES_MAX {
            let request = self.client.list_objects_v2().bucket(&self.bucket).prefix(self.full_key(prefix));
            let answer = request
                .set_start_after(after.clone())
                .set_continuation_token(token.clone())
                .max_keys(limit as i32)
                .send()
                .await
                .map_err(|e| S3Failure::from(e).for_bucket(&self.place, None))?;
            let (end, contents) = ListContinuation::of(answer, token.as_deref());
            let last = contents.last().and_then(|o| o.key.clone());
            // Folder markers of consoles and other programs' files are not ours.
            let objects: Vec<ObjectMeta> = contents
                .into_iter()
                .filter_map(|o| {
                    let key = o.key?.strip_prefix(&self.root).filter(|k| key::is_valid(k))?.to_owned();
                    let modified = o.last_modified?;
                    let modified = Timestamp::new(modified.secs(), modified.subsec_nanos() as i32).ok()?;
                    Some(ObjectMeta { key, size: u64::try_from(o.size?).ok()?, modified })
                })
                .collect();
            match (end, last) {
                (ListContinuation::Unclear(why), _) => {
                    return Err(StoreError::new(StoreErrorKind::Unreachable, &self.place, Some(prefix), why));
                }
                (ListContinuation::End, _) => return Ok(ListPage { objects, truncated: false }),
                (ListContinuation::More(_), _) if !objects.is_empty() => {
                    return Ok(ListPage { objects, truncated: true });
                }
                // The page contains none of our objects, but it is not the end.
                (ListContinuation::More(_), Some(last)) => (after, token) = (Some(last), None),
                (ListContinuation::More(next @ Some(_)), None) => token = next,
                (ListContinuation::More(None), None) => break,
            }
        }
        Err(super::incomplete_listing_error(self, prefix))
    }

    async fn delete(&self, keys: &[String]) -> Result<(), StoreError> {
        key::check_batch(&self.place, keys)?;
        if keys.is_empty() {
            return Ok(());
        }
        let invalid = |e: aws_sdk_s3::error::BuildError| {
            StoreError::new(StoreErrorKind::Invalid, &self.place, None, e.to_string())
        };
        let objects: Result<Vec<ObjectIdentifier>, _> =
            keys.iter().map(|key| ObjectIdentifier::builder().key(self.full_key(key)).build()).collect();
        let batch =
            Delete::builder().set_objects(Some(objects.map_err(invalid)?)).quiet(true).build().map_err(invalid)?;
        let answer = self.client.delete_objects().bucket(&self.bucket).delete(batch).send().await;
        let answer = answer.map_err(|e| S3Failure::from(e).for_bucket(&self.place, None))?;
        for error in answer.errors.unwrap_or_default() {
            let kind = error.code().and_then(crate::store::response::classify_code).unwrap_or(StoreErrorKind::Other);
            if kind == StoreErrorKind::NotFound {
                continue;
            }
            let key = error.key().map(|k| k.strip_prefix(&self.root).unwrap_or(k));
            let detail = format!("{}: {}", error.code().unwrap_or("?"), error.message().unwrap_or(""));
            return Err(StoreError::new(kind, &self.place, key, detail));
        }
        Ok(())
    }

    async fn versioning(&self) -> Versioning {
        self.ask_versioning().await
    }

    fn last_attempt_error(&self) -> Option<String> {
        self.troubles.last()
    }

    fn clock_offset(&self) -> Option<SignedDuration> {
        self.clock.offset()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use aws_sdk_s3::presigning::PresigningConfig;

    use super::*;
    use crate::config::{KeySource, StoreUrl};

    async fn uri(endpoint: Option<&str>, path_style: Option<bool>) -> String {
        let url = StoreUrl::S3 { bucket: "backups".to_owned(), prefix: "/prod/".to_owned() };
        let settings = StoreSettings {
            endpoint: endpoint.map(str::to_owned),
            region: Some("eu-central-1".to_owned()),
            path_style,
            ..StoreSettings::new(url, KeySource::None)
        };
        let credentials = Some(Credentials::new("a", "b", None, None, "test"));
        let options = S3Options { credentials, ..S3Options::default() };
        let store = S3Store::connect(&settings, "backups", "/prod/", &Env::host(), options).await.unwrap();
        let signed_for = PresigningConfig::expires_in(Duration::from_mins(1)).unwrap();
        let request = store.client.get_object().bucket(&store.bucket).key(store.full_key("app/format"));
        let signed = request.presigned(signed_for).await.unwrap();
        signed.uri().split('?').next().unwrap().to_owned()
    }

    #[tokio::test]
    async fn the_bucket_stands_in_the_path_or_in_the_host() {
        let own = Some("https://s3.example.net");
        for (endpoint, path_style, expected) in [
            (None, None, "https://backups.s3.eu-central-1.amazonaws.com/prod/app/format"),
            (None, Some(true), "https://s3.eu-central-1.amazonaws.com/backups/prod/app/format"),
            (own, None, "https://s3.example.net/backups/prod/app/format"),
            (own, Some(false), "https://backups.s3.example.net/prod/app/format"),
            (Some("https://s3.example.net/"), None, "https://s3.example.net/backups/prod/app/format"),
            (
                Some("https://x.example.net/storage/v1/s3"),
                None,
                "https://x.example.net/storage/v1/s3/backups/prod/app/format",
            ),
            (
                Some("https://x.example.net/storage/v1/s3/"),
                None,
                "https://x.example.net/storage/v1/s3/backups/prod/app/format",
            ),
        ] {
            assert_eq!(uri(endpoint, path_style).await, expected);
        }
    }

    #[test]
    fn bodies_are_signed_where_nothing_else_protects_them() {
        for exposed in
            ["http://s3.example.net", "http://10.0.0.1:9000/", "http://localhost.example.net", "http://[fd00::1]:9000"]
        {
            assert!(is_unencrypted_remote(exposed), "{exposed}");
        }
        for safe in ["https://s3.example.net", "http://127.0.0.1:9000", "http://localhost/x", "http://[::1]:9000"] {
            assert!(!is_unencrypted_remote(safe), "{safe}");
        }
    }
}

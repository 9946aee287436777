//! Lists everything in a bucket that another program filled: any key, and each version where the server shows them.
//!
//! Only listings are requested. Where versions are refused, or the server does not know the request, the newest version
//! of each key is listed.

use aws_sdk_s3::operation::list_object_versions::ListObjectVersionsOutput;

use super::error::S3Failure;
use super::{EMPTY_PAGES_MAX, ListContinuation, S3Options, S3Store};
use crate::config::StoreSettings;
use crate::env::Env;
use crate::store::{LIST_PAGE_MAX, StoreError, StoreErrorKind};

/// An object, or one version of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketObject {
    /// The whole key, with the prefix.
    pub key: String,
    /// Size, in bytes.
    pub size: u64,
    /// When it was written, in seconds since 1970.
    pub modified: i64,
    /// Whether it is what a reader of the key gets.
    pub is_latest: bool,
    /// Whether it has a version of its own: it was written while the bucket kept versions.
    pub has_version: bool,
}

/// What is asked for next.
#[derive(Debug)]
enum PagePosition {
    /// Versions, behind these markers.
    Versions { key: Option<String>, version: Option<String> },
    /// Objects, behind this token, or behind this key where the server gives no token.
    Objects { token: Option<String>, after: Option<String> },
    /// Nothing is left.
    End,
}

/// The pages of a listing, one request each.
#[derive(Debug)]
pub struct BucketPages {
    store: S3Store,
    position: PagePosition,
    is_first: bool,
    empty: usize,
    /// Number of requests, without retries.
    pub requests: u64,
    /// Why versions are not listed, if they are not.
    pub versions_refused: Option<String>,
}

impl BucketPages {
    /// Makes a client for everything below `prefix`; no request is sent yet.
    ///
    /// # Errors
    /// As for [`S3Store::connect`].
    pub async fn connect(
        settings: &StoreSettings,
        (bucket, prefix): (&str, &str),
        env: &Env,
    ) -> Result<Self, StoreError> {
        let store = S3Store::connect(settings, bucket, prefix, env, S3Options::default()).await?;
        let position = PagePosition::Versions { key: None, version: None };
        Ok(Self { store, position, is_first: true, empty: 0, requests: 0, versions_refused: None })
    }

    /// The next objects; `None` at the end.
    ///
    /// # Errors
    /// The bucket cannot be listed, or the server's pages contradict each other.
    pub async fn next(&mut self) -> Result<Option<Vec<BucketObject>>, StoreError> {
        let position = std::mem::replace(&mut self.position, PagePosition::End);
        let objects = match position {
            PagePosition::End => return Ok(None),
            PagePosition::Versions { key, version } => self.versions(key, version).await?,
            PagePosition::Objects { token, after } => self.objects(token, after).await?,
        };
        self.is_first = false;
        self.empty = if objects.is_empty() { self.empty + 1 } else { 0 };
        if self.empty > EMPTY_PAGES_MAX {
            return Err(self.unclear("the listing has only empty pages".to_owned()));
        }
        Ok(Some(objects))
    }

    async fn versions(
        &mut self,
        key: Option<String>,
        version: Option<String>,
    ) -> Result<Vec<BucketObject>, StoreError> {
        let store = &self.store;
        let request = store.client.list_object_versions().bucket(&store.bucket).prefix(&store.root);
        let request = request.set_key_marker(key.clone()).set_version_id_marker(version.clone());
        self.requests += 1;
        let answer = match request.max_keys(LIST_PAGE_MAX as i32).send().await.map_err(S3Failure::from) {
            Ok(answer) => answer,
            Err(failure) if self.is_first && is_refusal(&failure) => {
                self.versions_refused = Some(failure.detail);
                return self.objects(None, None).await;
            }
            Err(failure) => return Err(failure.for_bucket(&store.place, None)),
        };
        let is_empty = answer.versions().is_empty() && answer.delete_markers().is_empty();
        // A server that ignores what it does not know answers with a document that has no versions.
        if self.is_first && is_empty && answer.is_truncated != Some(true) {
            return self.objects(None, None).await;
        }
        self.position = self.after_versions(&answer, (key, version))?;
        let versions = answer.versions.unwrap_or_default().into_iter().filter_map(|version| {
            Some(BucketObject {
                key: version.key?,
                size: u64::try_from(version.size?).ok()?,
                modified: version.last_modified?.secs(),
                is_latest: version.is_latest.unwrap_or(true),
                has_version: version.version_id.is_some_and(|id| !id.is_empty() && id != "null"),
            })
        });
        Ok(versions.collect())
    }

    fn after_versions(
        &self,
        answer: &ListObjectVersionsOutput,
        before: (Option<String>, Option<String>),
    ) -> Result<PagePosition, StoreError> {
        let next = (answer.next_key_marker.clone(), answer.next_version_id_marker.clone());
        match answer.is_truncated {
            Some(false) => Ok(PagePosition::End),
            None => Err(self.unclear("the listing does not say whether there is more".to_owned())),
            Some(true) if next.0.is_none() || next == before => {
                Err(self.unclear("the listing continues from the same place for ever".to_owned()))
            }
            Some(true) => Ok(PagePosition::Versions { key: next.0, version: next.1 }),
        }
    }

    async fn objects(&mut self, token: Option<String>, after: Option<String>) -> Result<Vec<BucketObject>, StoreError> {
        let store = &self.store;
        let request = store.client.list_objects_v2().bucket(&store.bucket).prefix(&store.root);
        let request = request.set_continuation_token(token.clone()).set_start_after(after);
        self.requests += 1;
        let answer = request.max_keys(LIST_PAGE_MAX as i32).send().await;
        let answer = answer.map_err(|e| S3Failure::from(e).for_bucket(&store.place, None))?;
        let (end, contents) = ListContinuation::of(answer, token.as_deref());
        self.position = match end {
            ListContinuation::End => PagePosition::End,
            ListContinuation::Unclear(why) => return Err(self.unclear(why)),
            ListContinuation::More(token @ Some(_)) => PagePosition::Objects { token, after: None },
            ListContinuation::More(None) => match contents.last().and_then(|object| object.key.clone()) {
                Some(after) => PagePosition::Objects { token: None, after: Some(after) },
                None => return Err(self.unclear("the listing has more, and no place to continue from".to_owned())),
            },
        };
        let objects = contents.into_iter().filter_map(|object| {
            Some(BucketObject {
                key: object.key?,
                size: u64::try_from(object.size?).ok()?,
                modified: object.last_modified?.secs(),
                is_latest: true,
                has_version: false,
            })
        });
        Ok(objects.collect())
    }

    fn unclear(&self, why: String) -> StoreError {
        StoreError::new(StoreErrorKind::Unreachable, &self.store.place, None, why)
    }
}

/// Whether the server refuses to list versions, or does not know how; not whether it is away.
fn is_refusal(failure: &S3Failure) -> bool {
    failure.status.is_some_and(|status| status < 500 && status != 429 || status == 501)
}

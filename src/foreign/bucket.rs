//! Lists a bucket, or a directory that is used like one. Only names, sizes and times are read.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::config::StoreSettings;
use crate::config::StoreUrl;
use crate::config::value::ValueError;
use crate::env::Env;
use crate::foreign::format::{ForeignListing, ListingError, OBJECTS_MAX, key_text};
use crate::foreign::listing::ListedObject;
use crate::store::{StoreError, StoreErrorKind};

/// The most unreadable paths that are named; the rest is counted.
pub const UNREAD_PATHS_MAX: usize = 20;

/// How often a walk through directories reports its progress, in files.
const PROGRESS_FILES: usize = 1000;

/// Called with the number of objects and of bytes so far.
pub type ListingProgress = dyn Fn(u64, u64) + Send + Sync;

/// Why a bucket cannot be listed.
#[derive(Debug, thiserror::Error)]
pub enum BucketError {
    /// The server's, or that of its settings.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The directory's own; those below it are counted.
    #[error("{path}: {error}")]
    Directory {
        /// The directory.
        path: String,
        /// The error.
        error: io::Error,
    },
    /// A limit.
    #[error(transparent)]
    Listing(#[from] ListingError),
}

/// The URL of a bucket: as that of a store, but with any prefix.
///
/// # Errors
/// It is no such URL.
pub fn parse_url(text: &str) -> Result<StoreUrl, ValueError> {
    let Some((bucket, prefix)) = text.strip_prefix("s3://").and_then(|rest| rest.split_once('/')) else {
        return text.parse();
    };
    match format!("s3://{bucket}").parse()? {
        StoreUrl::S3 { bucket, .. } => Ok(StoreUrl::S3 { bucket, prefix: prefix.trim_matches('/').to_owned() }),
        url @ StoreUrl::Dir(_) => Ok(url),
    }
}

/// Lists everything in the bucket, or below the directory, that the settings name.
///
/// # Errors
/// It cannot be listed, or has more than [`OBJECTS_MAX`] objects.
pub async fn list(
    settings: &StoreSettings,
    env: &Env,
    progress: std::sync::Arc<ListingProgress>,
) -> Result<ForeignListing, BucketError> {
    match &settings.url {
        StoreUrl::S3 { bucket, prefix } => list_s3(settings, (bucket, prefix), env, &*progress).await,
        StoreUrl::Dir(root) => {
            let (root, name) = (root.clone(), settings.url.to_string());
            let walked = env.blocking(move || DirectoryWalk::default().run(&root, &*progress)).await;
            walked.unwrap_or_else(|| {
                Err(StoreError::new(StoreErrorKind::Other, &name, None, "listing it panicked").into())
            })
        }
    }
}

#[cfg(feature = "s3")]
async fn list_s3(
    settings: &StoreSettings,
    place: (&str, &str),
    env: &Env,
    progress: &ListingProgress,
) -> Result<ForeignListing, BucketError> {
    use crate::foreign::listing::VersionColumn;
    use crate::store::s3::bucket_pages::BucketPages;
    let mut pages = BucketPages::connect(settings, place, env).await?;
    let (mut read, mut bytes) = (ForeignListing::default(), 0);
    while let Some(objects) = pages.next().await? {
        for object in objects {
            if object.has_version || !object.is_latest {
                read.listing.versions = VersionColumn::Present;
            }
            let listed = ListedObject { size: object.size, modified: object.modified, is_latest: object.is_latest };
            bytes += push(&mut read, &object.key, listed)?;
        }
        progress(read.listing.len() as u64, bytes);
    }
    if let Some(why) = &pages.versions_refused {
        tracing::debug!("versions are not listed: {why}");
    }
    tracing::debug!(requests = pages.requests, "the bucket is listed");
    Ok(read)
}

#[cfg(not(feature = "s3"))]
#[allow(clippy::unused_async, reason = "it stands in for one that asks the network")]
async fn list_s3(
    _: &StoreSettings,
    (bucket, prefix): (&str, &str),
    _: &Env,
    _: &ListingProgress,
) -> Result<ForeignListing, BucketError> {
    let name = format!("s3://{bucket}/{prefix}");
    let detail = "this runner was built without S3; build it with `--features s3`, or pass a listing with --listing";
    Err(StoreError::new(StoreErrorKind::Unsupported, &name, None, detail).into())
}

/// Adds an object and returns its bytes; folders are left out.
fn push(read: &mut ForeignListing, key: &str, object: ListedObject) -> Result<u64, ListingError> {
    if key.ends_with('/') {
        return Ok(0);
    }
    if read.listing.len() == OBJECTS_MAX {
        return Err(ListingError::TooManyObjects);
    }
    read.listing.push(key, object);
    Ok(object.size)
}

/// Walks through a directory. Symbolic links are not followed, and what is no regular file is left out.
#[derive(Debug, Default)]
struct DirectoryWalk {
    read: ForeignListing,
    bytes: u64,
    /// Directories to read.
    open: Vec<PathBuf>,
}

impl DirectoryWalk {
    fn run(mut self, root: &Path, progress: &ListingProgress) -> Result<ForeignListing, BucketError> {
        let entries =
            fs::read_dir(root).map_err(|error| BucketError::Directory { path: root.display().to_string(), error })?;
        self.entries(root, root, entries, progress)?;
        while let Some(directory) = self.open.pop() {
            match fs::read_dir(&directory) {
                Ok(entries) => self.entries(root, &directory, entries, progress)?,
                Err(error) => self.unread(&directory, &error),
            }
        }
        Ok(self.read)
    }

    fn entries(
        &mut self,
        root: &Path,
        directory: &Path,
        entries: fs::ReadDir,
        progress: &ListingProgress,
    ) -> Result<(), ListingError> {
        for entry in entries {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    self.unread(directory, &error);
                    break;
                }
            };
            let path = entry.path();
            // Of the entry itself, also where it is a link.
            let metadata = match entry.metadata() {
                Ok(metadata) => metadata,
                // It was deleted meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => {
                    self.unread(&path, &error);
                    continue;
                }
            };
            if metadata.is_dir() {
                self.open.push(path);
            } else if metadata.is_file() {
                let key = path.strip_prefix(root).unwrap_or(&path);
                let object = ListedObject { size: metadata.len(), modified: metadata.mtime(), is_latest: true };
                self.bytes += push(&mut self.read, &key_text(key.as_os_str().as_bytes()), object)?;
                if self.read.listing.len().is_multiple_of(PROGRESS_FILES) {
                    progress(self.read.listing.len() as u64, self.bytes);
                }
            }
        }
        Ok(())
    }

    fn unread(&mut self, path: &Path, error: &io::Error) {
        self.read.unread_path_count += 1;
        if self.read.unread_paths.len() < UNREAD_PATHS_MAX {
            self.read.unread_paths.push(format!("{}: {error}", path.display()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::sync::Arc;

    use super::*;
    use crate::config::KeySource;

    #[test]
    fn a_prefix_may_be_anything() {
        let s3 = |bucket: &str, prefix: &str| StoreUrl::S3 { bucket: bucket.into(), prefix: prefix.into() };
        assert_eq!(parse_url("s3://prod-1").unwrap(), s3("prod-1", ""));
        assert_eq!(parse_url("s3://prod-1/Daily Backups/ä/").unwrap(), s3("prod-1", "Daily Backups/ä"));
        assert_eq!(parse_url("file:///srv/b").unwrap(), StoreUrl::Dir("/srv/b".into()));
        for bad in ["s3://x/y", "s3://key:secret@bucket/y", "prod-1", "gs://prod-1", "file://srv"] {
            assert!(parse_url(bad).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_directory_is_walked_without_following_links() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("app/empty")).unwrap();
        fs::write(root.path().join("app/a b"), "1234").unwrap();
        fs::write(root.path().join("top"), "").unwrap();
        symlink("/etc", root.path().join("app/etc")).unwrap();
        symlink("a b", root.path().join("app/link")).unwrap();
        let settings = StoreSettings::new(StoreUrl::Dir(root.path().to_owned()), KeySource::None);
        let read = list(&settings, &Env::host(), Arc::new(|_, _| {})).await.unwrap();
        let mut found: Vec<(&str, u64)> =
            (0..read.listing.len()).map(|at| (read.listing.key(at), read.listing.object(at).size)).collect();
        found.sort_unstable();
        assert_eq!((found, read.unread_path_count), (vec![("app/a b", 4), ("top", 0)], 0));
        let settings = StoreSettings::new(StoreUrl::Dir(root.path().join("none")), KeySource::None);
        let error = list(&settings, &Env::host(), Arc::new(|_, _| {})).await.unwrap_err();
        assert!(matches!(error, BucketError::Directory { .. }), "{error}");
    }
}

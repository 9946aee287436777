//! Opens a store from checked settings.

use std::path::PathBuf;
use std::sync::Arc;

use super::dir::DirStore;
use super::throttled::{BandwidthLimiter, ThrottledStore};
use super::{Store, StoreError, StoreErrorKind};
use crate::config::{StoreSettings, StoreUrl};
use crate::env::Env;

/// Opens the store that `settings` describe, with their `limit_upload`. A directory must exist; S3 is not contacted
/// yet.
///
/// Each connection has its own limit: connect once for each `[store]` section and share the handle.
///
/// # Errors
/// A directory that does not exist, a CA file that cannot be used, an S3 URL in a build without S3.
pub async fn connect(settings: &StoreSettings, env: &Env) -> Result<Arc<dyn Store>, StoreError> {
    open(settings, env, false).await
}

/// Like [`connect`], but makes a directory that does not exist. For `init` alone: anywhere else an unmounted disk would
/// become a new, empty store.
///
/// # Errors
/// As for [`connect`], and a directory that cannot be made.
pub async fn create(settings: &StoreSettings, env: &Env) -> Result<Arc<dyn Store>, StoreError> {
    open(settings, env, true).await
}

async fn open(settings: &StoreSettings, env: &Env, make: bool) -> Result<Arc<dyn Store>, StoreError> {
    let store: Arc<dyn Store> = match &settings.url {
        StoreUrl::Dir(root) => Arc::new(directory(root.clone(), env, make).await?),
        StoreUrl::S3 { bucket, prefix } => s3(settings, bucket, prefix, env).await?,
    };
    tracing::debug!("the store {} is opened", store.describe());
    Ok(match settings.limit_upload {
        Some(bytes_per_second) => Arc::new(ThrottledStore::new(store, BandwidthLimiter::new(bytes_per_second, env))),
        None => store,
    })
}

/// Opens the directory in a thread that may block: on a network file system whose server hangs, a stat blocks too.
async fn directory(root: PathBuf, env: &Env, make: bool) -> Result<DirStore, StoreError> {
    let (of, name) = (env.clone(), format!("file://{}", root.display()));
    let opened =
        env.blocking(move || if make { DirStore::create(&root, &of) } else { DirStore::open(&root, &of) }).await;
    opened.unwrap_or_else(|| Err(StoreError::new(StoreErrorKind::Other, &name, None, "opening it panicked")))
}

#[cfg(feature = "s3")]
async fn s3(settings: &StoreSettings, bucket: &str, prefix: &str, env: &Env) -> Result<Arc<dyn Store>, StoreError> {
    use super::reconnecting::{ConnectFuture, ReconnectingStore};
    use super::s3::{S3Options, S3Store};
    let connect = {
        let (settings, bucket, prefix, of) = (settings.clone(), bucket.to_owned(), prefix.to_owned(), env.clone());
        move || -> ConnectFuture {
            let (settings, bucket, prefix, of) = (settings.clone(), bucket.clone(), prefix.clone(), of.clone());
            Box::pin(async move {
                let store = S3Store::connect(&settings, &bucket, &prefix, &of, S3Options::default()).await?;
                Ok(Arc::new(store) as Arc<dyn Store>)
            })
        }
    };
    Ok(Arc::new(ReconnectingStore::connect(connect, env).await?))
}

#[cfg(not(feature = "s3"))]
#[allow(clippy::unused_async, reason = "it stands in for one that asks the network")]
async fn s3(_: &StoreSettings, bucket: &str, prefix: &str, _: &Env) -> Result<Arc<dyn Store>, StoreError> {
    let name = format!("s3://{bucket}/{prefix}");
    let detail = "this runner was built without S3; build it with `--features s3`, or use a file:// store";
    Err(StoreError::new(StoreErrorKind::Unsupported, &name, None, detail))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::KeySource;

    fn settings(url: StoreUrl) -> StoreSettings {
        StoreSettings {
            region: Some("us-east-1".to_owned()),
            limit_upload: Some(1 << 20),
            ..StoreSettings::new(url, KeySource::None)
        }
    }

    #[tokio::test]
    async fn only_create_makes_a_directory() {
        let base = tempfile::tempdir().unwrap();
        let root = base.path().join("store");
        let (settings, env) = (settings(StoreUrl::Dir(root.clone())), Env::host());
        assert_eq!(connect(&settings, &env).await.unwrap_err().kind, StoreErrorKind::NoSuchStore);
        assert!(!root.exists());
        create(&settings, &env).await.unwrap();
        let store = connect(&settings, &env).await.unwrap();
        assert_eq!(store.describe(), format!("file://{}", root.display()));
    }

    #[cfg(not(feature = "s3"))]
    #[tokio::test]
    async fn without_the_feature_s3_is_refused_in_words() {
        let url = StoreUrl::S3 { bucket: "b".to_owned(), prefix: String::new() };
        let e = connect(&settings(url), &Env::host()).await.unwrap_err();
        assert_eq!(e.kind, StoreErrorKind::Unsupported);
        assert!(e.to_string().contains("--features s3"), "{e}");
    }
}

//! Uploads large objects in parts, so that a broken connection costs one part and not the whole.

use aws_sdk_s3::operation::upload_part::UploadPartOutput;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::error::S3Failure;
use super::{S3Store, client};
use crate::store::{StoreError, StoreErrorKind};

/// How many parts of one object are sent at once: enough to fill a line with a noticeable latency.
const PARTS_AT_ONCE: usize = 4;

/// S3's limit of parts in one upload.
const PARTS_MAX: usize = 10_000;

impl S3Store {
    /// Writes `body` in parts. A failed upload is aborted.
    pub(super) async fn put_in_parts(&self, key: &str, body: Bytes) -> Result<(), StoreError> {
        let created = self
            .client
            .create_multipart_upload()
            .bucket(&self.bucket)
            .key(self.full_key(key))
            .set_storage_class(self.storage_class(key))
            .set_server_side_encryption(self.sse())
            .set_ssekms_key_id(self.sse_kms_key_id.clone())
            .checksum_algorithm(ChecksumAlgorithm::Crc32C)
            .send()
            .await
            .map_err(|e| S3Failure::from(e).for_bucket(&self.place, Some(key)))?;
        let Some(id) = created.upload_id else {
            return Err(StoreError::new(StoreErrorKind::Other, &self.place, Some(key), "the server gave no upload ID"));
        };
        let result = self.send_parts(key, &id, &body).await;
        if result.is_err() {
            self.abort(key, &id).await;
        }
        result
    }

    async fn send_parts(&self, key: &str, id: &str, body: &Bytes) -> Result<(), StoreError> {
        // A body with too many parts gets larger parts.
        let size = self.options.part_bytes.max(body.len().div_ceil(PARTS_MAX)).max(1);
        let parts = (0..body.len().div_ceil(size)).map(|i| {
            let slice = body.slice(i * size..((i + 1) * size).min(body.len()));
            // The number is at most PARTS_MAX.
            self.send_part(key, id, i as i32 + 1, slice)
        });
        let parts: Vec<CompletedPart> = stream::iter(parts).buffered(PARTS_AT_ONCE).try_collect().await?;
        let completed = self
            .client
            .complete_multipart_upload()
            .bucket(&self.bucket)
            .key(self.full_key(key))
            .upload_id(id)
            .multipart_upload(CompletedMultipartUpload::builder().set_parts(Some(parts)).build())
            .send()
            .await;
        match completed.map_err(S3Failure::from) {
            // A success of the store names the object that it made.
            Ok(done) if done.e_tag.is_some() || self.has_size(key, body.len()).await => Ok(()),
            Ok(_) => Err(StoreError::new(StoreErrorKind::Unreachable, &self.place, Some(key), super::NO_ETAG)),
            // A retry after a success with a lost answer finds the upload gone; the object then exists.
            Err(f) if f.code.as_deref() == Some("NoSuchUpload") && self.has_size(key, body.len()).await => Ok(()),
            Err(f) => Err(f.for_bucket(&self.place, Some(key))),
        }
    }

    async fn send_part(&self, key: &str, id: &str, number: i32, body: Bytes) -> Result<CompletedPart, StoreError> {
        let timeouts = client::timeouts(body.len() as u64);
        let part = self
            .client
            .upload_part()
            .bucket(&self.bucket)
            .key(self.full_key(key))
            .upload_id(id)
            .part_number(number)
            .checksum_algorithm(ChecksumAlgorithm::Crc32C)
            .body(ByteStream::from(body))
            .customize();
        let part = if self.sign_bodies { part } else { part.disable_payload_signing() };
        let sent = part.config_override(aws_sdk_s3::config::Builder::new().timeout_config(timeouts)).send().await;
        let UploadPartOutput { e_tag, checksum_crc32_c, .. } =
            sent.map_err(|e| S3Failure::from(e).for_bucket(&self.place, Some(key)))?;
        if e_tag.is_none() {
            return Err(StoreError::new(StoreErrorKind::Unreachable, &self.place, Some(key), super::NO_ETAG));
        }
        Ok(CompletedPart::builder().part_number(number).set_e_tag(e_tag).set_checksum_crc32_c(checksum_crc32_c).build())
    }

    async fn has_size(&self, key: &str, size: usize) -> bool {
        let head = self.client.head_object().bucket(&self.bucket).key(self.full_key(key)).send().await;
        head.is_ok_and(|head| head.content_length == Some(size as i64))
    }

    /// Frees the parts that were sent; if even that fails, the bucket's rule for unfinished uploads has to.
    async fn abort(&self, key: &str, id: &str) {
        let aborted = self
            .client
            .abort_multipart_upload()
            .bucket(&self.bucket)
            .key(self.full_key(key))
            .upload_id(id)
            .send()
            .await;
        if let Err(e) = aborted {
            tracing::debug!(key, error = %S3Failure::from(e).detail, "an unfinished upload cannot be aborted and stays");
        }
    }
}

//! Files with the secrets of a channel. They are read for each attempt, because they are replaced while a long-running
//! node goes on.

use std::io;
use std::path::Path;

use zeroize::Zeroizing;

use crate::alert::delivery::{DeliveryError, SecretProblem};
use crate::config::HttpUrl;
use crate::file::{self, access};

/// The most that is read of such a file, in bytes.
const SECRET_MAX: u64 = 64 << 10;

/// The fewest bytes of a key for signatures.
const KEY_MIN: usize = 16;

/// The content of the file.
async fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, DeliveryError> {
    let from = path.to_owned();
    let work = tokio::task::spawn_blocking(move || match access::refusal(&from) {
        Some(exposure) => Err(DeliveryError::SecretExposed(exposure)),
        None => file::read_own(&from, SECRET_MAX)
            .map(Zeroizing::new)
            .map_err(|error| DeliveryError::SecretUnreadable { path: from, error }),
    });
    let unreadable = |error| DeliveryError::SecretUnreadable { path: path.to_owned(), error: io::Error::other(error) };
    work.await.map_err(unreadable)?
}

fn invalid(path: &Path, problem: SecretProblem) -> DeliveryError {
    DeliveryError::SecretInvalid { path: path.to_owned(), problem }
}

/// The URL in the file; `{role}` may be in it if `has_role`.
pub(super) async fn url(path: &Path, has_role: bool) -> Result<HttpUrl, DeliveryError> {
    let bytes = read(path).await?;
    let text = std::str::from_utf8(&bytes).unwrap_or_default().trim();
    let parsed = if has_role { HttpUrl::with_role(text) } else { text.parse() };
    // The parser's error repeats the text, which is secret.
    parsed.map_err(|_| invalid(path, SecretProblem::NoUrl))
}

/// The token in the file.
pub(super) async fn token(path: &Path) -> Result<Zeroizing<String>, DeliveryError> {
    let bytes = read(path).await?;
    let text = std::str::from_utf8(&bytes).unwrap_or_default().trim();
    let is_token = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    if is_token { Ok(Zeroizing::new(text.to_owned())) } else { Err(invalid(path, SecretProblem::NoToken)) }
}

/// The key in the file: its bytes, without one newline at the end.
pub(super) async fn signing_key(path: &Path) -> Result<Zeroizing<Vec<u8>>, DeliveryError> {
    let bytes = read(path).await?;
    let key = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    if key.len() < KEY_MIN { Err(invalid(path, SecretProblem::ShortKey)) } else { Ok(Zeroizing::new(key.to_vec())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_not_expected_is_refused_without_its_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        let write = |content: &str| std::fs::write(&path, content).unwrap();
        write(" https://hooks.example.net/s3cret\n");
        assert_eq!(url(&path, false).await.unwrap().target, "/s3cret");
        for content in ["", "hooks.example.net/s3cret", "https://a/s3cret\nhttps://b/", "https://a/{role}/s3cret"] {
            write(content);
            let error = url(&path, false).await.unwrap_err().to_string();
            assert!(error.contains("one URL") && !error.contains("s3cret"), "{error}");
        }
        assert_eq!(url(&path, true).await.unwrap().target, "/{role}/s3cret");
        write("tk_s3cret\n");
        assert_eq!(*token(&path).await.unwrap(), "tk_s3cret");
        write("two s3cret\n");
        assert!(!token(&path).await.unwrap_err().to_string().contains("s3cret"));
        write("0123456789abcdef\n");
        assert_eq!(**signing_key(&path).await.unwrap(), *b"0123456789abcdef");
        write("0123456789abcde\n");
        assert!(signing_key(&path).await.unwrap_err().to_string().contains("fewer than 16 bytes"));
        let missing = signing_key(&dir.path().join("missing")).await.unwrap_err().to_string();
        assert!(missing.contains("missing cannot be read: No such file"), "{missing}");
    }
}

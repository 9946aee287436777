//! The location of a store: a bucket with a prefix, or a directory. Pure.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::value::{ValueError, absolute, refuse};

/// The location of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// `s3://bucket/prefix`.
    S3 {
        /// The bucket.
        bucket: String,
        /// The prefix without slashes at its ends; may be empty.
        prefix: String,
    },
    /// `file:///path`.
    Dir(PathBuf),
}

impl FromStr for StoreUrl {
    type Err = ValueError;

    /// `s3://bucket/prefix`, `file:///absolute/path` or a bare absolute path.
    fn from_str(text: &str) -> Result<Self, ValueError> {
        const HINT: &str = r#"write "s3://bucket/prefix" or "file:///var/backups/runner""#;
        if let Some(rest) = text.strip_prefix("s3://") {
            return s3_url(text, rest);
        }
        if let Some(rest) = text.strip_prefix("file:") {
            let Some(path) = rest.strip_prefix("//") else {
                return refuse(format!("{text:?} is not a store"), HINT);
            };
            if !path.starts_with('/') {
                return refuse(
                    format!("{text:?} names a host or a relative path"),
                    format!("a file URL has three slashes: \"file:///{path}\""),
                );
            }
            if path.contains('%') {
                return refuse(format!("{text:?} has a % in it"), "write the path itself, without file:// and escapes");
            }
            return absolute(path).map(StoreUrl::Dir);
        }
        if text.starts_with('/') {
            return absolute(text).map(StoreUrl::Dir);
        }
        match text.split_once("://") {
            Some((scheme, _)) => refuse(format!("there is no store for {scheme:?} URLs"), HINT),
            None => refuse(format!("{text:?} is not a store"), HINT),
        }
    }
}

fn s3_url(text: &str, rest: &str) -> Result<StoreUrl, ValueError> {
    const HINT: &str = r#"write "s3://bucket" or "s3://bucket/prefix""#;
    if rest.contains('@') {
        // The text is not repeated in the error: it contains a secret.
        return refuse(
            "an S3 URL holds no credentials",
            "they come from the AWS environment, a profile or the machine's role",
        );
    }
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if !(3..=63).contains(&bucket.len()) || !bucket.chars().all(allowed) {
        return refuse(format!("{text:?}: {bucket:?} is not a bucket name"), HINT);
    }
    let prefix = prefix.trim_end_matches('/');
    if let Some(c) = prefix.chars().find(|c| !allowed(*c) && *c != '/') {
        return refuse(format!("{text:?}: {c:?} cannot be in a prefix"), "use a-z A-Z 0-9 . _ - and /");
    }
    if !prefix.is_empty() && prefix.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return refuse(format!("{text:?}: the prefix has an empty part, \".\" or \"..\""), HINT);
    }
    Ok(StoreUrl::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreUrl::S3 { bucket, prefix } if prefix.is_empty() => write!(f, "s3://{bucket}"),
            StoreUrl::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
            // A path with a % has no file URL here; the bare path is accepted too.
            StoreUrl::Dir(path) if path.to_string_lossy().contains('%') => write!(f, "{}", path.display()),
            StoreUrl::Dir(path) => write!(f, "file://{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_round_trip_and_the_near_misses_are_refused() {
        for (text, shown) in [
            ("s3://backups/prod", "s3://backups/prod"),
            ("s3://backups/", "s3://backups"),
            ("s3://backups/a/b/", "s3://backups/a/b"),
            ("file:///var//backups/./runner/", "file:///var/backups/runner"),
            ("/var/backups", "file:///var/backups"),
            ("/var/100%", "/var/100%"),
        ] {
            let url: StoreUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), shown);
            assert_eq!(shown.parse(), Ok(url));
        }
        for bad in [
            "",
            "backups",
            "file://var/x",
            "file:/var",
            "file:///a%20b",
            "ftp://x/y",
            "s3://",
            "s3://a",
            "s3://b/../c",
            "s3://bucket//x",
            "s3://bucket/ä",
            "/a/../b",
            "S3://bucket",
        ] {
            assert!(bad.parse::<StoreUrl>().is_err(), "{bad}");
        }
        let secret = "s3://AKIA:hunter2@bucket/x".parse::<StoreUrl>().unwrap_err();
        assert!(!format!("{secret:?}").contains("hunter2"), "an error text must not repeat a secret");
    }
}

//! Listing a directory tree in the byte order of its keys, one page at a time, holding no more than a page of names for each
//! level of the tree.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use jiff::Timestamp;

use crate::store::{ObjectMeta, Page, key};

/// The keys below `root` that start with `prefix` and are greater than `after`. A root or folder that is missing gives an
/// empty page.
pub(super) fn list(root: &Path, prefix: &str, after: Option<&str>, limit: usize) -> io::Result<Page> {
    // Only one folder can hold what starts with this.
    let folder = prefix.rfind('/').map_or("", |slash| &prefix[..=slash]);
    let mut walk = Walk { root, prefix, after: after.unwrap_or(""), limit, page: Page::default() };
    walk.folder(folder)?;
    Ok(walk.page)
}

struct Walk<'a> {
    root: &'a Path,
    prefix: &'a str,
    after: &'a str,
    limit: usize,
    page: Page,
}

impl Walk<'_> {
    /// Adds what is in `folder` (empty, or with a slash at its end); `page.truncated` says that no more fits.
    fn folder(&mut self, folder: &str) -> io::Result<()> {
        let mut done = String::new();
        loop {
            let (batch, more) = self.batch(folder, &done)?;
            for (name, is_dir) in &batch {
                if *is_dir {
                    self.folder(&format!("{folder}{name}"))?;
                } else {
                    self.object(format!("{folder}{name}"))?;
                }
                if self.page.truncated {
                    return Ok(());
                }
            }
            // Folders may turn out empty, so a full batch need not have filled the page.
            match batch.into_iter().next_back() {
                Some((last, _)) if more => done = last,
                _ => return Ok(()),
            }
        }
    }

    /// The first names after `done` in `folder` that may matter, and whether there are more. A directory's name ends with a
    /// slash, which is what makes the order of the names the order of the keys: `a-b` comes before `a/c`.
    fn batch(&self, folder: &str, done: &str) -> io::Result<(BTreeMap<String, bool>, bool)> {
        let mut batch = BTreeMap::new();
        let mut more = false;
        let entries = match fs::read_dir(self.root.join(folder)) {
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok((batch, more)),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let Ok(mut name) = entry.file_name().into_string() else { continue };
            if !key::component_ok(&name) {
                continue;
            }
            let Some(is_dir) = is_dir(&entry)? else { continue };
            if is_dir {
                name.push('/');
            }
            if name.as_str() <= done || !self.wanted(&format!("{folder}{name}"), is_dir) {
                continue;
            }
            batch.insert(name, is_dir);
            if batch.len() > self.limit + 1 {
                batch.pop_last();
                more = true;
            }
        }
        Ok((batch, more))
    }

    fn wanted(&self, key: &str, is_dir: bool) -> bool {
        if is_dir {
            (key.starts_with(self.prefix) || self.prefix.starts_with(key))
                && (key > self.after || self.after.starts_with(key))
        } else {
            key.starts_with(self.prefix) && key > self.after
        }
    }

    fn object(&mut self, key: String) -> io::Result<()> {
        let meta = match fs::metadata(self.root.join(&key)) {
            // Deleted since its name was read.
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            meta => meta?,
        };
        if self.page.objects.len() == self.limit {
            self.page.truncated = true;
            return Ok(());
        }
        let modified = Timestamp::try_from(meta.modified()?).map_err(io::Error::other)?;
        self.page.objects.push(ObjectMeta { key, size: meta.len(), modified });
        Ok(())
    }
}

/// `None` for what holds no objects (sockets and the like) and for what has gone. Links are followed: somebody may have moved
/// a folder to another disk.
fn is_dir(entry: &fs::DirEntry) -> io::Result<Option<bool>> {
    let mut kind = entry.file_type()?;
    if kind.is_symlink() {
        kind = match fs::metadata(entry.path()) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            meta => meta?.file_type(),
        };
    }
    Ok((kind.is_dir() || kind.is_file()).then(|| kind.is_dir()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(page: &Page) -> Vec<&str> {
        page.objects.iter().map(|o| o.key.as_str()).collect()
    }

    #[test]
    fn empty_folders_do_not_hide_what_comes_after_them() {
        let root = tempfile::tempdir().unwrap();
        for i in 0..10 {
            fs::create_dir(root.path().join(format!("a{i}"))).unwrap();
        }
        for name in ["b", "c", "d"] {
            fs::write(root.path().join(name), name).unwrap();
        }
        let page = list(root.path(), "", None, 2).unwrap();
        assert_eq!(keys(&page), ["b", "c"]);
        assert!(page.truncated);
        let page = list(root.path(), "", Some("c"), 2).unwrap();
        assert_eq!(keys(&page), ["d"]);
        assert!(!page.truncated);
    }

    #[test]
    fn foreign_names_and_temporary_files_are_no_objects() {
        let root = tempfile::tempdir().unwrap();
        for name in [".tmp-00ff", "with space", "lost+found", "real"] {
            fs::write(root.path().join(name), name).unwrap();
        }
        std::os::unix::fs::symlink("nowhere", root.path().join("dangling")).unwrap();
        assert_eq!(keys(&list(root.path(), "", None, 9).unwrap()), ["real"]);
    }
}

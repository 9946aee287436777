//! Lists a directory tree in the byte order of its keys, one page at a time. Holds no more than a page of names for
//! each level of the tree.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};

use jiff::Timestamp;
use rustix::fs::{AtFlags, Dir, FileType, Stat};
use rustix::io::Errno;

use super::open_dir::OpenDir;
use crate::store::{ListPage, ObjectMeta, key};

/// The keys below `root` that start with `prefix` and are greater than `after`. A missing folder gives an empty page; a
/// folder that is a link is an error, because the objects may be behind it. Links inside a folder are no objects and
/// are skipped.
pub(super) fn list(root: &OpenDir, prefix: &str, after: Option<&str>, limit: usize) -> io::Result<ListPage> {
    // Only one folder can contain keys with this prefix.
    let folder = prefix.rfind('/').map_or("", |slash| &prefix[..=slash]);
    let mut walk = KeyListing { root, prefix, after: after.unwrap_or(""), limit, page: ListPage::default() };
    walk.folder(folder)?;
    Ok(walk.page)
}

struct KeyListing<'a> {
    root: &'a OpenDir,
    prefix: &'a str,
    after: &'a str,
    limit: usize,
    page: ListPage,
}

/// Some names of a folder in order, directories with a slash at their end.
type NameBatch = BTreeMap<String, ListedName>;

enum ListedName {
    Folder,
    Object(ObjectMeta),
    /// The entry was deleted after its name was read.
    Gone,
}

impl KeyListing<'_> {
    /// Adds the content of `folder` (empty, or with a slash at its end) to the page; sets `page.truncated` when the
    /// page is full.
    fn folder(&mut self, folder: &str) -> io::Result<()> {
        let mut done = String::new();
        loop {
            let (batch, more) = self.batch(folder, &done)?;
            let last = batch.last_key_value().map(|(name, _)| name.clone());
            for (name, found) in batch {
                match found {
                    ListedName::Folder => self.folder(&format!("{folder}{name}"))?,
                    ListedName::Object(object) if self.page.objects.len() < self.limit => {
                        self.page.objects.push(object);
                    }
                    ListedName::Object(_) => self.page.truncated = true,
                    ListedName::Gone => {}
                }
                if self.page.truncated {
                    return Ok(());
                }
            }
            // Folders may be empty, so a full batch need not have filled the page.
            match last {
                Some(last) if more => done = last,
                _ => return Ok(()),
            }
        }
    }

    /// The first names after `done` in `folder` that may match, and whether there are more. A directory's name ends
    /// with a slash, so that the order of the names is the order of the keys: `a-b` comes before `a/c`.
    fn batch(&self, folder: &str, done: &str) -> io::Result<(NameBatch, bool)> {
        let mut names = BTreeMap::new();
        let mut more = false;
        let dir = match self.root.dir(folder) {
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Ok((NameBatch::new(), more));
            }
            dir => dir?,
        };
        for entry in Dir::new(dir.readable()?)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            if !key::is_valid_component(name) || folder.len() + name.len() > key::KEY_LEN_MAX {
                continue;
            }
            let kind = match entry.file_type() {
                FileType::Unknown => stat(&dir, name)?.map(|stat| FileType::from_raw_mode(stat.st_mode)),
                kind => Some(kind),
            };
            let (name, is_dir) = match kind {
                Some(FileType::Directory) => (format!("{name}/"), true),
                Some(FileType::RegularFile) => (name.to_owned(), false),
                _ => continue,
            };
            if name.as_str() <= done || !self.wanted(&format!("{folder}{name}"), is_dir) {
                continue;
            }
            names.insert(name, is_dir);
            if names.len() > self.limit + 1 {
                names.pop_last();
                more = true;
            }
        }
        let found = |(name, is_dir): (String, bool)| {
            let found = if is_dir { ListedName::Folder } else { object(&dir, folder, &name)? };
            Ok((name, found))
        };
        Ok((names.into_iter().map(found).collect::<io::Result<NameBatch>>()?, more))
    }

    fn wanted(&self, key: &str, is_dir: bool) -> bool {
        if is_dir {
            (key.starts_with(self.prefix) || self.prefix.starts_with(key))
                && (key > self.after || self.after.starts_with(key))
        } else {
            key.starts_with(self.prefix) && key > self.after
        }
    }
}

fn object(dir: &OpenDir, folder: &str, name: &str) -> io::Result<ListedName> {
    let Some(stat) = stat(dir, name)? else { return Ok(ListedName::Gone) };
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Ok(ListedName::Gone);
    }
    // The file's writer may have set any date.
    let far = if stat.st_mtime < 0 { Timestamp::MIN } else { Timestamp::MAX };
    let modified = Timestamp::new(stat.st_mtime, stat.st_mtime_nsec as i32).unwrap_or(far);
    let size = u64::try_from(stat.st_size).map_err(io::Error::other)?;
    Ok(ListedName::Object(ObjectMeta { key: format!("{folder}{name}"), size, modified }))
}

/// `None` if the entry has been deleted.
fn stat(dir: &OpenDir, name: &str) -> io::Result<Option<Stat>> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn list(root: &Path, prefix: &str, after: Option<&str>, limit: usize) -> io::Result<ListPage> {
        super::list(&OpenDir::root(root)?, prefix, after, limit)
    }

    fn keys(page: &ListPage) -> Vec<&str> {
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
        for (link, to) in [("dangling", "nowhere"), ("file", "real"), ("folder", "/etc")] {
            std::os::unix::fs::symlink(to, root.path().join(link)).unwrap();
        }
        nix::unistd::mkfifo(&root.path().join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(keys(&list(root.path(), "", None, 9).unwrap()), ["real"]);
        assert!(list(root.path(), "folder/", None, 9).is_err(), "what it lacks may be there");
    }
}

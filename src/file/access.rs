//! Finds users, besides root and this process's user, that may change, or read, a file that controls this program or is
//! secret.

use std::fmt;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A permission that other users have, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileExposure {
    /// The file, or a directory that contains it.
    pub path: PathBuf,
    /// The permission bits.
    pub mode: u32,
    /// The kind of access.
    pub kind: ExposureKind,
}

/// The kinds of [`FileExposure`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExposureKind {
    /// Every user of this host can change the file, or replace it.
    WritableByAll,
    /// A group can change it.
    WritableByGroup(u32),
    /// The file belongs to another user, who can change it.
    Foreign(u32),
    /// Every user of this host can read the file, and it is secret.
    ReadableByAll,
    /// A group can read it.
    ReadableByGroup(u32),
}

impl FileExposure {
    /// Whether the file is refused: any user with an account on this host could decide its content.
    pub fn is_refused(&self) -> bool {
        self.kind == ExposureKind::WritableByAll
    }

    /// The command that removes the exposure.
    pub fn remedy(&self) -> String {
        let change = match self.kind {
            ExposureKind::WritableByAll => "chmod o-w",
            ExposureKind::WritableByGroup(_) => "chmod g-w",
            ExposureKind::Foreign(_) => "chown root",
            ExposureKind::ReadableByAll | ExposureKind::ReadableByGroup(_) => "chmod go-r",
        };
        format!("{change} {}", self.path.display())
    }

    /// Describes the exposure, without the path.
    pub fn what(&self) -> String {
        let mode = self.mode;
        match self.kind {
            ExposureKind::WritableByAll => format!("has mode {mode:04o}: everybody on this host can change it"),
            ExposureKind::WritableByGroup(group) => {
                format!("has mode {mode:04o}: others can change it, those of group {group}")
            }
            ExposureKind::Foreign(owner) => format!("belongs to user {owner}, who can change it"),
            ExposureKind::ReadableByAll => {
                format!("has mode {mode:04o}: everybody on this host can read it, and it is secret")
            }
            ExposureKind::ReadableByGroup(group) => {
                format!("has mode {mode:04o}: others can read it, those of group {group}, and it is secret")
            }
        }
    }
}

impl fmt::Display for FileExposure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.path.display(), self.what())
    }
}

/// The exposures of the file or directory at `path` and of the directories that contain it; empty if it is missing or
/// no file. `secret`: no other user should be able to read it.
pub fn exposures(path: &Path, secret: bool) -> Vec<FileExposure> {
    // If links lead to it, the exposure of the target counts.
    let Ok(path) = path.canonicalize() else { return Vec::new() };
    let Ok(meta) = fs::metadata(&path) else { return Vec::new() };
    if !meta.is_file() && !meta.is_dir() {
        return Vec::new();
    }
    let us = ProcessUser { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() };
    let mut found = of_file(&path, &meta, secret, us);
    for dir in path.ancestors().skip(1) {
        let Ok(meta) = fs::metadata(dir) else { continue };
        found.extend(of_dir(dir, &meta, us));
    }
    found
}

/// The first exposure that is refused.
pub fn refusal(path: &Path) -> Option<FileExposure> {
    exposures(path, false).into_iter().find(FileExposure::is_refused)
}

#[derive(Clone, Copy)]
struct ProcessUser {
    uid: u32,
    gid: u32,
}

impl ProcessUser {
    fn is_own(self, uid: u32) -> bool {
        uid == 0 || uid == self.uid
    }

    fn is_own_group(self, gid: u32) -> bool {
        gid == 0 || gid == self.gid
    }
}

fn of_file(path: &Path, meta: &Metadata, secret: bool, us: ProcessUser) -> Vec<FileExposure> {
    let mode = meta.mode() & 0o7777;
    let at = |kind| FileExposure { path: path.to_owned(), mode, kind };
    let mut found = Vec::new();
    if mode & 0o002 != 0 {
        found.push(at(ExposureKind::WritableByAll));
    } else if !us.is_own(meta.uid()) {
        found.push(at(ExposureKind::Foreign(meta.uid())));
    } else if mode & 0o020 != 0 && !us.is_own_group(meta.gid()) {
        found.push(at(ExposureKind::WritableByGroup(meta.gid())));
    }
    if secret && mode & 0o004 != 0 {
        found.push(at(ExposureKind::ReadableByAll));
    } else if secret && mode & 0o040 != 0 && !us.is_own_group(meta.gid()) {
        found.push(at(ExposureKind::ReadableByGroup(meta.gid())));
    }
    found
}

/// With the sticky bit a user cannot remove or rename other users' files.
fn of_dir(path: &Path, meta: &Metadata, us: ProcessUser) -> Option<FileExposure> {
    let mode = meta.mode() & 0o7777;
    let at = |kind| Some(FileExposure { path: path.to_owned(), mode, kind });
    let is_sticky = mode & 0o1000 != 0;
    if mode & 0o002 != 0 && !is_sticky {
        return at(ExposureKind::WritableByAll);
    }
    if !us.is_own(meta.uid()) {
        return at(ExposureKind::Foreign(meta.uid()));
    }
    let by_group = mode & 0o020 != 0 && !is_sticky && !us.is_own_group(meta.gid());
    if by_group { at(ExposureKind::WritableByGroup(meta.gid())) } else { None }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn kinds(path: &Path, secret: bool) -> Vec<ExposureKind> {
        exposures(path, secret).into_iter().map(|exposure| exposure.kind).collect()
    }

    #[test]
    fn what_others_may_do_is_told_of_the_file_and_of_the_way_to_it() {
        let base = tempfile::tempdir().unwrap();
        let dir = base.path().join("dir");
        let file = dir.join("key");
        fs::create_dir(&dir).unwrap();
        fs::write(&file, "secret").unwrap();
        let set = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        let mut before = Vec::new();
        for (mode, secret, expected) in [
            (0o600, true, &[][..]),
            (0o640, true, &[]),
            (0o644, false, &[]),
            (0o644, true, &[ExposureKind::ReadableByAll]),
            (0o666, true, &[ExposureKind::WritableByAll, ExposureKind::ReadableByAll]),
            (0o602, false, &[ExposureKind::WritableByAll]),
        ] {
            set(&file, mode);
            assert_eq!(kinds(&file, secret), expected, "{mode:o} {secret}");
            before = exposures(&file, secret);
        }
        let [exposure] = &before[..] else { panic!("{before:?}") };
        assert!(exposure.is_refused() && exposure.to_string().contains("mode 0602"), "{exposure}");
        assert_eq!(exposure.remedy(), format!("chmod o-w {}", file.canonicalize().unwrap().display()));

        // The file could be replaced by another one.
        set(&file, 0o600);
        set(&dir, 0o777);
        assert_eq!(kinds(&file, true), [ExposureKind::WritableByAll]);
        assert_eq!(refusal(&file).unwrap().path, dir.canonicalize().unwrap());
        set(&dir, 0o1777);
        assert_eq!(kinds(&file, true), []);
        // Through a link the file itself counts.
        set(&file, 0o606);
        std::os::unix::fs::symlink(&file, base.path().join("link")).unwrap();
        assert!(refusal(&base.path().join("link")).is_some());
        assert_eq!(kinds(&base.path().join("none"), true), []);
        assert_eq!(kinds(Path::new("/dev/null"), true), [], "no file");
        // A directory in which every user may create files is unsuitable for a node's state, sticky or not.
        assert_eq!(kinds(&dir, false), [ExposureKind::WritableByAll]);
    }

    #[test]
    fn another_users_file_is_no_own_one() {
        let us = ProcessUser { uid: 1000, gid: 1000 };
        let meta = fs::metadata("/").unwrap();
        assert!(us.is_own(0) && us.is_own(1000) && !us.is_own(1001));
        assert!(us.is_own_group(0) && us.is_own_group(1000) && !us.is_own_group(4));
        assert_eq!(of_dir(Path::new("/"), &meta, us), None);
    }
}

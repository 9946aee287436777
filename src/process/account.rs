//! The user a program runs as, with all groups of that user, as after a login, and none of this process's own.

use std::ffi::{CString, OsStr};
use std::io;
use std::path::PathBuf;

use nix::unistd::{Gid, Uid, User, geteuid, getgrouplist};

/// A user of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserAccount {
    /// The user name; the number as text if there is no name.
    pub name: String,
    /// The numeric user ID.
    pub uid: Uid,
    /// The primary group.
    pub gid: Gid,
    /// The home directory.
    pub home: PathBuf,
    /// The login shell.
    pub shell: PathBuf,
    /// All groups of the user, the primary one included.
    pub groups: Vec<Gid>,
}

impl UserAccount {
    /// Looks up the user of this name; `None` if there is none.
    ///
    /// # Errors
    /// The list of users or groups cannot be read.
    pub fn named(name: &str) -> io::Result<Option<Self>> {
        let Some(user) = User::from_name(name)? else { return Ok(None) };
        let groups = getgrouplist(&CString::new(name)?, user.gid)?;
        Ok(Some(Self { groups, ..Self::of(user) }))
    }

    /// The user that this process runs as. Its groups are the current ones and are not changed.
    pub(super) fn own(home: Option<&OsStr>) -> Self {
        if let Ok(Some(user)) = User::from_uid(geteuid()) {
            return Self::of(user);
        }
        // A container's user may have no entry in the list of users.
        let own = Self::with_name_only(&geteuid().to_string());
        Self { home: home.map_or(own.home, PathBuf::from), ..own }
    }

    fn of(user: User) -> Self {
        let User { name, uid, gid, dir: home, shell, .. } = user;
        Self { name, uid, gid, home, shell, groups: Vec::new() }
    }

    /// A user of whom only the name is known.
    pub(super) fn with_name_only(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            uid: geteuid(),
            gid: nix::unistd::getegid(),
            home: "/".into(),
            shell: "/bin/sh".into(),
            groups: Vec::new(),
        }
    }
}

//! Who a program runs as: the user with all of its groups, as a login would have them, and none of this process's own.

use std::ffi::{CString, OsStr};
use std::io;
use std::path::PathBuf;

use nix::unistd::{Gid, Uid, User, geteuid, getgrouplist};

/// A user of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserAccount {
    /// Its name; the number where nothing gives it one.
    pub name: String,
    /// Its number.
    pub uid: Uid,
    /// Its own group.
    pub gid: Gid,
    /// Where it is at home.
    pub home: PathBuf,
    /// What it types into.
    pub shell: PathBuf,
    /// All groups that it is in, its own included.
    pub groups: Vec<Gid>,
}

impl UserAccount {
    /// The user of this name; `None`: there is none.
    ///
    /// # Errors
    /// The list of users or groups cannot be read.
    pub fn named(name: &str) -> io::Result<Option<Self>> {
        let Some(user) = User::from_name(name)? else { return Ok(None) };
        let groups = getgrouplist(&CString::new(name)?, user.gid)?;
        Ok(Some(Self { groups, ..Self::of(user) }))
    }

    /// Whom this process runs as. The groups are those that it has, and stay.
    pub(super) fn own(home: Option<&OsStr>) -> Self {
        if let Ok(Some(user)) = User::from_uid(geteuid()) {
            return Self::of(user);
        }
        // A container's user may stand in no list.
        let own = Self::with_name_only(&geteuid().to_string());
        Self { home: home.map_or(own.home, PathBuf::from), ..own }
    }

    fn of(user: User) -> Self {
        let User { name, uid, gid, dir: home, shell, .. } = user;
        Self { name, uid, gid, home, shell, groups: Vec::new() }
    }

    /// Somebody of whom nothing but the name is known.
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

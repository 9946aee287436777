//! The owner of a restored file. The name counts if this host knows it, because two hosts seldom give one service the
//! same number; otherwise the number counts.

use std::collections::HashMap;

use parking_lot::Mutex;

use crate::repo::entry::OwnerAndMode;

/// The most names that are cached. A host has few; a manifest with invented names must not fill the memory.
const NAMES_MAX: usize = 4096;

/// Maps stored owners to numbers of this host.
#[derive(Debug, Default)]
pub struct OwnerResolver {
    numeric: bool,
    users: Mutex<HashMap<String, Option<u32>>>,
    groups: Mutex<HashMap<String, Option<u32>>>,
}

impl OwnerResolver {
    /// Prefers names, or with `numeric` uses the numbers alone.
    pub fn new(numeric: bool) -> Self {
        Self { numeric, ..Self::default() }
    }

    /// The user and group number for a stored owner. Number 0 stays 0 whatever its name: root is root.
    pub fn resolve(&self, owner: &OwnerAndMode) -> (u32, u32) {
        let by_name = |known: &Mutex<_>, name: &str, number: u32, ask: &dyn Fn(&str) -> Option<u32>| {
            if self.numeric || name.is_empty() || number == 0 {
                return number;
            }
            let mut known = known.lock();
            lookup(&mut known, name, ask).unwrap_or(number)
        };
        (
            by_name(&self.users, &owner.user, owner.uid, &|name| {
                nix::unistd::User::from_name(name).ok().flatten().map(|u| u.uid.as_raw())
            }),
            by_name(&self.groups, &owner.group, owner.gid, &|name| {
                nix::unistd::Group::from_name(name).ok().flatten().map(|g| g.gid.as_raw())
            }),
        )
    }
}

fn lookup(known: &mut HashMap<String, Option<u32>>, name: &str, ask: &dyn Fn(&str) -> Option<u32>) -> Option<u32> {
    if let Some(id) = known.get(name) {
        return *id;
    }
    if known.len() >= NAMES_MAX {
        known.clear();
    }
    let id = ask(name);
    known.insert(name.to_owned(), id);
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(uid: u32, user: &str, gid: u32, group: &str) -> OwnerAndMode {
        OwnerAndMode { mode: 0o644, uid, gid, user: user.into(), group: group.into() }
    }

    #[test]
    fn names_win_where_they_are_known() {
        let daemon = nix::unistd::User::from_name("daemon").unwrap().expect("every Debian has it");
        let (uid, gid) = (daemon.uid.as_raw(), daemon.gid.as_raw());
        assert_eq!(OwnerResolver::new(false).resolve(&owner(777, "daemon", 778, "daemon")), (uid, gid));
        assert_eq!(OwnerResolver::new(true).resolve(&owner(777, "daemon", 778, "daemon")), (777, 778));
        assert_eq!(OwnerResolver::new(false).resolve(&owner(777, "no-such-user", 778, "")), (777, 778));
        assert_eq!(OwnerResolver::new(false).resolve(&owner(0, "daemon", 0, "daemon")), (0, 0));
    }

    #[test]
    fn invented_names_do_not_fill_the_memory() {
        let mut known = HashMap::new();
        for i in 0..3 * NAMES_MAX {
            assert_eq!(lookup(&mut known, &format!("u{i}"), &|_| None), None);
        }
        assert!(known.len() <= NAMES_MAX);
    }
}

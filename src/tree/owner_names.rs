//! Names of users and groups. A restore on another host prefers them to the numbers, so each entry carries both.

use std::collections::HashMap;
use std::sync::Arc;

use nix::unistd::{Gid, Group, Uid, User};
use parking_lot::Mutex;

use crate::repo::entry::OwnerAndMode;
use crate::tree::stat::Stat;

/// The most names that are cached of users, and of groups. A tree has few owners; one that has more (each file its own,
/// as some container stores do) costs lookups, not memory.
const NAMES_MAX: usize = 4096;

/// Names by number, looked up once each in the system's databases (which may be a directory server). Thread safe.
#[derive(Debug, Default)]
pub struct OwnerNames {
    users: Mutex<HashMap<u32, Arc<str>>>,
    groups: Mutex<HashMap<u32, Arc<str>>>,
}

impl OwnerNames {
    /// Creates an empty cache.
    pub fn new() -> Self {
        Self::default()
    }

    /// The name of a user; empty if it has none or the database does not answer.
    pub fn user(&self, uid: u32) -> Arc<str> {
        lookup(&self.users, uid, |uid| User::from_uid(Uid::from_raw(uid)).ok().flatten().map(|u| u.name))
    }

    /// The name of a group; empty if it has none or the database does not answer.
    pub fn group(&self, gid: u32) -> Arc<str> {
        lookup(&self.groups, gid, |gid| Group::from_gid(Gid::from_raw(gid)).ok().flatten().map(|g| g.name))
    }

    /// Owner and permissions of `stat`, with names.
    pub fn owner(&self, stat: &Stat) -> OwnerAndMode {
        OwnerAndMode {
            mode: stat.mode,
            uid: stat.uid,
            gid: stat.gid,
            user: self.user(stat.uid),
            group: self.group(stat.gid),
        }
    }
}

fn lookup(known: &Mutex<HashMap<u32, Arc<str>>>, id: u32, ask: impl FnOnce(u32) -> Option<String>) -> Arc<str> {
    // The map is consistent after every statement, so a panic of another thread does not spoil it.
    let lock = || known.lock();
    if let Some(name) = lock().get(&id) {
        return Arc::clone(name);
    }
    // Not under the lock: a directory server may be slow, and other threads find their names in the cache.
    let name: Arc<str> = ask(id).unwrap_or_default().into();
    let mut known = lock();
    if known.len() >= NAMES_MAX {
        known.clear();
    }
    known.insert(id, Arc::clone(&name));
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_has_a_name_and_unknown_numbers_have_none() {
        let names = OwnerNames::new();
        assert_eq!([names.user(0), names.group(0)].map(|name| name.to_string()), ["root", "root"]);
        assert!(names.user(3_999_999_999).is_empty() && names.group(3_999_999_999).is_empty());
    }

    #[test]
    fn each_number_is_asked_once_and_memory_is_bounded() {
        let known = Mutex::new(HashMap::new());
        let mut asked = 0;
        for _ in 0..3 {
            let name = lookup(&known, 7, |id| {
                asked += 1;
                Some(format!("u{id}"))
            });
            assert_eq!(&*name, "u7");
        }
        assert_eq!(asked, 1);
        for id in 0..3 * NAMES_MAX as u32 {
            lookup(&known, id, |_| None);
        }
        assert!(known.lock().len() <= NAMES_MAX);
    }
}

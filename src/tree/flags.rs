//! The file flags that are part of an entry, as chattr(1) sets them: append only, no dump, immutable.
//!
//! The walk reads them in the same call as the other metadata. An entry stores them as an attribute with a name outside
//! Linux's namespaces, so the layout of entries did not have to change.

use rustix::fs::{IFlags, StatxAttributes};

use crate::repo::entry::Xattr;

/// Name of the attribute that stores the flags.
pub const ATTRIBUTE: &[u8] = b"runner.flags";

/// Each flag: its letter in chattr(1), in order, and the kernel's constants.
const FLAGS: [(u8, StatxAttributes, IFlags); 3] = [
    (b'a', StatxAttributes::APPEND, IFlags::APPEND),
    (b'd', StatxAttributes::NODUMP, IFlags::NODUMP),
    (b'i', StatxAttributes::IMMUTABLE, IFlags::IMMUTABLE),
];

/// The flags of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FileFlags(u8);

impl FileFlags {
    /// The flags in an answer of statx(2).
    pub fn of_statx(attributes: StatxAttributes) -> Self {
        Self::select(|(_, shown, _)| attributes.contains(*shown))
    }

    /// The flags stored in an entry's attributes. Letters that this version does not know are ignored.
    pub fn of_entry(xattrs: &[Xattr]) -> Self {
        let letters = xattrs.iter().find(|x| x.name == ATTRIBUTE).map_or(&[][..], |x| &x.value);
        Self::select(|(letter, ..)| letters.contains(letter))
    }

    fn select(has: impl Fn(&(u8, StatxAttributes, IFlags)) -> bool) -> Self {
        Self(FLAGS.iter().enumerate().filter(|(_, flag)| has(flag)).map(|(n, _)| 1 << n).sum())
    }

    fn list(self) -> impl Iterator<Item = &'static (u8, StatxAttributes, IFlags)> {
        FLAGS.iter().enumerate().filter(move |(n, _)| self.0 & (1 << n) != 0).map(|(_, flag)| flag)
    }

    /// The attribute to store in an entry; `None` if no flag is set.
    pub fn attribute(self) -> Option<Xattr> {
        let value: Vec<u8> = self.list().map(|(letter, ..)| *letter).collect();
        (!value.is_empty()).then(|| Xattr { name: ATTRIBUTE.to_vec(), value })
    }

    /// Whether no flag is set.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether a file with these flags can no longer be written, renamed or linked.
    pub fn prevent_changes(self) -> bool {
        self.list().any(|(_, _, flag)| IFlags::IMMUTABLE.union(IFlags::APPEND).contains(*flag))
    }

    /// The flags in the form that ioctl_iflags(2) takes.
    pub fn as_inode_flags(self) -> IFlags {
        self.list().fold(IFlags::empty(), |all, (_, _, flag)| all | *flag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_shows_is_what_it_gets_back() {
        assert_eq!(FileFlags::of_statx(StatxAttributes::COMPRESSED).attribute(), None);
        let flags =
            FileFlags::of_statx(StatxAttributes::IMMUTABLE | StatxAttributes::APPEND | StatxAttributes::ENCRYPTED);
        let attribute = flags.attribute().unwrap();
        assert_eq!((&attribute.name[..], &attribute.value[..]), (ATTRIBUTE, &b"ai"[..]));
        assert_eq!(FileFlags::of_entry(&[attribute]), flags);
        assert_eq!(flags.as_inode_flags(), IFlags::IMMUTABLE | IFlags::APPEND);
    }

    #[test]
    fn only_some_of_them_close_a_file() {
        let of = |letters: &[u8]| FileFlags::of_entry(&[Xattr { name: ATTRIBUTE.to_vec(), value: letters.to_vec() }]);
        assert!(
            of(b"a").prevent_changes()
                && of(b"di").prevent_changes()
                && !of(b"d").prevent_changes()
                && !of(b"").prevent_changes()
        );
        assert!(of(b"zz").is_empty(), "a letter of a later version");
        assert!(FileFlags::of_entry(&[Xattr { name: b"user.flags".to_vec(), value: b"i".to_vec() }]).is_empty());
    }
}

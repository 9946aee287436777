//! Whether a file system is mounted at a path. The kernel's list tells, and the path itself is never touched: if its
//! server is dead, any access would hang. So links are not followed either; the path is the one that `findmnt` shows.
//!
//! The list is that of this process's mount namespace. Three kinds of entries look like a mount and are none: an entry
//! hidden by a mount further up, an autofs trap on which nothing has been mounted yet, and a directory bound onto
//! itself, which is how systemd opens paths to a service in a sandbox.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::{ProbeAnswer, ProbeDetail};

const MOUNTINFO: &str = "/proc/self/mountinfo";

/// Reads the kernel's list.
pub(super) async fn ask(path: &Path) -> (ProbeAnswer, ProbeDetail) {
    match tokio::fs::read(MOUNTINFO).await {
        Ok(list) => decide(&list, path),
        Err(e) => (ProbeAnswer::Unknown, ProbeDetail::MountsUnlisted(format!("{MOUNTINFO}: {e}"))),
    }
}

/// What the kernel's list, as in proc_pid_mountinfo(5), says about a path that is absolute and not the root. Pure.
///
/// It walks down as the kernel does: from the root through every directory above; at each it enters whatever is mounted
/// there on the current mount, and again whatever is mounted on top of that.
pub fn decide(list: &[u8], path: &Path) -> (ProbeAnswer, ProbeDetail) {
    let mut mounts = Vec::new();
    for line in list.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let Some(mount) = MountEntry::parse(line) else {
            let line = String::from_utf8_lossy(line).into_owned();
            return (ProbeAnswer::Unknown, ProbeDetail::MountsUnlisted(format!("{MOUNTINFO} has a line {line:?}")));
        };
        mounts.push(mount);
    }
    if mounts.is_empty() {
        return (ProbeAnswer::Unknown, ProbeDetail::MountsUnlisted(format!("{MOUNTINFO} is empty")));
    }
    let mut on: Option<&MountEntry<'_>> = mounts.iter().find(|mount| mount.point == b"/");
    let mut found: Option<&MountEntry<'_>> = None;
    let mut above: Vec<&Path> = path.ancestors().filter(|path| path.parent().is_some()).collect();
    above.reverse();
    for step in above {
        let is_last = step == path;
        // Each iteration enters another mount, so there are at most as many as mounts.
        for _ in 0..mounts.len() {
            let here = |mount: &&MountEntry<'_>| mount.point == step.as_os_str().as_bytes() && mount.is_on(on, &mounts);
            let Some(next) = mounts.iter().find(here) else { break };
            if is_last && !next.shows_what_was_there(on) {
                found = Some(next);
            }
            on = Some(next);
        }
    }
    match found {
        None => (ProbeAnswer::No, ProbeDetail::NotMounted),
        Some(mount) if mount.filesystem == b"autofs" => (ProbeAnswer::No, ProbeDetail::Automount),
        Some(mount) => {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            (ProbeAnswer::Yes, ProbeDetail::Mounted { device: text(&mount.device), filesystem: text(mount.filesystem) })
        }
    }
}

/// One line of the list.
#[derive(Debug)]
struct MountEntry<'a> {
    id: &'a [u8],
    parent: &'a [u8],
    /// Major and minor number of the file system.
    number: &'a [u8],
    /// The directory of the file system that is shown.
    root: Vec<u8>,
    /// The mount point.
    point: Vec<u8>,
    filesystem: &'a [u8],
    device: Vec<u8>,
}

impl<'a> MountEntry<'a> {
    /// The fields are: ID, parent, major:minor, root, mount point, options, any number of other fields, `-`, type,
    /// source, options.
    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut fields = line.split(|byte| *byte == b' ');
        let (id, parent, number) = (fields.next()?, fields.next()?, fields.next()?);
        let (root, point) = (fields.next()?, fields.next()?);
        fields.find(|field| *field == b"-")?;
        let (filesystem, device) = (fields.next()?, fields.next()?);
        point.starts_with(b"/").then(|| Self {
            id,
            parent,
            number,
            root: unescape(root),
            point: unescape(point),
            filesystem,
            device: unescape(device),
        })
    }

    /// Whether the entry is mounted on `below`. In a changed root the mount that contains everything is not on the
    /// list.
    fn is_on(&self, below: Option<&MountEntry<'_>>, mounts: &[MountEntry<'_>]) -> bool {
        match below {
            Some(below) => self.parent == below.id && self.id != below.id,
            None => !mounts.iter().any(|mount| mount.id == self.parent),
        }
    }

    /// Whether the entry shows the very directory that it hides.
    fn shows_what_was_there(&self, below: Option<&MountEntry<'_>>) -> bool {
        let Some(below) = below.filter(|below| below.number == self.number) else { return false };
        let deeper =
            if below.point == b"/" { Some(&self.point[..]) } else { self.point.strip_prefix(&below.point[..]) };
        let base = if below.root == b"/" { &[] } else { &below.root[..] };
        deeper.is_some_and(|deeper| match [base, deeper].concat() {
            whole if whole.is_empty() => self.root == b"/",
            whole => self.root == whole,
        })
    }
}

/// The kernel writes blank, tab, newline and backslash as a backslash and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        let octal = |digits: &[u8]| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok();
        if let Some(byte) = after.get(..3).filter(|_| first == b'\\').and_then(octal) {
            out.push(byte);
            rest = &after[3..];
        } else {
            out.push(first);
            rest = after;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n";

    fn at(path: &str, lines: &str) -> (ProbeAnswer, String) {
        let (answer, detail) = decide(format!("{ROOT}{lines}").as_bytes(), Path::new(path));
        (answer, detail.to_string())
    }

    fn yes(said: &str) -> (ProbeAnswer, String) {
        (ProbeAnswer::Yes, said.to_owned())
    }

    fn no() -> (ProbeAnswer, String) {
        (ProbeAnswer::No, "nothing is mounted there".to_owned())
    }

    #[test]
    fn exactly_this_path_counts() {
        let list = "40 22 8:17 / /srv/app rw,noatime shared:5 master:2 - xfs /dev/sdb1 rw\n";
        assert_eq!(at("/srv/app", list), yes("mounted from /dev/sdb1 (xfs)"));
        for other in ["/srv", "/srv/app/data", "/srv/app2", "/srv/ap"] {
            assert_eq!(at(other, list), no(), "{other}");
        }
        // A line without optional fields, and a deleted mount point.
        let bare =
            "40 22 8:17 / /srv/app rw - xfs /dev/sdb1 rw\n41 22 8:17 / /srv/old//deleted rw - xfs /dev/sdb1 rw\n";
        assert_eq!(at("/srv/app", bare).0, ProbeAnswer::Yes);
        assert_eq!(at("/srv/old", bare), no());
    }

    #[test]
    fn escapes_are_undone_and_bytes_compared() {
        let list = "40 22 0:50 / /srv/a\\040b\\134c\\011d\\012e rw - nfs4 nas:/my\\040share rw\n";
        assert_eq!(at("/srv/a b\\c\td\ne", list), yes("mounted from nas:/my share (nfs4)"));
        assert_eq!(at("/srv/a\\040b", list), no());
        assert_eq!(unescape(b"\\04"), b"\\04");
        assert_eq!(unescape(b"\\999x\\"), b"\\999x\\");
    }

    #[test]
    fn the_mount_on_top_wins_whatever_the_order() {
        let lower = "40 22 8:17 / /srv/app rw - xfs /dev/sdb1 rw\n";
        let upper = "41 40 8:33 / /srv/app rw - ext4 /dev/sdc1 rw\n";
        for list in [format!("{lower}{upper}"), format!("{upper}{lower}")] {
            assert_eq!(at("/srv/app", &list), yes("mounted from /dev/sdc1 (ext4)"));
        }
    }

    #[test]
    fn what_a_mount_further_up_hides_is_not_there() {
        let hidden = "40 22 8:17 / /srv/app rw - xfs /dev/sdb1 rw\n41 22 8:33 / /srv rw - ext4 /dev/sdc1 rw\n";
        assert_eq!(at("/srv/app", hidden), no());
        assert_eq!(at("/srv", hidden).0, ProbeAnswer::Yes);
        let again = format!("{hidden}42 41 0:60 / /srv/app rw - tmpfs tmpfs rw\n");
        assert_eq!(at("/srv/app", &again), yes("mounted from tmpfs (tmpfs)"));
    }

    #[test]
    fn a_trap_of_autofs_is_no_mount_but_what_it_caught_is() {
        let trap = "40 22 0:44 / /srv/app rw - autofs systemd-1 rw,fd=33\n";
        assert_eq!(
            at("/srv/app", trap),
            (ProbeAnswer::No, "only an automount point; nothing is mounted on it now".into())
        );
        let caught = format!("{trap}41 40 8:17 / /srv/app rw - xfs /dev/sdb1 rw\n");
        assert_eq!(at("/srv/app", &caught).0, ProbeAnswer::Yes);
    }

    #[test]
    fn a_directory_bound_onto_itself_is_no_mount() {
        let itself = "40 22 8:1 /srv/app /srv/app rw - ext4 /dev/sda1 rw\n";
        assert_eq!(at("/srv/app", itself), no());
        let another = "40 22 8:1 /data/app /srv/app rw - ext4 /dev/sda1 rw\n";
        assert_eq!(at("/srv/app", another).0, ProbeAnswer::Yes);
        // If a real mount is bound over itself, the real mount still counts; on a file system of its own the whole file
        // system is bound.
        let real = "39 22 8:17 / /srv/app rw - xfs /dev/sdb1 rw\n40 39 8:17 / /srv/app rw - xfs /dev/sdb1 rw\n";
        assert_eq!(at("/srv/app", real), yes("mounted from /dev/sdb1 (xfs)"));
        let below = "39 22 8:17 /vol /srv rw - xfs /dev/sdb1 rw\n40 39 8:17 /vol/app /srv/app rw - xfs /dev/sdb1 rw\n";
        assert_eq!(at("/srv/app", below), no());
        let subvolume =
            "39 22 0:30 /@srv /srv rw - btrfs /dev/sdb1 rw\n40 39 0:30 /@app /srv/app rw - btrfs /dev/sdb1 rw\n";
        assert_eq!(at("/srv/app", subvolume).0, ProbeAnswer::Yes);
    }

    #[test]
    fn in_a_changed_root_the_list_has_no_root() {
        let list = b"40 22 8:17 / /srv/app rw - xfs /dev/sdb1 rw\n";
        assert_eq!(decide(list, Path::new("/srv/app")).0, ProbeAnswer::Yes);
    }

    #[test]
    fn a_list_that_cannot_be_understood_is_unknown() {
        for bad in
            ["", "40 22 8:17\n", "40 22 8:17 / relative rw - xfs /dev/sdb1 rw\n", "40 22 8:17 / /srv/app rw xfs\n"]
        {
            assert_eq!(decide(bad.as_bytes(), Path::new("/srv/app")).0, ProbeAnswer::Unknown, "{bad:?}");
        }
    }

    #[tokio::test]
    async fn the_kernel_lists_proc() {
        assert_eq!(
            ask(Path::new("/proc")).await,
            (ProbeAnswer::Yes, ProbeDetail::Mounted { device: "proc".into(), filesystem: "proc".into() })
        );
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(ask(dir.path()).await, (ProbeAnswer::No, ProbeDetail::NotMounted));
    }
}

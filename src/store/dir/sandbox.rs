//! Whether a directory is read-only for this process alone: the mount is, but the file system behind it is not.
//! Systemd's `ProtectSystem=strict` makes such mounts. Pure.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The explanation that is added to the kernel's error message for a store that is read-only for this process alone.
pub(super) const TOLD: &str = "for this process alone, as a systemd unit's sandbox makes it: 'runner config show --systemd' prints the \
                               setting that opens it";

/// Judges `mountinfo`, which has the form of `/proc/self/mountinfo`. `false` if no mount contains the path.
pub(super) fn is_read_only_here_alone(mountinfo: &[u8], path: &Path) -> bool {
    let mounts = mountinfo.split(|byte| *byte == b'\n').filter_map(MountInfoEntry::read);
    // The deepest mount, and of several at one path the last: it covers the others.
    let holding = mounts.filter(|mount| path.starts_with(OsStr::from_bytes(&mount.point)));
    holding
        .max_by_key(|mount| mount.point.len())
        .is_some_and(|mount| mount.is_read_only && !mount.is_superblock_read_only)
}

struct MountInfoEntry {
    point: Vec<u8>,
    is_read_only: bool,
    is_superblock_read_only: bool,
}

impl MountInfoEntry {
    /// Parses one line: ID, parent, device, root, mount point, options, further fields up to a dash, type, source,
    /// options of the file system.
    fn read(line: &[u8]) -> Option<Self> {
        let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
        let dash = fields.iter().position(|field| *field == b"-")?;
        let has_ro = |field: Option<&&[u8]>| Some(field?.split(|byte| *byte == b',').any(|option| option == b"ro"));
        Some(Self {
            point: unescaped(fields.get(4)?),
            is_read_only: has_ro(fields.get(5))?,
            is_superblock_read_only: has_ro(fields.get(dash + 3))?,
        })
    }
}

/// Blanks, tabs, line ends and backslashes are written as three octal digits.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    let mut rest = field;
    while let Some((first, more)) = rest.split_first() {
        let digits = more.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.filter(|_| *first == b'\\').and_then(|digits| u8::from_str_radix(digits, 8).ok());
        plain.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &more[3..] } else { more };
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &[u8] = b"21 1 8:1 / / ro,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro\n\
        22 21 8:2 / /srv/failed ro,relatime - ext4 /dev/sdb1 ro\n\
        23 21 0:40 / /mnt/my\\040backup rw,relatime master:2 - nfs4 server:/export rw,vers=4.2\n\
        24 21 8:1 /var/lib/runner /var/lib/runner rw,relatime - ext4 /dev/sda1 rw\n\
        25 21 8:3 / /mnt/twice ro - ext4 /dev/sdc1 rw\n\
        26 21 8:4 / /mnt/twice rw - ext4 /dev/sdd1 rw\n";

    #[test]
    fn the_mount_is_read_only_and_the_file_system_is_not() {
        for (path, alone) in [
            ("/mnt/backup", true),
            ("/mnt/my", true),
            ("/srv/failed/runner", false),
            ("/mnt/my backup/runner", false),
            ("/var/lib/runner/app", false),
            ("/var/lib/runner2", true),
            ("/mnt/twice/x", false),
        ] {
            assert_eq!(is_read_only_here_alone(MOUNTS, Path::new(path)), alone, "{path}");
        }
        for nothing in [&b""[..], b"garbage", b"21 1 8:1 / /", b"21 1 8:1 / / ro - ext4"] {
            assert!(!is_read_only_here_alone(nothing, Path::new("/mnt")), "{nothing:?}");
        }
    }
}

//! Whether a file system that refuses new files has used up its inodes, although `df` shows free space.

use rustix::fs::StatVfs;

/// The explanation that is added to the kernel's error message.
pub(super) const TOLD: &str = "its file system has no inodes left ('df -i' shows them). Each file needs one, even if \
                               space is free, and a prune needs some, too: remove files that are not the store's";

/// Judges by the file system's counters. Some file systems have no fixed number of inodes and report none; quotas are
/// not visible here.
pub(super) fn are_used_up(fs: &StatVfs) -> bool {
    fs.f_files > 0 && fs.f_favail == 0 && fs.f_bavail > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_file_system_with_space_and_without_inodes_has_none_left() {
        let fs = rustix::fs::statvfs("/").unwrap();
        for (files, free, blocks, expected) in [
            (1000, 0, 50, true),
            (1000, 1, 50, false),
            // Both are used up: the lack of space is reported.
            (1000, 0, 0, false),
            // btrfs creates inodes on demand.
            (0, 0, 50, false),
        ] {
            let fs = StatVfs { f_files: files, f_favail: free, f_bavail: blocks, ..fs };
            assert_eq!(are_used_up(&fs), expected, "{files} {free} {blocks}");
        }
    }
}

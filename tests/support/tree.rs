//! Makes trees with everything in them that a file system can hold, from a seed: the same seed, the same tree.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

const MIB: usize = 1 << 20;

/// SplitMix64: small, known, and the same on every machine.
#[derive(Debug, Clone)]
pub struct TreeRng(u64);

impl TreeRng {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`, which is not 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.roll() % limit
    }

    /// Bytes that no compression shrinks.
    pub fn noise(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            bytes.extend_from_slice(&self.roll().to_le_bytes());
        }
        bytes.truncate(len);
        bytes
    }

    /// Bytes that compress about as well as source code does.
    pub fn prose(&mut self, len: usize) -> Vec<u8> {
        const WORDS: [&str; 16] = [
            "let ", "fn ", "match ", "Some(", "None", "self.", "pub ", "struct ", "return ", "if ", "else ", "\n    ",
            "();\n", " = ", "&mut ", "// ",
        ];
        let mut bytes = Vec::with_capacity(len + 32);
        while bytes.len() < len {
            let dice = self.roll();
            bytes.extend_from_slice(WORDS[(dice % 16) as usize].as_bytes());
            if (dice >> 8).is_multiple_of(4) {
                bytes.extend_from_slice(format!("{:x}", dice >> 40).as_bytes());
            }
        }
        bytes.truncate(len);
        bytes
    }
}

/// What the machine allowed. A test that is about one of these asserts it; the others take what there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TreeFeatures {
    /// Foreign owners, capabilities and `trusted.*` attributes (root only).
    pub owners: bool,
    /// Character and block devices (root outside of a container).
    pub devices: bool,
    /// POSIX ACLs (a question of the file system).
    pub acl: bool,
}

/// Fills `root`, which exists, with about 90 entries of every kind and 90 MiB: sizes around the chunks' bounds, sparse files, links,
/// pipes, devices, attributes, ACLs, odd names, deep paths, odd times. There is no socket in it.
///
/// # Panics
/// If the file system has no extended attributes: then nothing could be said about them. Point `TMPDIR` elsewhere.
pub fn make_rich_tree(root: &Path, seed: u64) -> TreeFeatures {
    let mut dice = TreeRng::new(seed);
    sizes(&root.join("sizes"), &mut dice);
    sparse(&root.join("sparse"), &mut dice);
    names(&root.join("names"), &mut dice);
    deep(&root.join("deep"), &mut dice);
    links(&root.join("links"), &mut dice);
    let mut made = TreeFeatures { owners: rustix::process::geteuid().is_root(), ..TreeFeatures::default() };
    made.devices = special(&root.join("special"), made.owners);
    made.acl = attributes(&root.join("attributes"), &mut dice, made.owners);
    modes(&root.join("modes"), &mut dice, made.owners);
    times(root, &mut dice);
    made
}

/// Fills `root` with `count` small files in directories of at most 100, sizes from 0 to 8 KiB.
pub fn make_many_files(root: &Path, count: usize, seed: u64) {
    let mut dice = TreeRng::new(seed);
    for number in 0..count {
        let dir = root.join(format!("d{:04}", number / 100));
        if number % 100 == 0 {
            fs::create_dir_all(&dir).unwrap();
        }
        let len = dice.below(8192) as usize;
        write(&dir.join(format!("f{number:06}")), &dice.prose(len));
    }
}

/// Appends to every `nth` regular file that [`make_many_files`] made, and returns their paths.
pub fn touch_every(root: &Path, nth: usize, seed: u64) -> Vec<PathBuf> {
    let mut dice = TreeRng::new(seed);
    let mut dirs: Vec<PathBuf> = fs::read_dir(root).unwrap().map(|e| e.unwrap().path()).collect();
    dirs.sort();
    let mut files: Vec<PathBuf> = Vec::new();
    for dir in dirs.iter().filter(|d| d.is_dir()) {
        files.extend(fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_file()));
    }
    files.sort();
    let chosen: Vec<PathBuf> = files.into_iter().step_by(nth).collect();
    for path in &chosen {
        OpenOptions::new().append(true).open(path).unwrap().write_all(&dice.noise(100)).unwrap();
    }
    chosen
}

/// Makes directories below `root` until the path is longer than the kernel takes in one call (4096 bytes), with a file at the
/// end that holds `content`.
pub fn beyond_path_max(root: &Path, content: &[u8]) {
    let name = "d".repeat(200);
    let mut dir = rustix::fs::open(root, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();
    for _ in 0..24 {
        rustix::fs::mkdirat(&dir, &name, Mode::from_raw_mode(0o755)).unwrap();
        dir = rustix::fs::openat(&dir, &name, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();
    }
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&dir, "bottom", flags, Mode::from_raw_mode(0o644)).unwrap();
    File::from(file).write_all(content).unwrap();
}

fn write(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

fn sizes(dir: &Path, dice: &mut TreeRng) {
    fs::create_dir_all(dir.join("empty-directory")).unwrap();
    for len in [0, 1, 2, 511, 4095, 4096, 4097, 65_536, MIB - 1, MIB, MIB + 1, 2 * MIB, 4 * MIB + 17] {
        write(&dir.join(format!("noise-{len}")), &dice.noise(len));
        write(&dir.join(format!("prose-{len}")), &dice.prose(len));
    }
    // Beyond one 32 MiB segment, half of it compressible.
    let mut large = dice.noise(20 * MIB);
    large.extend(dice.prose(20 * MIB));
    write(&dir.join("large"), &large);
    // The same content again, moved by one byte: content-defined chunks find it.
    large.insert(0, b'+');
    write(&dir.join("large-shifted"), &large[..8 * MIB]);
    write(&dir.join("zeroes"), &vec![0; 3 * MIB]);
}

fn sparse(dir: &Path, dice: &mut TreeRng) {
    fs::create_dir_all(dir).unwrap();
    let make = |name: &str, len: u64, data: &[(u64, Vec<u8>)]| {
        let file = File::create(dir.join(name)).unwrap();
        file.set_len(len).unwrap();
        for (offset, bytes) in data {
            file.write_all_at(bytes, *offset).unwrap();
        }
    };
    let mib = MIB as u64;
    make("only-a-hole", 16 * mib, &[]);
    make("hole-at-both-ends", 24 * mib, &[(8 * mib, dice.noise(MIB))]);
    make("data-at-both-ends", 24 * mib, &[(0, dice.prose(4096)), (24 * mib - 4096, dice.noise(4096))]);
    make("odd-end", 9 * mib + 123, &[(0, dice.noise(5000)), (4 * mib, dice.prose(70_000))]);
}

fn names(dir: &Path, dice: &mut TreeRng) {
    fs::create_dir_all(dir).unwrap();
    let long = "n".repeat(255);
    // Also pairs whose order differs between bytewise paths and a walk: `a/b`, `a-b`, `a.c`, `ab`.
    let names: [&[u8]; 20] = [
        b"\xff\xfe-not-utf-8-\xe9",
        b"new\nline",
        b"tab\there",
        b" leading and trailing ",
        b"-rf",
        b"--help",
        b"...",
        b".hidden",
        b"quote'\"`",
        b"back\\slash",
        b"star*?[x]",
        b"$HOME",
        b"\x01\x1b[31m",
        "größe-文件-🙂".as_bytes(),
        b"a-b",
        b"a.c",
        b"ab",
        b"b",
        b"#!",
        long.as_bytes(),
    ];
    for name in names {
        write(&dir.join(std::ffi::OsStr::from_bytes(name)), &dice.prose(20));
    }
    fs::create_dir_all(dir.join("a")).unwrap();
    write(&dir.join("a/b"), b"below a");
    fs::create_dir_all(dir.join(std::ffi::OsStr::from_bytes(b"dir-\xc3\x28"))).unwrap();
    write(&dir.join(std::ffi::OsStr::from_bytes(b"dir-\xc3\x28/inside")), b"inside");
}

fn deep(dir: &Path, dice: &mut TreeRng) {
    let mut path = dir.to_path_buf();
    for level in 0..30 {
        path.push(format!("level-{level:02}-{}", "x".repeat(40)));
    }
    fs::create_dir_all(&path).unwrap();
    write(&path.join("bottom"), &dice.prose(100));
}

fn links(dir: &Path, dice: &mut TreeRng) {
    fs::create_dir_all(dir.join("other")).unwrap();
    write(&dir.join("m-first"), &dice.prose(10_000));
    // The first name in path order is not the one that was there first.
    fs::hard_link(dir.join("m-first"), dir.join("a-second")).unwrap();
    fs::hard_link(dir.join("m-first"), dir.join("other/third")).unwrap();
    write(&dir.join("empty-linked"), b"");
    fs::hard_link(dir.join("empty-linked"), dir.join("empty-linked-2")).unwrap();
    // Equal content, two inodes: must stay two.
    write(&dir.join("twin-1"), b"equal");
    write(&dir.join("twin-2"), b"equal");
    let long = "t/".repeat(1000);
    let targets: [(&str, &[u8]); 6] = [
        ("to-file", b"m-first"),
        ("to-directory", b"other"),
        ("dangling", b"nowhere"),
        ("absolute", b"/etc/hostname"),
        ("not-utf-8", b"\xff\xfe"),
        ("itself", b"itself"),
    ];
    for (name, target) in targets {
        symlink(std::ffi::OsStr::from_bytes(target), dir.join(name)).unwrap();
    }
    symlink(&long, dir.join("long")).unwrap();
}

/// Returns whether devices could be made.
fn special(dir: &Path, root: bool) -> bool {
    fs::create_dir_all(dir).unwrap();
    rustix::fs::mkfifoat(CWD, dir.join("pipe"), Mode::from_raw_mode(0o640)).unwrap();
    let node = |name: &str, kind, major, minor| {
        let mode = Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(CWD, dir.join(name), kind, mode, rustix::fs::makedev(major, minor))
    };
    root && match node("null", FileType::CharacterDevice, 1, 3) {
        Ok(()) => {
            node("loop", FileType::BlockDevice, 7, 200).unwrap();
            true
        }
        // A container's root may not.
        Err(Errno::PERM) => false,
        Err(e) => panic!("mknod: {e}"),
    }
}

/// Returns whether ACLs could be set.
fn attributes(dir: &Path, dice: &mut TreeRng, root: bool) -> bool {
    fs::create_dir_all(dir.join("directory")).unwrap();
    let set =
        |name: &str, key: &str, value: &[u8]| rustix::fs::lsetxattr(dir.join(name), key, value, XattrFlags::empty());
    write(&dir.join("file"), &dice.prose(300));
    for (key, value) in [("user.text", &b"value"[..]), ("user.empty", b""), ("user.bytes", b"\0\xff\n\0")] {
        set("file", key, value).expect("the temporary directory keeps extended attributes; if not, set TMPDIR");
    }
    set("file", "user.long", &dice.noise(1500)).unwrap();
    set("directory", "user.on-a-directory", b"yes").unwrap();
    if root {
        symlink("file", dir.join("link")).unwrap();
        set("link", "trusted.on-a-link", b"yes").unwrap();
        // cap_net_bind_service=ep, as the kernel stores it (revision 2).
        write(&dir.join("capable"), b"#!/bin/true\n");
        let mut capability = vec![0_u8; 20];
        capability[..8].copy_from_slice(&[1, 0, 0, 2, 0, 4, 0, 0]);
        set("capable", "security.capability", &capability).unwrap();
    }
    write(&dir.join("acl-file"), &dice.prose(30));
    fs::create_dir_all(dir.join("acl-directory")).unwrap();
    match set("acl-file", "system.posix_acl_access", &acl(12_345)) {
        Ok(()) => {
            set("acl-directory", "system.posix_acl_access", &acl(12_346)).unwrap();
            set("acl-directory", "system.posix_acl_default", &acl(12_347)).unwrap();
            true
        }
        Err(Errno::NOTSUP) => false,
        Err(e) => panic!("setting an ACL: {e}"),
    }
}

/// `u::rw-,u:ID:r--,g::r--,m::r--,o::---` as `linux/posix_acl_xattr.h` lays it out.
fn acl(id: u32) -> Vec<u8> {
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in
        [(1_u16, 6_u16, u32::MAX), (2, 4, id), (4, 4, u32::MAX), (0x10, 4, u32::MAX), (0x20, 0, u32::MAX)]
    {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

fn modes(dir: &Path, dice: &mut TreeRng, root: bool) {
    fs::create_dir_all(dir).unwrap();
    for mode in [0o400, 0o444, 0o600, 0o644, 0o755, 0o777, 0o4755, 0o2755, 0o6711, 0o1644] {
        let path = dir.join(format!("file-{mode:o}"));
        write(&path, &dice.prose(50));
        if root {
            let owner = 1000 + (dice.below(60_000) as u32);
            let (uid, gid) = (Uid::from_raw(owner), Gid::from_raw(owner + 1));
            rustix::fs::chownat(CWD, &path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).unwrap();
        }
        // After the owner: a change of owner clears setuid and setgid.
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
    for mode in [0o700, 0o755, 0o1777, 0o2770, 0o500] {
        let path = dir.join(format!("directory-{mode:o}"));
        fs::create_dir(&path).unwrap();
        write(&path.join("inside"), b"inside");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
}

/// Gives everything below and including `dir` an odd time, what lies deeper first. Files with several names get one time.
fn times(dir: &Path, dice: &mut TreeRng) {
    let mut entries: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.symlink_metadata().unwrap().is_dir() {
            times(&path, dice);
        } else {
            set_time(&path, dice);
        }
    }
    set_time(dir, dice);
}

fn set_time(path: &Path, dice: &mut TreeRng) {
    // Half a second before 1970, long before, the last nanosecond of a second, whole seconds, and beyond 2038: what ext4, xfs
    // and btrfs all keep.
    let (seconds, nanoseconds) = match dice.below(6) {
        0 => (-1, 500_000_000),
        1 => (-1_000_000_000 + dice.below(1_000_000) as i64, dice.below(1_000_000_000)),
        2 => (1_600_000_000, 999_999_999),
        3 => (1_700_000_000 + dice.below(1_000_000) as i64, 0),
        4 => (4_000_000_000, 1),
        _ => (1_500_000_000 + dice.below(100_000_000) as i64, dice.below(1_000_000_000)),
    };
    #[allow(clippy::useless_conversion, clippy::unnecessary_cast, reason = "the types differ between architectures")]
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds as _ };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// Bytes allocated to a file, as `du` counts them.
pub fn allocated(path: &Path) -> u64 {
    fs::symlink_metadata(path).unwrap().blocks() * 512
}

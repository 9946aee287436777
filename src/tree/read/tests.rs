use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;

use rustix::fs::XattrFlags;

use super::*;
use crate::tree::exclude::ExcludePatterns;
use crate::tree::roots::PASS;
use crate::tree::scan::{ScanItem, ScanOptions, scan};
use crate::tree::testing::{at, dir, without_privileges};

fn roots(path: &Path) -> SourceRoots {
    SourceRoots::open(&[path.to_owned()]).unwrap()
}

fn scanned(path: &Path) -> Vec<ScannedEntry> {
    let options = ScanOptions {
        sources: vec![path.to_owned()],
        exclude: ExcludePatterns::none(),
        one_file_system: false,
        exclude_caches: false,
        exclude_larger_than: None,
    };
    let found = scan(options).unwrap().flatten();
    found
        .map(|f| match f {
            ScanItem::Entry(scanned) => scanned,
            other => panic!("{other:?}"),
        })
        .collect()
}

fn set(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::lsetxattr(path, name, value, XattrFlags::empty())
        .unwrap_or_else(|e| panic!("these tests need a temporary directory with extended attributes: {name}: {e}"));
}

fn xattr(name: &str, value: &[u8]) -> Xattr {
    Xattr { name: name.into(), value: value.into() }
}

#[test]
fn each_kind_is_completed() {
    let (dir, base) = dir();
    let p = dir.path();
    fs::create_dir(p.join("dir")).unwrap();
    fs::write(p.join("file"), "12345").unwrap();
    nix::unistd::mkfifo(&p.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let target = "x/".repeat(2000) + "ü";
    symlink(&target, p.join("link")).unwrap();
    fs::set_permissions(p.join("file"), fs::Permissions::from_mode(0o4750)).unwrap();
    let (roots, names) = (roots(p), OwnerNames::new());
    let found = scanned(p);
    let complete = |i: usize| read_entry(&roots, &found[i], &names).unwrap();
    assert_eq!(found.iter().map(|s| s.path.name()).collect::<Vec<_>>()[1..], [&b"dir"[..], b"fifo", b"file", b"link"]);
    assert_eq!((complete(0).entry.kind, complete(1).entry.kind), (EntryKind::Dir, EntryKind::Dir));
    assert_eq!(complete(2).entry.kind, EntryKind::Fifo);
    let file = complete(3);
    assert_eq!(file.entry.kind, EntryKind::File { size: 5, extents: None, chunks: vec![] });
    assert_eq!((file.entry.path, file.entry.mtime, file.stat), (at(&base, "file"), found[3].stat.mtime, found[3].stat));
    assert_eq!(file.entry.owner, names.owner(&found[3].stat));
    assert_eq!(file.entry.owner.mode, 0o4750);
    assert_eq!(complete(4).entry.kind, EntryKind::Symlink { target: target.into() });
    assert!((0..5).all(|i| complete(i).problem.is_none()));
}

#[test]
fn devices_have_their_numbers() {
    let roots = roots(Path::new("/dev"));
    let path = TreePath::new("dev/null").unwrap();
    let stat = Stat::of(roots.open_at(&path, OFlags::PATH).unwrap()).unwrap();
    let completed = read_entry(&roots, &ScannedEntry { path, stat }, &OwnerNames::new()).unwrap();
    assert_eq!(completed.entry.kind, EntryKind::CharDevice { major: 1, minor: 3 });
}

#[test]
fn attributes_of_files_and_directories() {
    let (dir, base) = dir();
    let p = dir.path();
    fs::create_dir(p.join("dir")).unwrap();
    fs::write(p.join("file"), "").unwrap();
    // An access list: version 2, then owner rw-, user 1 r--, group r--, mask r--, other ---.
    let mut acl = vec![2, 0, 0, 0];
    for (tag, perm, id) in [(1, 6, u32::MAX), (2, 4, 1), (4, 4, u32::MAX), (16, 4, u32::MAX), (32, 0, u32::MAX)] {
        acl.extend([tag, 0, perm, 0]);
        acl.extend(u32::to_le_bytes(id));
    }
    for name in ["dir", "file"] {
        set(&p.join(name), "user.b", b"");
        set(&p.join(name), "user.a", b"\0\xff");
        set(&p.join(name), "system.posix_acl_access", &acl);
    }
    set(&p.join("dir"), "user.long", &[7; 3000]);
    let long_name = format!("user.{}", "n".repeat(250));
    for i in 0..6 {
        set(&p.join("file"), &format!("{}{i}", &long_name[..250]), b"");
    }
    let (roots, found) = (roots(p), scanned(p));
    let xattrs = |i: usize| {
        let completed = read_entry(&roots, &found[i], &OwnerNames::new()).unwrap();
        assert_eq!(completed.problem, None);
        // A security module may have labelled them.
        completed.entry.xattrs.into_iter().filter(|x| !x.name.starts_with(b"security.")).collect::<Vec<_>>()
    };
    let common = [xattr("system.posix_acl_access", &acl), xattr("user.a", b"\0\xff"), xattr("user.b", b"")];
    assert_eq!(xattrs(1), [&common[..], &[xattr("user.long", &[7; 3000])]].concat());
    // Their names alone are longer than the first buffer.
    assert_eq!(xattrs(2).len(), 9);
    assert!(xattrs(2).is_sorted());
    let open = open_file(&roots, &at(&base, "file")).unwrap();
    assert_eq!(
        open.to_entry(&at(&base, "file"), &OwnerNames::new()),
        read_entry(&roots, &found[2], &OwnerNames::new()).unwrap()
    );
}

#[test]
fn attributes_of_what_cannot_be_opened() {
    let (dir, _) = dir();
    let p = dir.path();
    symlink("nowhere", p.join("link")).unwrap();
    nix::unistd::mkfifo(&p.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    // Links and pipes take no `user.` attributes, and the others are for root. Other users see none.
    let root = nix::unistd::Uid::effective().is_root();
    if root {
        set(&p.join("link"), "trusted.x", b"link");
        set(&p.join("pipe"), "trusted.x", b"pipe");
    }
    let (roots, found) = (roots(p), scanned(p));
    for (i, value) in [(1, "link"), (2, "pipe")] {
        let completed = read_entry(&roots, &found[i], &OwnerNames::new()).unwrap();
        assert_eq!(completed.problem, None);
        let seen = completed.entry.xattrs.into_iter().filter(|x| !x.name.starts_with(b"security.")).collect::<Vec<_>>();
        assert_eq!(seen, if root { vec![xattr("trusted.x", value.as_bytes())] } else { vec![] });
    }
}

#[test]
fn attributes_that_may_not_be_read_are_named_and_the_rest_is_there() {
    let (dir, base) = dir();
    let p = dir.path().join("dir");
    fs::create_dir(&p).unwrap();
    set(&p, "user.secret", b"x");
    fs::set_permissions(&p, fs::Permissions::from_mode(0o711)).unwrap();
    let completed = without_privileges(|| {
        let found = ScannedEntry { path: at(&base, "dir"), stat: Stat::of(File::open(dir.path()).unwrap()).unwrap() };
        read_entry(&roots(dir.path()), &found, &OwnerNames::new()).unwrap()
    });
    assert_eq!((completed.entry.kind, completed.entry.owner.mode), (EntryKind::Dir, 0o711));
    let problem = completed.problem.unwrap();
    assert_eq!(problem.path, at(&base, "dir"));
    assert!(matches!(&problem.kind, PathProblemKind::Attribute(why) if why.contains("user.secret: Permission denied")));
}

#[test]
fn what_became_something_else_has_vanished() {
    let (dir, base) = dir();
    let p = dir.path();
    for name in ["to-pipe", "to-link", "to-dir", "gone"] {
        fs::write(p.join(name), "").unwrap();
    }
    fs::create_dir_all(p.join("parent")).unwrap();
    fs::write(p.join("parent/file"), "").unwrap();
    fs::create_dir_all(p.join("dir-to-link")).unwrap();
    let found = scanned(p);
    for name in ["to-pipe", "to-link", "to-dir", "gone"] {
        fs::remove_file(p.join(name)).unwrap();
    }
    fs::remove_dir(p.join("dir-to-link")).unwrap();
    nix::unistd::mkfifo(&p.join("to-pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    symlink("/etc/passwd", p.join("to-link")).unwrap();
    symlink("/etc", p.join("dir-to-link")).unwrap();
    fs::create_dir(p.join("to-dir")).unwrap();
    fs::rename(p.join("parent"), p.join("moved")).unwrap();
    symlink("moved", p.join("parent")).unwrap();
    let roots = roots(p);
    for scanned in found.iter().filter(|s| s.path != base) {
        let problem = read_entry(&roots, scanned, &OwnerNames::new()).unwrap_err();
        assert_eq!(problem, PathProblem { path: scanned.path.clone(), kind: PathProblemKind::Vanished });
        if scanned.stat.kind == FileType::File {
            assert_eq!(open_file(&roots, &scanned.path).unwrap_err(), problem);
        }
    }
    assert_eq!(found.len(), 8);
}

#[test]
fn an_unreadable_file_is_named() {
    let (dir, base) = dir();
    fs::write(dir.path().join("file"), "").unwrap();
    fs::set_permissions(dir.path().join("file"), fs::Permissions::from_mode(0o600)).unwrap();
    let problem = without_privileges(|| open_file(&roots(dir.path()), &at(&base, "file")).unwrap_err());
    assert_eq!(problem.path, at(&base, "file"));
    assert!(matches!(&problem.kind, PathProblemKind::Unreadable(why) if why.contains("Permission denied")));
}

#[test]
fn reads_at_any_offset() {
    let (dir, base) = dir();
    let content: Vec<u8> = (0..2_000_000_u32).map(|i| (i % 251) as u8).collect();
    fs::write(dir.path().join("file"), &content).unwrap();
    let file = open_file(&roots(dir.path()), &at(&base, "file")).unwrap();
    assert_eq!(file.stat().size, 2_000_000);
    let mut buffer = vec![0; 1_000_000];
    assert_eq!(file.read_at(&mut buffer, 500_000).unwrap(), 1_000_000);
    assert!(buffer == content[500_000..1_500_000]);
    assert_eq!(file.read_at(&mut buffer, 1_999_998).unwrap(), 2);
    assert_eq!(buffer[..2], content[1_999_998..]);
    assert_eq!(file.read_at(&mut buffer, 3_000_000).unwrap(), 0);
}

#[test]
fn small_files_go_behind_what_the_buffer_holds() {
    let (dir, base) = dir();
    fs::write(dir.path().join("file"), "content").unwrap();
    fs::write(dir.path().join("empty"), "").unwrap();
    let roots = roots(dir.path());
    let mut buffer = b"before ".to_vec();
    let file = open_file(&roots, &at(&base, "file")).unwrap();
    assert_eq!(file.read_whole(&mut buffer).unwrap(), WholeRead { len: 7, changed: false, unsized_content: false });
    assert_eq!(open_file(&roots, &at(&base, "empty")).unwrap().read_whole(&mut buffer).unwrap().len, 0);
    assert_eq!(buffer, b"before content");
    // Room beyond the file is not taken for part of it.
    buffer.reserve(100_000);
    file.read_whole(&mut buffer).unwrap();
    assert_eq!(buffer, b"before contentcontent");
}

#[test]
fn a_file_that_changes_meanwhile_is_found_out() {
    let (dir, base) = dir();
    let path = dir.path().join("file");
    let change = |how: &dyn Fn(&File)| {
        fs::write(&path, "content").unwrap();
        let file = open_file(&roots(dir.path()), &at(&base, "file")).unwrap();
        assert!(!file.changed().unwrap());
        // Two stamps within one tick of the kernel's clock are the same.
        std::thread::sleep(std::time::Duration::from_millis(30));
        how(&fs::OpenOptions::new().append(true).open(&path).unwrap());
        let mut buffer = vec![];
        let whole = file.read_whole(&mut buffer).unwrap();
        assert_eq!(whole.len, buffer.len());
        assert_eq!(file.changed().unwrap(), whole.changed);
        (whole.changed, String::from_utf8(buffer).unwrap())
    };
    assert_eq!(change(&|_| ()), (false, "content".into()));
    assert_eq!(change(&|mut f| f.write_all(b" and more").unwrap()), (true, "content".into()));
    assert_eq!(change(&|f| f.set_len(3).unwrap()), (true, "con".into()));
    let overwrite = |_: &File| fs::OpenOptions::new().write(true).open(&path).unwrap().write_all_at(b"C", 0).unwrap();
    assert_eq!(change(&overwrite), (true, "Content".into()));
}

#[test]
fn holes_are_found() {
    const MIB: u64 = 1 << 20;
    let (dir, base) = dir();
    let extents = |size: u64, data: &[u64]| {
        let file = File::create(dir.path().join("file")).unwrap();
        file.set_len(size).unwrap();
        for &at in data {
            file.write_all_at(&[1; 4096], at).unwrap();
        }
        let open = open_file(&roots(dir.path()), &at(&base, "file")).unwrap();
        open.extents(EXTENTS_MAX).unwrap().map(|e| e.into_iter().map(|e| (e.offset, e.len)).collect::<Vec<_>>())
    };
    assert_eq!(extents(8 * MIB, &[]), Some(vec![]), "nothing but a hole");
    assert_eq!(extents(8 * MIB, &[MIB, 5 * MIB]), Some(vec![(MIB, 4096), (5 * MIB, 4096)]));
    assert_eq!(extents(8 * MIB, &[8 * MIB - 4096]), Some(vec![(8 * MIB - 4096, 4096)]), "data at the end");
    assert_eq!(extents(8 * MIB, &[0]), Some(vec![(0, 4096)]), "a hole at the end");
    assert_eq!(extents(8192, &[0, 4096]), None, "no hole");
    assert_eq!(extents(0, &[]), None, "no content");
}

/// As many data blocks as an unprivileged user can make with little space, and a size that no disk has.
#[test]
fn a_file_of_countless_holes_has_bounded_extents_and_keeps_the_large_ones() {
    // tmpfs accepts a file of that size.
    let shm = tempfile::tempdir_in("/dev/shm").unwrap();
    let file = File::create(shm.path().join("file")).unwrap();
    file.set_len(i64::MAX as u64).unwrap();
    let count = 70_000;
    for i in 0..count {
        file.write_all_at(b"x", i * 8192).unwrap();
    }
    let path = crate::tree::testing::tree_path(shm.path()).join(b"file").unwrap();
    let file = open_file(&roots(shm.path()), &path).unwrap();
    let extents = |max| {
        let extents = file.extents(max).unwrap().unwrap();
        (extents.len() as u64, extents.iter().map(|e| e.len).sum::<u64>())
    };
    assert_eq!(extents(EXTENTS_MAX), (count, count * 4096), "each of them, for there is room");
    let (len, data) = extents(1000);
    assert!(len <= 1000 && data <= 2 * count * 4096 + (1 << 20), "{len} extents, {data} bytes");
}

#[test]
fn a_file_that_says_it_is_empty_is_read_to_its_end() {
    let path = crate::tree::testing::tree_path(Path::new("/proc/version"));
    let file = open_file(&roots(Path::new("/proc/version")), &path).unwrap();
    assert_eq!(file.stat().size, 0, "this kernel gives it a size");
    let mut buffer = b"before".to_vec();
    let whole = file.read_whole(&mut buffer).unwrap();
    assert_eq!((whole, &buffer[..]), (WholeRead { len: 0, changed: false, unsized_content: true }, &b"before"[..]));
    let mut content = Vec::new();
    file.sequential_reader().read_to_end(&mut content).unwrap();
    assert_eq!(content, fs::read("/proc/version").unwrap());
}

/// An unprivileged owner exchanges a file with a pipe: no open may block.
#[test]
fn a_file_that_becomes_a_pipe_does_not_block_the_reader() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let (dir, base) = dir();
    fs::write(dir.path().join("file"), "x").unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, dir.path().join("pipe"), rustix::fs::Mode::RWXU).unwrap();
    let (roots, over) = (roots(dir.path()), AtomicBool::new(false));
    let (file, pipe) = (dir.path().join("file"), dir.path().join("pipe"));
    let exchange = || {
        let flags = rustix::fs::RenameFlags::EXCHANGE;
        rustix::fs::renameat_with(rustix::fs::CWD, &file, rustix::fs::CWD, &pipe, flags).unwrap();
    };
    let (mut files, mut pipes) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                exchange();
            }
        });
        for _ in 0..100_000 {
            match open_file(&roots, &at(&base, "file")) {
                Ok(open) => files += u32::from(open.stat().kind == FileType::File),
                Err(problem) => pipes += u32::from(problem.kind == PathProblemKind::Vanished),
            }
            if files.min(pipes) > 50 {
                break;
            }
        }
        over.store(true, Ordering::Relaxed);
    });
    assert!(files > 0 && pipes > 0, "{files} files, {pipes} pipes");
}

/// Takes a lease on a file and ends with the signal that asks for it back; with `stubborn` it keeps the lease.
fn lease(file: &Path, stubborn: bool) -> std::process::Child {
    let script = "import fcntl, os, signal, sys, time
signal.signal(signal.SIGIO, signal.SIG_IGN if sys.argv[2] == 'True' else signal.SIG_DFL)
fd = os.open(sys.argv[1], os.O_RDWR)
fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print(flush=True)
time.sleep(600)";
    let stubborn = if stubborn { "True" } else { "False" };
    let mut command = std::process::Command::new("python3");
    command.args(["-c", script]).arg(file).arg(stubborn).stdout(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut ready = [0];
    child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
    child
}

#[test]
fn a_lease_is_waited_for_as_long_as_its_holder_is_willing() {
    let (dir, base) = dir();
    let file = dir.path().join("file");
    fs::write(&file, "x").unwrap();
    let mut holder = lease(&file, false);
    let mut roots = roots(dir.path());
    assert_eq!(open_file(&roots, &at(&base, "file")).unwrap().stat().size, 1);
    holder.wait().unwrap();

    let mut holder = lease(&file, true);
    roots.has_waited_enough();
    let problem = open_file(&roots, &at(&base, "file")).unwrap_err();
    assert!(matches!(&problem.kind, PathProblemKind::Unreadable(why) if why.contains("lease")), "{problem:?}");
    // The same where the source is that file: it is named, and the others are backed up.
    assert_eq!(SourceRoots::open(&[file]).unwrap().paths().count(), 1);
    holder.kill().unwrap();
    holder.wait().unwrap();
}

#[test]
fn paths_longer_than_the_kernel_takes() {
    let (dir, base) = dir();
    let roots = roots(dir.path());
    let mut path = base;
    for _ in 0..30 {
        let parent = roots.open_at(&path, PASS).unwrap();
        let name = "d".repeat(200);
        rustix::fs::mkdirat(&parent, &*name, rustix::fs::Mode::RWXU).unwrap();
        path = path.join(name.as_bytes()).unwrap();
    }
    let parent = roots.open_at(&path, PASS).unwrap();
    rustix::fs::symlinkat("target", &parent, "link").unwrap();
    let flags = OFlags::CREATE | OFlags::WRONLY;
    File::from(rustix::fs::openat(&parent, "file", flags, rustix::fs::Mode::RWXU).unwrap()).write_all(b"deep").unwrap();
    let found = scanned(dir.path());
    let kinds: Vec<_> =
        found[30..].iter().map(|s| read_entry(&roots, s, &OwnerNames::new()).unwrap().entry.kind).collect();
    let file = EntryKind::File { size: 4, extents: None, chunks: vec![] };
    assert_eq!(kinds, [EntryKind::Dir, file, EntryKind::Symlink { target: b"target".into() }]);
    let mut buffer = vec![];
    open_file(&roots, &path.join(b"file").unwrap()).unwrap().read_whole(&mut buffer).unwrap();
    assert_eq!(buffer, b"deep");
}

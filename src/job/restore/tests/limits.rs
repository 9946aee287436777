//! Full disks, read-only targets, and users without some rights. These tests need a process of their own: the test
//! starts itself again, in a mount namespace or as another user.

use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use super::*;
use crate::job::restore::options::OverwritePolicy;

/// The directory of the test; set only in the child process.
const STAGE: &str = "RUNNER_TEST_STAGE";

/// The command that runs only the test `name` of this binary as the child.
fn this_test(binary: &Path, name: &str, stage: &Path) -> Command {
    let mut command = Command::new(binary);
    command.args([&format!("job::restore::tests::limits::{name}"), "--exact", "--nocapture"]).env(STAGE, stage);
    command
}

fn assert_passed(mut command: Command) {
    let output = command.output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

/// Runs the test again in a mount namespace of its own, with a tmpfs with these `options` at the stage directory.
fn with_tmpfs(name: &str, options: &str) {
    let tmp = tempfile::tempdir().unwrap();
    let this = std::env::current_exe().unwrap();
    let inner = this_test(&this, name, tmp.path());
    let mut command = Command::new("unshare");
    if !nix::unistd::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    command.args(["--mount", "--propagation", "private", "sh", "-ec"]);
    command.arg(format!(
        "mkdir -p {0}/full; mount -t tmpfs -o {options} none {0}/full; exec \"$@\"",
        tmp.path().display()
    ));
    command.arg("sh").arg(inner.get_program()).args(inner.get_args()).env(STAGE, tmp.path());
    assert_passed(command);
}

fn stage() -> Option<PathBuf> {
    std::env::var_os(STAGE).map(PathBuf::from)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_named_and_the_others_go_on() {
    let Some(stage) = stage() else {
        return with_tmpfs("what_does_not_fit_is_named_and_the_others_go_on", "size=100m");
    };
    let target = stage.join("full");
    let mut snapshot = Snapshot::new().dir("").dir("b").file("b/large", &noise(1, 120 << 20)).dir("c");
    snapshot = snapshot.sparse("b/size", i64::MAX as u64 - 1, &[(1 << 62, b"x")]);
    for i in 0..50 {
        snapshot = snapshot.file(format!("c/f{i}"), &noise(i, 100_000));
    }
    let fake = snapshot.build();
    let report = run(&fake, into(&target)).await;
    assert_eq!(problems(&report), ["/b/large: no space left in the target"]);
    assert_eq!(report.counts.failed, 1);
    let names: Vec<_> = look_shallow(&target.join("b"));
    assert_eq!(names, ["size"], "nothing is left of what does not fit");
    for i in 0..50 {
        assert_eq!(std::fs::read(target.join(format!("c/f{i}"))).unwrap(), noise(i, 100_000));
    }
    // The second time the lack of space is known before anything is fetched.
    let again = run(&fake, RestoreOptions { overwrite: OverwritePolicy::Never, ..into(&target) }).await;
    assert_eq!(
        (problems(&again), again.counts.skipped),
        (vec!["/b/large: no space left in the target".to_owned()], 51)
    );
}

fn look_shallow(dir: &Path) -> Vec<String> {
    std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_without_inodes_is_full_too() {
    let Some(stage) = stage() else { return with_tmpfs("a_disk_without_inodes_is_full_too", "nr_inodes=20") };
    let mut snapshot = Snapshot::new().dir("");
    for i in 0..40 {
        snapshot = snapshot.file(format!("f{i}"), b"x");
    }
    let report = run(&snapshot.build(), into(&stage.join("full"))).await;
    assert!(report.counts.failed > 20 && report.counts.restored > 0, "{:?}", report.counts);
    assert!(problems(&report).iter().all(|p| p.ends_with("no space left in the target")), "{:?}", problems(&report));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_target_is_said_once() {
    let Some(stage) = stage() else { return with_tmpfs("a_read_only_target_is_said_once", "ro") };
    let fake = Snapshot::new().dir("").dir("d").file("d/f", b"f").file("g", b"g").build();
    let error = try_run(&fake, into(&stage.join("full"))).await.unwrap_err();
    assert!(error.to_string().contains("the target is read-only"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn delete_does_not_enter_a_mounted_file_system() {
    let Some(stage) = stage() else { return with_tmpfs("delete_does_not_enter_a_mounted_file_system", "size=1m") };
    std::fs::write(stage.join("full/x"), "on another file system").unwrap();
    std::fs::write(stage.join("y"), "y").unwrap();
    let fake = Snapshot::new().dir("").build();
    let report = run(&fake, RestoreOptions { delete: true, ..into(&stage) }).await;
    assert_eq!(problems(&report), ["/full: not deleted: a file system is mounted there"]);
    assert_eq!(report.counts.deleted, 1);
    assert!(stage.join("full/x").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_root_may_set_is_said_once_a_kind() {
    let root = nix::unistd::geteuid().is_root();
    if root {
        // The binary may lie where other users cannot look.
        let tmp = tempfile::tempdir().unwrap();
        let binary = tmp.path().join("test");
        std::fs::copy(std::env::current_exe().unwrap(), &binary).unwrap();
        for (path, mode) in [(tmp.path(), 0o777), (&binary, 0o755)] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        let mut command = this_test(&binary, "what_only_root_may_set_is_said_once_a_kind", tmp.path());
        command.uid(65534).gid(65534).current_dir("/").env("TMPDIR", tmp.path());
        return assert_passed(command);
    }
    let tmp = tempfile::tempdir().unwrap();
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let foreign = |e: &mut ManifestEntry| {
        e.owner.uid = 12345;
        e.owner.gid = 12345;
    };
    let mut snapshot = Snapshot::new()
        .dir("")
        .entry("null", EntryKind::CharDevice { major: 1, minor: 3 })
        .file("capable", b"x")
        .xattr("security.capability", &capability)
        .file("setuid", b"x")
        .with(foreign)
        .with(|e| e.owner.mode = 0o6755)
        .file("own", b"x")
        .with(|e| e.owner.mode = 0o4755);
    for i in 0..50 {
        snapshot = snapshot.file(format!("f{i}"), b"x").with(foreign).dir(format!("d{i}")).with(foreign);
    }
    let fake = snapshot.build();
    let report = run(&fake, into(tmp.path())).await;
    assert!(report.is_success(), "{:?}", problems(&report));
    let told: Vec<_> = report.metadata.iter().map(|t| (t.kind, t.count)).collect();
    use crate::tree::write::MetadataKind::{Capability, Device, Owner};
    assert_eq!(told, [(Owner, 101), (Capability, 1), (Device, 1)], "{:?}", report.metadata);
    assert_eq!((report.counts.restored, report.counts.skipped), (53, 1));
    let mode = |name: &str| std::fs::metadata(tmp.path().join(name)).unwrap().mode() & 0o7777;
    assert_eq!(mode("setuid"), 0o755, "a set-ID bit of another user is not given to this user's file");
    assert_eq!(mode("own"), 0o4755);

    // A directory without write permission is opened for the restore, and gets its mode back.
    let fake = Snapshot::new().dir("").dir("closed").with(|e| e.owner.mode = 0o500).file("closed/f", b"1").build();
    assert!(run(&fake, into(&tmp.path().join("c"))).await.is_success());
    let fake = Snapshot::new().dir("").dir("closed").with(|e| e.owner.mode = 0o500).file("closed/g", b"2").build();
    let report = run(&fake, RestoreOptions { delete: true, ..into(&tmp.path().join("c")) }).await;
    assert!(report.is_success(), "{:?}", problems(&report));
    assert_restored(&fake, &tmp.path().join("c"));
    std::fs::set_permissions(tmp.path().join("c/closed"), std::fs::Permissions::from_mode(0o700)).unwrap();
}

/// With root's rights: owners, devices, capabilities, ACLs, and attributes of links are set.
#[tokio::test(flavor = "multi_thread")]
async fn what_root_may_set_is_set() {
    let Some(stage) = stage() else {
        // The mapped root of a user namespace may not make devices; the test above covers that case.
        if nix::unistd::geteuid().is_root() {
            with_tmpfs("what_root_may_set_is_set", "size=1m");
        }
        return;
    };
    let target = stage.join("target");
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let owned = |e: &mut ManifestEntry| {
        e.owner = OwnerAndMode { mode: 0o6755, uid: 12345, gid: 54321, user: "no-such-user".into(), group: "".into() };
    };
    // Version 2; owner rwx, user 12345 r--, group r-x, mask r-x, other ---.
    let acl: Vec<u8> = [2, 0, 0, 0]
        .into_iter()
        .chain([(1, 7, !0), (2, 4, 12345), (4, 5, !0), (0x10, 5, !0), (0x20, 0, !0_u32)].into_iter().flat_map(
            |(tag, perm, id): (u16, u16, u32)| {
                [&tag.to_le_bytes()[..], &perm.to_le_bytes()[..], &id.to_le_bytes()[..]].concat()
            },
        ))
        .collect();
    let fake = Snapshot::new()
        .dir("")
        .entry("block", EntryKind::BlockDevice { major: 7, minor: 99 })
        .entry("null", EntryKind::CharDevice { major: 1, minor: 3 })
        .with(owned)
        .file("capable", b"x")
        .with(|e| e.owner.uid = 12345)
        .xattr("security.capability", &capability)
        .file("acl", b"x")
        .with(|e| e.owner.mode = 0o750)
        .xattr("system.posix_acl_access", &acl)
        .file("plain", b"x")
        .with(owned)
        .symlink("link", "plain")
        .with(|e| e.owner.uid = 12345)
        .xattr("trusted.note", b"on the link itself")
        .dir("shared")
        .with(|e| e.owner.mode = 0o2775)
        .build();
    // Entries that a default ACL of the parent would add are not part of the snapshot.
    std::fs::create_dir(&target).unwrap();
    rustix::fs::setxattr(&target, "system.posix_acl_default", &acl, rustix::fs::XattrFlags::empty()).unwrap();
    let report = run(&fake, into(&target)).await;
    assert!(report.is_success() && report.metadata.is_empty(), "{report:?}");
    let stat = |name: &str| std::fs::symlink_metadata(target.join(name)).unwrap();
    let owner = |name: &str| (stat(name).uid(), stat(name).gid(), stat(name).mode() & 0o7777);
    assert_eq!(owner("plain"), (12345, 54321, 0o6755));
    assert_eq!(owner("null"), (12345, 54321, 0o6755));
    assert_eq!((owner("link").0, stat("link").mtime_nsec()), (12345, 123_456_789));
    assert_eq!(owner("shared").2, 0o2775);
    assert!(stat("null").file_type().is_char_device() && stat("block").file_type().is_block_device());
    assert_eq!(stat("block").rdev(), rustix::fs::makedev(7, 99));
    let xattr = |name: &str, attribute: &str| {
        let mut value = vec![0; 100];
        let n = rustix::fs::lgetxattr(target.join(name), attribute, &mut value[..]).ok()?;
        value.truncate(n);
        Some(value)
    };
    assert_eq!(xattr("capable", "security.capability").as_deref(), Some(&capability[..]));
    assert_eq!(xattr("acl", "system.posix_acl_access"), Some(acl));
    assert_eq!(xattr("plain", "system.posix_acl_access"), None);
    assert_eq!(xattr("shared", "system.posix_acl_default"), None);
    assert_eq!(xattr("link", "trusted.note").as_deref(), Some(&b"on the link itself"[..]));
    let again = run(&fake, into(&target)).await;
    assert_eq!(again.counts, counts(0, 6, 2), "nothing is left to do: {again:?}");
}

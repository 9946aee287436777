//! The units: systemd understands them, and the long-running service is shut in as well as it says. The group and the directory of
//! the config are made for real, in another root. Needs root.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

/// The units with a program that is there, in a directory of their own.
fn units() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd");
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let text = text.replace("/usr/local/bin/runner", env!("CARGO_BIN_EXE_runner"));
        // The manual page is installed with the program, and is not there now; a hook is the operator's own.
        let text = text.replace("Documentation=man:runner(1)\n", "").replace("/etc/runner/hooks/%i", "/bin/true");
        fs::write(dir.path().join(path.file_name().unwrap()), text).unwrap();
    }
    dir
}

fn analyze(args: &[&str], files: &[&Path]) -> String {
    let output = Command::new("systemd-analyze").args(args).args(files).output().expect("systemd-analyze is there");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "systemd-analyze {}: {said}", args.join(" "));
    said
}

#[test]
fn systemd_understands_every_unit() {
    let dir = units();
    for unit in ["runner.service", "runner-hook@.service", "runner-backup@.service", "runner-backup@.timer"] {
        // A template is verified as an instance.
        let instance = dir.path().join(unit.replace('@', "@app"));
        if unit.contains('@') {
            fs::copy(dir.path().join(unit), &instance).unwrap();
        }
        let said = analyze(&["verify", "--man=no"], &[&instance]);
        let about_ours: Vec<_> = said.lines().filter(|line| line.contains("runner")).collect();
        assert!(about_ours.is_empty(), "{unit}: {about_ours:?}");
    }
}

#[test]
fn the_services_are_shut_in_alike() {
    let dir = units();
    let (daemon, run) = (dir.path().join("runner.service"), dir.path().join("runner-backup@app.service"));
    fs::copy(dir.path().join("runner-backup@.service"), &run).unwrap();
    // systemd's own scale, from 0 (nothing to reach) to 100 (everything).
    let exposure = |unit: &Path| {
        let said = analyze(&["security", "--offline=yes", "--threshold=30", "--no-pager"], &[unit]);
        let overall = said.lines().find(|line| line.contains("Overall exposure level")).unwrap_or_default();
        println!("{overall}");
        overall.split(": ").nth(1).unwrap_or_default().to_owned()
    };
    assert_eq!(exposure(&daemon), exposure(&run));
    let settings = |unit: &Path| {
        let text = fs::read_to_string(unit).unwrap();
        let lines = text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned);
        lines.collect::<Vec<_>>()
    };
    for unit in [&daemon, &run] {
        // No image of a memory that has keys in it; a cgroup for each command, which the unit may not make read-only.
        for line in ["LimitCORE=0", "Delegate=yes", "UMask=0077", "KillMode=mixed", "NoNewPrivileges=yes"] {
            assert!(settings(unit).iter().any(|have| have == line), "{}: {line}", unit.display());
        }
        assert!(!settings(unit).iter().any(|line| line.starts_with("ProtectControlGroups")), "{}", unit.display());
    }
    // What is noted in memory is in one place, for services and shells, and outlives both.
    for unit in [&daemon, &run] {
        assert!(settings(unit).contains(&"ReadWritePaths=-/run/runner-boot".to_owned()), "{}", unit.display());
    }
    let open = analyze(
        &["security", "--offline=yes", "--threshold=100", "--no-pager"],
        &[&dir.path().join("runner-hook@.service")],
    );
    assert!(open.contains("UNSAFE"), "a unit without any fence is told from one with: {open}");
}

/// Has one of systemd's tools make what a file of ours says, in another root.
fn make(tool: &[&str], root: &Path, file: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd").join(file);
    let mut command = Command::new(tool[0]);
    command.arg(format!("--root={}", root.display())).args(&tool[1..]).arg(file);
    let output = command.output().expect("systemd's tools are there");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !said.contains("runner.tmpfiles:"), "{tool:?}: {said}");
}

#[test]
fn the_group_may_read_the_config_and_only_root_the_key() {
    assert!(rustix::process::geteuid().is_root(), "groups are root's: run these tests as root, as CI does");
    let dir = tempfile::tempdir().unwrap();
    let (root, etc) = (dir.path(), dir.path().join("etc/runner"));
    let (config, key) = (etc.join("runner.toml"), etc.join("repository.key"));
    fs::set_permissions(root, Permissions::from_mode(0o755)).unwrap();
    fs::create_dir_all(&etc).unwrap();
    let role = "[role.app]\nsources = [\"/srv\"]\neligible = { command = [\"true\"] }\n";
    let store = format!("[store]\nurl = \"file:///nowhere\"\nkey_file = \"{}\"\n", key.display());
    for file in [&config, &key] {
        fs::write(file, store.clone() + role).unwrap();
        fs::set_permissions(file, Permissions::from_mode(0o644)).unwrap();
    }
    // Whatever the example of the config calls a secret, with the modes that cp(1) gives.
    let example = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/runner.toml")).unwrap();
    let secrets: Vec<_> = example
        .lines()
        .filter_map(|line| line.trim_start_matches('#').split_once(" = \"/etc/runner/"))
        .filter(|(key, _)| ["key_file", "passphrase_file", "password_file"].contains(key))
        .map(|(_, path)| etc.join(path.trim_end_matches('"')))
        .chain(["environment", "s3-credentials", "app.env"].map(|name| etc.join(name)))
        .collect();
    assert!(secrets.len() >= 8, "{secrets:?}");
    fs::create_dir(etc.join("conf.d")).unwrap();
    let fragment = etc.join("conf.d/10.toml");
    for file in secrets.iter().filter(|file| **file != key).chain([&fragment]) {
        fs::write(file, "").unwrap();
        fs::set_permissions(file, Permissions::from_mode(0o644)).unwrap();
    }
    make(&["systemd-sysusers"], root, "runner.sysusers");
    make(&["systemd-tmpfiles", "--create"], root, "runner.tmpfiles");
    let memory = fs::metadata(root.join("run/runner-boot")).unwrap();
    assert_eq!((memory.uid(), memory.mode() & 0o7777), (0, 0o700));

    let groups = fs::read_to_string(root.join("etc/group")).unwrap();
    let group: u32 =
        groups.lines().find_map(|line| line.strip_prefix("runner:x:")?.split(':').next()?.parse().ok()).unwrap();
    let has = |path: &Path| fs::metadata(path).map(|meta| (meta.mode() & 0o7777, meta.uid(), meta.gid())).unwrap();
    assert_eq!([&etc, &etc.join("conf.d")].map(|path| has(path)), [(0o750, 0, group); 2]);
    for secret in &secrets {
        assert_eq!(has(secret), (0o600, 0, 0), "{}: whatever it was copied with", secret.display());
    }
    for file in [&config, &fragment] {
        assert_eq!(has(file), (0o640, 0, group), "{}: its URLs are the group's", file.display());
    }
    assert!(!root.join("etc/passwd").exists(), "there is no user");

    // The program as somebody else: where it was built may be root's own place.
    let program = root.join("runner");
    fs::copy(env!("CARGO_BIN_EXE_runner"), &program).unwrap();
    const NOBODY: u32 = 65534;
    let asked = |group| {
        let mut command = Command::new(&program);
        command.arg("--config").arg(&config).args(["is-active", "app"]).current_dir("/").uid(NOBODY).gid(group);
        command.status().unwrap().code()
    };
    assert_eq!(asked(group), Some(0));
    assert_eq!(asked(NOBODY), Some(2), "the config is not everybody's");
}

/// What lets somebody of the same user look into a process's memory is the owner of its files in /proc: root's where it is not to be looked into.
#[test]
fn the_memory_of_the_program_is_roots() {
    assert!(rustix::process::geteuid().is_root(), "it is started as another user: run these tests as root, as CI does");
    const NOBODY: u32 = 65534;
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    let (program, config, said) = (dir.path().join("runner"), dir.path().join("runner.toml"), dir.path().join("said"));
    fs::copy(env!("CARGO_BIN_EXE_runner"), &program).unwrap();
    fs::write(&said, "").unwrap();
    fs::set_permissions(&said, Permissions::from_mode(0o666)).unwrap();
    let script = format!("stat -c %u /proc/$PPID/mem /proc/self/mem > {}", said.display());
    let text = format!(
        "[store]\nurl = \"file:///nowhere\"\nencryption = \"none\"\n[role.app]\nsources = [\"/srv\"]\n\
         eligible = {{ command = [\"sh\", \"-c\", \"{script}\"] }}\n"
    );
    fs::write(&config, text).unwrap();
    let mut command = Command::new(&program);
    command.arg("--config").arg(&config).args(["is-active", "app"]).current_dir("/").uid(NOBODY).gid(NOBODY);
    let done = command.output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert_eq!(
        fs::read_to_string(&said).unwrap(),
        format!("0\n{NOBODY}\n"),
        "its own is root's, its children's their own"
    );
}

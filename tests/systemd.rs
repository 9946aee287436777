//! The units: systemd understands them, and the long-running service is shut in as well as it says.

use std::fs;
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
fn the_service_is_shut_in() {
    let dir = units();
    let unit = dir.path().join("runner.service");
    // systemd's own scale, from 0 (nothing to reach) to 100 (everything).
    let said = analyze(&["security", "--offline=yes", "--threshold=30", "--no-pager"], &[&unit]);
    let overall = said.lines().find(|line| line.contains("Overall exposure level")).unwrap_or_default();
    println!("{overall}");
    let open = analyze(
        &["security", "--offline=yes", "--threshold=100", "--no-pager"],
        &[&dir.path().join("runner-hook@.service")],
    );
    assert!(open.contains("UNSAFE"), "a unit without any fence is told from one with: {open}");
}

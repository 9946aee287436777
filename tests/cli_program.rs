//! The built program from outside: exit codes, streams, generated texts.

use std::io::Read as _;
use std::process::Stdio;

use assert_cmd::Command;
use predicates::prelude::*;

/// The program in an environment that says nothing.
fn runner(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_runner"));
    command.env_clear().args(args);
    command
}

#[test]
fn version_and_help_are_answers_and_mistakes_are_errors() {
    runner(&["--version"]).assert().code(0).stdout(predicate::str::starts_with("runner 0.")).stderr("");
    runner(&["backup", "--help"]).assert().code(0).stdout(predicate::str::contains("Usage: runner backup"));
    runner(&["bakcup"]).assert().code(2).stdout("").stderr(predicate::str::contains("'backup'"));
    runner(&[]).assert().code(2).stdout("").stderr(predicate::str::contains("Back up:\n  backup "));
}

#[test]
fn completions_for_every_shell_know_the_commands() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let output = runner(&["completions", shell]).assert().code(0).stderr("").get_output().stdout.clone();
        let text = String::from_utf8(output).unwrap();
        for word in ["restore", "is-active", "--read-data", "require-active"] {
            let word = if shell == "fish" { word.trim_start_matches('-') } else { word };
            assert!(text.contains(word), "{shell}: no {word}");
        }
    }
}

#[test]
fn the_manual_is_one_page_or_one_a_command() {
    runner(&["man"]).assert().code(0).stdout(predicate::str::contains(".TH runner 1"));
    let dir = tempfile::tempdir().unwrap();
    let pages = dir.path().join("new/man1");
    runner(&["man", "--dir", pages.to_str().unwrap()]).assert().code(0).stdout("");
    let mut names: Vec<String> =
        std::fs::read_dir(pages).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names.len(), 40, "{names:?}");
    assert!(names.contains(&"runner-key-export.1".to_owned()), "{names:?}");
}

#[test]
fn a_missing_config_is_named_and_exit_2_also_as_json() {
    let args = ["snapshots", "app", "--config", "/nonexistent/runner.toml"];
    runner(&args).assert().code(2).stdout("").stderr(predicate::str::contains("/nonexistent/runner.toml"));
    let output = runner(&args).arg("--json").assert().code(2).get_output().stdout.clone();
    let document: serde_json::Value = serde_json::from_slice(&output).unwrap();
    assert_eq!((&document["schema"], &document["error"]["exit"]), (&1.into(), &2.into()), "{document}");
}

#[test]
fn a_config_is_started_checked_and_shown() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("etc/runner.toml");
    let file = file.to_str().unwrap();
    let missing = format!("hint: make it first: mkdir -p {}", dir.path().join("etc").display());
    runner(&["config", "init", file]).assert().code(2).stderr(predicate::str::contains(missing));
    std::fs::create_dir(dir.path().join("etc")).unwrap();
    runner(&["config", "init", file, "--store", "s3://backups/prod"]).assert().code(0);
    runner(&["config", "init", file]).assert().code(2).stderr(predicate::str::contains("exists already"));
    runner(&["config", "check", "--config", file]).assert().code(0).stdout(predicate::str::starts_with("ok: "));
    let shown = runner(&["config", "show"]).env("RUNNER_CONFIG", file).assert().code(0).get_output().stdout.clone();
    assert!(String::from_utf8(shown).unwrap().contains("s3://backups/prod"));
    runner(&["config", "init"]).assert().code(0).stdout(predicate::str::contains("[role.app]"));
    let schema = runner(&["config", "schema"]).assert().code(0).get_output().stdout.clone();
    let schema: serde_json::Value = serde_json::from_slice(&schema).unwrap();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert_eq!(schema["properties"]["role"]["additionalProperties"]["properties"]["jitter"]["default"], "0s");
    runner(&["config", "init", "--store", "ftp://x"]).assert().code(2).stderr(predicate::str::contains("hint: "));
}

#[test]
fn a_role_that_the_config_does_not_have_is_wrong_usage() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("runner.toml");
    let file = file.to_str().unwrap();
    runner(&["config", "init", file]).assert().code(0);
    let run = |args: &[&str]| runner(args).env("RUNNER_CONFIG", file).assert();
    run(&["backup", "ap"]).code(2).stderr("error: the config has no role ap\nhint: did you mean app?\n");
    run(&["is-active", "other"]).code(2).stdout("").stderr(predicate::str::contains("these roles: app."));
}

#[test]
fn what_is_typed_for_another_thing_is_refused_with_a_hint() {
    for args in [&["status", "--node="][..], &["status", "--node", " "]] {
        runner(args).assert().code(2).stderr(predicate::str::contains("leave --node"));
    }
    let restore = runner(&["restore", "app", "3f2a91c0", "--target", "/tmp/x"]).assert().code(2);
    restore.stderr(predicate::str::contains(
        "hint: name the snapshot with --snapshot: runner restore app --snapshot 3f2a91c0",
    ));
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_runner"))
        .args(["completions", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut errors = String::new();
    child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    assert_eq!((child.wait().unwrap().code(), errors.as_str()), (Some(0), ""));
}

#[test]
fn an_interrupt_ends_a_backup_with_130_and_the_next_run_is_free() {
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;

    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let config = |dump: &str| {
        format!(
            "[store]\nurl = \"file://{}\"\nkey_file = \"{}\"\n[role.app]\nlease = \"none\"\n\
             [role.app.dumps]\n\"app.sql\" = {{ command = [\"/bin/sh\", \"-c\", \"{dump}\"] }}\n",
            at("store"),
            at("key")
        )
    };
    let file = at("runner.toml");
    let started = dir.path().join("started");
    std::fs::write(&file, config(&format!("touch {}; exec sleep 600", started.display()))).unwrap();
    let options = ["--config".to_owned(), file.clone(), "--state-dir".to_owned(), at("state")];
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    runner(&options).arg("init").env("PATH", "/usr/bin:/bin").assert().code(0);

    let child = std::process::Command::new(env!("CARGO_BIN_EXE_runner"))
        .args(&options)
        .args(["backup", "app"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while !started.exists() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
    let output = child.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(130), "{}{errors}", String::from_utf8_lossy(&output.stdout));
    assert!(errors.contains("stopping: the current work"), "{errors}");

    std::fs::write(&file, config("echo 1")).unwrap();
    runner(&options).args(["backup", "app"]).env("PATH", "/usr/bin:/bin").assert().code(0);
}

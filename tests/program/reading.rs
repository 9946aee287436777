//! What a person reads: at the width of the terminal, with colours where they are wanted, and nothing where `-q` asks for nothing.

use std::process::Command;

use crate::site::{Site, role};
use crate::support::cli::TestNode;

/// A role that is east's, backed up once.
fn pair() -> Site {
    let site = Site::pair("keep = { last = 1 }");
    site.write("file", "content");
    site.init();
    site.move_to("east");
    site.backup("east");
    site
}

/// What a terminal of so many columns shows of a run: util-linux's `script` gives it one. Of the environment of the tests it has only
/// the path: `CI`, for one, asks for colours on a terminal that has none.
fn shown(node: &TestNode, columns: usize, args: &[&str]) -> Vec<String> {
    let program = env!("CARGO_BIN_EXE_runner");
    let config = node.config.as_ref().unwrap().display();
    let state = node.state_dir.display();
    let line = format!(
        "stty cols {columns} && exec {program} --config {config} --node {} --state-dir {state} {}",
        node.name,
        args.join(" ")
    );
    let mut command = Command::new("script");
    command.args(["--quiet", "--command", &line, "/dev/null"]);
    command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path))).env("TERM", "xterm");
    command.envs(node.env.iter().map(|(name, value)| (name, value)));
    let output = command.output().expect("script(1) of util-linux starts");
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

/// A line without what gives it colours.
fn plain(line: &str) -> String {
    line.split("\x1b[")
        .enumerate()
        .map(|(n, part)| if n == 0 { part } else { part.split_once('m').unwrap().1 })
        .collect()
}

#[test]
fn quiet_says_nothing_of_a_skip_and_everything_of_an_error() {
    let site = pair();
    let exec = &["exec", "app", "--skip-exit", "0", "--", "true"];
    for args in [&["backup", "app"][..], exec, &["prune", "app"]] {
        let loud = site.node("west").run(args).expect(0);
        assert_ne!(loud.stdout + &loud.stderr, "", "{args:?}");
        let run = site.node("west").run([&["-q"], args].concat()).expect(0);
        assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("", ""), "{args:?}");
    }
    // A document is asked for, and given.
    assert_eq!(role(&site.node("west").run(["-q", "backup", "app", "--json"]).expect(0))["outcome"], "standby");
    for args in [&["backup", "app"][..], &["prune", "app"], &["verify", "app"]] {
        let run = site.node("east").run([&["-q"], args].concat()).expect(0);
        assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("", ""), "{args:?}");
    }
    std::fs::rename(site.src(), site.path("gone")).unwrap();
    let run = site.node("east").run(["-q", "backup", "app"]).expect(1);
    assert!(run.stderr.contains("FAILED") && run.stderr.contains("hint: "), "{}", run.stderr);
}

#[test]
fn a_terminal_is_wrapped_at_its_width_and_has_colours() {
    let site = pair();
    std::fs::rename(site.src(), site.path("gone")).unwrap();
    for args in [&["whoami"][..], &["backup", "ap"], &["backup", "app"], &["audit", "app"], &["status"]] {
        for columns in [80, 40] {
            let lines = shown(&site.node("east"), columns, args);
            assert!(!lines.is_empty(), "{args:?}");
            for line in lines.iter().map(|line| plain(line)) {
                // A path is a word.
                let longest = line.split_whitespace().map(str::len).max().unwrap_or_default();
                assert!(line.chars().count() <= columns || longest + 14 > columns, "{args:?} on {columns}: {line}");
            }
        }
    }
    let coloured = |node: &TestNode| shown(node, 80, &["backup", "app"]).iter().any(|line| line.contains("\x1b["));
    assert!(coloured(&site.node("east")));
    for (name, value) in [("NO_COLOR", "1"), ("TERM", "dumb"), ("CLICOLOR", "0")] {
        assert!(!coloured(&site.node("east").with_env(name, value)), "{name}={value}");
    }
    let piped = site.node("east").run(["backup", "app"]).expect(1);
    assert!(!piped.stderr.contains('\x1b'), "{}", piped.stderr);
}

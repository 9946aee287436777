//! The built program, run as a person runs it: with a config file, a state directory and a node's name.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// What the program has of the tester's environment: what it needs to start, and where what it writes for a while goes. `CI`, a proxy or
/// `AWS_PROFILE` would each change what it does.
const KEPT: [&str; 4] = ["PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH"];

/// What one run left behind.
#[derive(Debug)]
pub struct ProgramRun {
    /// The exit code; `None` after a signal.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// The arguments, for messages.
    pub args: Vec<String>,
}

impl ProgramRun {
    /// Fails, with everything the program said, unless it ended with this code.
    #[track_caller]
    pub fn expect(self, code: i32) -> ProgramRun {
        assert_eq!(
            self.code,
            Some(code),
            "`runner {}` should exit {code}\n--- stdout\n{}\n--- stderr\n{}",
            self.args.join(" "),
            self.stdout,
            self.stderr
        );
        self
    }

    /// Standard output as the one JSON document it must be, of schema 1.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        let document: serde_json::Value = serde_json::from_str(&self.stdout).unwrap_or_else(|e| {
            panic!("standard output is not one JSON document ({e}):\n{}\n--- stderr\n{}", self.stdout, self.stderr)
        });
        assert_eq!(document["schema"], 1, "the schema's number is part of the contract: {document}");
        document
    }
}

/// One node: the same config file as the others, its own name and state.
#[derive(Debug, Clone)]
pub struct TestNode {
    /// What `--node` says.
    pub name: String,
    /// What `--config` says; `None` for the forms without any config.
    pub config: Option<PathBuf>,
    /// What `--state-dir` says.
    pub state_dir: PathBuf,
    /// Further environment.
    pub env: Vec<(String, String)>,
    /// A command that starts the program in its place, in a network namespace for example.
    pub behind: Vec<String>,
}

impl TestNode {
    /// A node whose state is kept at `dir/state-NAME`, with the config file `dir/runner.toml`.
    pub fn new(dir: &Path, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            config: Some(dir.join("runner.toml")),
            state_dir: dir.join(format!("state-{name}")),
            env: Vec::new(),
            behind: Vec::new(),
        }
    }

    /// The same node, started by this command.
    pub fn started_by(mut self, command: Vec<String>) -> Self {
        self.behind = command;
        self
    }

    /// The same node without config file.
    pub fn without_config(mut self) -> Self {
        self.config = None;
        self
    }

    /// Adds a variable to the environment.
    pub fn with_env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The command, ready to be changed or started. Of the tester's environment it has `KEPT` alone.
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let words = self.behind.iter().map(String::as_str).chain([env!("CARGO_BIN_EXE_runner")]).collect::<Vec<_>>();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        command.env_clear();
        for name in KEPT {
            command.envs(std::env::var_os(name).map(|value| (name, value)));
        }
        if let Some(config) = &self.config {
            command.arg("--config").arg(config);
        }
        command.args(["--node", &self.name]).arg("--state-dir").arg(&self.state_dir);
        command.args(args).envs(self.env.iter().map(|(k, v)| (k, v))).stdin(Stdio::null());
        command
    }

    /// Runs it to its end.
    pub fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> ProgramRun {
        let mut command = self.command(args);
        let shown = command.get_args().map(|a| a.to_string_lossy().into_owned()).collect();
        let output = command.output().expect("the built program starts");
        ProgramRun {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            args: shown,
        }
    }

    /// Starts it and returns at once, for tests that kill it.
    pub fn start<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Child {
        let mut command = self.command(args);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the built program starts")
    }
}

/// Writes `dir/runner.toml` with a directory store at `dir/store`, the key at `dir/key`, and these roles as TOML. Returns
/// its path.
pub fn write_config(dir: &Path, roles: &str) -> PathBuf {
    let path = dir.join("runner.toml");
    let text = format!(
        "[store]\nurl = \"file://{}\"\nkey_file = \"{}\"\n\n{roles}",
        dir.join("store").display(),
        dir.join("key").display()
    );
    std::fs::write(&path, text).expect("the test's directory can be written");
    path
}

/// How many files below `dir` have `part` in their path: `/packs/` counts the packs of a directory store.
pub fn count_files(dir: &Path, part: &str) -> usize {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let mut count = 0;
    for entry in entries.flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            count += count_files(&path, part);
        } else if path.to_string_lossy().contains(part) {
            count += 1;
        }
    }
    count
}

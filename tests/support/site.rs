//! A place with everything that a story of the program needs: a source, a directory as store, one config file for all nodes,
//! and a file that says which node is active. Include it with `#[path = "../support/site.rs"] mod site;` beside `mod support;`.
#![allow(dead_code, unreachable_pub, reason = "every test crate uses its own part of it")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;

use crate::support::cli::{ProgramRun, TestNode};

/// Only the journal keeps nodes apart.
const NONE: &str = "lease = \"none\"\n";

/// One role `app` with the source `DIR/src`. It goes away when dropped.
pub struct Site {
    dir: tempfile::TempDir,
    /// The store's URL, and what else its section says.
    store: (String, String),
    /// Where its objects can be seen as files.
    objects: PathBuf,
    /// What is said of the lease.
    lease: &'static str,
    /// What the program needs in its environment.
    env: Vec<(&'static str, String)>,
}

impl Site {
    /// A role without probes, with these further lines in its section.
    pub fn new(lines: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let objects = dir.path().join("store");
        let site = Self {
            store: (format!("file://{}", objects.display()), String::new()),
            dir,
            objects,
            lease: NONE,
            env: Vec::new(),
        };
        site.begin(lines)
    }

    /// The same on a bucket: its URL, the server, where that keeps its objects as files, and the credentials.
    pub fn on_s3(url: &str, endpoint: &str, objects: PathBuf, env: Vec<(&'static str, String)>, lines: &str) -> Self {
        let store = (url.to_owned(), format!("endpoint = \"{endpoint}\"\n"));
        Self { dir: tempfile::tempdir().unwrap(), store, objects, lease: NONE, env }.begin(lines)
    }

    fn begin(self, lines: &str) -> Self {
        fs::create_dir(self.src()).unwrap();
        self.config(lines);
        self
    }

    /// A role whose probe reads who is active from a file; [`Site::move_to`] writes it. Nobody is yet.
    pub fn pair(lines: &str) -> Self {
        let site = Self::new("");
        site.config(&site.probed(lines));
        site
    }

    /// Lines of a role whose probe reads who is active from a file.
    pub fn probed(&self, lines: &str) -> String {
        let probe = format!("grep -qx \\\"$RUNNER_NODE\\\" {}", self.path("active").display());
        format!("eligible = {{ command = [\"sh\", \"-c\", \"{probe}\"] }}\n{lines}")
    }

    /// A role whose lease is the default, the one in the store.
    pub fn leased(lines: &str) -> Self {
        let mut site = Self::new("");
        site.lease = "";
        site.config(lines);
        site
    }

    /// Writes the config again, with these lines in the role's section.
    pub fn config(&self, lines: &str) {
        let ((url, more), key, source, lease) = (&self.store, self.path("key"), self.src(), self.lease);
        let store = format!("[store]\nurl = {url:?}\nkey_file = \"{}\"\n{more}\n", key.display());
        let role = format!("[role.app]\nsources = [\"{}\"]\n{lease}{lines}\n", source.display());
        fs::write(self.path("runner.toml"), store + &role).unwrap();
    }

    /// The place.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Something in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir().join(name)
    }

    /// What is backed up.
    pub fn src(&self) -> PathBuf {
        self.path("src")
    }

    /// Writes a file of the source, and the directories above it.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.src().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// A node of the role.
    pub fn node(&self, name: &str) -> TestNode {
        let node = TestNode::new(self.dir(), name);
        self.env.iter().fold(node, |node, (name, value)| node.with_env(name, value))
    }

    /// Lines of a config whose alerts, of all nodes, end in a file.
    pub fn telling(&self) -> String {
        format!("[notify]\ncommand = [\"sh\", \"-c\", \"cat >> {}\"]\n", self.path("told").display())
    }

    /// What was told, in order.
    pub fn told(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.path("told")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// From now on this node is the active one.
    pub fn move_to(&self, node: &str) {
        fs::write(self.path("active"), format!("{node}\n")).unwrap();
    }

    /// Makes the repository.
    #[track_caller]
    pub fn init(&self) {
        self.node("east").run(["init"]).expect(0);
    }

    /// A backup that must end with exit 0, and the role's part of its report.
    #[track_caller]
    pub fn backup(&self, node: &str) -> Value {
        role(&self.node(node).run(["backup", "app", "--json"]).expect(0))
    }

    /// The same cron line on these nodes at the same moment: how each of them ended.
    pub fn race<const N: usize>(&self, nodes: [&str; N]) -> [i32; N] {
        let runs = nodes.map(|name| {
            let mut command = self.node(name).command(["backup", "app", "--scheduled", "--json"]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        });
        runs.map(|run| run.wait_with_output().unwrap().status.code().unwrap())
    }

    /// A backup that must end with this code and commit nothing, and what it said on standard error.
    #[track_caller]
    pub fn refused(&self, node: &str, code: i32) -> String {
        let before = self.snapshots().len();
        let run = self.node(node).run(["backup", "app"]).expect(code);
        assert_eq!(self.snapshots().len(), before, "a refused run commits nothing; it said: {}", run.stderr);
        words(&run)
    }

    /// Restores a snapshot into a new directory of that name, and returns where the source is in it.
    #[track_caller]
    pub fn restore(&self, node: &TestNode, snapshot: &str, into: &str) -> PathBuf {
        let target = self.path(into);
        let run = node.run(["restore", "app", "--snapshot", snapshot, "--target", target.to_str().unwrap()]);
        run.expect(0);
        below(&target, &self.src())
    }

    /// The packs in the store, by name.
    pub fn packs(&self) -> BTreeSet<String> {
        names(&self.objects, "/packs/")
    }

    /// Everything in the store.
    pub fn objects(&self) -> BTreeSet<String> {
        names(&self.objects, "")
    }

    /// The journal's records, oldest first, as anybody reads them: the first line of each is JSON.
    pub fn records(&self) -> Vec<Value> {
        let record = |name: &String| {
            let text = fs::read_to_string(self.objects.join(name)).unwrap();
            serde_json::from_str(text.lines().next().unwrap()).unwrap()
        };
        names(&self.objects, "/journal/").iter().map(record).collect()
    }

    /// Those of them that commit a snapshot.
    pub fn snapshots(&self) -> Vec<Value> {
        self.records().into_iter().filter(|r| r["kind"] == "snapshot").collect()
    }

    /// The manifest roots of the snapshots, oldest first.
    pub fn roots(&self) -> Vec<String> {
        self.snapshots().iter().map(|r| r["body"]["root"].as_str().unwrap().to_owned()).collect()
    }

    /// What the program lists, oldest first.
    #[track_caller]
    pub fn listed(&self) -> Vec<Value> {
        let document = self.node("looker").run(["snapshots", "app", "--json"]).expect(0).json();
        document["snapshots"].as_array().unwrap().clone()
    }
}

/// Where `path` of the source host is below a restore's target.
pub fn below(target: &Path, path: &Path) -> PathBuf {
    target.join(path.strip_prefix("/").unwrap())
}

/// Waits for something that surely comes.
#[track_caller]
pub fn wait_for(happened: impl Fn() -> bool) {
    for _ in 0..3000 {
        if happened() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    panic!("it never happened");
}

/// The only role of a report.
#[track_caller]
pub fn role(run: &ProgramRun) -> Value {
    let document = run.json();
    let roles = document["roles"].as_array().unwrap();
    assert_eq!(roles.len(), 1, "{document}");
    roles[0].clone()
}

/// Standard error without its line breaks, which are anywhere.
pub fn words(run: &ProgramRun) -> String {
    run.stderr.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Files by counts: new, changed, unchanged, removed, unreadable.
#[track_caller]
pub fn files(role: &Value) -> [u64; 5] {
    ["new", "changed", "unchanged", "removed", "unreadable"].map(|name| number(&role["files"][name]))
}

/// A number of a report.
#[track_caller]
pub fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// The paths of the files below `dir` that contain `part`, relative to it. Temporary files are no objects: a process that was
/// killed leaves them.
fn names(dir: &Path, part: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(next) = dirs.pop() {
        for entry in fs::read_dir(&next).into_iter().flatten() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                dirs.push(entry.path());
            } else {
                let path = entry.path().strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
                if format!("/{path}").contains(part) && !path.contains("/.tmp-") {
                    found.insert(path);
                }
            }
        }
    }
    found
}

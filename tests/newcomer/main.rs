//! A newcomer's day: the README's configs are written and its commands typed, in a bare tree without HOME, with what the units set applied.
//! What is restored at the end is compared with what was backed up. Needs root.
#![cfg(feature = "s3")]

#[path = "../support/mod.rs"]
mod support;

#[path = "../support/s3_server.rs"]
mod s3_server;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use s3_server::{ACCESS_KEY, BUCKET, S3Server, SECRET_KEY};
use support::compare::assert_same;
use support::tree;

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The fenced blocks of the README in this language, without their indent, in order.
fn blocks(language: &str) -> Vec<String> {
    let text = fs::read_to_string(project().join("README.md")).unwrap();
    let (mut found, mut lines) = (Vec::new(), text.lines());
    while let Some(line) = lines.next() {
        if line.trim() == format!("```{language}") {
            let block: Vec<&str> = lines.by_ref().map(str::trim).take_while(|line| *line != "```").collect();
            found.push(block.join("\n") + "\n");
        }
    }
    found
}

/// The README's one block in this language with these words.
#[track_caller]
fn block(language: &str, words: &str) -> String {
    let mut found: Vec<String> = blocks(language).into_iter().filter(|block| block.contains(words)).collect();
    assert_eq!(found.len(), 1, "one block with {words}: {found:?}");
    found.remove(0)
}

/// One thing in a text for another; it must be there.
#[track_caller]
fn instead(text: &str, this: &str, that: &str) -> String {
    assert!(text.contains(this), "the README says {this}: {text}");
    text.replace(this, that)
}

/// A machine on which nothing of runner is but what `make install` puts there.
struct Machine(tempfile::TempDir);

impl Machine {
    fn new() -> Self {
        assert!(rustix::process::geteuid().is_root(), "it mounts: run these tests as root, as CI does");
        let machine = Self(tempfile::tempdir().unwrap());
        fs::set_permissions(machine.path(""), fs::Permissions::from_mode(0o755)).unwrap();
        for dir in ["etc/runner", "etc/systemd/system", "mnt/backup/runner", "srv", "usr-local"] {
            fs::create_dir_all(machine.path(dir)).unwrap();
        }
        tree::make_rich_tree(&machine.path("srv/app"), 17);
        // The units have no CAP_SYS_ADMIN, which it takes to see attributes of this name space.
        let mut without = Command::new("setfattr");
        without.args(["-h", "-x", "trusted.on-a-link"]).arg(machine.path("srv/app/attributes/link"));
        told(&without.output().unwrap(), "setfattr");
        let staged = machine.path("staged");
        let mut install = Command::new("make");
        install.current_dir(project()).args(["install", "PREFIX=/usr/local"]);
        install.arg(format!("RUNNER={}", env!("CARGO_BIN_EXE_runner"))).arg(format!("DESTDIR={}", staged.display()));
        told(&install.output().unwrap(), "make install");
        fs::remove_dir(machine.path("usr-local")).unwrap();
        fs::rename(staged.join("usr/local"), machine.path("usr-local")).unwrap();
        fs::create_dir_all(machine.path("usr-local/sbin")).unwrap();
        for tool in ["as-unit", "systemctl"] {
            fs::copy(project().join("tests/newcomer").join(tool), machine.path("usr-local/sbin").join(tool)).unwrap();
        }
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// Types these commands, with a network of its own where there is an address to be had.
    fn types(&self, script: &str, own_network: bool) -> Output {
        let steps = format!("set -x\n{script}");
        self.write("steps", &steps);
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
        command.args(own_network.then_some("--net"));
        command.arg(project().join("tests/newcomer/enter")).arg(self.path("")).arg("/steps");
        command.output().unwrap()
    }
}

/// What a command printed; it must have succeeded.
#[track_caller]
fn told(output: &Output, what: &str) -> String {
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what} ({}): {said}", output.status);
    said
}

/// Who starts the runs.
#[derive(Clone, Copy, PartialEq)]
enum By {
    Daemon,
    Timer,
}

/// The README's steps after the config is written. A slot is due within seconds: nobody waits for one o'clock.
fn steps(by: By, drop_in: bool) -> String {
    let (daemon, timer) = (block("sh", "enable --now runner\n"), block("sh", "runner-backup@app.timer"));
    let (opening, start) = daemon.split_once("systemctl enable").unwrap();
    let opening = if drop_in { opening } else { "" };
    let start = match by {
        By::Daemon => format!("systemctl enable{start}"),
        By::Timer => timer,
    };
    block("sh", "runner init") + opening + &start + &block("sh", "runner status") + &block("sh", "runner restore app")
}

/// A machine that has the address, when the README's steps on the directory have been typed.
fn with_directory(by: By) {
    let machine = Machine::new();
    let config = block("toml", "file:///mnt/backup/runner");
    machine.write("etc/runner/runner.toml", &instead(&config, "schedule = \"0 1 * * *\"", "every = \"2s\""));
    let address = "ip link add lan type veth peer name wire\nip addr add 10.0.0.50/24 dev lan\nip link set wire up\nip link set lan up\n";
    let said = told(&machine.types(&format!("{address}{}", steps(by, true)), true), "the README's steps");
    finished(&machine, by, &said);
    as_shown(&said);
}

/// What the README shows of `whoami` and `status` has lines that begin as the program's own do.
#[track_caller]
fn as_shown(said: &str) {
    let begin = |text: &str| -> Vec<String> {
        text.lines().filter_map(|line| Some(line.split_whitespace().next()?.to_owned())).collect()
    };
    let (shown, said) = (begin(&block("text", "app: ACTIVE")), begin(said));
    assert!(shown.len() > 8, "{shown:?}");
    // This machine has no peer.
    let own = shown.iter().filter(|word| !["$", "peer"].contains(&word.as_str()));
    let foreign: Vec<&String> = own.filter(|word| !said.contains(word)).collect();
    assert!(foreign.is_empty(), "the README shows lines that begin with {foreign:?}, the program: {said:?}");
}

fn with_bucket(by: By) {
    let server = S3Server::start();
    let machine = Machine::new();
    let role = block("toml", "file:///mnt/backup/runner").split_once("[role.app]").unwrap().1.to_owned();
    let role = without_probe(&role);
    let store = instead(&block("toml", "s3://"), "https://minio.example.net", &server.endpoint);
    let config = format!("{store}\n[role.app]{role}");
    machine.write("etc/runner/runner.toml", &instead(&config, "schedule = \"0 1 * * *\"", "every = \"2s\""));
    let credentials = instead(&block("ini", "[default]"), "AKIAEXAMPLE", ACCESS_KEY);
    machine.write("etc/runner/s3-credentials", &instead(&credentials, "= example", &format!("= {SECRET_KEY}")));
    let said = told(&machine.types(&steps(by, false), false), "the README's steps");
    finished(&machine, by, &said);
    assert!(server.root.join(BUCKET).join("prod/app/journal").is_dir());
}

#[track_caller]
fn finished(machine: &Machine, by: By, said: &str) {
    assert_same(&machine.path("srv/app"), &machine.path("mnt/restore/srv/app"));
    assert!(said.contains("app: ACTIVE"), "{said}");
    let daemon = fs::read_to_string(machine.path("var/log/runner.service")).is_ok();
    assert_eq!(daemon, by == By::Daemon, "{said}");
}

/// A config without its probe: the lease alone decides.
fn without_probe(config: &str) -> String {
    let lines: Vec<&str> = config.lines().filter(|line| !line.starts_with("eligible")).collect();
    lines.join("\n") + "\n"
}

#[test]
fn a_directory_with_the_daemon() {
    with_directory(By::Daemon);
}

#[test]
fn a_directory_with_the_timer() {
    with_directory(By::Timer);
}

#[test]
fn a_bucket_with_the_daemon() {
    with_bucket(By::Daemon);
}

#[test]
fn a_bucket_with_the_timer() {
    with_bucket(By::Timer);
}

/// Without the drop-in the unit cannot write, and says what opens it; so does `config check`. With credentials in the file of the units
/// alone the bucket is reached.
#[test]
fn a_sandbox_that_is_closed_is_named_and_opened() {
    let machine = Machine::new();
    let config = instead(&block("toml", "file:///"), "schedule = \"0 1 * * *\"", "every = \"2s\"");
    let leased = without_probe(&config);
    machine.write("etc/runner/runner.toml", &leased);
    let output = machine.types("runner init\nrunner config check\nsleep 3\nas-unit runner-backup@app.service\n", true);
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    let words = said.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(!output.status.success(), "{said}");
    assert!(words.contains("runner.service may not write to /mnt/backup/runner"), "{said}");
    assert!(words.contains("(Read-only file system, for this process alone"), "{said}");
    assert!(words.contains("'runner config show --systemd'"), "{said}");
    let opened =
        "runner config show --systemd=/etc/systemd/system\nas-unit runner-backup@app.service\nrunner config check\n";
    let said = told(&machine.types(opened, true), "with the drop-in");
    assert!(said.contains("committed") && !said.contains("may not write"), "{said}");

    let server = S3Server::start();
    let store = format!("url = \"s3://{BUCKET}/prod\"\nendpoint = {:?}", server.endpoint);
    machine.write("etc/runner/runner.toml", &instead(&leased, "url = \"file:///mnt/backup/runner\"", &store));
    let variables = format!("AWS_ACCESS_KEY_ID={ACCESS_KEY}\nAWS_SECRET_ACCESS_KEY={SECRET_KEY}\n");
    machine.write("etc/runner/environment", &variables);
    let exported = "export AWS_EC2_METADATA_DISABLED=true\nset -a; . /etc/runner/environment; set +a\nrunner init --new\n\
                    unset AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY\nsleep 3\nas-unit runner-backup@app.service\n";
    let said = told(&machine.types(exported, false), "the units' own credentials");
    assert!(said.contains("committed"), "{said}");
}

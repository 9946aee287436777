//! A wall clock that a test sets while real processes go by it: a library of a few lines (`clock.c`), loaded before libc.

#![allow(unreachable_pub, dead_code, reason = "each test crate that includes this uses a part of it")]

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::cli::TestNode;

/// The wall clock of one node. It is right at first.
pub struct NodeClock {
    library: PathBuf,
    path: PathBuf,
    file: File,
}

impl NodeClock {
    /// Kept in `dir` under this name.
    pub fn new(dir: &Path, name: &str) -> Self {
        let (library, path) = (dir.join(format!("{name}.so")), dir.join(format!("{name}.clock")));
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/clock.c");
        let made = Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&library, &source]).status();
        assert!(made.expect("a C compiler is there, as for the build").success());
        let file = File::options().create(true).truncate(true).write(true).open(&path).unwrap();
        let clock = Self { library, path, file };
        clock.set(0);
        clock
    }

    /// The node with this clock.
    pub fn on(&self, node: TestNode) -> TestNode {
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        node.with_env("LD_PRELOAD", &text(&self.library)).with_env("TEST_CLOCK", &text(&self.path))
    }

    /// The node in another time altogether: the times of files are off as its clock is.
    pub fn with_files(&self, node: TestNode) -> TestNode {
        self.on(node).with_env("TEST_CLOCK_FILES", "1")
    }

    /// From now on it is ahead by so many seconds of the host's.
    pub fn set(&self, seconds: i64) {
        self.file.write_all_at(&seconds.to_ne_bytes(), 0).unwrap();
    }
}

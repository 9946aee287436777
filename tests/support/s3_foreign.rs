//! Other people's S3 servers, as processes: moto, which does what the header says once its
//! threads are kept apart, and rclone, which does not. Both come from
//! `scripts/test-tools`. Include it with `#[path = "../support/s3_foreign.rs"] mod s3_foreign;`.

#![allow(unreachable_pub, dead_code, reason = "each test that includes this uses a part of it")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A server in a process of its own. It is killed when dropped.
pub struct ForeignS3Server {
    /// `http://127.0.0.1:port`, or `https://localhost:port`.
    pub endpoint: String,
    child: Child,
    _dir: tempfile::TempDir,
}

/// How long a server may take to listen; Python on a busy machine takes its time.
const START_PATIENCE: Duration = Duration::from_mins(1);
const START_POLL: Duration = Duration::from_millis(50);

/// A program that `scripts/test-tools` has put there.
pub fn test_tool(path: &str) -> PathBuf {
    let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools").join(path);
    assert!(tool.exists(), "{} is missing: run scripts/test-tools (or `make test`, which does)", tool.display());
    tool
}

/// A file beside this one.
pub fn support_file(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support").join(name).display().to_string()
}

impl ForeignS3Server {
    /// moto, with the bucket made, and with the race of its threads taken out (see `moto_careful.py`).
    pub fn moto(bucket: &str) -> Self {
        Self::start(&test_tool("venv/bin/python"), "http", "127.0.0.1", |port, _| {
            vec![support_file("moto_careful.py"), port.to_string()]
        })
        .with_bucket(bucket)
    }

    /// moto over TLS, without any bucket; `certificate` is for `localhost`.
    pub fn moto_tls(certificate: &Path, key: &Path) -> Self {
        Self::start(&test_tool("venv/bin/python"), "https", "localhost", |port, _| {
            let files = [certificate, key].map(|p| p.display().to_string());
            [support_file("moto_careful.py"), port.to_string()].into_iter().chain(files).collect()
        })
    }

    fn with_bucket(self, bucket: &str) -> Self {
        let answer = self.ask(&format!("PUT /{bucket} HTTP/1.1\r\nhost: s3.amazonaws.com\r\ncontent-length: 0\r\n"));
        assert!(answer.split(' ').nth(1) == Some("200"), "{answer}");
        self
    }

    /// `rclone serve s3` over a directory, with the bucket made.
    pub fn rclone(bucket: &str, access_key: &str, secret_key: &str) -> Self {
        Self::start(&test_tool("bin/rclone"), "http", "127.0.0.1", |port, dir| {
            std::fs::create_dir(dir.join(bucket)).unwrap();
            let address = format!("127.0.0.1:{port}");
            let keys = format!("{access_key},{secret_key}");
            let dir = dir.display().to_string();
            let args = ["serve", "s3", "--config", "/dev/null", "--addr", &address, "--auth-key", &keys];
            // Without this it answers from a cache of the directory.
            let cache = ["--vfs-cache-mode", "writes", "--cache-dir", &format!("{dir}.cache"), &dir].map(str::to_owned);
            args.map(str::to_owned).into_iter().chain(cache).collect()
        })
    }

    fn start(program: &Path, scheme: &str, host: &str, args: impl FnOnce(u16, &Path) -> Vec<String>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Free now; nobody else is likely to be given it in the next second.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let args = args(port, dir.path());
        let child = Command::new(program).args(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = child.unwrap_or_else(|e| panic!("{}: {e}", program.display()));
        let mut server = Self { endpoint: format!("{scheme}://{host}:{port}"), child, _dir: dir };
        let mut waited = Duration::ZERO;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if let Some(status) = server.child.try_wait().unwrap() {
                panic!("{} ended at once: {status}", program.display());
            }
            assert!(waited < START_PATIENCE, "{} does not listen", program.display());
            std::thread::sleep(START_POLL);
            waited += START_POLL;
        }
        server
    }

    /// One request in so many words, without signature.
    fn ask(&self, head: &str) -> String {
        let address = self.endpoint.split_once("://").unwrap().1;
        let mut socket = TcpStream::connect(address).unwrap();
        write!(socket, "{head}connection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for ForeignS3Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

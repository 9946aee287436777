//! A real etcd, Debian's `etcd-server`, on loopback: one member or several, with TLS and users where a test wants them, and a
//! wire that a test can cut, hold back or make one-way.
#![allow(dead_code, unreachable_pub, reason = "every test crate uses its own part of it")]

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use std::{fs, thread};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use parking_lot::Mutex;
use tempfile::TempDir;

#[path = "certificate_authority.rs"]
mod certificate_authority;

pub use certificate_authority::CertificateAuthority;

/// How often a cluster is begun.
const STARTS: u32 = 5;

/// How often a member is asked whether it is there, and how often it is asked at most.
const READY_PAUSE: Duration = Duration::from_millis(50);
const READY_ASKS: u32 = 600;

/// How often it is looked whether a cut wire is whole again.
const CUT_POLL: Duration = Duration::from_millis(5);

/// The members of one cluster; they end with it.
pub struct EtcdCluster {
    dir: TempDir,
    members: Vec<EtcdMember>,
    tls: Option<TlsFiles>,
}

struct EtcdMember {
    name: String,
    client_port: u16,
    peer_port: u16,
    metrics_port: u16,
    child: Option<Child>,
}

/// The files of a root of trust, and of a client that it signed.
pub struct TlsFiles {
    pub ca: PathBuf,
    pub client_cert: PathBuf,
    pub client_key: PathBuf,
    server_cert: PathBuf,
    server_key: PathBuf,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").expect("loopback has a free port").local_addr().expect("it is bound").port()
}

impl EtcdCluster {
    /// One member.
    pub fn single() -> Self {
        Self::start(1, false)
    }

    /// Three members.
    pub fn cluster() -> Self {
        Self::start(3, false)
    }

    /// One member that talks to clients with a certificate only.
    pub fn with_tls() -> Self {
        Self::start(1, true)
    }

    /// A port that was free a moment ago may be another test's by now, and then its member ends: all begin again, elsewhere.
    fn start(count: usize, tls: bool) -> Self {
        for _ in 0..STARTS {
            let mut etcd = Self::spawned(count, tls);
            if (0..count).all(|n| etcd.comes_up(n)) {
                return etcd;
            }
            eprintln!("etcd begins again: {}", etcd.logs());
        }
        panic!("etcd does not start");
    }

    fn spawned(count: usize, tls: bool) -> Self {
        let dir = TempDir::new().expect("a place for etcd");
        let tls = tls.then(|| TlsFiles::make(&dir));
        let member = |n: usize| EtcdMember {
            name: format!("m{n}"),
            client_port: free_port(),
            peer_port: free_port(),
            metrics_port: free_port(),
            child: None,
        };
        let mut etcd = Self { dir, members: (0..count).map(member).collect(), tls };
        for n in 0..count {
            etcd.spawn(n);
        }
        etcd
    }

    fn spawn(&mut self, n: usize) {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let cluster: Vec<String> =
            self.members.iter().map(|m| format!("{}=http://127.0.0.1:{}", m.name, m.peer_port)).collect();
        let data = self.dir.path().join(&self.members[n].name);
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.path().join(format!("{}.log", self.members[n].name)))
            .expect("a log");
        let member = &mut self.members[n];
        let client = format!("{scheme}://127.0.0.1:{}", member.client_port);
        let peer = format!("http://127.0.0.1:{}", member.peer_port);
        let mut command = Command::new("etcd");
        command
            // It asks for this where its makers do not test.
            .env("ETCD_UNSUPPORTED_ARCH", std::env::consts::ARCH.replace("aarch64", "arm64"))
            .args(["--name", &member.name, "--logger", "zap", "--log-level", "warn"])
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--listen-metrics-urls", &format!("http://127.0.0.1:{}", member.metrics_port)])
            .args(["--initial-cluster", &cluster.join(","), "--initial-cluster-state", "new"])
            // A leader is missed soon: leases of 2 s are possible, which etcd refuses under three such times.
            .args(["--heartbeat-interval", "50", "--election-timeout", "500"])
            .arg("--data-dir")
            .arg(data)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log);
        if let Some(tls) = &self.tls {
            command.arg("--client-cert-auth");
            for (option, path) in
                [("--trusted-ca-file", &tls.ca), ("--cert-file", &tls.server_cert), ("--key-file", &tls.server_key)]
            {
                command.arg(option).arg(path);
            }
        }
        member.child = Some(command.spawn().expect("etcd starts (Debian's package is etcd-server)"));
    }

    fn wait(&mut self, n: usize) {
        assert!(self.comes_up(n), "etcd does not become healthy: {}", self.logs());
    }

    /// Whether a member becomes healthy. Where one that was started has ended, none is waited for.
    fn comes_up(&mut self, n: usize) -> bool {
        for _ in 0..READY_ASKS {
            let mut children = self.members.iter_mut().filter_map(|member| member.child.as_mut());
            if children.any(|child| child.try_wait().expect("it is ours").is_some()) {
                return false;
            }
            if self.http(n, "/health").is_some_and(|text| text.contains("\"true\"")) {
                return true;
            }
            thread::sleep(READY_PAUSE);
        }
        false
    }

    fn logs(&self) -> String {
        let log = |member: &EtcdMember| fs::read_to_string(self.dir.path().join(format!("{}.log", member.name)));
        self.members.iter().map(|member| log(member).unwrap_or_default()).collect()
    }

    /// What a member answers without TLS; `None` for nothing within a second.
    fn http(&self, n: usize, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.members[n].metrics_port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        Some(text)
    }

    /// Where clients reach it.
    pub fn endpoints(&self) -> Vec<String> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        self.members.iter().map(|member| format!("{scheme}://127.0.0.1:{}", member.client_port)).collect()
    }

    pub fn port(&self, n: usize) -> u16 {
        self.members[n].client_port
    }

    pub fn tls(&self) -> &TlsFiles {
        self.tls.as_ref().expect("it was started with TLS")
    }

    /// Which member leads, by the members' own words.
    pub fn leader(&self) -> usize {
        for _ in 0..READY_ASKS {
            let leads = |n: &usize| {
                self.http(*n, "/metrics").is_some_and(|text| text.lines().any(|l| l == "etcd_server_is_leader 1"))
            };
            if let Some(n) = (0..self.members.len()).find(leads) {
                return n;
            }
            thread::sleep(READY_PAUSE);
        }
        panic!("nobody leads")
    }

    /// How many messages of each method clients sent to all members so far.
    pub fn received(&self, method: &str) -> u64 {
        let wanted = format!("grpc_method=\"{method}\"");
        let one = |n| {
            let text = self.http(n, "/metrics").expect("the metrics of a living member");
            let count = |line: &str| line.rsplit(' ').next()?.parse::<f64>().ok();
            text.lines()
                .filter(|line| line.starts_with("grpc_server_msg_received_total{") && line.contains(&wanted))
                .filter_map(count)
                .sum::<f64>() as u64
        };
        (0..self.members.len()).map(one).sum()
    }

    fn signal(&self, n: usize, signal: Signal) {
        let child = self.members[n].child.as_ref().expect("it runs");
        kill(Pid::from_raw(child.id() as i32), signal).expect("it is ours");
    }

    /// SIGSTOP: its connections stay open, and nobody answers.
    pub fn stop(&self, n: usize) {
        self.signal(n, Signal::SIGSTOP);
    }

    pub fn cont(&self, n: usize) {
        self.signal(n, Signal::SIGCONT);
    }

    pub fn kill(&mut self, n: usize) {
        if let Some(mut child) = self.members[n].child.take() {
            child.kill().expect("it is ours");
            child.wait().expect("it is ours");
        }
    }

    /// Starts a member that was killed, with the data it had.
    pub fn restart(&mut self, n: usize) {
        self.spawn(n);
        self.wait(n);
    }

    /// Starts all members anew, with nothing: another cluster behind the same addresses.
    pub fn restart_empty(&mut self) {
        let count = self.members.len();
        for n in 0..count {
            self.kill(n);
            fs::remove_dir_all(self.dir.path().join(&self.members[n].name)).expect("its data goes");
        }
        (0..count).for_each(|n| self.spawn(n));
        (0..count).for_each(|n| self.wait(n));
    }
}

/// Lets in nobody without a password: `root`, whose password is its name, and `runner`, who may use what is below `/runner/`.
pub async fn enable_auth(client: &mut etcd_client::Client, of_runner: &str) {
    client.user_add("root", "root", None).await.unwrap();
    client.role_add("root").await.unwrap();
    client.user_grant_role("root", "root").await.unwrap();
    client.user_add("runner", of_runner, None).await.unwrap();
    client.role_add("runner").await.unwrap();
    let may = etcd_client::Permission::new(etcd_client::PermissionType::Readwrite, "/runner/").with_prefix();
    client.role_grant_permission("runner", may).await.unwrap();
    client.user_grant_role("runner", "runner").await.unwrap();
    client.auth_enable().await.unwrap();
}

impl Drop for EtcdCluster {
    fn drop(&mut self) {
        for n in 0..self.members.len() {
            self.kill(n);
        }
    }
}

impl TlsFiles {
    fn make(dir: &TempDir) -> Self {
        let at = |name: &str| dir.path().join(name);
        let tls = Self {
            ca: at("ca.pem"),
            client_cert: at("client.pem"),
            client_key: at("client.key"),
            server_cert: at("server.pem"),
            server_key: at("server.key"),
        };
        tls.renew();
        tls
    }

    /// Another root of trust, and certificates of it. A member reads its own at each handshake, and the root when it starts.
    pub fn renew(&self) {
        let authority = CertificateAuthority::new();
        fs::write(&self.ca, authority.pem()).expect("a certificate");
        for (cert, key) in [(&self.server_cert, &self.server_key), (&self.client_cert, &self.client_key)] {
            let (signed, its_key) = authority.sign();
            fs::write(cert, signed).expect("a certificate");
            fs::write(key, its_key).expect("a key");
            fs::set_permissions(key, fs::Permissions::from_mode(0o600)).expect("it is ours");
        }
    }
}

/// What a wire does with what comes along it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyMode {
    Pass,
    /// Requests are kept back, for [`TcpProxy::deliver`].
    Hold,
    /// Requests arrive, answers do not.
    LoseAnswers,
    /// Nothing gets through in either direction. What is on its way arrives when the wire is whole again, as TCP has it.
    Cut,
}

/// A way to a member that a test can spoil.
pub struct TcpProxy {
    port: u16,
    shared: Arc<ProxyShared>,
}

struct ProxyShared {
    mode: Mutex<ProxyMode>,
    held: Mutex<Vec<(TcpStream, Vec<u8>)>>,
}

impl ProxyShared {
    fn mode(&self) -> ProxyMode {
        *self.mode.lock()
    }

    /// The mode for what came just now; it waits here as long as the wire is cut.
    fn through(&self) -> ProxyMode {
        loop {
            match self.mode() {
                ProxyMode::Cut => thread::sleep(CUT_POLL),
                mode => return mode,
            }
        }
    }
}

impl TcpProxy {
    /// A wire to the member at `port`.
    pub fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let own = listener.local_addr().expect("it is bound").port();
        let shared = Arc::new(ProxyShared { mode: Mutex::new(ProxyMode::Pass), held: Mutex::default() });
        let to_all = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                let (client_2, server_2) = (client.try_clone().expect("a copy"), server.try_clone().expect("a copy"));
                let (up, down) = (Arc::clone(&to_all), Arc::clone(&to_all));
                thread::spawn(move || {
                    pump(client, |bytes| match up.through() {
                        ProxyMode::Pass | ProxyMode::LoseAnswers | ProxyMode::Cut => (&server).write_all(bytes),
                        ProxyMode::Hold => {
                            let copy = server.try_clone().expect("a copy");
                            up.held.lock().push((copy, bytes.to_vec()));
                            Ok(())
                        }
                    });
                });
                thread::spawn(move || {
                    pump(server_2, |bytes| match down.through() {
                        ProxyMode::LoseAnswers => Ok(()),
                        ProxyMode::Pass | ProxyMode::Hold | ProxyMode::Cut => (&client_2).write_all(bytes),
                    });
                });
            }
        });
        Self { port: own, shared }
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn set(&self, mode: ProxyMode) {
        *self.shared.mode.lock() = mode;
    }

    /// How many pieces are held back.
    pub fn held(&self) -> usize {
        self.shared.held.lock().len()
    }

    /// Sends on the first `count` pieces that were held back, as late as it is now, and forgets the others.
    pub fn deliver(&self, count: usize) {
        for (server, bytes) in self.shared.held.lock().drain(..).take(count) {
            (&server).write_all(&bytes).expect("etcd still listens");
        }
    }
}

fn pump(mut from: TcpStream, mut to: impl FnMut(&[u8]) -> std::io::Result<()>) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        match from.read(&mut buffer) {
            // What was held back may still be delivered: the other direction stays open.
            Ok(0) => return,
            Ok(n) if to(&buffer[..n]).is_err() => return,
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

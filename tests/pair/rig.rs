//! What the stories share: where they play, work that lasts as long as the test wants, and what the journal shows of it.
#![allow(unreachable_pub, reason = "a module of one test crate")]

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use jiff::Timestamp;
use runner::env::Env;
use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;

pub use crate::daemon::{TestDaemon, assert_stays, boottime, since, wait_for, wait_within};
use crate::etcd::EtcdCluster;
use crate::s3_server::{BUCKET, S3Server, environment};
use crate::site::Site;

/// The lease of all stories, in etcd and in the bucket: as short as one may be that stays alive on a busy machine.
pub const TTL: Duration = Duration::from_secs(3);

/// A slot that began a while ago and lasts for years: due as soon as a daemon is there, and once.
pub const ONE_SLOT: &str = "every = \"36500d\"\njitter = \"0s\"\n";

/// Both nodes are at once as good.
pub const AT_ONCE: &str = "takeover_delay = \"0s\"\n";

pub fn now() -> Timestamp {
    Env::host().clock.now()
}

/// A site whose role has its lease in the store.
pub fn bucket_site(lines: &str) -> Site {
    let site = Site::leased(&format!("bucket_lease_ttl = \"{TTL:?}\"\n{AT_ONCE}{lines}\n"));
    site.write("file", "content");
    site.init();
    site
}

/// The lines that put a role's lease into etcd.
pub fn etcd_lines(endpoints: &[String], lines: &str) -> String {
    format!("{AT_ONCE}{lines}\n[etcd]\nendpoints = {endpoints:?}\nlease_ttl = \"{}s\"\n", TTL.as_secs())
}

/// A site whose role has its lease in etcd.
pub fn etcd_site(etcd: &EtcdCluster, lines: &str) -> Site {
    let site = Site::leased(&etcd_lines(&etcd.endpoints(), lines));
    site.write("file", "content");
    site.init();
    site
}

/// The same with its objects on S3.
pub fn s3_site(server: &S3Server, etcd: &EtcdCluster, lines: &str) -> Site {
    let (url, objects) = (format!("s3://{BUCKET}/prod"), server.root.join(BUCKET).join("prod"));
    let site = Site::on_s3(&url, &server.endpoint, objects, environment(), &etcd_lines(&etcd.endpoints(), lines));
    let config = site.path("runner.toml");
    fs::write(&config, fs::read_to_string(&config).unwrap().replace("lease = \"none\"\n", "")).unwrap();
    site.write("file", "content");
    site.init();
    site
}

/// Lines of a dump that lasts as long as the file `hold` is there. Each time it begins, its process is written into `begun`. It is
/// deaf to SIGTERM, and ends when the site goes.
pub fn slow_dump(site: &Site) -> String {
    let script = format!(
        "trap : TERM; echo $$ >> {0}/begun; while test -e {0}/hold; do sleep 0.05; done; cat {0}/data",
        site.dir().display()
    );
    fs::write(site.path("data"), "what the dump says").unwrap();
    fs::write(site.path("hold"), "").unwrap();
    format!("[role.app.dumps]\n\"slow\" = {{ command = [\"sh\", \"-c\", {script:?}] }}\n")
}

/// The processes of the slow dumps so far.
pub fn begun(site: &Site) -> Vec<u32> {
    let text = fs::read_to_string(site.path("begun")).unwrap_or_default();
    text.lines().map(|line| line.parse().unwrap()).collect()
}

/// Lets the slow dumps end.
pub fn let_go(site: &Site) {
    fs::remove_file(site.path("hold")).unwrap();
}

/// What a line of the system's account of a process's memory says, in KiB; 0 where it has ended.
pub fn memory(pid: u32, line: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|found| found.strip_prefix(line)).unwrap_or("0");
    line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// Whether there is such a process.
pub fn alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // One that nobody has waited for yet has ended nevertheless.
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with('Z'))
}

/// A process's end lies between these two instants.
pub struct End {
    /// It was seen alive after this one, by the coarse clock that files' times come from.
    alive: Timestamp,
    /// It was gone at this one.
    pub gone: Timestamp,
}

impl End {
    #[track_caller]
    pub fn of(pid: u32, what: &str) -> Self {
        let mut seen_alive = Timestamp::MIN;
        let gone = wait_for(format!("{what} ends"), || {
            let looked = clock_gettime(ClockId::RealtimeCoarse);
            if alive(pid) {
                seen_alive = Timestamp::new(looked.tv_sec, looked.tv_nsec as i32).unwrap();
                return None;
            }
            Some(now())
        });
        Self { alive: seen_alive, gone }
    }

    /// How long before a takeover it came, which must not be before the end; less than nothing if it was noticed too late to tell.
    #[track_caller]
    pub fn before(&self, taken: Timestamp) -> f64 {
        assert!(self.alive <= taken, "it outlived its leave by {} s", seconds(taken, self.alive));
        seconds(self.gone, taken)
    }
}

/// The takeovers in the journal: whose, and when the record came to be seen.
pub fn takeovers(site: &Site) -> Vec<(String, Timestamp)> {
    let records = site.records().into_iter().filter(|record| record["kind"] == "takeover");
    records.map(|record| (label(&record), seen(site, &record))).collect()
}

pub fn label(record: &Value) -> String {
    record["node"]["name"].as_str().unwrap().to_owned()
}

/// When a record's file got its name: the link changes the file's ctime, and nothing does after that.
fn seen(site: &Site, record: &Value) -> Timestamp {
    let name = format!("store/app/journal/{:016}", record["seq"].as_u64().unwrap());
    let meta = fs::metadata(site.path(&name)).unwrap();
    Timestamp::new(meta.ctime(), meta.ctime_nsec() as i32).unwrap()
}

/// The first takeover by this node after an instant, when it comes.
#[track_caller]
pub fn taken_by(site: &Site, node: &str, after: Timestamp) -> Timestamp {
    wait_for(format!("{node} takes over"), || {
        takeovers(site).into_iter().find(|(by, at)| by == node && *at >= after).map(|(_, at)| at)
    })
}

/// From one instant to another, in seconds; negative if it is the other way round.
pub fn seconds(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64()
}

/// Everything that was ever committed is whole.
#[track_caller]
pub fn all_is_whole(site: &Site) {
    let looker = site.node("looker");
    looker.run(["verify", "app", "--read-data"]).expect(0);
    for (n, snapshot) in site.listed().iter().enumerate() {
        site.restore(&looker, snapshot["id"].as_str().unwrap(), &format!("restored-{n}"));
    }
}

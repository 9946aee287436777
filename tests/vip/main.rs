//! The virtual IP for real: network namespaces, keepalived, and the program on both hosts. Needs root.

#[path = "../support/mod.rs"]
mod support;

#[path = "../support/daemon.rs"]
mod daemon;
mod daemons;
mod doubled;
mod following;
#[path = "../support/netns.rs"]
mod netns;
#[path = "../support/site.rs"]
mod site;
mod story;
mod traps;

use netns::{LanHost, TestLan, VIP};
use serde_json::Value;
use site::{Site, role};
use support::cli::{ProgramRun, TestNode};

/// A role whose duty is where the virtual IP is, on two hosts.
struct Pair {
    lan: TestLan,
    site: Site,
}

impl Pair {
    /// The address is on the east host, and keepalived runs on both. These lines are in the role's section too.
    fn with_vip(lines: &str) -> Self {
        let pair = Self { lan: TestLan::with_vip(), site: Site::new("") };
        pair.site.config(&format!("eligible = {{ vip = {VIP:?} }}\n{lines}\n{}", pair.site.telling()));
        pair.site.write("file", "content");
        pair.site.init();
        pair
    }

    fn node(&self, side: LanHost) -> TestNode {
        self.lan.on(side, self.site.node(side.name()))
    }

    fn run(&self, side: LanHost, arguments: &[&str]) -> ProgramRun {
        self.node(side).run(arguments)
    }

    /// What the guard for scripts says.
    fn is_active(&self, side: LanHost) -> i32 {
        self.run(side, &["is-active", "app"]).code.expect("no signal")
    }

    #[track_caller]
    fn backup(&self, side: LanHost) -> Value {
        role(&self.run(side, &["backup", "app", "--json"]).expect(0))
    }

    #[track_caller]
    fn whoami(&self, side: LanHost) -> Value {
        role(&self.run(side, &["whoami", "--json"]).expect(0))
    }
}

/// Whether a cron line ended as it should: 0 for committed, skipped or standby, 5 for fenced.
fn ended_well(code: i32) -> bool {
    code == 0 || code == 5
}

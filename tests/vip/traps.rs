//! Addresses that are there and mean nothing, and one that is there and is written in another way.

use serde_json::Value;

use crate::netns::{East, LAN, LanHost, TestLan, VIP, West};
use crate::site::{Site, role, wait_for};
use crate::support::cli::TestNode;

/// A network without keepalived: addresses come and go by hand.
struct Trap {
    lan: TestLan,
    site: Site,
}

impl Trap {
    fn new() -> Self {
        let trap = Self { lan: TestLan::new(), site: Site::new("") };
        trap.site.init();
        trap
    }

    fn node(&self, side: LanHost, address: &str, interface: Option<&str>) -> TestNode {
        let interface = interface.map(|name| format!(", interface = {name:?}")).unwrap_or_default();
        self.site.config(&format!("eligible = {{ vip = {address:?}{interface} }}\n"));
        self.lan.on(side, self.site.node(side.name()))
    }

    /// What the guard answers about an address, and what the evidence says.
    fn says(&self, side: LanHost, address: &str, interface: Option<&str>) -> (i32, String) {
        let node = self.node(side, address, interface);
        let code = node.run(["is-active", "app"]).code.expect("no signal");
        let evidence = evidence(&node);
        let answer = if code == 0 { "yes" } else { "no" };
        assert_eq!(evidence["answer"], answer, "the guard and whoami agree: {evidence}");
        (code, evidence["detail"].as_str().unwrap().to_owned())
    }

    /// Waits for what the kernel does in its own time, and says that then.
    fn comes_to_say(&self, side: LanHost, address: &str, detail: &str) -> (i32, String) {
        let node = self.node(side, address, None);
        wait_for(|| evidence(&node)["detail"] == detail);
        self.says(side, address, None)
    }
}

fn evidence(node: &TestNode) -> Value {
    role(&node.run(["whoami", "--json"]).expect(0))["evidence"][0].clone()
}

fn yes(detail: &str) -> (i32, String) {
    (0, detail.to_owned())
}

fn no(detail: &str) -> (i32, String) {
    (3, detail.to_owned())
}

#[test]
fn on_loopback_it_counts_only_by_name() {
    let trap = Trap::new();
    trap.lan.ip(East, &format!("addr add {VIP}/32 dev lo"));
    assert_eq!(trap.says(East, VIP, None), no("only on lo, which counts only with interface = \"lo\""));
    assert_eq!(trap.says(East, VIP, Some("lo")), yes("on lo"));
    // The balancer that has it itself.
    trap.lan.ip(East, &format!("addr add {VIP}/24 dev {LAN} label {LAN}:vip"));
    assert_eq!(trap.says(East, VIP, None), yes("on lan"));
    assert_eq!(trap.says(East, VIP, Some(LAN)), yes("on lan"));
    assert_eq!(trap.says(East, VIP, Some("lan0")).0, 3);
}

#[test]
fn on_an_interface_that_is_down_it_does_not_count() {
    let trap = Trap::new();
    trap.lan.ip(East, &format!("addr add {VIP}/24 dev {LAN}"));
    assert_eq!(trap.says(East, VIP, None), yes("on lan"));
    trap.lan.link_down(East);
    assert_eq!(trap.says(East, VIP, None), no("on lan, which is down"));
    trap.lan.link_up(East);
    assert_eq!(trap.says(East, VIP, None), yes("on lan"));
}

#[test]
fn an_ipv6_address_counts_when_its_detection_of_duplicates_is_over() {
    const VIP6: &str = "2001:db8::50";
    let trap = Trap::new();
    trap.lan.sysctl(East, &format!("ipv6/conf/{LAN}/accept_dad"), 1);
    // Without a carrier the detection waits.
    trap.lan.pull_cable(East);
    wait_for(|| trap.lan.ip(East, &format!("-br link show dev {LAN}")).contains("NO-CARRIER"));
    trap.lan.ip(East, &format!("-6 addr add {VIP6}/64 dev {LAN}"));
    assert_eq!(trap.says(East, VIP6, None), no("tentative on lan: duplicate address detection is running"));
    trap.lan.plug_cable(East);
    assert_eq!(trap.comes_to_say(East, VIP6, "on lan"), yes("on lan"));

    // The other host has it already.
    trap.lan.ip(West, &format!("-6 addr add {VIP6}0/64 dev {LAN} nodad"));
    trap.lan.ip(East, &format!("-6 addr add {VIP6}0/64 dev {LAN}"));
    let taken = format!("{VIP6}0");
    let refused = "refused on lan: another machine has this address";
    assert_eq!(trap.comes_to_say(East, &taken, refused), no(refused));
    assert_eq!(trap.says(West, &taken, None), yes("on lan"));
}

#[test]
fn addresses_are_compared_and_not_texts() {
    let trap = Trap::new();
    trap.lan.ip(East, &format!("-6 addr add 2001:db8::50/64 dev {LAN} nodad"));
    trap.lan.ip(East, &format!("addr add {VIP}/24 dev {LAN}"));
    for same in ["2001:db8::50", "2001:0DB8:0:0:0:0:0:50", "2001:db8:0::0:0050", VIP, "::ffff:192.0.2.50"] {
        assert_eq!(trap.says(East, same, None), yes("on lan"), "{same}");
    }
    // What `grep` would find.
    for other in ["192.0.2.5", "92.0.2.50", "2001:db8::5", "2001:db8::"] {
        assert_eq!(trap.says(East, other, None), no("not on this machine"), "{other}");
    }
}

#[test]
fn in_another_network_namespace_it_is_on_another_machine() {
    let trap = Trap::new();
    trap.lan.ip(West, &format!("addr add {VIP}/24 dev {LAN}"));
    assert_eq!(trap.says(West, VIP, None), yes("on lan"));
    assert_eq!(trap.says(East, VIP, None), no("not on this machine"));
    // The machine that both are on.
    trap.site.node("host").run(["is-active", "app"]).expect(3);
}

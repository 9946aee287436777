//! Whether an address is on this machine. Addresses are compared, never texts: `2001:db8::50` is written in many ways.
//!
//! Having an address does not prove that no other machine has it too (VRRP split brain, a paused machine, a frozen
//! keepalived); leases and the journal cover that case. A process in another network namespace sees the addresses of
//! that namespace.

pub mod events;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

use super::{ProbeAnswer, ProbeDetail};

/// One address of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceAddress {
    /// The address.
    pub ip: IpAddr,
    /// The interface, without an alias label: an address that the kernel shows on `eth0:vip` is on `eth0`.
    pub interface: String,
    /// The interface is up.
    pub up: bool,
    /// The interface is a loopback interface.
    pub loopback: bool,
    /// IPv6: duplicate address detection is still running.
    pub tentative: bool,
    /// IPv6: duplicate address detection found another machine.
    pub duplicate: bool,
}

/// Reads the kernel's list of addresses.
pub(super) fn ask(address: IpAddr, interface: Option<&str>) -> (ProbeAnswer, ProbeDetail) {
    match addresses() {
        Ok(list) => decide(&list, address, interface),
        Err(why) => (ProbeAnswer::Unknown, ProbeDetail::Unlisted(why)),
    }
}

/// What the addresses of this machine say about one of them. Pure.
///
/// The address may be on several interfaces. One good place is enough; otherwise the reason nearest to a yes is given.
pub fn decide(list: &[InterfaceAddress], address: IpAddr, interface: Option<&str>) -> (ProbeAnswer, ProbeDetail) {
    let address = address.to_canonical();
    let place = |found: &InterfaceAddress| {
        let name = found.interface.clone();
        // A small rank is nearer to a yes.
        if interface.is_some_and(|wanted| wanted != name) {
            (4, ProbeDetail::Elsewhere { found: name, wanted: interface.unwrap_or_default().to_owned() })
        } else if found.loopback && interface.is_none() {
            (5, ProbeDetail::Loopback { interface: name })
        } else if !found.up {
            (3, ProbeDetail::Down { interface: name })
        } else if found.duplicate {
            (2, ProbeDetail::Duplicate { interface: name })
        } else if found.tentative {
            (1, ProbeDetail::Tentative { interface: name })
        } else {
            (0, ProbeDetail::Present { interface: name })
        }
    };
    let best = list.iter().filter(|found| found.ip.to_canonical() == address).map(place).min_by_key(|(rank, _)| *rank);
    match best {
        Some((0, detail)) => (ProbeAnswer::Yes, detail),
        Some((_, detail)) => (ProbeAnswer::No, detail),
        None => (ProbeAnswer::No, ProbeDetail::Absent),
    }
}

/// The addresses of this machine, in this network namespace.
///
/// # Errors
/// The kernel's message, if it does not list the addresses.
pub fn addresses() -> Result<Vec<InterfaceAddress>, String> {
    let list = getifaddrs().map_err(|e| format!("getifaddrs: {e}"))?;
    // getifaddrs does not give the flags of an address, and for IPv6 they decide. Without IPv6 there is no such file.
    let table = match std::fs::read_to_string("/proc/net/if_inet6") {
        Ok(text) => parse_if_inet6(&text),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => HashMap::new(),
        Err(e) => return Err(format!("/proc/net/if_inet6: {e}")),
    };
    let address = |entry: nix::ifaddrs::InterfaceAddress| {
        let storage = entry.address?;
        let ip = match (storage.as_sockaddr_in(), storage.as_sockaddr_in6()) {
            (Some(v4), _) => IpAddr::V4(v4.ip()),
            (_, Some(v6)) => IpAddr::V6(v6.ip()),
            _ => return None,
        };
        let interface = entry.interface_name.split(':').next().unwrap_or_default().to_owned();
        let flags = match ip {
            IpAddr::V4(_) => 0,
            // The address was just listed and is not in the table: it is coming or going, so it is not to be relied on.
            IpAddr::V6(v6) => table.get(&(v6, interface.clone())).copied().unwrap_or(IFA_F_TENTATIVE),
        };
        Some(InterfaceAddress {
            ip,
            up: entry.flags.contains(InterfaceFlags::IFF_UP),
            loopback: entry.flags.contains(InterfaceFlags::IFF_LOOPBACK),
            tentative: flags & IFA_F_TENTATIVE != 0,
            duplicate: flags & IFA_F_DADFAILED != 0,
            interface,
        })
    };
    Ok(list.filter_map(address).collect())
}

// linux/if_addr.h
const IFA_F_DADFAILED: u32 = 0x08;
const IFA_F_TENTATIVE: u32 = 0x40;

/// The flags by address and interface. A line is: address as 32 hex digits, interface index, prefix length, scope,
/// flags, interface name, all numbers in hex. The same link-local address may be on several interfaces.
fn parse_if_inet6(text: &str) -> HashMap<(Ipv6Addr, String), u32> {
    let line = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [address, _, _, _, flags, name] = fields.as_slice() else { return None };
        let address = Ipv6Addr::from(u128::from_str_radix(address, 16).ok()?);
        Some(((address, (*name).to_owned()), u32::from_str_radix(flags, 16).ok()?))
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn on(ip: &str, interface: &str) -> InterfaceAddress {
        InterfaceAddress {
            ip: ip.parse().unwrap(),
            interface: interface.into(),
            up: true,
            loopback: interface == "lo",
            tentative: false,
            duplicate: false,
        }
    }

    fn says(list: &[InterfaceAddress], address: &str, interface: Option<&str>) -> (ProbeAnswer, String) {
        let (answer, detail) = decide(list, address.parse().unwrap(), interface);
        (answer, detail.to_string())
    }

    #[test]
    fn addresses_are_compared_not_texts() {
        let list = [on("10.0.0.5", "eth0"), on("2001:db8::50", "eth0")];
        for same in ["2001:db8::50", "2001:0DB8:0:0:0:0:0:50", "::ffff:10.0.0.5", "10.0.0.5"] {
            assert_eq!(says(&list, same, None), (ProbeAnswer::Yes, "on eth0".into()), "{same}");
        }
        // An address whose text begins alike is another address.
        assert_eq!(says(&list, "10.0.0.50", None), (ProbeAnswer::No, "not on this machine".into()));
        assert_eq!(says(&[], "10.0.0.50", None).0, ProbeAnswer::No);
    }

    #[test]
    fn loopback_counts_only_when_it_is_named() {
        let list = [on("10.0.0.50", "lo")];
        let (answer, why) = says(&list, "10.0.0.50", None);
        assert_eq!((answer, why.as_str()), (ProbeAnswer::No, "only on lo, which counts only with interface = \"lo\""));
        assert_eq!(says(&list, "10.0.0.50", Some("lo")).0, ProbeAnswer::Yes);
        let both = [on("10.0.0.50", "lo"), on("10.0.0.50", "eth1")];
        assert_eq!(says(&both, "10.0.0.50", None), (ProbeAnswer::Yes, "on eth1".into()));
    }

    #[test]
    fn the_wrong_interface_is_named() {
        let list = [on("10.0.0.50", "eth1")];
        assert_eq!(says(&list, "10.0.0.50", Some("eth0")), (ProbeAnswer::No, "on eth1, not on eth0".into()));
    }

    #[test]
    fn an_address_that_is_not_in_use_is_no_evidence() {
        let mut address = on("2001:db8::50", "eth0");
        address.tentative = true;
        assert_eq!(says(&[address.clone()], "2001:db8::50", None).0, ProbeAnswer::No);
        address.duplicate = true;
        assert!(says(&[address.clone()], "2001:db8::50", None).1.contains("another machine"));
        address.up = false;
        assert_eq!(says(&[address], "2001:db8::50", None), (ProbeAnswer::No, "on eth0, which is down".into()));
    }

    #[test]
    fn the_kernels_table_is_read() {
        let text = "20010db8000000000000000000000050 02 40 00 c8     eth0\n\
                    00000000000000000000000000000001 01 80 10 80       lo\n\
                    fe8000000000000000fc00fffe000001 04 40 20 40     eth0\nnonsense\n";
        let table = parse_if_inet6(text);
        let flags = |ip: &str, name: &str| table.get(&(ip.parse().unwrap(), name.to_owned())).copied();
        assert_eq!(flags("2001:db8::50", "eth0"), Some(0xc8));
        assert_eq!(flags("fe80::fc:ff:fe00:1", "eth0"), Some(0x40));
        assert_eq!(flags("::1", "eth0"), None);
        assert_eq!(table.len(), 3);
    }

    #[test]
    fn this_machine_has_a_loopback() {
        let list = addresses().unwrap();
        assert_eq!(decide(&list, "127.0.0.1".parse().unwrap(), Some("lo")).0, ProbeAnswer::Yes);
        assert_eq!(decide(&list, "127.0.0.1".parse().unwrap(), None).0, ProbeAnswer::No);
        assert_eq!(decide(&list, "192.0.2.77".parse().unwrap(), None), (ProbeAnswer::No, ProbeDetail::Absent));
    }

    /// Runs `setup` in a new network namespace, and there the test of that name in this module: entering a namespace
    /// takes privileges or another process.
    pub(super) fn inside_a_network_of_its_own(setup: &str, test: &str) {
        let script = format!("set -e; {setup}; exec \"$0\" --exact role::probe::vip::{test} --ignored");
        let mut refusals = Vec::new();
        for enter in [&["unshare", "-rn"][..], &["sudo", "-n", "unshare", "-n"]] {
            let probe = Command::new(enter[0]).args(&enter[1..]).arg("true").output();
            if !probe.as_ref().is_ok_and(|out| out.status.success()) {
                refusals.push(format!("{enter:?}: {probe:?}"));
                continue;
            }
            let me = std::env::current_exe().unwrap();
            let output = Command::new(enter[0]).args(&enter[1..]).args(["sh", "-c", &script]).arg(me).output().unwrap();
            let text =
                format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            assert!(output.status.success() && text.contains("1 passed"), "{text}");
            return;
        }
        panic!("no way into a network namespace; run the tests as root, or allow user namespaces: {refusals:#?}");
    }

    /// The states that a real network goes through, with the two ends of a virtual cable.
    #[test]
    fn a_real_network_is_judged() {
        let setup = "ip link set lo up; ip link add v0 type veth peer name v1; ip link set v0 up
            ip addr add 10.9.8.7/32 dev v0 label v0:vip; ip addr add 10.9.8.8/32 dev lo
            ip -6 addr add 2001:db8::51/64 dev v0 nodad; ip -6 addr add 2001:db8::52/64 dev v0
            ip addr add 10.9.8.9/32 dev v1";
        inside_a_network_of_its_own(setup, "tests::inside_a_network");
    }

    #[test]
    #[ignore = "runs inside the network namespace that a_real_network_is_judged makes"]
    fn inside_a_network() {
        let list = addresses().unwrap();
        let says = |address: &str, interface| says(&list, address, interface);
        assert_eq!(says("10.9.8.7", None), (ProbeAnswer::Yes, "on v0".into()), "without its label");
        assert_eq!(says("10.9.8.7", Some("v0")).0, ProbeAnswer::Yes);
        assert_eq!(says("10.9.8.7", Some("v1")), (ProbeAnswer::No, "on v0, not on v1".into()));
        assert_eq!(says("10.9.8.8", None).0, ProbeAnswer::No, "on lo");
        assert_eq!(says("10.9.8.8", Some("lo")), (ProbeAnswer::Yes, "on lo".into()));
        assert_eq!(says("2001:db8::51", None), (ProbeAnswer::Yes, "on v0".into()));
        // The cable's other end is down, so the detection of duplicates cannot finish.
        let (answer, why) = says("2001:db8::52", None);
        assert_eq!(
            (answer, why.as_str()),
            (ProbeAnswer::No, "tentative on v0: duplicate address detection is running")
        );
        assert_eq!(says("10.9.8.9", None), (ProbeAnswer::No, "on v1, which is down".into()));
    }
}

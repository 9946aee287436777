//! The kernel reports when an address or an interface comes, goes or changes (rtnetlink). A report is a hint to
//! evaluate the probe now instead of at the next poll, never an answer. The answer comes from [`super::addresses`], and
//! the poll stays, because the kernel may drop messages.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::super::collect_leaves;
use crate::config::Probe;

/// The groups that are listened to: interfaces, and the addresses of both families.
const GROUPS: libc::c_int = libc::RTMGRP_LINK | libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR;

/// The messages that count as a change. IPv6: the end of duplicate address detection is reported as a new address, too.
const KINDS: [u16; 5] =
    [libc::RTM_NEWLINK, libc::RTM_DELLINK, libc::RTM_NEWADDR, libc::RTM_DELADDR, libc::NLMSG_OVERRUN as u16];

/// What the kernel sends at once fits into this (netlink(7)). Of a longer datagram the first message is there, which is
/// enough.
const BUFFER_BYTES: usize = 8 * 1024;

/// The most messages that one change reads: a storm must not keep the listener from answering.
const MESSAGES_MAX: usize = 1024;

/// How long to wait after a change before it is reported: an address comes in several steps, and a host that starts a
/// hundred containers must not have its probes evaluated a thousand times.
const SETTLE: Duration = Duration::from_millis(100);

/// A message's header: length (4 bytes), kind (2), flags (2), number (4), sender (4), in the machine's byte order.
const HEADER_BYTES: usize = 16;

/// Listens to the kernel, in the network namespace in which it was opened.
#[derive(Debug)]
pub struct AddressEvents {
    socket: AsyncFd<OwnedFd>,
}

impl AddressEvents {
    /// Listens from now on. It needs no privileges, but a tokio runtime.
    ///
    /// # Errors
    /// The kernel gives this process no such socket: a sandbox without `AF_NETLINK`, or too many open files. Polling
    /// goes on without it.
    pub fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
        // The kernel chooses the port: a process may have several of these.
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, GROUPS as u32))?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe for types that may lie about their descriptor; OwnedFd does not"
        )]
        let socket = AsyncFd::with_interest(socket, Interest::READABLE)?;
        Ok(Self { socket })
    }

    /// Resolves when something has changed since the listener was opened or this last resolved. Changes that come
    /// together are reported once. Nothing is lost when the future is dropped before.
    ///
    /// # Errors
    /// The socket is broken. Polling goes on, and only reacts later.
    pub async fn changed(&mut self) -> io::Result<()> {
        loop {
            let mut ready = self.socket.readable().await?;
            let taken = read_events(ready.get_inner())?;
            if taken.all {
                ready.clear_ready();
            }
            if taken.change {
                return Ok(());
            }
        }
    }
}

/// Hints when to evaluate a probe before the next poll. Polling stays necessary.
#[derive(Debug)]
pub struct ProbeHints {
    events: Option<AddressEvents>,
    /// A change that has not been reported yet.
    pending: bool,
}

impl ProbeHints {
    /// The hints for a role's probe. There are none without a virtual IP in it, or if the kernel does not report.
    pub fn of(probe: Option<&Probe>) -> Self {
        let mut leaves = Vec::new();
        if let Some(probe) = probe {
            collect_leaves(probe, &mut leaves);
        }
        let wanted = leaves.iter().any(|leaf| matches!(leaf, Probe::Vip { .. }));
        let events = wanted.then(AddressEvents::open).transpose();
        let events = events.inspect_err(|e| tracing::warn!("addresses are only polled: netlink: {e}")).ok().flatten();
        Self { events, pending: false }
    }

    /// No hints.
    pub fn none() -> Self {
        Self { events: None, pending: false }
    }

    /// Resolves soon after a change; never if there are no hints. Nothing is lost when the future is dropped before.
    pub async fn changed(&mut self) {
        if !self.pending {
            let Some(events) = &mut self.events else { return std::future::pending().await };
            if let Err(error) = events.changed().await {
                tracing::warn!("addresses are only polled from now on: netlink: {error}");
                self.events = None;
            }
            self.pending = true;
        }
        tokio::time::sleep(SETTLE).await;
        self.pending = false;
    }
}

/// The outcome of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct NetlinkRead {
    /// A change was among the messages.
    change: bool,
    /// There are no more messages for now.
    all: bool,
}

fn read_events(socket: &OwnedFd) -> io::Result<NetlinkRead> {
    let mut buffer = [0; BUFFER_BYTES];
    let mut change = false;
    for _ in 0..MESSAGES_MAX {
        match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(length) => change |= is_address_change(&buffer[..length]),
            Err(Errno::EAGAIN) => return Ok(NetlinkRead { change, all: true }),
            Err(Errno::EINTR) => {}
            // The kernel dropped messages: there were changes, but not which ones.
            Err(Errno::ENOBUFS) => change = true,
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(NetlinkRead { change, all: false })
}

/// Whether one of the messages in a datagram is about an address or an interface.
fn is_address_change(mut datagram: &[u8]) -> bool {
    while let Some(header) = datagram.first_chunk::<HEADER_BYTES>() {
        let [l0, l1, l2, l3, k0, k1, ..] = *header;
        if KINDS.contains(&u16::from_ne_bytes([k0, k1])) {
            return true;
        }
        // An impossible length ends the loop; each message begins at a multiple of 4.
        let length = (u32::from_ne_bytes([l0, l1, l2, l3]) as usize).max(HEADER_BYTES);
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    false
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Duration;

    use super::super::tests::inside_a_network_of_its_own;
    use super::*;

    /// Longer than the kernel takes on a busy machine.
    const SURELY: Duration = Duration::from_secs(20);

    /// Long enough without a message to call it quiet.
    const QUIET: Duration = Duration::from_millis(300);

    fn message(kind: u16, payload: usize) -> Vec<u8> {
        let length = HEADER_BYTES + payload;
        let mut bytes = u32::try_from(length).unwrap().to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.resize(length.next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn a_change_is_found_wherever_it_stands() {
        let (noise, address) = (message(libc::RTM_NEWROUTE, 5), message(libc::RTM_DELADDR, 8));
        assert!(is_address_change(&address));
        assert!(is_address_change(&[noise.clone(), noise.clone(), address.clone()].concat()), "behind what is padded");
        assert!(is_address_change(&address[..HEADER_BYTES]), "cut off behind its header");
        assert!(!is_address_change(&[noise.clone(), noise.clone()].concat()));
        assert!(!is_address_change(&address[..HEADER_BYTES - 1]));
        // Impossible lengths: zero, and more than there is.
        assert!(!is_address_change(&[0; 64]));
        assert!(!is_address_change(&[&[0xff; 4], &noise[4..]].concat()));
    }

    #[tokio::test]
    async fn hints_are_for_probes_with_a_virtual_ip() {
        let vip = || Probe::Vip { address: "192.0.2.1".parse().unwrap(), interface: None };
        let mounted = || Probe::Mounted { path: "/srv".into() };
        let hints = |probe: Option<Probe>| ProbeHints::of(probe.as_ref()).events.is_some();
        assert!(hints(Some(vip())) && hints(Some(Probe::Any(vec![mounted(), Probe::Not(Box::new(vip()))]))));
        assert!(!hints(None) && !hints(Some(Probe::All(vec![mounted()]))));
        let mut none = ProbeHints::of(None);
        assert!(tokio::time::timeout(SETTLE * 2, none.changed()).await.is_err());
        // A change whose wait was cancelled is reported to the next call.
        none.pending = true;
        assert!(tokio::time::timeout(SETTLE / 10, none.changed()).await.is_err());
        tokio::time::timeout(SURELY, none.changed()).await.unwrap();
    }

    #[test]
    fn a_real_kernel_tells() {
        inside_a_network_of_its_own(
            "ip link set lo up; ip link add d0 type veth peer name p0",
            "events::tests::listening",
        );
    }

    fn ip(arguments: &str) {
        let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
        assert!(output.status.success(), "ip {arguments}: {output:?}");
    }

    async fn quiet(events: &mut AddressEvents) -> bool {
        tokio::time::timeout(QUIET, events.changed()).await.is_err()
    }

    /// Waits for changes that follow by themselves, a link-local address for example.
    async fn settle(events: &mut AddressEvents) {
        while !quiet(events).await {}
    }

    #[tokio::test]
    #[ignore = "runs inside the network namespace that a_real_kernel_tells makes"]
    async fn listening() {
        let mut events = AddressEvents::open().unwrap();
        assert!(quiet(&mut events).await, "what was there before is no change");
        for change in [
            "addr add 192.0.2.50/24 dev d0",
            "addr del 192.0.2.50/24 dev d0",
            "link set d0 up",
            "-6 addr add 2001:db8::50/64 dev d0",
            "-6 addr del 2001:db8::50/64 dev d0",
            "link set d0 down",
            "link add d1 type veth peer name p1",
            "link del d1",
        ] {
            ip(change);
            tokio::time::timeout(SURELY, events.changed()).await.expect(change).unwrap();
            settle(&mut events).await;
        }
        // Changes while no call waits are reported afterwards, once.
        ip("addr add 192.0.2.50/24 dev d0");
        ip("addr del 192.0.2.50/24 dev d0");
        events.changed().await.unwrap();
        assert!(quiet(&mut events).await);
        an_overrun_is_a_change(&mut events).await;
    }

    async fn an_overrun_is_a_change(events: &mut AddressEvents) {
        let witness = AddressEvents::open().unwrap();
        let storm = "addr add 192.0.2.50/24 dev d0\naddr del 192.0.2.50/24 dev d0\n".repeat(2000);
        let file = std::env::temp_dir().join(format!("storm-{}", std::process::id()));
        std::fs::write(&file, storm).unwrap();
        ip(&format!("-batch {}", file.display()));
        std::fs::remove_file(&file).unwrap();
        let mut buffer = [0; BUFFER_BYTES];
        let first = recv(witness.socket.get_ref().as_raw_fd(), &mut buffer, MsgFlags::empty());
        assert_eq!(first, Err(Errno::ENOBUFS), "the storm is larger than what the kernel keeps for a socket");
        tokio::time::timeout(SURELY, events.changed()).await.expect("an overrun is a change").unwrap();
        settle(events).await;
        ip("addr add 192.0.2.50/24 dev d0");
        tokio::time::timeout(SURELY, events.changed()).await.expect("and it goes on listening").unwrap();
    }
}

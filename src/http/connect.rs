//! A connection to a host that has several addresses, of which some may not answer (RFC 8305, "happy eyeballs").
//!
//! If a host's IPv6 is filtered on the network path, packets to one of its addresses vanish, and waiting for that
//! address alone takes the whole time limit, each time. Here the next address is tried soon in parallel, and the first
//! that answers is used.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::net::TcpStream;

/// How long an address is tried alone; RFC 8305 recommends this value.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// The most addresses that are tried.
const ADDRESSES_MAX: usize = 16;

/// Connects to `host` by whichever of its addresses answers first.
///
/// # Errors
/// The host has no address, or none of them answers.
pub(super) async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    first_to_answer(in_turn(tokio::net::lookup_host((host, port)).await?)).await
}

async fn first_to_answer(mut left: VecDeque<SocketAddr>) -> io::Result<TcpStream> {
    let mut attempts = FuturesUnordered::new();
    let mut failed = None;
    loop {
        if let Some(address) = left.pop_front() {
            attempts.push(TcpStream::connect(address));
        }
        let ended = if left.is_empty() {
            attempts.next().await
        } else {
            match tokio::time::timeout(ATTEMPT_DELAY, attempts.next()).await {
                Ok(ended) => ended,
                Err(_) => continue,
            }
        };
        match ended {
            Some(Ok(stream)) => return Ok(stream),
            Some(Err(error)) => failed = Some(error),
            None => {
                return Err(
                    failed.unwrap_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the host has no address"))
                );
            }
        }
    }
}

/// The addresses in the resolver's order, IPv6 and IPv4 alternating.
fn in_turn(found: impl Iterator<Item = SocketAddr>) -> VecDeque<SocketAddr> {
    let (mut v6, mut v4): (VecDeque<_>, VecDeque<_>) = (VecDeque::new(), VecDeque::new());
    let mut is_v6_first = None;
    for address in found.take(ADDRESSES_MAX) {
        is_v6_first.get_or_insert(address.is_ipv6());
        if address.is_ipv6() { v6.push_back(address) } else { v4.push_back(address) }
    }
    let (mut one, mut other) = if is_v6_first == Some(true) { (v6, v4) } else { (v4, v6) };
    let mut order = VecDeque::new();
    while !one.is_empty() || !other.is_empty() {
        order.extend(one.pop_front());
        order.extend(other.pop_front());
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(addresses: &[&str]) -> Vec<String> {
        let addresses = addresses.iter().map(|a| a.parse().unwrap());
        in_turn(addresses).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn families_alternate_and_the_resolvers_first_goes_first() {
        assert_eq!(order(&["[::1]:1", "[::2]:1", "1.1.1.1:1"]), ["[::1]:1", "1.1.1.1:1", "[::2]:1"]);
        assert_eq!(order(&["1.1.1.1:1", "2.2.2.2:1"]), ["1.1.1.1:1", "2.2.2.2:1"]);
        assert_eq!(order(&["1.1.1.1:1", "[::1]:1"]), ["1.1.1.1:1", "[::1]:1"]);
        assert!(order(&[]).is_empty());
        let many: Vec<String> = (0..100).map(|n| format!("10.0.0.{n}:1")).collect();
        assert_eq!(order(&many.iter().map(String::as_str).collect::<Vec<_>>()).len(), ADDRESSES_MAX);
    }

    #[tokio::test]
    async fn an_address_that_refuses_leaves_the_others() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (there, refusing) = (listener.local_addr().unwrap(), gone.local_addr().unwrap());
        drop(gone);
        let stream = first_to_answer([refusing, refusing, there].into()).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), there);
        let refused = first_to_answer([refusing, refusing].into()).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(first_to_answer(VecDeque::new()).await.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}

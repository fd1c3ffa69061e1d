//! Which networks this machine is in.

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;
use std::net::IpAddr;

/// Whether `address` is in a network of one of our own interfaces: what `samenet` is in
/// `pg_hba.conf`. Where the interfaces cannot be listed, nobody is.
pub fn is_neighbour(address: IpAddr) -> bool {
    let address = address.to_canonical(); // A listener for both families sees ::ffff:10.0.0.2.
    let Ok(interfaces) = getifaddrs() else { return false };
    address.is_loopback()
        || interfaces.into_iter().any(|one| {
            let ours = one.address.as_ref().and_then(ip);
            let mask = one.netmask.as_ref().and_then(ip);
            ours.zip(mask).is_some_and(|(ours, mask)| is_in(address, ours, mask))
        })
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::from(v6.ip())))
}

fn is_in(address: IpAddr, ours: IpAddr, mask: IpAddr) -> bool {
    let same = |a: &[u8], b: &[u8], mask: &[u8]| {
        a.iter().zip(b).zip(mask).all(|((a, b), mask)| a & mask == b & mask)
    };
    if mask.is_unspecified() {
        return false; // A tunnel's end, say: that would be everybody.
    }
    match (address, ours, mask) {
        (IpAddr::V4(a), IpAddr::V4(b), IpAddr::V4(mask)) => {
            same(&a.octets(), &b.octets(), &mask.octets())
        }
        (IpAddr::V6(a), IpAddr::V6(b), IpAddr::V6(mask)) => {
            same(&a.octets(), &b.octets(), &mask.octets())
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_neighbour_has_our_network_s_bits() {
        let parsed = |text: &str| text.parse::<IpAddr>().unwrap();
        let is_in = |a, b, mask| is_in(parsed(a), parsed(b), parsed(mask));
        assert!(is_in("172.18.0.9", "172.18.0.2", "255.255.0.0"));
        assert!(!is_in("172.19.0.9", "172.18.0.2", "255.255.0.0"));
        assert!(is_in("fd00::9", "fd00::1", "ffff:ffff:ffff:ffff::"));
        assert!(!is_in("fd01::9", "fd00::1", "ffff:ffff:ffff:ffff::"));
        assert!(!is_in("fd00::9", "172.18.0.2", "255.255.0.0"));
        assert!(!is_in("172.19.0.9", "172.18.0.2", "0.0.0.0"));
        assert!(is_neighbour(parsed("127.0.0.1")) && is_neighbour(parsed("::ffff:127.0.0.1")));
        assert!(!is_neighbour(parsed("240.0.0.1")), "a network that nobody has");
    }
}

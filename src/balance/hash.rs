//! A hash that is the same in every process and every version: by it, replicas agree on where a client belongs.

use std::net::{IpAddr, SocketAddr};

/// Of a client or an endpoint. An IPv4 address is the same in IPv6 clothes.
pub(super) fn of_ip(ip: IpAddr) -> u64 {
    match ip.to_canonical() {
        IpAddr::V4(ip) => mix(u64::from(ip.to_bits())),
        IpAddr::V6(ip) => {
            let (high, low) = (ip.to_bits() >> 64, ip.to_bits() & u128::from(u64::MAX));
            #[expect(clippy::cast_possible_truncation, reason = "each is one half of the bits")]
            mix(mix(high as u64) ^ low as u64)
        }
    }
}

pub(super) fn of_address(address: SocketAddr) -> u64 {
    mix(of_ip(address.ip()) ^ u64::from(address.port()))
}

/// The output function of SplitMix64 (Steele et al., 2014): each bit of the input changes half of the output's.
pub(super) fn mix(bits: u64) -> u64 {
    let bits = bits.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> u64 {
        of_ip(text.parse().unwrap())
    }

    /// Another value here would send every client elsewhere after an update.
    #[test]
    fn is_the_same_in_every_version() {
        assert_eq!(mix(0), 0xe220_a839_7b1d_cdaf, "the first output of SplitMix64 with seed 0");
        assert_eq!(of_address("10.0.0.7:5432".parse().unwrap()), mix(ip("10.0.0.7") ^ 5432));
    }

    #[test]
    fn ipv6_counts_whole_and_mapped_ipv4_as_ipv4() {
        assert_eq!(ip("::ffff:10.0.0.7"), ip("10.0.0.7"));
        assert_ne!(ip("fd00::1"), ip("fd00::2"));
        assert_ne!(ip("fd00::1"), ip("fd01::1"));
    }
}

//! Addresses as text.

use std::net::IpAddr;

/// As its `Display` has it. IPv4, which most are, without the formatter: that takes as long as the rest of a connection's text.
pub fn address(ip: IpAddr) -> String {
    let IpAddr::V4(v4) = ip else { return ip.to_string() };
    let mut text = String::with_capacity(15);
    for (at, octet) in v4.octets().into_iter().enumerate() {
        if at > 0 {
            text.push('.');
        }
        text.push_str(itoa::Buffer::new().format(octet));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_display_has() {
        let octets = |n: u32| n.wrapping_mul(0x9e37_79b9);
        for ip in (0..10_000).map(octets).chain([0, u32::MAX, 0x7f00_0001]) {
            let ip = IpAddr::V4(ip.into());
            assert_eq!(address(ip), ip.to_string());
        }
        assert_eq!(address("2001:db8::1".parse().unwrap()), "2001:db8::1");
        assert_eq!(address("::ffff:10.1.2.3".parse().unwrap()), "::ffff:10.1.2.3");
    }
}

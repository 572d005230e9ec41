//! The header that begins a connection to an app and names the client: PROXY protocol, version 1 and 2.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use crate::config::ProxyProtocol;

/// A client's connection to us, by its two ends. Canonical: an IPv4-mapped IPv6 address is IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    pub source: SocketAddr,
    pub destination: SocketAddr,
}

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
const TLV_CRC32C: u8 = 0x03;
const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;

/// Empty where there is none. `ends`: `None` for a connection of our own, such as a health check's.
pub(super) fn header(version: ProxyProtocol, ends: Option<Ends>) -> Vec<u8> {
    match version {
        ProxyProtocol::Off => Vec::new(),
        ProxyProtocol::V1 => first(ends).into_bytes(),
        ProxyProtocol::V2 => second(ends),
    }
}

fn first(ends: Option<Ends>) -> String {
    let Some((source, destination)) = ends.map(same_family) else { return "PROXY UNKNOWN\r\n".to_owned() };
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    let mut text = format!("PROXY {family} ");
    let _ = write!(text, "{} {} {} {}\r\n", source.ip(), destination.ip(), source.port(), destination.port());
    text
}

fn second(ends: Option<Ends>) -> Vec<u8> {
    let mut head = SIGNATURE.to_vec();
    let (family, addresses) = match ends.map(same_family) {
        None => {
            head.push(LOCAL);
            (0, Vec::new())
        }
        Some((source, destination)) => {
            head.push(PROXY);
            let mut addresses = Vec::with_capacity(36);
            for end in [source, destination] {
                match end.ip() {
                    IpAddr::V4(v4) => addresses.extend(v4.octets()),
                    IpAddr::V6(v6) => addresses.extend(v6.octets()),
                }
            }
            addresses.extend(source.port().to_be_bytes());
            addresses.extend(destination.port().to_be_bytes());
            // TCP over IPv4, TCP over IPv6.
            (if source.is_ipv4() { 0x11 } else { 0x21 }, addresses)
        }
    };
    head.push(family);
    let checksum = [TLV_CRC32C, 0, 4, 0, 0, 0, 0];
    let length = u16::try_from(addresses.len() + checksum.len()).unwrap_or_default();
    head.extend(length.to_be_bytes());
    head.extend(addresses);
    head.extend(checksum);
    // Over the whole header, its own place zero.
    let sum = crc32c(&head).to_be_bytes();
    head.truncate(head.len() - sum.len());
    head.extend(sum);
    head
}

/// The protocol has one family for both ends: where they differ, IPv4 is written as IPv6.
fn same_family(ends: Ends) -> (SocketAddr, SocketAddr) {
    let Ends { source, destination } = ends;
    let v6 = |end: SocketAddr| match end.ip() {
        IpAddr::V4(v4) => SocketAddr::new(IpAddr::V6(v4.to_ipv6_mapped()), end.port()),
        IpAddr::V6(_) => end,
    };
    if source.is_ipv4() == destination.is_ipv4() { (source, destination) } else { (v6(source), v6(destination)) }
}

/// RFC 3720 appendix B.4. Bit by bit: some fifty bytes, once a connection.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |sum: u32, _| if sum & 1 == 1 { (sum >> 1) ^ 0x82f6_3b78 } else { sum >> 1 };
    !bytes.iter().fold(u32::MAX, |sum, byte| (0..8).fold(sum ^ u32::from(*byte), step))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(source: &str, destination: &str) -> Option<Ends> {
        Some(Ends { source: source.parse().unwrap(), destination: destination.parse().unwrap() })
    }

    #[test]
    fn the_first_version_is_a_line() {
        let line = |ends| String::from_utf8(header(ProxyProtocol::V1, ends)).unwrap();
        assert_eq!(line(ends("192.0.2.7:4711", "198.51.100.1:443")), "PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n");
        assert_eq!(line(ends("[2001:db8::7]:4711", "[2001:db8::1]:443")), "PROXY TCP6 2001:db8::7 2001:db8::1 4711 443\r\n");
        assert_eq!(line(ends("192.0.2.7:1", "[2001:db8::1]:443")), "PROXY TCP6 ::ffff:192.0.2.7 2001:db8::1 1 443\r\n");
        assert_eq!(line(None), "PROXY UNKNOWN\r\n");
        assert!(header(ProxyProtocol::Off, ends("192.0.2.7:1", "192.0.2.8:2")).is_empty());
    }

    #[test]
    fn the_second_version_has_a_checksum() {
        let head = header(ProxyProtocol::V2, ends("192.0.2.7:4711", "198.51.100.1:443"));
        assert_eq!(head[..12], *b"\r\n\r\n\0\r\nQUIT\n");
        assert_eq!(head[12..16], [0x21, 0x11, 0, 12 + 7]);
        assert_eq!(head[16..28], [192, 0, 2, 7, 198, 51, 100, 1, 0x12, 0x67, 1, 0xbb]);
        assert_eq!(head[28..31], [3, 0, 4]);
        let mut zeroed = head.clone();
        zeroed[31..35].fill(0);
        assert_eq!(head[31..], crc32c(&zeroed).to_be_bytes());
        let local = header(ProxyProtocol::V2, None);
        assert_eq!((&local[12..16], local.len()), (&[0x20, 0, 0, 7][..], 23));
        let v6 = header(ProxyProtocol::V2, ends("192.0.2.7:1", "[2001:db8::1]:443"));
        assert_eq!(v6[12..16], [0x21, 0x21, 0, 36 + 7]);
    }

    /// RFC 3720 appendix B.4's examples.
    #[test]
    fn checksums_of_the_standard() {
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }
}

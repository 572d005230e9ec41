//! The header by which a balancer says whose connection it carries: the PROXY protocol, versions 1 and 2
//! (<https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>, revision 2020/03/05; sections are those of it).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::Malformed;

/// Section 2.1: the longest line of version 1, with its CRLF.
const V1_MOST: usize = 107;
const V1: &[u8] = b"PROXY ";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const V2_HEAD: usize = 16;

/// Types of section 2.2.
const CRC32C: u8 = 0x03;
const UNIQUE_ID: u8 = 0x05;
const SSL: u8 = 0x20;

/// What such a header says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyHeader {
    /// The client, its address canonical: an IPv4-mapped IPv6 address is IPv4. `None`: the connection is the balancer's own (`LOCAL`), or it carries
    /// what has no such address (`UNKNOWN`, `UNSPEC`, Unix sockets); then the connection's own addresses count.
    pub client: Option<SocketAddr>,
    /// Where the client connected to, with `client` and canonical as that is.
    pub target: Option<SocketAddr>,
    /// The balancer's name for the connection (`PP2_TYPE_UNIQUE_ID`), at most 128 bytes of any kind.
    pub unique_id: Option<Box<[u8]>>,
    /// The client spoke TLS with the balancer (`PP2_CLIENT_SSL` of `PP2_TYPE_SSL`).
    pub tls: bool,
}

/// How far the bytes of a connection lead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// All bytes so far belong to the header, and there are more of it to come.
    NeedMore,
    /// The header, and how many bytes it took: what stands behind them is the client's.
    Whole(ProxyHeader, usize),
}

/// Reads the header that a connection begins with, from its first byte on. Version 2 may take `most` bytes in all.
///
/// # Errors
/// When it begins with anything else, or the header is wrong.
pub fn proxy_header(bytes: &[u8], most: usize) -> Result<Progress, Malformed> {
    if begins(bytes, V2) { version_2(bytes, most) } else { version_1(bytes) }
}

/// As far as there are bytes.
fn begins(bytes: &[u8], with: &[u8]) -> bool {
    bytes.iter().zip(with).all(|(byte, want)| byte == want)
}

fn version_1(bytes: &[u8]) -> Result<Progress, Malformed> {
    if !begins(bytes, V1) {
        return Err(Malformed("the connection begins with no PROXY protocol header"));
    }
    let line = bytes.get(..V1_MOST).unwrap_or(bytes);
    let Some(end) = line.iter().position(|byte| *byte == b'\n') else {
        return if bytes.len() >= V1_MOST { Err(Malformed("the PROXY line has no end within 107 bytes")) } else { Ok(Progress::NeedMore) };
    };
    let line = line.get(..end).and_then(|line| line.strip_suffix(b"\r")).ok_or(Malformed("the PROXY line does not end with CRLF"))?;
    let text = std::str::from_utf8(line).ok().filter(|text| text.is_ascii()).ok_or(Malformed("the PROXY line is not ASCII"))?;
    let (client, target) = ends_of_line(text)?.unzip();
    Ok(Progress::Whole(ProxyHeader { client, target, ..ProxyHeader::default() }, end + 1))
}

/// Section 2.1: five words parted by single spaces, or `UNKNOWN` with anything behind it.
fn ends_of_line(line: &str) -> Result<Option<(SocketAddr, SocketAddr)>, Malformed> {
    const WORDS: Malformed = Malformed("the PROXY line has not the words that it must have");
    let mut words = line.split(' ').skip(1);
    let family = words.next().ok_or(WORDS)?;
    if family == "UNKNOWN" {
        return Ok(None);
    }
    let (Some(source), Some(target), Some(from), Some(to), None) = (words.next(), words.next(), words.next(), words.next(), words.next())
    else {
        return Err(WORDS);
    };
    let address = |text: &str| match family {
        "TCP4" => text.parse::<Ipv4Addr>().map(IpAddr::V4).map_err(|_| Malformed("the PROXY line has an address that is not IPv4")),
        "TCP6" => text.parse::<Ipv6Addr>().map(IpAddr::V6).map_err(|_| Malformed("the PROXY line has an address that is not IPv6")),
        _ => Err(Malformed("the PROXY line has a protocol that is not TCP4, TCP6 or UNKNOWN")),
    };
    let (source, target) = (address(source)?, address(target)?);
    let (from, to) = (port(from)?, port(to)?);
    Ok(Some((SocketAddr::new(source.to_canonical(), from), SocketAddr::new(target.to_canonical(), to))))
}

/// Digits without a sign, and without a zero in front of others.
fn port(text: &str) -> Result<u16, Malformed> {
    let sound = text.bytes().all(|byte| byte.is_ascii_digit()) && (text.len() == 1 || !text.starts_with('0'));
    text.parse().ok().filter(|_| sound).ok_or(Malformed("the PROXY line has a port that is not a port"))
}

fn version_2(bytes: &[u8], most: usize) -> Result<Progress, Malformed> {
    // What is wrong is said as soon as it is there.
    let command = match bytes.get(12) {
        None => return Ok(Progress::NeedMore),
        Some(0x20) => Command::Local,
        Some(0x21) => Command::Proxy,
        Some(byte) if byte >> 4 == 2 => return Err(Malformed("the PROXY header has a command that is not LOCAL or PROXY")),
        Some(_) => return Err(Malformed("the PROXY header has a version that is not 2")),
    };
    let Some(head) = bytes.get(..V2_HEAD) else { return Ok(Progress::NeedMore) };
    let &[.., family, high, low] = head else { return Ok(Progress::NeedMore) };
    let whole = V2_HEAD + usize::from(u16::from_be_bytes([high, low]));
    if whole > most {
        return Err(Malformed("the PROXY header is longer than limits.proxy_header"));
    }
    let Some(header) = bytes.get(..whole) else { return Ok(Progress::NeedMore) };
    let said = match command {
        // "The receiver must accept this connection as valid and must use the real connection endpoints and discard the protocol block."
        Command::Local => ProxyHeader::default(),
        Command::Proxy => block(header, family)?,
    };
    Ok(Progress::Whole(said, whole))
}

#[derive(Clone, Copy)]
enum Command {
    Local,
    Proxy,
}

fn block(header: &[u8], family: u8) -> Result<ProxyHeader, Malformed> {
    const SHORT: Malformed = Malformed("the PROXY header is too short for its addresses");
    let mut block = Reader(header.get(V2_HEAD..).unwrap_or_default());
    let ends = match family {
        0x00 => None,
        0x11 => {
            let (source, target) = (block.array::<4>().ok_or(SHORT)?, block.array::<4>().ok_or(SHORT)?);
            Some((IpAddr::from(source), IpAddr::from(target)))
        }
        0x21 => {
            let (source, target) = (block.array::<16>().ok_or(SHORT)?, block.array::<16>().ok_or(SHORT)?);
            Some((IpAddr::from(source).to_canonical(), IpAddr::from(target).to_canonical()))
        }
        0x31 => {
            block.take(216).ok_or(SHORT)?;
            None
        }
        0x12 | 0x22 | 0x32 => return Err(Malformed("the PROXY header is of datagrams, and this is a stream")),
        _ => return Err(Malformed("the PROXY header has an address family that it cannot have")),
    };
    let mut said = ProxyHeader::default();
    if let Some((source, target)) = ends {
        let (from, to) = (block.array().ok_or(SHORT)?, block.array().ok_or(SHORT)?);
        said.client = Some(SocketAddr::new(source, u16::from_be_bytes(from)));
        said.target = Some(SocketAddr::new(target, u16::from_be_bytes(to)));
    }
    more(header, block, &mut said)?;
    Ok(said)
}

/// Section 2.2: what stands behind the addresses, each with a type and a length.
fn more(header: &[u8], mut block: Reader<'_>, said: &mut ProxyHeader) -> Result<(), Malformed> {
    while !block.0.is_empty() {
        let before = header.len() - block.0.len();
        let (kind, value) = block.field().ok_or(Malformed("the PROXY header ends inside a TLV"))?;
        match kind {
            CRC32C => {
                let sum: [u8; 4] = value.try_into().map_err(|_| Malformed("the PROXY header has a checksum that is not of 4 bytes"))?;
                if sum_without(header, before + 3) != u32::from_be_bytes(sum) {
                    return Err(Malformed("the PROXY header's checksum is wrong"));
                }
            }
            UNIQUE_ID if value.len() > 128 => return Err(Malformed("the PROXY header has a unique id longer than 128 bytes")),
            UNIQUE_ID => said.unique_id = Some(value.into()),
            SSL => said.tls = tls(value)?,
            // Padding, and what nothing here depends on: the hello itself tells the server's name and the protocols, where it comes through.
            _ => {}
        }
    }
    Ok(())
}

/// Section 2.2.6.
fn tls(value: &[u8]) -> Result<bool, Malformed> {
    const SHORT: Malformed = Malformed("the PROXY header's TLS part ends too early");
    let mut value = Reader(value);
    let [client, ..] = value.array::<5>().ok_or(SHORT)?;
    while !value.0.is_empty() {
        value.field().ok_or(SHORT)?;
    }
    Ok(client & 1 == 1)
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn field(&mut self) -> Option<(u8, &'a [u8])> {
        let [kind, high, low] = self.array()?;
        Some((kind, self.take(usize::from(u16::from_be_bytes([high, low])))?))
    }
}

/// CRC-32C (RFC 3720 appendix B.4) of the header with its four bytes at `at` taken for zero (section 2.2.3).
fn sum_without(header: &[u8], at: usize) -> u32 {
    let crc = header.iter().enumerate().fold(u32::MAX, |crc, (place, byte)| {
        let byte = if (at..at + 4).contains(&place) { 0 } else { *byte };
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 })
    });
    !crc
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MOST: usize = 4096;

    fn whole(bytes: &[u8]) -> ProxyHeader {
        match proxy_header(bytes, MOST) {
            Ok(Progress::Whole(header, length)) => {
                assert_eq!(length, bytes.len());
                header
            }
            other => panic!("{other:?} of {bytes:?}"),
        }
    }

    fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let length = u16::try_from(block.len()).unwrap().to_be_bytes();
        [V2, &[command, family], &length, block].concat()
    }

    fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
        [&[kind][..], &u16::try_from(value.len()).unwrap().to_be_bytes(), value].concat()
    }

    const ALPN: u8 = 0x01;
    const AUTHORITY: u8 = 0x02;
    const NOOP: u8 = 0x04;
    const FOUR: [u8; 12] = [192, 0, 2, 7, 10, 0, 0, 1, 0xd4, 0x31, 0x01, 0xbb];

    /// Both versions, with every part.
    fn headers() -> Vec<Vec<u8>> {
        let tls = [&[1, 0, 0, 0, 0][..], &tlv(0x21, b"TLSv1.3"), &tlv(0x22, b"laptop")].concat();
        let parts = [tlv(ALPN, b"h2"), tlv(AUTHORITY, b"wiki.example"), tlv(UNIQUE_ID, &[0, 255, 7]), tlv(NOOP, &[0; 9]), tlv(SSL, &tls)];
        vec![
            b"PROXY TCP4 192.0.2.7 10.0.0.1 54321 443\r\n".to_vec(),
            b"PROXY TCP6 2001:db8::7 ::1 54321 443\r\n".to_vec(),
            b"PROXY UNKNOWN\r\n".to_vec(),
            b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n".to_vec(),
            v2(0x20, 0x00, &[]),
            v2(0x21, 0x00, &[]),
            v2(0x21, 0x11, &FOUR),
            v2(0x21, 0x11, &[&FOUR[..], &parts.concat()].concat()),
            v2(0x21, 0x21, &[7; 36]),
            v2(0x21, 0x31, &[7; 216]),
            // A balancer of the next revision; LOCAL is taken whatever it carries.
            v2(0x20, 0xff, &[9; 40]),
        ]
    }

    #[test]
    fn every_prefix_of_a_header_wants_more_and_what_is_behind_it_stays() {
        for header in headers() {
            for length in 0..header.len() {
                assert_eq!(proxy_header(&header[..length], MOST), Ok(Progress::NeedMore), "{length} of {header:?}");
            }
            let said = whole(&header);
            let more = [&header[..], b"GET / HTTP/1.1\r\n"].concat();
            assert_eq!(proxy_header(&more, MOST), Ok(Progress::Whole(said, header.len())));
        }
    }

    #[test]
    fn the_client_is_told_and_mapped_addresses_are_ipv4() {
        let client = |bytes: &[u8]| whole(bytes).client.map(|client| client.to_string());
        let four = Some("192.0.2.7:54321".to_owned());
        assert_eq!(client(b"PROXY TCP4 192.0.2.7 10.0.0.1 54321 443\r\n"), four);
        assert_eq!(client(b"PROXY TCP6 ::ffff:192.0.2.7 ::1 54321 443\r\n"), four);
        assert_eq!(client(b"PROXY TCP6 2001:db8::7 ::1 1 443\r\n"), Some("[2001:db8::7]:1".to_owned()));
        assert_eq!(client(&v2(0x21, 0x11, &FOUR)), four);
        let mapped = [&[0; 10][..], &[255, 255, 192, 0, 2, 7], &[0; 16], &[0xd4, 0x31, 0, 0]].concat();
        assert_eq!(client(&v2(0x21, 0x21, &mapped)), four);
        let target = |bytes: &[u8]| whole(bytes).target.unwrap().to_string();
        assert_eq!(target(&v2(0x21, 0x11, &FOUR)), "10.0.0.1:443");
        assert_eq!(target(b"PROXY TCP6 ::ffff:192.0.2.7 ::1 54321 443\r\n"), "[::1]:443");
        assert_eq!(target(b"PROXY TCP6 ::1 ::ffff:10.0.0.1 54321 443\r\n"), "10.0.0.1:443");
        let mapped = [&[0; 16][..], &[0; 10], &[255, 255, 10, 0, 0, 1], &[0, 0, 1, 0xbb]].concat();
        assert_eq!(target(&v2(0x21, 0x21, &mapped)), "10.0.0.1:443");
        for own in [v2(0x20, 0x11, &FOUR), v2(0x21, 0x00, &[]), v2(0x21, 0x31, &[0; 216]), b"PROXY UNKNOWN\r\n".to_vec()] {
            assert_eq!(client(&own), None);
            assert_eq!(whole(&own).target, None);
        }
    }

    #[test]
    fn what_stands_behind_the_addresses_is_told() {
        let said = whole(&headers()[7]);
        assert_eq!(said.unique_id.as_deref(), Some(&[0, 255, 7][..]));
        assert!(said.tls);
    }

    #[test]
    fn the_checksum_counts() {
        // The check value of CRC-32C, in every catalogue.
        assert_eq!(sum_without(b"123456789", 100), 0xe306_9283);
        let sealed = |noise: u8| {
            let mut header = v2(0x21, 0x11, &[&FOUR[..], &tlv(NOOP, &[noise; 5]), &tlv(CRC32C, &[0; 4])].concat());
            let sum = sum_without(&header, header.len() - 4).to_be_bytes();
            let at = header.len() - 4;
            header[at..].copy_from_slice(&sum);
            header
        };
        whole(&sealed(1));
        let header = sealed(1);
        for at in 16..header.len() {
            let mut spoilt = header.clone();
            spoilt[at] ^= 0x40;
            let told = proxy_header(&spoilt, MOST);
            assert!(told.is_err() || at == header.len() - 7, "{at}: {told:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_refused() {
        let long = [b"PROXY UNKNOWN ".to_vec(), vec![b'x'; 92], b"\r\n".to_vec()].concat();
        assert_eq!(long.len(), 108);
        let wrong = [
            b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            b"\x16\x03\x01".to_vec(),
            b"PROXYTCP4".to_vec(),
            b"proxy TCP4 192.0.2.7 10.0.0.1 1 2\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 10.0.0.1 1 2\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 10.0.0.1 1\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 10.0.0.1 1 2 3\r\n".to_vec(),
            b"PROXY TCP4  192.0.2.7 10.0.0.1 1 2\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 10.0.0.1 +1 2\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 10.0.0.1 01 2\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 10.0.0.1 65536 2\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.07 10.0.0.1 1 2\r\n".to_vec(),
            b"PROXY TCP4 ::1 ::1 1 2\r\n".to_vec(),
            b"PROXY TCP6 192.0.2.7 10.0.0.1 1 2\r\n".to_vec(),
            b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n".to_vec(),
            b"PROXY UDP4 192.0.2.7 10.0.0.1 1 2\r\n".to_vec(),
            b"PROXY \xff\r\n".to_vec(),
            "PROXY UNKNOWN \u{e9}\r\n".as_bytes().to_vec(),
            b"PROXY\r\n".to_vec(),
            long,
            v2(0x11, 0x11, &FOUR),
            v2(0x22, 0x11, &FOUR),
            v2(0x21, 0x12, &FOUR),
            v2(0x21, 0x12, &[]),
            v2(0x21, 0x22, &[0; 36]),
            v2(0x21, 0x32, &[0; 216]),
            v2(0x21, 0x10, &FOUR),
            v2(0x21, 0x10, &[]),
            v2(0x21, 0x41, &[]),
            v2(0x21, 0x11, &FOUR[..11]),
            v2(0x21, 0x21, &[0; 35]),
            v2(0x21, 0x31, &[0; 215]),
            v2(0x21, 0x11, &[&FOUR[..], &[NOOP, 0]].concat()),
            v2(0x21, 0x11, &[&FOUR[..], &[NOOP, 0, 2, 1]].concat()),
            v2(0x21, 0x11, &[&FOUR[..], &tlv(CRC32C, &[0; 3])].concat()),
            v2(0x21, 0x11, &[&FOUR[..], &tlv(UNIQUE_ID, &[0; 129])].concat()),
            v2(0x21, 0x11, &[&FOUR[..], &tlv(SSL, &[0; 4])].concat()),
            v2(0x21, 0x11, &[&FOUR[..], &tlv(SSL, &[0, 0, 0, 0, 0, 0x21, 0, 9])].concat()),
            v2(0x21, 0x11, &[0; MOST]),
        ];
        for bytes in wrong {
            assert!(proxy_header(&bytes, MOST).is_err(), "{:?}", String::from_utf8_lossy(&bytes));
        }
        // At once, not when the rest came.
        assert!(proxy_header(&v2(0x21, 0x11, &[0; MOST])[..16], MOST).is_err());
        assert!(proxy_header(b"G", MOST).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_behind_either_beginning(second in any::<bool>(), bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let all = [if second { V2 } else { V1 }, &bytes].concat();
            if let Ok(Progress::Whole(_, length)) = proxy_header(&all, MOST) {
                prop_assert!(length <= all.len());
            }
        }
    }
}

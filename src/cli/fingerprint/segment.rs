//! Captured frames to TCP segments: the link's header, IP, TCP.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::fingerprint::Malformed;
use crate::fingerprint::reader::Reader;

/// A TCP segment (RFC 9293 section 3.1).
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub sequence: u32,
    pub syn: bool,
    pub ack: bool,
    /// IP and TCP.
    pub headers: &'a [u8],
    pub payload: &'a [u8],
    /// The capture holds less of it than was sent.
    pub cut: bool,
}

/// Why a frame is no TCP segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passed {
    /// A link type that this program does not know.
    Link(u16),
    /// A part of a datagram: not put together.
    Fragment,
    /// Something else than TCP over IP.
    Other,
    /// Its headers are broken, or cut by the capture.
    Malformed,
}

impl From<Malformed> for Passed {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

/// The TCP segment in a frame of this link type.
///
/// # Errors
/// Why there is none.
pub fn read(link: u16, frame: &[u8]) -> Result<Segment<'_>, Passed> {
    datagram(link, frame).and_then(ip)
}

/// The IP datagram inside the link's frame (<https://www.tcpdump.org/linktypes.html>).
fn datagram(link: u16, frame: &[u8]) -> Result<&[u8], Passed> {
    let mut bytes = Reader::new(frame);
    match link {
        // BSD loopback: an address family, in the byte order of the machine or of the network. IP says its version itself.
        0 | 108 => {
            bytes.take(4, "family")?;
            Ok(bytes.rest())
        }
        1 => {
            bytes.take(12, "addresses")?;
            let kind = bytes.u16("ethertype")?;
            payload(kind, bytes)
        }
        9 => ppp(bytes),
        12 | 14 | 101 | 228 | 229 => Ok(frame),
        // Linux "cooked", as from the interface `any`.
        113 => {
            bytes.take(14, "sll")?;
            let kind = bytes.u16("protocol")?;
            payload(kind, bytes)
        }
        276 => {
            let kind = bytes.u16("protocol")?;
            bytes.take(18, "sll2")?;
            payload(kind, bytes)
        }
        _ => Err(Passed::Link(link)),
    }
}

/// What an EtherType says of the bytes behind it; VLAN tags (also stacked), PPPoE and MPLS labels are taken off.
fn payload(mut kind: u16, mut bytes: Reader<'_>) -> Result<&[u8], Passed> {
    loop {
        match kind {
            0x0800 | 0x86dd => return Ok(bytes.rest()),
            // IEEE 802.1Q, 802.1ad, and what came before it.
            0x8100 | 0x88a8 | 0x9100 => {
                bytes.take(2, "tag")?;
                kind = bytes.u16("ethertype")?;
            }
            // RFC 2516 section 4.
            0x8864 => {
                bytes.take(6, "pppoe")?;
                return ppp(bytes);
            }
            // RFC 3032 section 2.1: the last label has its bit set, and IP says its version itself.
            0x8847 | 0x8848 => loop {
                let [_, _, bottom, _] = bytes.array("label")?;
                if bottom & 1 == 1 {
                    return Ok(bytes.rest());
                }
            },
            // A length instead of a type (IEEE 802.3): LLC and SNAP.
            0..0x0600 => match bytes.array("llc")? {
                [0xaa, 0xaa, 0x03, 0, 0, 0] => kind = bytes.u16("ethertype")?,
                _ => return Err(Passed::Other),
            },
            _ => return Err(Passed::Other),
        }
    }
}

/// RFC 1661 section 2, with address and control (RFC 1662 section 3.1) or without.
fn ppp(mut bytes: Reader<'_>) -> Result<&[u8], Passed> {
    let mut protocol = bytes.u16("protocol")?;
    if protocol == 0xff03 {
        protocol = bytes.u16("protocol")?;
    }
    match protocol {
        0x0021 | 0x0057 => Ok(bytes.rest()),
        _ => Err(Passed::Other),
    }
}

const TCP: u8 = 6;

fn ip(datagram: &[u8]) -> Result<Segment<'_>, Passed> {
    let mut bytes = Reader::new(datagram);
    let first = bytes.byte("version")?;
    match first >> 4 {
        4 => ipv4(datagram, first & 0x0f, bytes),
        6 => ipv6(datagram, bytes),
        _ => Err(Passed::Other),
    }
}

/// RFC 791 section 3.1, after the first byte.
fn ipv4<'a>(datagram: &'a [u8], words: u8, mut bytes: Reader<'a>) -> Result<Segment<'a>, Passed> {
    let header = usize::from(words) * 4;
    bytes.take(1, "tos")?;
    let total = usize::from(bytes.u16("total_length")?);
    bytes.take(2, "identification")?;
    let fragment = bytes.u16("fragment_offset")?;
    bytes.take(1, "ttl")?;
    let protocol = bytes.byte("protocol")?;
    bytes.take(2, "checksum")?;
    let from = Ipv4Addr::from(bytes.array::<4>("source")?);
    let to = Ipv4Addr::from(bytes.array::<4>("destination")?);
    if protocol != TCP {
        return Err(Passed::Other);
    }
    // More fragments, or an offset.
    if fragment & 0x3fff != 0 {
        return Err(Passed::Fragment);
    }
    bytes.take(header.checked_sub(20).ok_or(Passed::Malformed)?, "options")?;
    // Zero where the network card was left to cut the segment.
    let total = if total == 0 { datagram.len() } else { total };
    tcp(datagram, total, bytes, (from.into(), to.into()))
}

/// RFC 8200 sections 3 and 4, after the first byte. Extension headers are walked.
fn ipv6<'a>(datagram: &'a [u8], mut bytes: Reader<'a>) -> Result<Segment<'a>, Passed> {
    bytes.take(3, "flow_label")?;
    let length = usize::from(bytes.u16("payload_length")?);
    let mut next = bytes.byte("next_header")?;
    bytes.take(1, "hop_limit")?;
    let from = Ipv6Addr::from(bytes.array::<16>("source")?);
    let to = Ipv6Addr::from(bytes.array::<16>("destination")?);
    loop {
        match next {
            TCP => break,
            // Hop-by-hop options, routing, destination options.
            0 | 43 | 60 => {
                next = bytes.byte("next_header")?;
                let length = bytes.byte("extension_length")?;
                bytes.take(usize::from(length) * 8 + 6, "extension")?;
            }
            // Authentication (RFC 4302 section 2.2) counts in words of four bytes.
            51 => {
                next = bytes.byte("next_header")?;
                let length = bytes.byte("extension_length")?;
                bytes.take(usize::from(length) * 4 + 6, "extension")?;
            }
            44 => {
                next = bytes.byte("next_header")?;
                bytes.take(1, "reserved")?;
                // An atomic fragment (RFC 6946) is whole.
                if bytes.u16("fragment_offset")? & 0xfff9 != 0 {
                    return Err(Passed::Fragment);
                }
                bytes.take(4, "identification")?;
            }
            _ => return Err(Passed::Other),
        }
    }
    let total = if length == 0 { datagram.len() } else { 40 + length };
    tcp(datagram, total, bytes, (from.into(), to.into()))
}

/// `total` is how long the datagram says that it is: Ethernet pads short frames, and a capture may cut long ones.
fn tcp<'a>(datagram: &'a [u8], total: usize, bytes: Reader<'a>, (from, to): (IpAddr, IpAddr)) -> Result<Segment<'a>, Passed> {
    let before = datagram.len() - bytes.len();
    let mut bytes = Reader::new(datagram.get(before..total.min(datagram.len())).ok_or(Passed::Malformed)?);
    let all = bytes.len();
    let from_port = bytes.u16("source")?;
    let to_port = bytes.u16("destination")?;
    let sequence = bytes.array("sequence").map(u32::from_be_bytes)?;
    bytes.take(4, "acknowledgment")?;
    let offset = usize::from(bytes.byte("data_offset")? >> 4) * 4;
    let flags = bytes.byte("flags")?;
    bytes.take(6, "window")?;
    bytes.take(offset.checked_sub(20).ok_or(Passed::Malformed)?, "options")?;
    let headers = datagram.get(..before + all - bytes.len()).ok_or(Passed::Malformed)?;
    Ok(Segment {
        from: SocketAddr::new(from, from_port),
        to: SocketAddr::new(to, to_port),
        sequence,
        syn: flags & 0x02 != 0,
        ack: flags & 0x10 != 0,
        headers,
        payload: bytes.rest(),
        cut: total > datagram.len(),
    })
}

//! Captures to TCP byte streams: pcap and pcapng; Ethernet, loopback, raw IP and Linux "any"; IPv4 and IPv6. Numbers streams as
//! Wireshark does, in order of their first packet.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A connection, or what the capture holds of it.
pub struct Stream {
    /// From 0 in order of the first packet, one count for the file.
    pub index: usize,
    /// The direction of the first packet first.
    pub sides: [Side; 2],
}

/// One direction.
pub struct Side {
    pub from: (IpAddr, u16),
    /// IP and TCP headers of its SYN without ACK.
    pub syn: Option<Vec<u8>>,
    /// Sequence number of the first byte, when a SYN was seen.
    start: Option<u32>,
    /// By sequence number, the first copy of each.
    segments: BTreeMap<i64, Vec<u8>>,
    reference: Option<u32>,
}

/// Every TCP connection of a capture file. `None` when it is not a capture or is cut inside a packet.
pub fn streams(file: &[u8]) -> Option<Vec<Stream>> {
    let mut streams: Vec<Stream> = Vec::new();
    for packet in packets(file)? {
        let Some(segment) = segment(&packet) else { continue };
        let latest = streams.iter_mut().rev().find(|stream| stream.carries(&segment) && !stream.is_reopened_by(&segment));
        match latest {
            Some(stream) => stream.add(segment),
            None => {
                let sides = [segment.from, segment.to].map(Side::new);
                let mut stream = Stream { index: streams.len(), sides };
                stream.add(segment);
                streams.push(stream);
            }
        }
    }
    Some(streams)
}

impl Stream {
    fn carries(&self, segment: &Segment) -> bool {
        let [a, b] = [self.sides[0].from, self.sides[1].from];
        [a, b] == [segment.from, segment.to] || [b, a] == [segment.from, segment.to]
    }

    /// A SYN with another sequence number: the ports are used again.
    fn is_reopened_by(&self, segment: &Segment) -> bool {
        let side = self.sides.iter().find(|side| side.from == segment.from);
        segment.is_first() && side.and_then(|side| side.start).is_some_and(|start| start != segment.sequence.wrapping_add(1))
    }

    fn add(&mut self, segment: Segment) {
        if let Some(side) = self.sides.iter_mut().find(|side| side.from == segment.from) {
            side.add(segment);
        }
    }
}

impl Side {
    fn new(from: (IpAddr, u16)) -> Self {
        Self { from, syn: None, start: None, segments: BTreeMap::new(), reference: None }
    }

    fn add(&mut self, segment: Segment) {
        if segment.syn {
            self.start = Some(segment.sequence.wrapping_add(1));
            if segment.is_first() {
                self.syn = Some(segment.headers);
            }
            return;
        }
        if !segment.payload.is_empty() {
            let reference = *self.reference.get_or_insert(segment.sequence);
            let at = i64::from(segment.sequence.wrapping_sub(reference).cast_signed());
            self.segments.entry(at).or_insert(segment.payload);
        }
    }

    /// What was sent, from the first byte seen up to the first gap.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let Some(reference) = self.reference else { return bytes };
        let first = self.segments.keys().next().copied().unwrap_or(0);
        let mut next = self.start.map_or(first, |start| i64::from(start.wrapping_sub(reference).cast_signed()));
        for (&at, payload) in &self.segments {
            let Ok(known) = usize::try_from(next - at) else { break };
            if let Some(new) = payload.get(known..) {
                bytes.extend_from_slice(new);
                next += i64::try_from(new.len()).unwrap_or(i64::MAX);
            }
        }
        bytes
    }
}

struct Segment {
    from: (IpAddr, u16),
    to: (IpAddr, u16),
    sequence: u32,
    syn: bool,
    ack: bool,
    /// IP and TCP.
    headers: Vec<u8>,
    payload: Vec<u8>,
}

impl Segment {
    const fn is_first(&self) -> bool {
        self.syn && !self.ack
    }
}

/// The TCP segment in a packet; `None` for everything else.
fn segment(packet: &Packet<'_>) -> Option<Segment> {
    let datagram = packet.datagram()?;
    let (source, destination, header, end) = match datagram.first()? >> 4 {
        4 => {
            let header = usize::from(datagram.first()? & 0x0f) * 4;
            let not_first = be16(datagram, 6)? & 0x1fff != 0;
            if *datagram.get(9)? != 6 || not_first {
                return None;
            }
            let address = |at| Some(IpAddr::V4(Ipv4Addr::from(array::<4>(datagram, at)?)));
            // Zero where the network card was left to segment.
            let total = match usize::from(be16(datagram, 2)?) {
                0 => datagram.len(),
                total => total,
            };
            (address(12)?, address(16)?, header, total)
        }
        6 => {
            let mut next = *datagram.get(6)?;
            let mut header = 40;
            while matches!(next, 0 | 43 | 60) {
                next = *datagram.get(header)?;
                header += usize::from(*datagram.get(header + 1)?) * 8 + 8;
            }
            if next != 6 {
                return None;
            }
            let address = |at| Some(IpAddr::V6(Ipv6Addr::from(array::<16>(datagram, at)?)));
            (address(8)?, address(24)?, header, 40 + usize::from(be16(datagram, 4)?))
        }
        _ => return None,
    };
    // Ethernet pads short frames.
    let tcp = datagram.get(header..end.min(datagram.len()))?;
    let data = usize::from(tcp.get(12)? >> 4) * 4;
    let flags = *tcp.get(13)?;
    Some(Segment {
        from: (source, be16(tcp, 0)?),
        to: (destination, be16(tcp, 2)?),
        sequence: u32::from_be_bytes(array(tcp, 4)?),
        syn: flags & 0x02 != 0,
        ack: flags & 0x10 != 0,
        headers: datagram.get(..header + data)?.to_vec(),
        payload: tcp.get(data..)?.to_vec(),
    })
}

struct Packet<'a> {
    link: u32,
    bytes: &'a [u8],
}

impl<'a> Packet<'a> {
    /// The IP datagram inside the link's frame (<https://www.tcpdump.org/linktypes.html>).
    fn datagram(&self) -> Option<&'a [u8]> {
        match self.link {
            // Loopback: the address family in the byte order of the machine that captured; IP says its version itself.
            0 => self.bytes.get(4..),
            1 => {
                let mut at = 12;
                while matches!(be16(self.bytes, at)?, 0x8100 | 0x88a8) {
                    at += 4;
                }
                matches!(be16(self.bytes, at)?, 0x0800 | 0x86dd).then(|| self.bytes.get(at + 2..))?
            }
            101 => Some(self.bytes),
            113 => self.bytes.get(16..),
            276 => self.bytes.get(20..),
            _ => None,
        }
    }
}

fn packets(file: &[u8]) -> Option<Vec<Packet<'_>>> {
    match array::<4>(file, 0)? {
        [0xd4, 0xc3, 0xb2, 0xa1] | [0x4d, 0x3c, 0xb2, 0xa1] => pcap(file, u32::from_le_bytes),
        [0xa1, 0xb2, 0xc3, 0xd4] | [0xa1, 0xb2, 0x3c, 0x4d] => pcap(file, u32::from_be_bytes),
        [0x0a, 0x0d, 0x0d, 0x0a] => pcapng(file),
        _ => None,
    }
}

/// draft-ietf-opsawg-pcap.
fn pcap(file: &[u8], number: fn([u8; 4]) -> u32) -> Option<Vec<Packet<'_>>> {
    let link = number(array(file, 20)?) & 0x0fff_ffff;
    let mut left = file.get(24..)?;
    let mut packets = Vec::new();
    while !left.is_empty() {
        let (bytes, after) = left.get(16..)?.split_at_checked(number(array(left, 8)?) as usize)?;
        packets.push(Packet { link, bytes });
        left = after;
    }
    Some(packets)
}

/// draft-ietf-opsawg-pcapng: section header, interface description, enhanced and simple packet; other blocks are passed over.
fn pcapng(file: &[u8]) -> Option<Vec<Packet<'_>>> {
    let mut number: fn([u8; 4]) -> u32 = u32::from_le_bytes;
    let mut links = Vec::new();
    let mut packets = Vec::new();
    let mut left = file;
    while !left.is_empty() {
        if array(left, 0)? == [0x0a, 0x0d, 0x0d, 0x0a] {
            number = if array(left, 8)? == [0x1a, 0x2b, 0x3c, 0x4d] { u32::from_be_bytes } else { u32::from_le_bytes };
            links.clear();
        }
        let at = |offset| array(left, offset).map(number);
        let length = at(4)? as usize;
        // The type and two lengths; a shorter one would never end.
        if length < 12 {
            return None;
        }
        match at(0)? {
            // Link type and a reserved half, in the section's order: big-endian puts it in the upper half.
            1 => links.push(if number([1, 0, 0, 0]) == 1 { at(8)? & 0xffff } else { at(8)? >> 16 }),
            6 => packets.push(Packet { link: *links.get(at(8)? as usize)?, bytes: left.get(28..)?.get(..at(20)? as usize)? }),
            3 => packets.push(Packet { link: *links.first()?, bytes: left.get(12..length - 4)? }),
            _ => {}
        }
        left = left.get(length..)?;
    }
    Some(packets)
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    array(bytes, at).map(u16::from_be_bytes)
}

//! Packets and captures made by hand.

use std::net::{IpAddr, SocketAddr};

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const PSH: u8 = 0x08;
pub const ACK: u8 = 0x10;

/// What a system puts in its SYN, beside the ports.
#[derive(Clone, Copy, Debug)]
pub struct System {
    pub ttl: u8,
    pub window: u16,
    /// TCP options, a multiple of four bytes.
    pub options: &'static [u8],
}

pub const WINDOWS: System = System { ttl: 128, window: 64240, options: &[2, 4, 5, 0xb4, 1, 3, 3, 8, 1, 1, 4, 2] };
pub const APPLE: System =
    System { ttl: 64, window: 65535, options: &[2, 4, 5, 0xb4, 1, 3, 3, 6, 1, 1, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 4, 2, 0, 0] };
pub const LINUX: System = System { ttl: 64, window: 64240, options: &[2, 4, 5, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7] };
pub const ANDROID: System = System { ttl: 64, window: 65535, options: &[2, 4, 5, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 9] };

/// A TCP segment in an IP datagram.
#[derive(Clone, Debug)]
pub struct Packet {
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub sequence: u32,
    pub acknowledges: u32,
    pub flags: u8,
    pub system: System,
    pub payload: Vec<u8>,
}

impl Packet {
    pub fn new(from: SocketAddr, to: SocketAddr, sequence: u32) -> Self {
        let system = System { options: &[], ..LINUX };
        Self { from, to, sequence, acknowledges: 0, flags: ACK, system, payload: Vec::new() }
    }

    pub fn syn(from: SocketAddr, to: SocketAddr, sequence: u32, system: System) -> Self {
        Self { flags: SYN, system, ..Self::new(from, to, sequence) }
    }

    pub fn with(mut self, payload: &[u8]) -> Self {
        self.payload = payload.to_vec();
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.bytes_with(&[], &[])
    }

    /// With IPv4 options, or IPv6 extension headers of which the last says that TCP follows; `first` is the type of the first.
    pub fn bytes_with(&self, extra: &[u8], first: &[u8]) -> Vec<u8> {
        let mut tcp = Vec::new();
        tcp.extend(self.from.port().to_be_bytes());
        tcp.extend(self.to.port().to_be_bytes());
        tcp.extend(self.sequence.to_be_bytes());
        tcp.extend(self.acknowledges.to_be_bytes());
        tcp.push(u8::try_from((20 + self.system.options.len()) / 4).unwrap() << 4);
        tcp.push(self.flags);
        tcp.extend(self.system.window.to_be_bytes());
        tcp.extend([0; 4]);
        tcp.extend(self.system.options);
        tcp.extend(&self.payload);
        let length = u16::try_from(tcp.len()).unwrap();
        let (mut pseudo, header) = match (self.from.ip(), self.to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let words = u8::try_from(5 + extra.len() / 4).unwrap();
                let total = u16::try_from(20 + extra.len()).unwrap() + length;
                let mut header = vec![0x40 | words, 0];
                header.extend(total.to_be_bytes());
                header.extend([0x12, 0x34, 0x40, 0, self.system.ttl, 6, 0, 0]);
                header.extend(from.octets());
                header.extend(to.octets());
                header.extend(extra);
                let sum = checksum(&header).to_be_bytes();
                header[10..12].copy_from_slice(&sum);
                ([&from.octets()[..], &to.octets(), &[0, 6], &length.to_be_bytes()].concat(), header)
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let mut header = vec![0x60, 0, 0, 0];
                header.extend((length + u16::try_from(extra.len()).unwrap()).to_be_bytes());
                header.extend([first.first().copied().unwrap_or(6), self.system.ttl]);
                header.extend(from.octets());
                header.extend(to.octets());
                header.extend(extra);
                ([&from.octets()[..], &to.octets(), &u32::from(length).to_be_bytes(), &[0, 0, 0, 6]].concat(), header)
            }
            _ => panic!("two families in one packet"),
        };
        pseudo.extend(&tcp);
        let sum = checksum(&pseudo).to_be_bytes();
        tcp[16..18].copy_from_slice(&sum);
        [header, tcp].concat()
    }
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}

/// A client's side of a connection: its SYN, then `stream` in segments as long as `size` says.
pub fn client(from: SocketAddr, to: SocketAddr, system: System, isn: u32, stream: &[u8], mut size: impl FnMut() -> usize) -> Vec<Packet> {
    let mut packets = vec![Packet::syn(from, to, isn, system)];
    let mut at = 0;
    while at < stream.len() {
        let end = (at + size().max(1)).min(stream.len());
        let sequence = isn.wrapping_add(1).wrapping_add(u32::try_from(at).unwrap());
        packets.push(Packet { system: System { options: &[], ..system }, ..Packet::new(from, to, sequence) }.with(&stream[at..end]));
        at = end;
    }
    packets
}

/// A handshake message in TLS records of at most `size` bytes.
pub fn records(message: &[u8], size: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for fragment in message.chunks(size.min(1 << 14)) {
        out.extend([22, 3, 1]);
        out.extend(u16::try_from(fragment.len()).unwrap().to_be_bytes());
        out.extend(fragment);
    }
    out
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Little,
    Big,
}

impl Order {
    pub fn u16(self, value: u16) -> [u8; 2] {
        if self == Self::Little { value.to_le_bytes() } else { value.to_be_bytes() }
    }

    pub fn u32(self, value: u32) -> [u8; 4] {
        if self == Self::Little { value.to_le_bytes() } else { value.to_be_bytes() }
    }
}

/// A pcap file of frames, a second apart from 2024-05-06 07:08:09.25 on.
pub fn pcap(order: Order, nanos: bool, link: u32, frames: &[Vec<u8>]) -> Vec<u8> {
    let magic = if nanos { 0xa1b2_3c4d } else { 0xa1b2_c3d4 };
    let mut file = order.u32(magic).to_vec();
    file.extend([order.u16(2), order.u16(4)].concat());
    file.extend([order.u32(0), order.u32(0), order.u32(262_144), order.u32(link)].concat());
    for (nth, frame) in frames.iter().enumerate() {
        let length = u32::try_from(frame.len()).unwrap();
        let part = if nanos { 250_000_001 } else { 250_000 };
        file.extend([order.u32(TIME + u32::try_from(nth).unwrap()), order.u32(part), order.u32(length), order.u32(length)].concat());
        file.extend(frame);
    }
    file
}

pub const TIME: u32 = 1_714_979_289;

/// A block of pcapng with its two lengths.
pub fn block(order: Order, kind: u32, body: &[u8]) -> Vec<u8> {
    let mut padded = body.to_vec();
    padded.resize(body.len().next_multiple_of(4), 0);
    let length = order.u32(u32::try_from(12 + padded.len()).unwrap());
    [&order.u32(kind)[..], &length, &padded, &length].concat()
}

pub fn section(order: Order) -> Vec<u8> {
    block(order, 0x0a0d_0d0a, &[&order.u32(0x1a2b_3c4d)[..], &order.u16(1), &order.u16(0), &[0xff; 8]].concat())
}

/// `options` as code and value.
pub fn interface(order: Order, link: u16, snap: u32, options: &[(u16, &[u8])]) -> Vec<u8> {
    let mut body = [&order.u16(link)[..], &[0, 0], &order.u32(snap)].concat();
    for (code, value) in options {
        body.extend([order.u16(*code), order.u16(u16::try_from(value.len()).unwrap())].concat());
        body.extend(*value);
        body.resize(body.len().next_multiple_of(4), 0);
    }
    if !options.is_empty() {
        body.extend([0; 4]);
    }
    block(order, 1, &body)
}

/// `time` in the units of its interface.
pub fn enhanced(order: Order, interface: u32, time: u64, frame: &[u8]) -> Vec<u8> {
    let length = u32::try_from(frame.len()).unwrap();
    let (high, low) = (u32::try_from(time >> 32).unwrap(), u32::try_from(time & 0xffff_ffff).unwrap());
    let head = [order.u32(interface), order.u32(high), order.u32(low), order.u32(length), order.u32(length)].concat();
    block(order, 6, &[&head[..], frame].concat())
}

pub fn simple(order: Order, original: u32, frame: &[u8]) -> Vec<u8> {
    block(order, 3, &[&order.u32(original)[..], frame].concat())
}

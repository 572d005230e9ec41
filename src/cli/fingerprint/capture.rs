//! Capture files to packets: pcap (draft-ietf-opsawg-pcap) and pcapng (draft-ietf-opsawg-pcapng).
//!
//! Read as the bytes come, so that a pipe from tcpdump works as a file does, and one packet is held at a time.

use std::fmt;
use std::io::{self, Read};

use jiff::Timestamp;

use crate::fingerprint::Malformed;
use crate::fingerprint::reader::Reader;

/// A packet as it was captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// <https://www.tcpdump.org/linktypes.html>
    pub link: u16,
    /// `None` where the format has none (a simple packet block) or the time cannot be.
    pub time: Option<Timestamp>,
    /// From the link's header on, at most as many as the capture's snap length.
    pub bytes: &'a [u8],
}

/// Why a capture cannot be read on. `at` counts bytes from the start of the file.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    #[error("not a capture: it begins with {found}, expected pcap or pcapng{hint}")]
    NotCapture { found: Bytes, hint: &'static str },
    #[error("byte {at}: {what}")]
    Malformed { at: u64, what: String },
    #[error("byte {at}: the file ends inside {what}: found {found} of {expected} bytes")]
    Truncated { at: u64, what: &'static str, found: usize, expected: usize },
    #[error("byte {at}: cannot read on: {source}")]
    Unreadable { at: u64, source: io::Error },
}

/// The first bytes of a file, in hex.
#[derive(Debug)]
pub struct Bytes([u8; 4], usize);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.1 == 0 {
            return f.write_str("nothing: it is empty");
        }
        self.0.iter().take(self.1).enumerate().try_for_each(|(n, byte)| write!(f, "{}{byte:02x}", if n == 0 { "" } else { " " }))
    }
}

/// tcpdump writes at most 256 KiB a packet. More than this is not held.
const LONGEST: usize = 16 << 20;
const MOST_INTERFACES: usize = 1 << 16;

#[derive(Debug)]
pub struct Capture<R> {
    input: Input<R>,
    format: Format,
    block: Vec<u8>,
}

#[derive(Debug)]
enum Format {
    Pcap { order: Order, link: u16, per_second: u64 },
    Pcapng { order: Order, interfaces: Vec<Interface> },
}

/// The byte order of the machine that captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Little,
    Big,
}

impl Order {
    fn u16(self, bytes: &mut Reader<'_>, field: &'static str) -> Result<u16, Malformed> {
        bytes.array(field).map(if self == Self::Little { u16::from_le_bytes } else { u16::from_be_bytes })
    }

    fn u32(self, bytes: &mut Reader<'_>, field: &'static str) -> Result<u32, Malformed> {
        bytes.array(field).map(if self == Self::Little { u32::from_le_bytes } else { u32::from_be_bytes })
    }

    fn u64(self, bytes: &mut Reader<'_>, field: &'static str) -> Result<u64, Malformed> {
        bytes.array(field).map(if self == Self::Little { u64::from_le_bytes } else { u64::from_be_bytes })
    }

    fn length(self, bytes: &mut Reader<'_>, field: &'static str) -> Result<usize, Malformed> {
        self.u32(bytes, field).and_then(|length| usize::try_from(length).map_err(|_| Malformed(field)))
    }
}

#[derive(Clone, Copy, Debug)]
struct Interface {
    link: u16,
    /// 0: no limit.
    snap: usize,
    per_second: Option<u64>,
    offset: i64,
}

impl<R: Read> Capture<R> {
    /// Reads the file's head.
    ///
    /// # Errors
    /// When it is no capture.
    pub fn open(input: R) -> Result<Self, Broken> {
        let mut input = Input { inner: input, at: 0 };
        let mut magic = [0; 4];
        let found = input.fill(&mut magic)?;
        let format = match magic {
            [0xd4, 0xc3, 0xb2, 0xa1] => pcap(&mut input, Order::Little, 1_000_000)?,
            [0xa1, 0xb2, 0xc3, 0xd4] => pcap(&mut input, Order::Big, 1_000_000)?,
            [0x4d, 0x3c, 0xb2, 0xa1] => pcap(&mut input, Order::Little, 1_000_000_000)?,
            [0xa1, 0xb2, 0x3c, 0x4d] => pcap(&mut input, Order::Big, 1_000_000_000)?,
            SECTION => Format::Pcapng { order: section(&mut input)?, interfaces: Vec::new() },
            [0x1f, 0x8b, ..] => return Err(Broken::NotCapture { found: Bytes(magic, found), hint: "; it is compressed: gunzip it first" }),
            [0x28, 0xb5, 0x2f, 0xfd] => {
                return Err(Broken::NotCapture { found: Bytes(magic, found), hint: "; it is compressed: unzstd it first" });
            }
            _ => return Err(Broken::NotCapture { found: Bytes(magic, found), hint: "" }),
        };
        Ok(Self { input, format, block: Vec::new() })
    }

    /// The next packet; `None` at the file's end. After an error there is no way on.
    ///
    /// # Errors
    /// What is not as its format says, and a file that ends inside a packet.
    pub fn packet(&mut self) -> Result<Option<Packet<'_>>, Broken> {
        match &mut self.format {
            Format::Pcap { order, link, per_second } => {
                let (order, link, per_second) = (*order, *link, *per_second);
                next_record(&mut self.input, &mut self.block, order)
                    .map(|record| record.map(|(time, bytes)| Packet { link, time: stamp(time, per_second), bytes }))
            }
            Format::Pcapng { order, interfaces } => next_block(&mut self.input, &mut self.block, order, interfaces),
        }
    }
}

/// The rest of a pcap file's header.
fn pcap<R: Read>(input: &mut Input<R>, order: Order, per_second: u64) -> Result<Format, Broken> {
    let mut header = [0; 20];
    input.whole(&mut header, "the file header")?;
    let mut header = Reader::new(&header);
    let (major, link) = (|| {
        let major = order.u16(&mut header, "version")?;
        header.take(14, "snap length")?;
        Ok((major, order.u32(&mut header, "link type")?))
    })()
    .map_err(|Malformed(what)| input.malformed(what))?;
    if major != 2 {
        return Err(input.malformed(format!("found pcap version {major}, expected 2")));
    }
    // The upper half says how long the link's checksum is: behind the packet, where it is not looked at.
    let link = u16::try_from(link & 0xffff).unwrap_or_default();
    Ok(Format::Pcap { order, link, per_second })
}

type Stamped<'a> = ((u64, u64), &'a [u8]);

fn next_record<'a, R: Read>(input: &mut Input<R>, block: &'a mut Vec<u8>, order: Order) -> Result<Option<Stamped<'a>>, Broken> {
    let mut header = [0; 16];
    let at = input.at;
    match input.fill(&mut header)? {
        0 => return Ok(None),
        16 => {}
        found => return Err(Broken::Truncated { at, what: "a packet's header", found, expected: 16 }),
    }
    let mut header = Reader::new(&header);
    let (seconds, part, length) = (|| Ok((order.u32(&mut header, "")?, order.u32(&mut header, "")?, order.length(&mut header, "")?)))()
        .map_err(|Malformed(what)| input.malformed(what))?;
    if length > LONGEST {
        return Err(Broken::Malformed { at, what: format!("found a packet of {length} bytes, expected at most {LONGEST}") });
    }
    input.block(block, length, "a packet")?;
    Ok(Some(((u64::from(seconds), u64::from(part)), block)))
}

const SECTION: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

/// The rest of a section header block after its type: what it says is the order of all that follows.
fn section<R: Read>(input: &mut Input<R>) -> Result<Order, Broken> {
    let at = input.at - 4;
    let mut head = [0; 12];
    input.whole(&mut head, "a section header")?;
    let mut head = Reader::new(&head);
    let parsed: Result<_, Malformed> = (|| {
        let length: [u8; 4] = head.array("block length")?;
        let order = match head.array("byte order")? {
            [0x4d, 0x3c, 0x2b, 0x1a] => Order::Little,
            [0x1a, 0x2b, 0x3c, 0x4d] => Order::Big,
            _ => return Err(Malformed("byte-order magic of the section")),
        };
        let length = order.length(&mut Reader::new(&length), "block length")?;
        Ok((order, length, order.u16(&mut head, "version")?))
    })();
    let (order, length, major) = parsed.map_err(|Malformed(what)| Broken::Malformed { at, what: format!("malformed {what}") })?;
    if major != 1 {
        return Err(Broken::Malformed { at, what: format!("found pcapng version {major}, expected 1") });
    }
    if length < 28 || !length.is_multiple_of(4) {
        return Err(Broken::Malformed {
            at,
            what: format!("found a section header of {length} bytes, expected 28 or more, a multiple of 4"),
        });
    }
    // Type, length, magic and version have been read.
    input.skip(length - 16, "a section header")?;
    Ok(order)
}

fn next_block<'a, R: Read>(
    input: &mut Input<R>,
    block: &'a mut Vec<u8>,
    order: &mut Order,
    interfaces: &mut Vec<Interface>,
) -> Result<Option<Packet<'a>>, Broken> {
    loop {
        let at = input.at;
        let mut head = [0; 4];
        match input.fill(&mut head)? {
            0 => return Ok(None),
            4 => {}
            found => return Err(Broken::Truncated { at, what: "a block's type", found, expected: 4 }),
        }
        if head == SECTION {
            *order = section(input)?;
            interfaces.clear();
            continue;
        }
        let kind = order.u32(&mut Reader::new(&head), "").unwrap_or_default();
        input.whole(&mut head, "a block's length")?;
        let length = order.length(&mut Reader::new(&head), "").unwrap_or_default();
        if length < 12 || !length.is_multiple_of(4) {
            let what = format!("found a block of {length} bytes, expected 12 or more, a multiple of 4");
            return Err(Broken::Malformed { at, what });
        }
        let inside = length - 12;
        if !matches!(kind, INTERFACE | PACKET | SIMPLE | ENHANCED) {
            input.skip(inside + 4, "a block")?;
            continue;
        }
        if length > LONGEST {
            return Err(Broken::Malformed { at, what: format!("found a block of {length} bytes, expected at most {LONGEST}") });
        }
        input.block(block, inside, "a block")?;
        input.whole(&mut head, "a block's end")?;
        if order.length(&mut Reader::new(&head), "").ok() != Some(length) {
            return Err(Broken::Malformed { at, what: "a block says two lengths, one at each end".to_owned() });
        }
        let malformed = |Malformed(what)| Broken::Malformed { at, what: format!("malformed {what}") };
        if kind == INTERFACE {
            if interfaces.len() == MOST_INTERFACES {
                return Err(Broken::Malformed { at, what: format!("found more than {MOST_INTERFACES} interfaces in a section") });
            }
            interfaces.push(interface(block, *order).map_err(malformed)?);
            continue;
        }
        // Read anew from the buffer in the one place where it is given away.
        return packet(block, kind, *order, interfaces).map(Some).map_err(malformed);
    }
}

const INTERFACE: u32 = 1;
/// Obsolete, and still written by old programs.
const PACKET: u32 = 2;
const SIMPLE: u32 = 3;
const ENHANCED: u32 = 6;

fn interface(block: &[u8], order: Order) -> Result<Interface, Malformed> {
    let mut body = Reader::new(block);
    let link = order.u16(&mut body, "link type")?;
    body.take(2, "interface")?;
    let snap = order.length(&mut body, "snap length")?;
    let mut interface = Interface { link, snap, per_second: Some(1_000_000), offset: 0 };
    while !body.is_empty() {
        let code = order.u16(&mut body, "option")?;
        let length = usize::from(order.u16(&mut body, "option length")?);
        let mut value = Reader::new(body.take(length, "option")?);
        // Padded to 32 bits.
        body.up_to(length.wrapping_neg() & 3);
        match code {
            0 => break,
            9 => interface.per_second = resolution(value.byte("if_tsresol")?),
            14 => interface.offset = order.u64(&mut value, "if_tsoffset")?.cast_signed(),
            _ => {}
        }
    }
    Ok(interface)
}

/// Units a second: a negative power of 10, or of 2 where the highest bit is set.
fn resolution(code: u8) -> Option<u64> {
    let power = u32::from(code & 0x7f);
    if code & 0x80 == 0 { 10_u64.checked_pow(power) } else { 1_u64.checked_shl(power) }
}

fn packet<'a>(block: &'a [u8], kind: u32, order: Order, interfaces: &[Interface]) -> Result<Packet<'a>, Malformed> {
    let mut body = Reader::new(block);
    let nth = match kind {
        SIMPLE => 0,
        PACKET => {
            let nth = order.u16(&mut body, "interface id")?;
            body.take(2, "drops count")?;
            usize::from(nth)
        }
        _ => order.length(&mut body, "interface id")?,
    };
    let interface = interfaces.get(nth).ok_or(Malformed("interface id: no interface of that number was described"))?;
    if kind == SIMPLE {
        let original = order.length(&mut body, "original length")?;
        let length = if interface.snap == 0 { original } else { original.min(interface.snap) };
        return Ok(Packet { link: interface.link, time: None, bytes: body.take(length, "packet length")? });
    }
    let high = order.u32(&mut body, "time")?;
    let low = order.u32(&mut body, "time")?;
    let length = order.length(&mut body, "packet length")?;
    body.take(4, "original length")?;
    let units = u64::from(high) << 32 | u64::from(low);
    let time = interface.per_second.and_then(|per_second| {
        let seconds = (units / per_second).checked_add_signed(interface.offset)?;
        stamp((seconds, units % per_second), per_second)
    });
    Ok(Packet { link: interface.link, time, bytes: body.take(length, "packet length")? })
}

/// `part` of a second, in units of which one has `per_second`.
fn stamp((seconds, part): (u64, u64), per_second: u64) -> Option<Timestamp> {
    let nanos = u128::from(part) * 1_000_000_000 / u128::from(per_second.max(1));
    Timestamp::new(i64::try_from(seconds).ok()?, i32::try_from(nanos).ok()?).ok()
}

#[derive(Debug)]
struct Input<R> {
    inner: R,
    at: u64,
}

impl<R: Read> Input<R> {
    fn malformed(&self, what: impl Into<String>) -> Broken {
        Broken::Malformed { at: self.at, what: what.into() }
    }

    /// Fills the buffer, or as much of it as the input still has.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, Broken> {
        let mut found = 0;
        while let Some(rest) = buffer.get_mut(found..).filter(|rest| !rest.is_empty()) {
            match self.inner.read(rest) {
                Ok(0) => break,
                Ok(count) => {
                    found += count;
                    self.at += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(Broken::Unreadable { at: self.at, source }),
            }
        }
        Ok(found)
    }

    fn whole(&mut self, buffer: &mut [u8], what: &'static str) -> Result<(), Broken> {
        let (at, expected) = (self.at, buffer.len());
        let found = self.fill(buffer)?;
        if found == expected { Ok(()) } else { Err(Broken::Truncated { at, what, found, expected }) }
    }

    /// Only as much memory as there are bytes: a length is a peer's word.
    fn block(&mut self, block: &mut Vec<u8>, length: usize, what: &'static str) -> Result<(), Broken> {
        block.clear();
        let at = self.at;
        let found = (&mut self.inner).take(length as u64).read_to_end(block).map_err(|source| Broken::Unreadable { at, source })?;
        self.at += found as u64;
        if found == length { Ok(()) } else { Err(Broken::Truncated { at, what, found, expected: length }) }
    }

    fn skip(&mut self, length: usize, what: &'static str) -> Result<(), Broken> {
        let at = self.at;
        let copied = io::copy(&mut (&mut self.inner).take(length as u64), &mut io::sink());
        let found = copied.map_err(|source| Broken::Unreadable { at, source })?;
        self.at += found;
        let found = usize::try_from(found).unwrap_or(usize::MAX);
        if found == length { Ok(()) } else { Err(Broken::Truncated { at, what, found, expected: length }) }
    }
}

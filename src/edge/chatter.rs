//! HTTP/2 frames as they come, below h2: those that ask for nothing, and what h2 leaves to whoever uses it.
//!
//! A frame that asks for nothing costs its sender nine bytes and us a look, an answer or an entry in a queue; a client that means well sends few of
//! them beside its requests (CVE-2019-9512 PING, -9515 SETTINGS, CVE-2023-44487 RST_STREAM).

use std::time::Instant;

/// A budget that requests, time and answers fill, and such frames use up.
#[derive(Debug)]
pub struct Chatter {
    left: u32,
    filled: Instant,
    /// Bytes written since the last that counted.
    written: usize,
    /// The highest stream that the client has opened. `None` until its first frame, which must be SETTINGS.
    opened: Option<u32>,
    at: At,
}

/// Why a connection is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    Flood,
    /// The length of a frame is one that its type cannot have.
    FrameSize,
    Protocol,
}

impl Broken {
    /// The GOAWAY to end with (RFC 9113 sections 6.8 and 7). What was processed is not known here: nobody may take it that nothing was.
    pub const fn goaway(self) -> [u8; 17] {
        let code = match self {
            Self::Protocol => 1,
            Self::FrameSize => 6,
            Self::Flood => 11,
        };
        [0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, code]
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Flood => "h2_flood",
            Self::FrameSize | Self::Protocol => "malformed",
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum At {
    /// Bytes of the client's preface still to come.
    Preface(u32),
    /// The first bytes of a frame's head.
    Head {
        bytes: [u8; HEAD],
        have: usize,
    },
    Payload(u32),
    /// The first bytes of a second head on a stream, of which `left` are to come.
    Trailers {
        bytes: [u8; HEAD],
        have: usize,
        left: u32,
        flags: u8,
    },
}

/// RFC 9113 section 4.1.
const HEAD: usize = 9;
const SETTINGS: u8 = 4;
const ACK: u8 = 1;
/// `PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n`
const PREFACE: u32 = 24;
const BURST: u32 = 20_000;
const PER_SECOND: u32 = 2_000;
/// A stream's own share: a client may acknowledge each small answer, or set a priority for each request.
const PER_REQUEST: u32 = 4;
/// A client that takes an answer in small parts says so for each part.
const BYTES: usize = 256;

impl Chatter {
    pub fn new(now: Instant) -> Self {
        Self { left: BURST, filled: now, written: 0, opened: None, at: At::Preface(PREFACE) }
    }

    pub fn wrote(&mut self, bytes: usize) {
        let bytes = self.written.saturating_add(bytes);
        self.written = bytes % BYTES;
        self.fill(u32::try_from(bytes / BYTES).unwrap_or(BURST));
    }

    /// Looks at bytes just read, each once and in order.
    ///
    /// # Errors
    /// When the connection is to end.
    pub fn read(&mut self, bytes: &[u8], now: Instant) -> Result<(), Broken> {
        let mut rest = bytes;
        while !rest.is_empty() {
            match &mut self.at {
                At::Preface(left) | At::Payload(left) => {
                    let taken = rest.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    rest = rest.get(taken..).unwrap_or_default();
                    *left = left.saturating_sub(u32::try_from(taken).unwrap_or(u32::MAX));
                    if *left == 0 {
                        self.at = At::Head { bytes: [0; HEAD], have: 0 };
                    }
                }
                At::Head { bytes, have } => {
                    let taken = take(bytes, have, rest);
                    rest = rest.get(taken..).unwrap_or_default();
                    if *have == HEAD {
                        let head = *bytes;
                        self.frame(head, now)?;
                    }
                }
                At::Trailers { bytes, have, left, flags } => {
                    let most = usize::try_from(*left).unwrap_or(usize::MAX);
                    let taken = take(bytes, have, rest.get(..most).unwrap_or(rest));
                    rest = rest.get(taken..).unwrap_or_default();
                    *left = left.saturating_sub(u32::try_from(taken).unwrap_or(u32::MAX));
                    if *have == HEAD || *left == 0 {
                        if begins_with_pseudo(bytes.get(..*have).unwrap_or_default(), *flags) {
                            return Err(Broken::Protocol);
                        }
                        self.at = behind_head(*left);
                    }
                }
            }
        }
        Ok(())
    }

    fn frame(&mut self, [a, b, c, kind, flags, d, e, f, g]: [u8; HEAD], now: Instant) -> Result<(), Broken> {
        let length = u32::from_be_bytes([0, a, b, c]);
        self.at = behind_head(length);
        // RFC 9113 section 3.4. h2 takes any frame first.
        let Some(opened) = self.opened else {
            self.opened = Some(0);
            return if kind == SETTINGS && flags & ACK == 0 && length.is_multiple_of(6) { Ok(()) } else { Err(Broken::Protocol) };
        };
        let cost = match kind {
            // h2 has a budget of its own for these, and knows which of them wait to be read.
            0x0 => return Ok(()),
            0x1 => {
                self.fill(PER_REQUEST);
                let stream = u32::from_be_bytes([d & 0x7f, e, f, g]);
                if stream > opened {
                    self.opened = Some(stream);
                } else if length > 0 {
                    self.at = At::Trailers { bytes: [0; HEAD], have: 0, left: length, flags };
                }
                return Ok(());
            }
            // Work was begun for it, and is thrown away.
            0x3 => 20,
            // Answered, after it changed how everything is sent.
            SETTINGS => 10,
            _ => 1,
        };
        // h2 ends the connection as well, but for another reason than these have.
        let fits = match kind {
            0x2 => length == 5,
            0x3 | 0x8 => length == 4,
            SETTINGS if flags & ACK != 0 => length == 0,
            SETTINGS => length.is_multiple_of(6),
            0x6 => length == 8,
            0x7 => length >= 8,
            _ => true,
        };
        if !fits {
            return Err(Broken::FrameSize);
        }
        if self.left < cost {
            let passed = now.saturating_duration_since(self.filled);
            let earned = passed.as_millis().saturating_mul(u128::from(PER_SECOND)) / 1000;
            self.filled = now;
            self.fill(u32::try_from(earned).unwrap_or(BURST));
        }
        self.left = self.left.checked_sub(cost).ok_or(Broken::Flood)?;
        Ok(())
    }

    fn fill(&mut self, tokens: u32) {
        self.left = self.left.saturating_add(tokens).min(BURST);
    }
}

/// Fills `slots` from `have` on; how many bytes were taken.
fn take(slots: &mut [u8; HEAD], have: &mut usize, from: &[u8]) -> usize {
    for (slot, byte) in slots.iter_mut().skip(*have).zip(from) {
        *slot = *byte;
    }
    let taken = from.len().min(HEAD - *have);
    *have += taken;
    taken
}

fn behind_head(length: u32) -> At {
    if length == 0 { At::Head { bytes: [0; HEAD], have: 0 } } else { At::Payload(length) }
}

/// Whether trailers begin with a pseudo-field, as far as their first bytes say (RFC 9113 section 8.1). h2 refuses one that comes later, and drops
/// one at the start as if it had not come. `flags` are the frame's.
fn begins_with_pseudo(payload: &[u8], flags: u8) -> bool {
    let skipped = usize::from(flags & 0x8 != 0) + if flags & 0x20 != 0 { 5 } else { 0 };
    match payload.get(skipped..).unwrap_or_default() {
        // RFC 7541 appendix A: the first 14 of the static table, as a whole or as a name.
        [0x81..=0x8e | 0x41..=0x4e | 0x01..=0x0e | 0x11..=0x1e, ..] => true,
        // A name of its own; a colon is 0x5c in seven bits of Huffman code.
        [0x40 | 0x00 | 0x10, length, first, ..] => {
            if length & 0x80 == 0 {
                *first == b':'
            } else {
                first >> 1 == 0x5c
            }
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn begun() -> (Chatter, Instant) {
        let now = Instant::now();
        let mut chatter = Chatter::new(now);
        chatter.read(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", now).unwrap();
        (chatter, now)
    }

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        [&[0, 0, u8::try_from(payload.len()).unwrap(), kind, flags, 0, 0, 0, 1], payload].concat()
    }

    fn until_refused(chatter: &mut Chatter, now: Instant, frame: &[u8]) -> usize {
        (0..100_000).take_while(|_| chatter.read(frame, now).is_ok()).count()
    }

    #[test]
    fn a_flood_is_refused_wherever_its_bytes_are_cut() {
        let ping = frame(6, 0, b"12345678");
        for size in [1, 4, 9, 17, 1000] {
            let (mut chatter, now) = begun();
            assert!(ping.repeat(BURST as usize).chunks(size).all(|part| chatter.read(part, now).is_ok()), "{size}");
            assert_eq!(chatter.read(&ping, now), Err(Broken::Flood), "{size}");
        }
    }

    #[test]
    fn resets_and_settings_weigh_more() {
        let light = [(2, 5), (6, 8), (8, 4), (9, 0), (0x10, 7), (0xbe, 0)].map(|(kind, length)| (kind, length, 20_000));
        for (kind, length, most) in [(3, 4, 1000), (4, 0, 2000)].into_iter().chain(light) {
            let (mut chatter, now) = begun();
            assert_eq!(until_refused(&mut chatter, now, &frame(kind, 0, &vec![0; length])), most, "{kind}");
        }
    }

    #[test]
    fn requests_bodies_time_and_answers_are_no_flood() {
        let (mut chatter, now) = begun();
        let get = frame(1, 5, b"head");
        let update = frame(8, 0, &[0, 0, 0, 9]);
        let request = [&get[..], &update, &update, &frame(0, 0, &[0; 100]), &frame(0, 1, b"x")].concat();
        assert_eq!(until_refused(&mut chatter, now, &request), 100_000);
        let mut later = now;
        for _ in 0..50 {
            later += Duration::from_secs(1);
            assert_eq!(until_refused(&mut chatter, later, &update).min(2000), 2000);
        }
        for _ in 0..50_000 {
            chatter.wrote(300);
            chatter.read(&update, later).unwrap();
        }
    }

    #[test]
    fn settings_come_first_wherever_the_bytes_are_cut() {
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        for first in [frame(6, 0, b"12345678"), frame(1, 5, b"head"), frame(4, 1, b""), frame(0xbe, 0, b"")] {
            for size in [1, 3, 1000] {
                let now = Instant::now();
                let mut chatter = Chatter::new(now);
                let refused = [preface, &first[..]].concat().chunks(size).find_map(|part| chatter.read(part, now).err());
                assert_eq!(refused, Some(Broken::Protocol), "{first:?}");
            }
        }
    }

    #[test]
    fn a_length_that_its_type_cannot_have() {
        for (kind, flags, good) in [(2, 0, 5), (3, 0, 4), (4, 0, 12), (4, 1, 0), (6, 0, 8), (6, 1, 8), (7, 0, 9), (8, 0, 4)] {
            let (mut chatter, now) = begun();
            chatter.read(&frame(kind, flags, &vec![0; good]), now).unwrap();
            let bad = if kind == 7 { 7 } else { good + 1 };
            assert_eq!(chatter.read(&frame(kind, flags, &vec![0; bad]), now), Err(Broken::FrameSize), "{kind}");
        }
    }

    #[test]
    fn trailers_have_no_pseudo_field() {
        let padded = |content: &[u8]| [&[3], content, &[0; 3]].concat();
        let weighed = |content: &[u8]| [&[0, 0, 0, 0, 16], content].concat();
        let huffman = [0x40, 0x84, 0xb9, 0x49, 0x53, 0x39, 1, b'x'];
        for (flags, payload, bad) in [
            (5, b"\x84".to_vec(), true),
            (5, b"\x44\x02/x".to_vec(), true),
            (5, b"\x04\x02/x".to_vec(), true),
            (5, b"\x00\x05:path\x01/".to_vec(), true),
            (5, huffman.to_vec(), true),
            (13, padded(b"\x84"), true),
            (0x25, weighed(b"\x00\x05:path\x01/"), true),
            (5, b"\x00\x01x\x01y".to_vec(), false),
            (5, b"\x8f".to_vec(), false),
            (5, b"\xbe".to_vec(), false),
            (5, Vec::new(), false),
        ] {
            for size in [1, 2, 1000] {
                let (mut chatter, now) = begun();
                chatter.read(&frame(1, 4, b"\x82\x84"), now).unwrap();
                let bytes = [frame(1, flags, &payload), frame(0, 1, b"")].concat();
                let refused = bytes.chunks(size).find_map(|part| chatter.read(part, now).err());
                assert_eq!(refused, bad.then_some(Broken::Protocol), "{payload:?}");
            }
        }
    }
}

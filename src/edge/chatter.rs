//! HTTP/2 frames that ask for nothing. Each costs its sender nine bytes and us a look, an answer or an entry in a queue; a client that means well
//! sends few of them beside its requests (CVE-2019-9512 PING, -9515 SETTINGS, CVE-2023-44487 RST_STREAM).

use std::time::Instant;

/// A budget that requests, time and answers fill, and such frames use up.
#[derive(Debug)]
pub struct Chatter {
    left: u32,
    filled: Instant,
    /// Bytes written since the last that counted.
    written: usize,
    at: At,
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
}

/// RFC 9113 section 4.1.
const HEAD: usize = 9;
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
        Self { left: BURST, filled: now, written: 0, at: At::Preface(PREFACE) }
    }

    pub fn wrote(&mut self, bytes: usize) {
        let bytes = self.written.saturating_add(bytes);
        self.written = bytes % BYTES;
        self.fill(u32::try_from(bytes / BYTES).unwrap_or(BURST));
    }

    /// Looks at bytes just read, each once and in order. Whether the client may go on.
    #[must_use]
    pub fn read(&mut self, bytes: &[u8], now: Instant) -> bool {
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
                    for (slot, byte) in bytes.iter_mut().skip(*have).zip(rest) {
                        *slot = *byte;
                    }
                    let taken = rest.len().min(HEAD - *have);
                    rest = rest.get(taken..).unwrap_or_default();
                    *have += taken;
                    if *have == HEAD {
                        let head = *bytes;
                        if !self.frame(head, now) {
                            return false;
                        }
                    }
                }
            }
        }
        true
    }

    fn frame(&mut self, [a, b, c, kind, ..]: [u8; HEAD], now: Instant) -> bool {
        let length = u32::from_be_bytes([0, a, b, c]);
        self.at = if length == 0 { At::Head { bytes: [0; HEAD], have: 0 } } else { At::Payload(length) };
        let cost = match kind {
            // h2 has a budget of its own for these, and knows which of them wait to be read.
            0x0 => return true,
            0x1 => {
                self.fill(PER_REQUEST);
                return true;
            }
            // Work was begun for it, and is thrown away.
            0x3 => 20,
            // Answered, after it changed how everything is sent.
            0x4 => 10,
            _ => 1,
        };
        if self.left < cost {
            let passed = now.saturating_duration_since(self.filled);
            let earned = passed.as_millis().saturating_mul(u128::from(PER_SECOND)) / 1000;
            self.filled = now;
            self.fill(u32::try_from(earned).unwrap_or(BURST));
        }
        match self.left.checked_sub(cost) {
            Some(left) => self.left = left,
            None => return false,
        }
        true
    }

    fn fill(&mut self, tokens: u32) {
        self.left = self.left.saturating_add(tokens).min(BURST);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn begun() -> (Chatter, Instant) {
        let now = Instant::now();
        let mut chatter = Chatter::new(now);
        assert!(chatter.read(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", now));
        (chatter, now)
    }

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        [&[0, 0, u8::try_from(payload.len()).unwrap(), kind, flags, 0, 0, 0, 1], payload].concat()
    }

    fn until_refused(chatter: &mut Chatter, now: Instant, frame: &[u8]) -> usize {
        (0..100_000).take_while(|_| chatter.read(frame, now)).count()
    }

    #[test]
    fn a_flood_is_refused_wherever_its_bytes_are_cut() {
        let ping = frame(6, 0, b"12345678");
        for size in [1, 4, 9, 17, 1000] {
            let (mut chatter, now) = begun();
            assert!(ping.repeat(BURST as usize).chunks(size).all(|part| chatter.read(part, now)), "{size}");
            assert!(!chatter.read(&ping, now), "{size}");
        }
    }

    #[test]
    fn resets_and_settings_weigh_more() {
        for (kind, most) in [(3, 1000), (4, 2000), (6, 20_000), (2, 20_000), (0xbe, 20_000)] {
            let (mut chatter, now) = begun();
            assert_eq!(until_refused(&mut chatter, now, &frame(kind, 0, b"")), most, "{kind}");
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
            assert!(chatter.read(&update, later));
        }
    }
}

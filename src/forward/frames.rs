//! Where the frames of a WebSocket end (RFC 6455 section 5.2), on the way from the app to the client: only there a frame of our own may stand.

use bytes::{Bytes, BytesMut};

/// Close with 1001, going away (section 7.4.1). From a server, so not masked.
const GOING_AWAY: &[u8] = &[0x88, 0x02, 0x03, 0xe9];

/// The opcode of Close.
const CLOSE: u8 = 8;

#[derive(Debug, Default)]
pub(super) struct Frames {
    /// Of the frame's head, what has come: two bytes, then a longer length and a mask.
    head: [u8; 14],
    have: usize,
    /// Of its payload, what is still to come.
    left: u64,
    close: Close,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Close {
    #[default]
    None,
    /// One of the app's went, or has begun to.
    App,
    Ours,
}

impl Frames {
    /// Follows bytes that go to the client.
    pub(super) fn pass(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            rest = self.step(rest);
        }
    }

    /// Our Close, where it may go now: at the end of a frame, and once.
    pub(super) fn close(&mut self) -> Option<Bytes> {
        if self.have > 0 || self.left > 0 || self.close != Close::None {
            return None;
        }
        self.close = Close::Ours;
        Some(Bytes::from_static(GOING_AWAY))
    }

    pub(super) fn is_closed_by_us(&self) -> bool {
        self.close == Close::Ours
    }

    /// As `pass`, but only up to the end of a frame, where there is one; behind it comes our Close.
    pub(super) fn until_close(&mut self, mut bytes: Bytes) -> (Bytes, Option<Bytes>) {
        let mut passed = BytesMut::new();
        loop {
            if let Some(close) = self.close() {
                return (passed.freeze(), Some(close));
            }
            if bytes.is_empty() {
                return (passed.freeze(), None);
            }
            let left = self.step(&bytes).len();
            passed.extend_from_slice(&bytes.split_to(bytes.len() - left));
        }
    }

    /// Reads a byte of a head, or of a payload as much as there is; what is left.
    fn step<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        if self.left > 0 {
            let taken = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
            self.left -= taken as u64;
            return bytes.get(taken..).unwrap_or_default();
        }
        let Some((first, rest)) = bytes.split_first() else { return bytes };
        if let Some(slot) = self.head.get_mut(self.have) {
            *slot = *first;
            self.have += 1;
        }
        let [kind, size, ..] = self.head;
        if self.have == 1 && kind & 0x0f == CLOSE && self.close == Close::None {
            self.close = Close::App;
        }
        let extended = match size & 0x7f {
            _ if self.have < 2 => return rest,
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let masked = if size & 0x80 == 0 { 0 } else { 4 };
        if self.have >= 2 + extended + masked {
            let long = self.head.get(2..2 + extended).unwrap_or_default();
            self.left = match extended {
                0 => u64::from(size & 0x7f),
                _ => long.iter().fold(0, |length, byte| length << 8 | u64::from(*byte)),
            };
            self.have = 0;
        }
        rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(opcode: u8, payload: usize, masked: bool) -> Vec<u8> {
        let mask = if masked { 0x80 } else { 0 };
        let mut bytes = vec![0x80 | opcode];
        match payload {
            0..126 => bytes.push(mask | payload as u8),
            126..65536 => bytes.extend([[mask | 126].as_slice(), &(payload as u16).to_be_bytes()].concat()),
            _ => bytes.extend([[mask | 127].as_slice(), &(payload as u64).to_be_bytes()].concat()),
        }
        bytes.extend(vec![0x88; if masked { 4 } else { 0 } + payload]);
        bytes
    }

    #[test]
    fn our_close_stands_between_frames_and_nowhere_else() {
        for size in [0, 1, 125, 126, 127, 65535, 65536] {
            for masked in [false, true] {
                let one = frame(2, size, masked);
                for cut in (0..one.len()).filter(|at| *at < 20 || one.len() - at < 3) {
                    let mut frames = Frames::default();
                    let (before, after) = one.split_at(cut);
                    frames.pass(before);
                    let behind = [after, &frame(1, 3, false)].concat();
                    let (passed, close) = frames.until_close(Bytes::from(behind));
                    let want = if cut == 0 { &[][..] } else { after };
                    assert_eq!((passed.as_ref(), close.as_deref()), (want, Some(GOING_AWAY)), "{size} cut at {cut}");
                    assert!(frames.is_closed_by_us() && frames.close().is_none(), "once");
                }
            }
        }
    }

    #[test]
    fn a_frame_that_does_not_end_is_waited_for() {
        let mut frames = Frames::default();
        let one = frame(2, 300, false);
        frames.pass(&one[..10]);
        assert_eq!(frames.close(), None);
        let (passed, close) = frames.until_close(Bytes::copy_from_slice(&one[10..200]));
        assert_eq!((passed.as_ref(), close), (&one[10..200], None));
        let (passed, close) = frames.until_close(Bytes::copy_from_slice(&one[200..]));
        assert_eq!((passed.as_ref(), close.is_some()), (&one[200..], true));
    }

    #[test]
    fn where_the_app_has_closed_nothing_is_added() {
        let mut frames = Frames::default();
        let close = frame(8, 2, false);
        frames.pass(&close[..1]);
        let (passed, ours) = frames.until_close(Bytes::copy_from_slice(&close[1..]));
        assert_eq!((passed.as_ref(), ours), (&close[1..], None));
        assert_eq!(frames.close(), None);
    }

    #[test]
    fn a_length_that_never_comes_does_no_harm() {
        let mut frames = Frames::default();
        frames.pass(&[0x82, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        frames.pass(&[1; 100]);
        assert_eq!(frames.close(), None);
    }
}

//! How a client opens an HTTP/2 connection, after Akamai's "Passive Fingerprinting of HTTP/2 Clients" (Black Hat EU 2017).
//!
//! ```text
//! 1:65536;2:0;4:6291456;6:262144|15663105|0|m,a,s,p
//! |                              |        | order of the pseudo-header fields of the first HEADERS
//! |                              |        PRIORITY frames before it, `stream:exclusive:depends on:weight`, comma separated; or `0`
//! |                              the first WINDOW_UPDATE of the connection itself before it, or `00`
//! first SETTINGS as sent, `id:value`
//! ```
//!
//! A weight is 1 to 256, one more than its byte. Pseudo-header fields: `m`ethod, `a`uthority, `s`cheme, `p`ath, any other `?`. What a
//! client can repeat counts up to [`MOST`] times; what comes beyond is left out.

use std::fmt::Write;

use super::Malformed;
use super::order::Names;
use super::reader::{Reader, u24};

/// Settings, priorities and pseudo-header fields that are looked at. No client known sends half as many.
pub const MOST: usize = 32;

/// What a client's bytes up to its first HEADERS show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    pub opening: Box<str>,
    /// The fields of that first HEADERS.
    pub names: Names,
}

/// An opening on its way: remembers which frames were read already.
#[derive(Debug, Default)]
pub struct Arriving {
    /// Where the first frame begins that has not come whole.
    next: usize,
    settings: Option<String>,
    window: Option<u32>,
    priorities: String,
    prioritised: usize,
    head: Option<Head>,
}

/// A header block of which parts are still to come.
#[derive(Debug)]
struct Head {
    stream: u32,
    block: Vec<u8>,
}

/// RFC 9113 section 3.4.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const SETTINGS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const ACK: u8 = 0x01;
const END_HEADERS: u8 = 0x04;
const PADDED: u8 = 0x08;
const PRIORITISED: u8 = 0x20;

/// RFC 9113 section 4.1.
struct Frame<'a> {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Reader<'a>,
}

impl Arriving {
    /// To be called each time more bytes have come: `bytes` are all of them, from the connection's first on. `None` until the first HEADERS
    /// is whole, which may be seconds later, or never; how many bytes may come at most is the caller's limit.
    ///
    /// # Errors
    /// Bytes that no HTTP/2 client sends.
    pub fn read(&mut self, bytes: &[u8]) -> Result<Option<Opened>, Malformed> {
        if self.next == 0 {
            if !PREFACE.starts_with(bytes.get(..PREFACE.len()).unwrap_or(bytes)) {
                return Err(Malformed("preface"));
            }
            if bytes.len() < PREFACE.len() {
                return Ok(None);
            }
            self.next = PREFACE.len();
        }
        let mut left = Reader::new(bytes.get(self.next..).unwrap_or_default());
        while let Some(frame) = frame(&mut left) {
            self.next = bytes.len() - left.len();
            if let Some(opened) = self.frame(frame)? {
                return Ok(Some(opened));
            }
        }
        Ok(None)
    }

    fn frame(&mut self, frame: Frame<'_>) -> Result<Option<Opened>, Malformed> {
        let Frame { kind, flags, stream, mut payload } = frame;
        if let Some(head) = &mut self.head {
            // RFC 9113 section 6.10: nothing may come in between.
            if kind != CONTINUATION || stream != head.stream {
                return Err(Malformed("continuation"));
            }
            head.block.extend_from_slice(payload.rest());
            return if flags & END_HEADERS != 0 { self.opened(&[]) } else { Ok(None) };
        }
        match kind {
            SETTINGS if flags & ACK == 0 && self.settings.is_none() => self.settings = Some(settings(&mut payload)?),
            WINDOW_UPDATE => {
                let increment = u31(payload.array("window_update")?);
                payload.end("window_update")?;
                if stream == 0 && self.window.is_none() {
                    self.window = Some(increment);
                }
            }
            PRIORITY => {
                let priority = payload.array("priority")?;
                payload.end("priority")?;
                self.priority(stream, priority);
            }
            HEADERS => {
                let block = block(flags, &mut payload)?;
                if flags & END_HEADERS != 0 {
                    return self.opened(block);
                }
                self.head = Some(Head { stream, block: block.to_vec() });
            }
            CONTINUATION => return Err(Malformed("continuation")),
            _ => {}
        }
        Ok(None)
    }

    /// RFC 9113 section 6.3 (and RFC 7540 section 5.3 for what it says).
    fn priority(&mut self, stream: u32, [a, b, c, d, weight]: [u8; 5]) {
        if self.prioritised >= MOST {
            return;
        }
        let comma = if self.prioritised > 0 { "," } else { "" };
        self.prioritised += 1;
        let (exclusive, on) = (a >> 7, u31([a, b, c, d]));
        // Writing to memory does not fail.
        let _ = write!(self.priorities, "{comma}{stream}:{exclusive}:{on}:{}", u16::from(weight) + 1);
    }

    /// `block`: the whole of the header block, unless it came in parts.
    fn opened(&mut self, block: &[u8]) -> Result<Option<Opened>, Malformed> {
        let head = self.head.take();
        let names = super::hpack::names(head.as_ref().map_or(block, |head| &head.block))?;
        let mut text = self.settings.take().unwrap_or_default();
        let _ = match self.window {
            Some(increment) => write!(text, "|{increment}|"),
            None => write!(text, "|00|"),
        };
        text.push_str(if self.priorities.is_empty() { "0" } else { &self.priorities });
        text.push('|');
        for (at, name) in names.iter().filter(|name| name.starts_with(b":")).take(MOST).enumerate() {
            text.push_str(if at > 0 { "," } else { "" });
            text.push(match name {
                b":method" => 'm',
                b":authority" => 'a',
                b":scheme" => 's',
                b":path" => 'p',
                _ => '?',
            });
        }
        Ok(Some(Opened { opening: text.into_boxed_str(), names }))
    }
}

/// The next frame, if it has come whole.
fn frame<'a>(left: &mut Reader<'a>) -> Option<Frame<'a>> {
    let mut ahead = *left;
    let [a, b, c, kind, flags] = ahead.array("frame").ok()?;
    let stream = u31(ahead.array("frame").ok()?);
    let payload = Reader::new(ahead.take(u24([a, b, c]), "frame").ok()?);
    *left = ahead;
    Some(Frame { kind, flags, stream, payload })
}

/// RFC 9113 section 6.5.1.
fn settings(payload: &mut Reader<'_>) -> Result<String, Malformed> {
    let mut text = String::with_capacity(128);
    let mut count = 0;
    while !payload.is_empty() {
        let id = payload.u16("settings")?;
        let value = u32::from_be_bytes(payload.array("settings")?);
        if count < MOST {
            let semicolon = if count > 0 { ";" } else { "" };
            count += 1;
            let _ = write!(text, "{semicolon}{id}:{value}");
        }
    }
    Ok(text)
}

/// The header block in a HEADERS frame, RFC 9113 section 6.2.
fn block<'a>(flags: u8, payload: &mut Reader<'a>) -> Result<&'a [u8], Malformed> {
    let padding = if flags & PADDED != 0 { usize::from(payload.byte("padding")?) } else { 0 };
    if flags & PRIORITISED != 0 {
        payload.take(5, "priority")?;
    }
    let block = payload.len().checked_sub(padding).ok_or(Malformed("padding"))?;
    payload.take(block, "padding")
}

/// The first bit is reserved, or means something else.
fn u31([a, rest @ ..]: [u8; 4]) -> u32 {
    let [b, c, d] = rest;
    u32::from_be_bytes([a & 0x7f, b, c, d])
}

#[cfg(test)]
#[path = "h2_tests.rs"]
mod tests;

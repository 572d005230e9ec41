//! TCP segments to the first bytes of each connection's client, and to its ClientHello.
//!
//! Each direction stands for itself: who sends a ClientHello is the client, whatever the ports and whoever opened the connection.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;

use super::segment::Segment;
use crate::fingerprint::hello::{self, Arriving, Hello, Progress};
use crate::fingerprint::{h2, order, syn};
use crate::model::Opening;

/// A client, known by its first ClientHello, or by how it opens HTTP/2 where there is no TLS.
#[derive(Debug)]
pub struct Client {
    pub from: SocketAddr,
    pub to: SocketAddr,
    /// `None` when the capture has no SYN of this side.
    pub syn: Option<Box<str>>,
    pub hello: Option<Hello>,
    pub opening: Opening,
}

/// What was not read, for the person who wonders where a connection is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Missed {
    pub malformed: u64,
    pub too_large: u64,
    pub sslv2: u64,
    /// Forgotten before they had told what they are, because there were too many at once.
    pub crowded: u64,
}

/// Held of one direction: a hello of 16 KiB in records of one byte is six times as long, and something may come before it.
const MOST_OF_ONE: usize = 128 << 10;
const LONGEST_HELLO: usize = 16 << 10;
const LONGEST_OPENING: usize = 16 << 10;
/// How far into a stream that begins with something else a hello is looked for: behind CONNECT, SOCKS, STARTTLS or a PROXY header.
const PREAMBLE: usize = 8 << 10;
/// What a piece that came out of order costs beside its bytes.
const PIECE: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Way {
    from: SocketAddr,
    to: SocketAddr,
}

/// All directions of all connections, the least recently seen forgotten first.
#[derive(Debug)]
pub struct Flows {
    flows: HashMap<Way, Flow>,
    /// By the number of the last segment.
    by_age: BTreeMap<u64, Way>,
    segments: u64,
    held: usize,
    pub missed: Missed,
    most_flows: usize,
    most_held: usize,
}

impl Default for Flows {
    fn default() -> Self {
        Self::new(1 << 16, 64 << 20)
    }
}

impl Flows {
    /// At most so many directions, which hold at most so many bytes.
    pub fn new(most_flows: usize, most_held: usize) -> Self {
        let (flows, by_age) = (HashMap::new(), BTreeMap::new());
        Self { flows, by_age, segments: 0, held: 0, missed: Missed::default(), most_flows, most_held }
    }

    /// Takes a segment; gives the client whose hello it made whole.
    pub fn take(&mut self, segment: &Segment<'_>) -> Option<Client> {
        let way = Way { from: segment.from, to: segment.to };
        if !segment.syn && segment.payload.is_empty() {
            return None;
        }
        if segment.syn && self.flows.get(&way).is_some_and(|flow| flow.is_reopened_by(segment)) {
            self.forget(way);
            self.forget(Way { from: way.to, to: way.from });
        }
        self.segments += 1;
        let flow = self.flows.entry(way).or_insert_with(|| Flow::new(segment.sequence));
        self.by_age.remove(&flow.seen);
        flow.seen = self.segments;
        self.by_age.insert(self.segments, way);
        let before = flow.held();
        let found = flow.add(segment, &mut self.missed);
        self.held = (self.held + flow.held()).saturating_sub(before);
        let client = found.map(|found| {
            let (hello, opening) = match found {
                Found::Hello(hello) => (Some(*hello), Opening::default()),
                Found::Http2(opening) => (None, opening),
            };
            Client { from: way.from, to: way.to, syn: flow.syn.take(), hello, opening }
        });
        self.make_room();
        client
    }

    /// Bytes held, and what keeping them in order costs.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Directions of connections that are remembered.
    pub fn len(&self) -> usize {
        self.flows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }

    fn make_room(&mut self) {
        while self.flows.len() > self.most_flows || self.held > self.most_held {
            let Some((_, way)) = self.by_age.pop_first() else { return };
            if let Some(flow) = self.flows.remove(&way) {
                self.held = self.held.saturating_sub(flow.held());
                self.missed.crowded += u64::from(flow.held() > 0);
            }
        }
    }

    fn forget(&mut self, way: Way) {
        if let Some(flow) = self.flows.remove(&way) {
            self.held = self.held.saturating_sub(flow.held());
            self.by_age.remove(&flow.seen);
        }
    }
}

/// One direction of a connection. Places are counted from its first segment's sequence number, so that the wrap of sequence numbers is nothing special.
#[derive(Debug)]
struct Flow {
    reference: u32,
    syn: Option<Box<str>>,
    /// The place of the stream's first byte, once a SYN has told it.
    start: Option<i64>,
    /// The place of `bytes`: the start, or without a SYN the lowest that was seen.
    first: Option<i64>,
    bytes: Vec<u8>,
    /// What came ahead of a gap, by place.
    ahead: BTreeMap<i64, Vec<u8>>,
    ahead_size: usize,
    looking: Option<Looking>,
    /// The number of the last segment.
    seen: u64,
}

#[derive(Debug, Default)]
struct Looking {
    /// Where in the bytes a hello may begin.
    at: usize,
    /// Up to where the next one was looked for.
    searched: usize,
    arriving: Arriving,
    http2: h2::Arriving,
}

impl Flow {
    fn new(reference: u32) -> Self {
        Self {
            reference,
            syn: None,
            start: None,
            first: None,
            bytes: Vec::new(),
            ahead: BTreeMap::new(),
            ahead_size: 0,
            looking: Some(Looking::default()),
            seen: 0,
        }
    }

    fn held(&self) -> usize {
        self.bytes.len() + self.ahead_size
    }

    fn place(&self, sequence: u32) -> i64 {
        i64::from(sequence.wrapping_sub(self.reference).cast_signed())
    }

    /// A SYN of another stream: the ports are used again. Without a SYN so far, bytes that can follow this one were merely captured before it.
    fn is_reopened_by(&self, segment: &Segment<'_>) -> bool {
        let start = self.place(segment.sequence.wrapping_add(1));
        match (self.start, self.first) {
            (Some(known), _) => known != start,
            (None, Some(first)) => !(0..MOST_OF_ONE as i64).contains(&(first - start)),
            (None, None) => false,
        }
    }

    fn add(&mut self, segment: &Segment<'_>, missed: &mut Missed) -> Option<Found> {
        let mut place = self.place(segment.sequence);
        if segment.syn {
            place += 1;
            if self.start.is_none() {
                self.start = Some(place);
                self.first.get_or_insert(place);
            }
            if !segment.ack && self.looking.is_some() && self.syn.is_none() {
                self.syn = syn::signature(segment.headers);
            }
        }
        self.looking.as_ref()?;
        if !self.put(place, segment.payload) {
            return None;
        }
        let found = self.look(missed);
        if !matches!(found, Look::More) {
            (self.looking, self.bytes, self.ahead, self.ahead_size) = (None, Vec::new(), BTreeMap::new(), 0);
        }
        match found {
            Look::Found(found) => Some(found),
            Look::More | Look::Nothing => None,
        }
    }

    /// Puts a piece in its place; whether the bytes without a gap grew. What is there already stays: a receiver has read it.
    fn put(&mut self, mut place: i64, mut piece: &[u8]) -> bool {
        if let Some(start) = self.start
            && place < start
        {
            let before = usize::try_from(start - place).unwrap_or(usize::MAX);
            piece = piece.get(before..).unwrap_or_default();
            place = start;
        }
        if piece.is_empty() {
            return false;
        }
        let first = *self.first.get_or_insert(place);
        if place < first {
            // Only without a SYN: what seemed to be the first bytes was not.
            if first - place > MOST_OF_ONE as i64 {
                return false;
            }
            let old = std::mem::take(&mut self.bytes);
            self.keep_ahead(first, old);
            self.first = Some(place);
            self.bytes = piece.to_vec();
            self.looking = Some(Looking::default());
        } else {
            let end = first + self.bytes.len() as i64;
            if place > end {
                if place - first < MOST_OF_ONE as i64 {
                    self.keep_ahead(place, piece.to_vec());
                }
                return false;
            }
            let known = usize::try_from(end - place).unwrap_or(usize::MAX);
            match piece.get(known..) {
                Some(new) if !new.is_empty() => self.bytes.extend_from_slice(new),
                _ => return false,
            }
        }
        self.join();
        self.bytes.truncate(MOST_OF_ONE);
        true
    }

    fn keep_ahead(&mut self, place: i64, piece: Vec<u8>) {
        if piece.is_empty() || self.ahead_size + piece.len() + PIECE > MOST_OF_ONE {
            return;
        }
        match self.ahead.get_mut(&place) {
            Some(known) if known.len() >= piece.len() => {}
            Some(known) => {
                self.ahead_size += piece.len() - known.len();
                let have = known.len();
                known.extend_from_slice(piece.get(have..).unwrap_or_default());
            }
            None => {
                self.ahead_size += piece.len() + PIECE;
                self.ahead.insert(place, piece);
            }
        }
    }

    /// Moves what is ahead and no longer behind a gap to the bytes.
    fn join(&mut self) {
        let first = self.first.unwrap_or_default();
        while let Some(entry) = self.ahead.first_entry() {
            let Ok(known) = usize::try_from(first + self.bytes.len() as i64 - *entry.key()) else { return };
            let piece = entry.remove();
            self.ahead_size = self.ahead_size.saturating_sub(piece.len() + PIECE);
            self.bytes.extend_from_slice(piece.get(known..).unwrap_or_default());
        }
    }

    fn look(&mut self, missed: &mut Missed) -> Look {
        let Some(looking) = &mut self.looking else { return Look::Nothing };
        loop {
            let bytes = self.bytes.get(looking.at..).unwrap_or_default();
            let whole_stream = looking.at == 0;
            if whole_stream {
                match looking.http2.read(bytes) {
                    Ok(Some(opened)) => return Look::Found(Found::Http2(opening(opened))),
                    Ok(None) if bytes.len() < LONGEST_OPENING => return Look::More,
                    Ok(None) => return Look::Nothing,
                    // Not even its preface, in nearly all cases.
                    Err(_) => {}
                }
            }
            match looking.arriving.read(bytes) {
                Progress::Hello(hello) => return Look::Found(Found::Hello(Box::new(hello))),
                Progress::NeedMore if hello::length(bytes).is_some_and(|length| length > LONGEST_HELLO) => {
                    missed.too_large += u64::from(whole_stream);
                    return Look::Nothing;
                }
                Progress::NeedMore if self.bytes.len() >= MOST_OF_ONE => return Look::Nothing,
                Progress::NeedMore => return Look::More,
                Progress::Malformed(_) if whole_stream => {
                    // A server's answer begins like a hello as well.
                    missed.malformed += u64::from(matches!(bytes.get(5), None | Some(1)));
                    return Look::Nothing;
                }
                Progress::NotTls if whole_stream && is_later_tls(bytes) => return Look::Nothing,
                Progress::NotTls if whole_stream && is_sslv2(bytes) => {
                    missed.sslv2 += 1;
                    return Look::Nothing;
                }
                Progress::NotTls | Progress::Malformed(_) => {}
            }
            match next_start(&self.bytes, looking.searched.max(looking.at + 1)) {
                Some(at) if at < PREAMBLE => *looking = Looking { at, searched: at + 1, ..Looking::default() },
                Some(_) => return Look::Nothing,
                None if self.bytes.len() >= PREAMBLE + START => return Look::Nothing,
                None => {
                    looking.searched = self.bytes.len().saturating_sub(START - 1);
                    return Look::More;
                }
            }
        }
    }
}

enum Found {
    Hello(Box<Hello>),
    Http2(Opening),
}

enum Look {
    Found(Found),
    More,
    /// This direction has no hello.
    Nothing,
}

fn opening(opened: h2::Opened) -> Opening {
    Opening { h2: Some(opened.opening), header_order: Some(opened.names.order(order::Version::Http2)) }
}

/// Change of cipher, alert, application data: a session whose beginning the capture does not have.
fn is_later_tls(bytes: &[u8]) -> bool {
    matches!(bytes, [20 | 21 | 23, 3, ..])
}

/// A ClientHello in the framing of SSL 2 (RFC 5246 appendix E.2): it has no extensions and no JA4.
fn is_sslv2(bytes: &[u8]) -> bool {
    matches!(bytes, [0x80..=0xff, _, 1, 0 | 3, 0..=4, ..])
}

/// Bytes that are looked at to tell the start of a hello.
const START: usize = 11;

/// Where, from `from` on, bytes look like the head of a record with a ClientHello in it: type 22, version 3.x, message 1, version 3.x. A head that
/// is not whole yet is none.
fn next_start(bytes: &[u8], from: usize) -> Option<usize> {
    let rest = bytes.get(from..)?;
    let start = rest.windows(START).position(|window| matches!(window, [22, 3, 0..=4, _, _, 1, 0, _, _, 3, 0..=4]))?;
    Some(from + start)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(from: u32, sequence: u32, payload: &[u8]) -> Segment<'_> {
        let [port, _, low, high] = from.to_be_bytes();
        let from = SocketAddr::from(([10, 0, low, high], u16::from(port) + 1));
        let to = SocketAddr::from(([10, 9, 9, 9], 443));
        Segment { from, to, sequence, syn: false, ack: true, headers: &[], payload, cut: false }
    }

    fn syn(from: u32, sequence: u32) -> Segment<'static> {
        Segment { syn: true, ack: false, ..segment(from, sequence, &[]) }
    }

    #[test]
    fn connections_that_never_say_what_they_are_are_forgotten_the_oldest_first() {
        let mut flows = Flows::new(100, 1000);
        for from in 0..1000 {
            flows.take(&syn(from, 7));
            flows.take(&segment(from, 8, &[22, 3, 1, 0x10, 0, 1, 0, 0x0f, 0xfc, 3]));
            assert!(flows.len() <= 100 && flows.held() <= 1000, "{} {}", flows.len(), flows.held());
        }
        assert_eq!(flows.missed.crowded, 900);
        assert_eq!(flows.by_age.len(), flows.len());
        // What is far ahead of a gap counts as well, and more than it weighs.
        for place in 0..1000 {
            flows.take(&segment(5000, 100 + 2 * place, &[0]));
            assert!(flows.held() <= 1000);
        }
    }

    #[test]
    fn one_connection_holds_no_more_than_its_share() {
        let mut flows = Flows::default();
        flows.take(&syn(1, 0));
        flows.take(&segment(1, 1, &[22, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xf0, 3, 3]));
        // The next bytes never come, everything behind them does.
        for nth in 0..400 {
            flows.take(&segment(1, 1000 + nth * 1400, &[7; 1400]));
            assert!(flows.held() <= 2 * MOST_OF_ONE);
        }
        // Once it is known what it is, nothing is held.
        flows.take(&syn(2, 0));
        flows.take(&segment(2, 1, b"\x17\x03\x03\x00\x05hello"));
        let held = flows.held();
        flows.take(&segment(2, 11, &[9; 1400]));
        assert_eq!(flows.held(), held);
    }

    #[test]
    fn ports_that_are_used_again_leave_nothing_behind() {
        let mut flows = Flows::default();
        for round in 0..50 {
            flows.take(&syn(1, round * 100_000));
            flows.take(&segment(1, round * 100_000 + 1, &[22, 3, 1, 0x10, 0, 1]));
            assert_eq!((flows.len(), flows.held(), flows.by_age.len()), (1, 6, 1));
        }
    }
}

#![no_main]

use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr};

use libfuzzer_sys::fuzz_target;
use vestibule::cli::fingerprint::flows::Flows;
use vestibule::cli::fingerprint::line::{Line, Table};
use vestibule::cli::fingerprint::segment::{self, Segment};
use vestibule::cli::fingerprint::read;
use vestibule::fingerprint::Known;

fuzz_target!(|bytes: &[u8]| match bytes.split_first() {
    Some((0..=9, rest)) => frames(rest),
    Some((10..=19, rest)) => segments(rest),
    _ => file(bytes),
});

fn file(bytes: &[u8]) {
    let whole = lines(bytes);
    assert_eq!(lines(Drops(bytes)), whole);
}

fn lines(input: impl Read) -> (Vec<String>, String) {
    let table = Table(Known::default());
    let mut lines = Vec::new();
    let (done, _) = read(input, &table, |line: &Line| {
        lines.push(serde_json::to_string(line)?);
        Ok(())
    });
    (lines, done.map_or_else(|stopped| stopped.to_string(), |()| String::new()))
}

/// A file that comes byte by byte.
struct Drops<'a>(&'a [u8]);

impl Read for Drops<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match (self.0.split_first(), buffer.first_mut()) {
            (Some((byte, rest)), Some(slot)) => {
                (*slot, self.0) = (*byte, rest);
                Ok(1)
            }
            _ => Ok(0),
        }
    }
}

/// A link type and a frame of it.
fn frames(bytes: &[u8]) {
    const LINKS: [u16; 12] = [0, 1, 9, 12, 14, 101, 108, 113, 228, 229, 276, 7];
    let Some((link, frame)) = bytes.split_first() else { return };
    if let Ok(segment) = segment::read(LINKS[usize::from(*link) % LINKS.len()], frame) {
        assert!(segment.headers.len() + segment.payload.len() <= frame.len());
    }
}

/// Segments of a few connections: five bytes of head, then the payload.
fn segments(mut bytes: &[u8]) {
    const MOST_HELD: usize = 4096;
    let mut flows = Flows::new(3, MOST_HELD);
    while let Some((&[who, flags, high, low, length], rest)) = bytes.split_first_chunk() {
        let (payload, rest) = rest.split_at(usize::from(length).min(rest.len()));
        bytes = rest;
        let addr = |port: u8| SocketAddr::from((Ipv4Addr::LOCALHOST, u16::from(port)));
        flows.take(&Segment {
            from: addr(who & 3),
            to: addr(who >> 2 & 3),
            // Near the wrap.
            sequence: u32::from_be_bytes([flags & 0x80, 0xff, high, low]).wrapping_add(0x7fff_8000),
            syn: flags & 2 != 0,
            ack: flags & 16 != 0,
            headers: &[],
            payload,
            cut: false,
        });
        assert!(flows.held() <= MOST_HELD && flows.len() <= 3);
    }
}
